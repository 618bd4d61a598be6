"""The published pages in a real browser, wide and narrow: valid, usable by keyboard, charts true to the numbers."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import html5lib
import pytest

from gateway import database as db
from gateway import directory as directories
from gateway import report_files, reports
from gateway.archive import Archive
from gateway.config import Gateway
from gateway.store import Store
from tests import cases
from tests import province as simulated
from tests.test_reports import THEN

SEED = 20261122
CHROMIUM = shutil.which("chromium")
BROWSER = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="not installed: chromium (Debian package) or playwright",
)
#: Width and height, and the pages that axe looks at too: it takes seconds for each.
WIDTHS = {
    "desktop": (1280, 900, ("index.html", "co-quan/ubnd-tinh.html")),
    "phone": (360, 740, ("en.html", "../index.html")),
}
PAGES = ("index.html", "en.html", "co-quan/ubnd-tinh.html", "agency/xa-003.html", "../index.html")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a month that was restated, of a small province."""
    folder = tmp_path_factory.mktemp("pages")
    province = simulated.Province.make(14)
    province.write(folder / "directory")
    directory = directories.load(folder / "directory")
    months = simulated.months("2026-06", 6)
    made = list(simulated.events(province, months, 250, SEED))
    settings = Gateway.model_validate(
        {**cases.SETTINGS.model_dump(), "contacts": {"agency_name": "Ủy ban nhân dân tỉnh"}, "data": folder / "data"}
    )

    async def work() -> None:
        database = db.Database.open(db.sqlite_url(folder / "data" / "gateway.db"))
        archive = Archive(database, Store(folder / "data" / "blobs"), settings)
        paper = simulated.paper(province, months, SEED, missing=0.02)
        late = [event for _, events in made[-8:] for event in events]
        rows = [event for _, events in made[:-8] for event in events]
        await archive.database.write(lambda c: db.insert(c, db.message, [message for message, _ in made]))
        await archive.database.write(lambda c: db.insert(c, db.event, rows, ignore=True))
        await archive.database.write(lambda c: db.insert(c, db.paper_count, paper))
        for more in ([], late):
            await archive.database.write(lambda c, more=more: db.insert(c, db.event, more, ignore=True))
            await reports.publish(
                archive, reports.Period.parse("2026-11"), directory, None, settings, folder / "reports", THEN
            )
        await archive.close()
        archive.database.close()

    asyncio.run(work())
    return folder / "reports" / "cong-khai" / "2026-11"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # --no-sandbox: the tests may run as root in a container, and open nothing but our own pages
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=240_000
        )
        yield opened
        opened.close()


def test_every_page_is_valid_html_without_script(published):
    pages = sorted(published.parent.rglob("*.html"))
    agencies = json.loads((published / "figures.json").read_text())["agencies"]
    assert len(pages) == 2 + 2 + 2 * len(agencies)  # contents, the month, each agency; in two languages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "<script" not in text and "javascript:" not in text
        assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", text), page.name
        for link in re.findall(r'href="([^"#]+)', text):
            assert (page.parent / link).resolve().is_file(), (page.name, link)
    for name in PAGES:
        page = (published / name).resolve()
        html5lib.HTMLParser(strict=True).parse(page.read_text(encoding="utf-8"))
        if tidy := shutil.which("tidy"):
            told = subprocess.run([tidy, "-errors", "-quiet", "-utf8", page], capture_output=True, text=True)
            assert told.returncode < 2, (name, told.stderr)  # 1: warnings of a tidy older than <div> in <dl>


@BROWSER
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_in_the_browser(published, browser, width):
    wide, high, closely = WIDTHS[width]
    context = browser.new_context(viewport={"width": wide, "height": high})
    context.set_default_timeout(240_000)
    page = context.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("requestfailed", lambda request: trouble.append(f"{request.url}: failed"))
    spec = importlib.util.find_spec("axe_playwright_python")
    for name in PAGES:
        page.goto((published / name).resolve().as_uri())
        sizes = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert sizes[0] <= sizes[1], f"{name} is wider than a {width}"
        small = page.evaluate(
            "[...document.querySelectorAll('main *')].filter(e => e.childNodes.length && [...e.childNodes].some("
            "n => n.nodeType === 3 && n.data.trim()) && parseFloat(getComputedStyle(e).fontSize) < 11).length"
        )
        assert small == 0, f"{name}: letters too small to read"
        if name in closely and spec is not None and spec.origin is not None:
            page.evaluate((Path(spec.origin).parent / "axe.min.js").read_text())
            found = page.evaluate(
                "axe.run({preload: false, runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})"
            )
            assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]] == [], name
            assert any(one["id"] == "color-contrast" for one in found["passes"])
    assert trouble == []
    context.close()
    if spec is None:
        pytest.skip("not installed: axe-playwright-python; everything but axe was checked")


@BROWSER
def test_by_keyboard_alone(published, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((published / "index.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#noi-dung"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")  # shown as soon as it is reached
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        tag, outline = page.evaluate(
            "(e => [e.tagName + (e.getAttribute('href') || ''), getComputedStyle(e).outlineStyle])"
            "(document.activeElement)"
        )
        assert tag.startswith("BODY") or outline == "solid", f"{tag} does not show that it is reached"
        if tag == "SUMMARY" and tag not in reached:
            page.keyboard.press("Enter")
            assert page.evaluate("document.querySelector('details').open")
        reached.add(tag)
    assert {"Aco-quan/ubnd-tinh.html", "Aen.html", "Afigures.xlsx", "SUMMARY"} <= reached
    page.close()


@BROWSER
def test_charts_show_the_numbers_beside_them(published, browser):
    report = json.loads((published / "figures.json").read_text())
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((published / "index.html").as_uri())
    marks = page.evaluate(
        """[...document.querySelectorAll('svg')].map(svg => ({
             title: svg.querySelector('title').textContent,
             track: svg.querySelector('.track') ? svg.querySelector('.track').getBoundingClientRect().width : 0,
             marks: [...svg.querySelectorAll('rect[data-value]')].map(r => {
               const box = r.getBoundingClientRect();
               return [r.dataset.label, parseFloat(r.dataset.value), box.width, box.height];
             })}))"""
    )
    targets, months, levels = marks
    reached = {one["short_vi"]: float(one["percent"]) for one in report["targets"] if one["percent"]}
    assert {mark[0]: mark[1] for mark in targets["marks"]} == reached and reached
    for _, value, width, _ in targets["marks"]:
        assert width == pytest.approx(targets["track"] * value / 100, abs=1.0)
    shown = [mark[1] for mark in months["marks"]]
    assert shown == [one[key] for one in report["series"] for key in ("sent", "received")]
    scale = {round(mark[3] / mark[1], 3) for mark in months["marks"] if mark[1]}
    assert max(scale) == pytest.approx(min(scale), rel=0.02)  # every column by one scale, from zero
    sums = [
        one["line"]["figures"]["documents_sent"] + one["line"]["figures"]["documents_received"]
        for one in report["levels"]
    ]
    assert [mark[1] for mark in levels["marks"]] == sums
    scale = {round(mark[2] / mark[1], 3) for mark in levels["marks"] if mark[1]}
    assert max(scale) == pytest.approx(min(scale), rel=0.02)
    # and the tables beside the charts say the same
    rows = page.evaluate(
        "[...document.querySelectorAll('table')].map(t =>"
        " [...t.tBodies[0].rows].map(r => [...r.cells].map(c => c.innerText)))"
    )
    assert [row[1:] for row in rows[1]] == [
        [report_files.number(one[key], "vi") for key in ("sent", "received")] for one in report["series"]
    ]
    assert [row[3] for row in rows[2]] == [report_files.number(one, "vi") for one in sums]
    page.close()


@BROWSER
def test_printed(published, browser, tmp_path):
    page = browser.new_page()
    page.goto((published / "index.html").as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    page.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)
    from pypdf import PdfReader

    sheets = PdfReader(tmp_path / "page.pdf").pages
    box = sheets[0].mediabox
    assert (round(float(box.width)), round(float(box.height))) in ((595, 842), (594, 842), (595, 841))
    text = " ".join(sheet.extract_text() for sheet in sheets)
    assert text.count("Ủy ban nhân dân xã số") >= 4 and "Số liệu điều chỉnh" in text
    page.close()


def test_the_scale_of_a_chart_is_round():
    for value, high in ((0, 4), (3, 4), (9, 10), (11, 20), (37, 40), (41, 50), (640, 800), (1001, 2000)):
        assert report_files._ceiling(value) == high
