"""`congvan register …`, as a văn thư or a script uses it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pypdf
import pytest
from typer.testing import CliRunner

from gateway import edxml
from gateway.cli import build
from gateway.config import Registers
from gateway.errors import ConfigError
from tests.books import message, opened, paper
from tests.cases import close
from tests.test_edxml import AGENCIES

SETTINGS = """\
hostname: mail.tinh.gov.vn
data: data
listeners: [{kind: relay, port: 0}]
next_hops: [{name: hop, host: 127.0.0.1}]
registers:
  agencies:
    snv: {outgoing: allocate, symbol: SNV, series: {CT: QĐ}}
    stc: {incoming: allocate}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    (folder / "gateway.yaml").write_text(SETTINGS, encoding="utf-8")
    (folder / "directory").mkdir()
    (folder / "directory" / "agencies.yaml").write_text(AGENCIES, encoding="utf-8")

    async def fill():
        archive = opened(folder / "data", Registers())
        both = {"vanthu@ubnd.tinh.gov.vn": "ubnd", "vanthu@stc.tinh.gov.vn": "stc"}
        await archive.commit(message(1, paper("14/TB-SNV"), to=both))
        await archive.commit(message(2, paper("15/QĐ-SNV", abstract="=2+3")))
        await close(archive)

    asyncio.run(fill())
    return folder


@pytest.fixture
def congvan(config):
    def call(*words: object, code: int = 0):
        arguments = ["register", *map(str, words), *([] if words[0] == "check-edxml" else ["--config", str(config)])]
        result = CliRunner().invoke(build("register"), arguments)
        found = 2 if isinstance(result.exception, ConfigError) else result.exit_code
        told = result.exception if isinstance(result.exception, Exception) else ""
        assert found == code, f"{result.output} {told}"
        return result

    return call


def lines(result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_list_and_its_filters(congvan):
    assert len(lines(congvan("list", "--json"))) == 5
    found = lines(congvan("list", "--agency", "ubnd", "--direction", "in", "--year", 2026, "--json"))
    assert [one["document_code"] for one in found] == ["14/TB-SNV", "15/QĐ-SNV"]
    assert {"id", "agency", "direction", "year", "number", "arrival_date", "abstract", "fields", "flags"} <= found[
        0
    ].keys()
    assert found[0]["agency_level"] == "Sở, ban, ngành" and found[0]["number"] is None
    for words, number in (
        (("--kind", "QĐ"), 2), (("--code", "15/qd"), 2), (("van ban dien tu",), 3), (("--since", "21/11/2026"), 0),
        (("--until", "2026-11-20"), 5), (("--year", 2025), 0), (("--flag", "unnumbered"), 3), (("--agency", "x"), 0),
    ):  # fmt: skip
        assert len(lines(congvan("list", *words, "--json", code=0 if number else 1))) == number, words
    told = congvan("list", "--direction", "đến", "--agency", "stc").stdout
    assert "14/TB-SNV" in told and "Sở Nội vụ" in told
    for wrong in (("--direction", "up"), ("--since", "hôm qua"), ("--flag", "đỏ")):
        congvan("list", *wrong, code=2)


def test_number_correct_show_and_history(congvan):
    (key,) = [one["id"] for one in lines(congvan("list", "--agency", "ubnd", "--kind", "TB", "--json"))]
    assert lines(congvan("propose", "--agency", "ubnd", "--json"))[0]["number"] == 1
    assert lines(congvan("number", key, "--who", "Văn thư", "--json")) == [{"id": key, "number": 1}]
    assert "số đến" in congvan("number", key).stdout  # the same again
    congvan("number", key, 7, code=1)
    changed = congvan("correct", key, "abstract=Về việc khác", "--reason", "gõ lại", "--who", "Văn thư", "--json")
    assert lines(changed) == [{"id": key, "corrected": ["abstract"]}]
    (one,) = lines(congvan("show", key, "--json"))
    assert one["abstract"] == "Về việc khác" and one["status"] == "03"
    assert [(c["field"], c["who"]) for c in one["history"]] == [("arrival_number", "Văn thư"), ("abstract", "Văn thư")]
    told = congvan("show", key).stdout
    assert "clerk" in told and "→ Về việc khác" in told
    congvan("correct", key, "abstract", code=2)
    assert "abstract" in congvan("correct", key, "trichyeu=x", code=1).output
    congvan("show", "KHONGCO000", code=1)


def test_numbers_of_documents_to_be_issued(congvan):
    assert congvan("allocate", "--agency", "snv", "--kind", "TB", "--year", 2026).stdout == "01/TB-SNV\n"
    again = ("allocate", "--agency", "snv", "--kind", "TB", "--year", 2026, "--request", "a1", "--json")
    assert lines(congvan(*again)) == lines(congvan(*again))
    assert congvan("allocate", "--agency", "snv", "--kind", "CT", "--year", 2026).stdout == "01/CT-SNV\n"
    # Directives share the series of decisions; 15 is on a document that was sent.
    congvan("reserve", "--agency", "snv", "--kind", "QĐ", "--year", 2026, "--from", 2, "--to", 14, "--reason", "giấy")
    assert congvan("allocate", "--agency", "snv", "--kind", "QĐ", "--year", 2026).stdout == "16/QĐ-SNV\n"
    taken = ("allocate", "--agency", "snv", "--kind", "QĐ", "--year", 2026, "--number", 5)
    assert congvan(*taken).stdout == "05/QĐ-SNV\n"
    assert "đã cấp" in congvan(*taken, code=1).output
    congvan("cancel", 16, "--agency", "snv", "--kind", "QĐ", "--year", 2026, "--reason", "gõ nhầm")
    state = {one["series"]: one for one in lines(congvan("series", "--agency", "snv", "--json"))}
    assert (state["QĐ"]["used"], state["QĐ"]["cancelled"], state["QĐ"]["reserved"]) == (2, 1, 12)
    assert "SỐ HỦY: gõ nhầm" in congvan("list", "--agency", "snv", "--direction", "out").stdout
    assert "outgoing: allocate" in congvan("allocate", "--agency", "ubnd", "--kind", "TB", code=1).output
    assert "--notation" in congvan("allocate", "--agency", "snv", "--kind", "CV", code=1).output
    congvan("series", "--start", 120, "--agency", "stc", "--kind", "in", "--year", 2027)
    assert lines(congvan("propose", "--agency", "stc", "--year", 2027, "--json"))[0]["number"] == 120


def test_exports(congvan, tmp_path):
    for suffix in ("pdf", "xlsx", "csv", "json"):
        congvan("export", "--agency", "ubnd", "--direction", "in", "--year", 2026, "-o", tmp_path / f"den.{suffix}")
    texts = "".join(page.extract_text() for page in pypdf.PdfReader(tmp_path / "den.pdf").pages)
    assert "SỔ ĐĂNG KÝ VĂN BẢN ĐẾN" in texts and "UBND TỈNH DEMO" in texts and "15/QĐ-SNV" in texts
    assert "'=2+3" in (tmp_path / "den.csv").read_text(encoding="utf-8-sig")
    assert len((tmp_path / "den.json").read_text().splitlines()) == 2
    out = congvan("export", "--agency", "ubnd", "--direction", "in", "--year", 2026, "-o", "-", "--format", "json")
    assert out.stdout_bytes == (tmp_path / "den.json").read_bytes()
    folder = tmp_path / "edxml"
    congvan("export", "--agency", "snv", "--direction", "out", "--year", 2026, "--format", "edxml", "-o", folder)
    files = list(folder.iterdir())
    assert len(files) == 2 and all(edxml.problems(path.read_bytes()) == [] for path in files)
    congvan("check-edxml", *files)
    files[0].write_bytes(files[0].read_bytes().replace(b"<edXML:Priority>", b"<edXML:Priority>x"))
    assert "Priority" in congvan("check-edxml", *files, code=1).stdout
    congvan("export", "--agency", "ubnd", "--direction", "in", "-o", tmp_path / "x.doc", code=2)
    congvan("export", "--agency", "ubnd", "--direction", "", "-o", tmp_path / "x.pdf", code=2)
    # stc has no identifier: told, not written
    missing = ("export", "--agency", "stc", "--direction", "in", "--year", 2026, "--format", "edxml", "-o", folder)
    assert "organ_id" in congvan(*missing, code=1).output


def test_links_status_comparison_and_paper(congvan, tmp_path):
    first, second = [one["id"] for one in lines(congvan("list", "--agency", "ubnd", "--json"))]
    congvan("link", second, "replace", first, "--reason", "theo nội dung")
    (one,) = lines(congvan("show", first, "--json"))
    assert [(x["kind"], x["way"], x["entries"]) for x in one["links"]] == [("replace", "from", [second])]
    congvan("link", second, "answers", first, code=1)
    assert [x["id"] for x in lines(congvan("list", "--flag", "replaced", "--json"))] == [first]
    congvan("link", second, "replace", first, "--remove")
    congvan("list", "--flag", "replaced", code=1)
    congvan("status", first, "05", "-o", tmp_path / "s.xml", "--reason", "giao phòng Tổ chức")
    assert edxml.problems((tmp_path / "s.xml").read_bytes()) == []
    congvan("status", first, "07", code=1)
    (tmp_path / "other.pdf").write_bytes(b"khac")
    assert lines(congvan("compare", first, tmp_path / "other.pdf", "--json", code=1))[0]["result"] == "differ"
    congvan("compare", first, "--result", "match", "--reason", "với bản giấy")
    assert lines(congvan("list", "--flag", "compared", "--json"))[0]["id"] == first
    congvan("compare", "-", tmp_path / "other.pdf", code=1)
    congvan("compare", first, code=2)
    paper_one = ("add", "--paper", "--agency", "stc", "--direction", "in", "abstract=Đơn", "arrival_date=20/11/2026")
    assert lines(congvan(*paper_one, "--json"))[0]["number"] == 1
    assert "is needed" in congvan(*paper_one[:-1], code=1).output
    congvan("add", "--agency", "stcc", "--direction", "in", "abstract=Đơn", "arrival_date=20/11/2026", code=2)
    (same,) = lines(congvan("rebuild", "--json"))
    assert same["same"] and same["entries"] == 6
    assert lines(congvan("rebuild", "--check", "--json"))[0]["wrong"] == []


def test_imports(congvan, config, tmp_path):
    path = tmp_path / "giay.csv"
    path.write_text("Cơ quan;Tháng;Đến/đi;Số lượng\nsnv;10/2026;đi;12\n", encoding="utf-8-sig")
    stored = {"rows": 1, "stored": 1, "unchanged": 0}
    assert lines(congvan("import", "paper-counts", path, "--json")) == [stored]
    path.write_text("ngày\n2/9/2027\n")
    congvan("import", "holidays", path)
    assert (config / "directory" / "holidays-imported.csv").read_text() == "day,name\n2027-09-02,\n"
    congvan("import", "giay", path, code=2)


def test_a_bad_table_is_told_by_place(config, tmp_path, capsys, monkeypatch):
    from gateway import cli

    path = tmp_path / "giay.csv"
    path.write_text("agency,month,direction,number\nsnv,10/2026,lên,x\n")
    words = ["congvan", "register", "import", "paper-counts", str(path), "--config", str(config)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr().err
    assert ended.value.code == 2 and f"{path}:2:13: direction: 'lên'" in told and f"{path}:2:17: number: 'x'" in told
