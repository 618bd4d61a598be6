"""Scans that lay in the scanner upside down or sideways are read as others are, their framed marks too."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench" / "scans"))

import generate

from gateway.config import Budget
from gateway.inspection import examine, ocr
from tests.harness import PATIENCE


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_scans_that_lie_otherwise(turn: int) -> None:
    try:
        ocr.engine()
    except ocr.Unavailable as reason:
        pytest.skip(str(reason))
    scan = generate.page(70_000_001, "tuning", "colour", 150, "frame")
    ((kind, value, *_),) = scan.truth.frames
    out = io.BytesIO()
    Image.fromarray(scan.image).rotate(turn, expand=True).save(out, "JPEG", quality=90, dpi=(150, 150))
    found = examine.examine_file(out.getvalue(), "a.jpg", examine.Settings(budget=Budget(**PATIENCE)))
    assert (kind, value) in {(one.kind, one.value) for one in found.findings}
    document = found.files[0].document
    assert document is not None and document.code is not None and document.code.value.endswith("/QĐ-UBND")
