"""Words under a cover: prepared shadow attacks are told from scans whose words lie under their picture."""

from __future__ import annotations

import io

import pytest
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen import canvas

from gateway.config import Budget
from gateway.demo import documents
from gateway.inspection import covered, examine
from gateway.inspection.pages import PdfPages
from tests import signed_files as files
from tests.harness import PATIENCE

WORDS = "Chuyen so tien 500000000 dong vao tai khoan sau day"


def page(cover: str) -> bytes:
    """A page with words and what lies on them."""
    pdfmetrics.registerFont(TTFont("body", str(documents.fonts()["regular"])))
    out = io.BytesIO()
    sheet = canvas.Canvas(out, pagesize=(595, 842), pageCompression=0)
    sheet.setFont("body", 14)
    if cover == "shape before":
        sheet.setFillColorRGB(0.9, 0.9, 0.6)
        sheet.rect(60, 690, 480, 30, stroke=0, fill=1)
        sheet.setFillColorRGB(0, 0, 0)
    sheet.drawString(72, 700, WORDS)
    sheet.drawString(72, 600, "Noi nhan: nhu tren")
    if cover == "shape":
        sheet.setFillColorRGB(1, 1, 1)
        sheet.rect(60, 690, 480, 30, stroke=0, fill=1)
    elif cover in ("same", "other"):
        picture = Image.new("RGB", (1653, 2339), "white")
        font = ImageFont.truetype(str(documents.fonts()["regular"]), round(14 * 200 / 72))
        said = WORDS if cover == "same" else "Chuc mung nam moi, kinh chuc suc khoe va hanh phuc"
        draw, place = ImageDraw.Draw(picture), 200 / 72
        draw.text((72 * place, (842 - 700) * place), said, fill="black", font=font, anchor="ls")
        draw.text((72 * place, (842 - 600) * place), "Noi nhan: nhu tren", fill="black", font=font, anchor="ls")
        sheet.drawImage(ImageReader(picture), 0, 0, 595, 842)
    elif cover == "field":
        sheet.acroForm.textfield("Ho ten", x=60, y=690, width=480, height=30, name="ten", borderWidth=0)
    sheet.showPage()
    sheet.save()
    return out.getvalue()


@pytest.mark.parametrize(
    ("cover", "hidden"),
    [("", False), ("shape before", False), ("shape", True), ("same", False), ("other", True), ("field", True)],
)
def test_words_under_a_cover(cover: str, hidden: bool) -> None:
    with PdfPages(page(cover)) as pages:
        found = covered.covered(pages)
    assert [(one.kind, one.value, one.where) for one in found] == [("active", "shadow", "trang 1")] * hidden


def test_only_signed_files_are_asked() -> None:
    data = page("shape")
    signed = documents.sign(data, files.pki().department, files.pki())
    settings = examine.Settings(budget=Budget(**PATIENCE))
    assert not [one for one in examine.examine_file(data, "a.pdf", settings).findings if one.value == "shadow"]
    found = examine.examine_file(signed, "a.pdf", settings)
    assert [one.about for one in found.findings if one.value == "shadow"] == ["a.pdf"]
    assert found.files[0].signatures[0].state.value != "ERROR", "a finding, no verdict on the signature"
