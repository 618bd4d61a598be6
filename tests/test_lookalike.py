"""Domains that only look official."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.lookalike import Lookalikes

OFFICIAL = ("gov.vn", "chinhphu.vn", "binhduong.gov.vn", "quochoi.vn")
KNOWN = Lookalikes(OFFICIAL)


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        ("gov.vn", ""),
        ("sotttt.binhduong.gov.vn", ""),
        ("GOV.VN", ""),
        ("gmail.com", ""),
        ("vnexpress.net", ""),
        ("longov.vn", ""),
        ("пример.рф", ""),
        ("gov.vn.example.com", "embedded"),
        ("binhduong.gov.vn.co", "embedded"),
        ("binhduong-gov.vn", "hyphen"),
        ("gov-vn.com", "hyphen"),
        ("binhduonggov.vn", "hyphen"),
        ("g\u043ev.vn", "homograph"),
        ("xn--gv-fmc.vn", "homograph"),
        ("binhduong.g0v.vn", "homograph"),
        ("g\u00f4v.vn", "homograph"),
        ("gov\uff0evn", "homograph"),
        ("gov.vn.", "trailing_dot"),
        ("vietn\u0430m.vn", "mixed_script"),
        ("chinhphv.vn", "typo"),
        ("chinphhu.vn", "typo"),
    ],
)
def test_lookalikes(domain: str, why: str) -> None:
    assert KNOWN.imitated(domain)[1] == why


@given(st.text(max_size=60))
def test_lookalike_takes_any_text(domain: str) -> None:
    name, way = KNOWN.imitated(domain)
    assert way or not name
