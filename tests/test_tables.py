"""Tables that people bring: everything a spreadsheet program writes, and a clear word for everything else."""

from __future__ import annotations

import asyncio
import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import directory, tables
from gateway.database import Database, sqlite_url
from gateway.errors import ConfigError
from gateway.message import VIETNAM
from tests.test_edxml import AGENCIES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("config") / "directory"
    found.mkdir()
    (found / "agencies.yaml").write_text(AGENCIES, encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def places(folder):
    return directory.load(folder)


def file(tmp_path, text, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "agency,month,direction,number\nsnv,2026-10,out,1204\n",
        "\ufeffCơ quan;Tháng;Đến/đi;Số lượng\r\nsnv;10/2026;đi;1.204\r\n",
        "Mã cơ quan\tKỳ\tHướng\tSố văn bản giấy\tGhi chú\nSở Nội vụ\tTháng 10/2026\tĐi\t1204\tkhông dùng\n",
        'đơn vị;tháng;chiều;"số lượng"\n"snv";"10-2026";"out";"1204"\n;;;\n\n',
    ],
)
def test_paper_counts_as_spreadsheets_save_them(tmp_path, places, text):
    (row,) = tables.paper_rows(file(tmp_path, text), places)
    assert row == {
        "agency": "snv", "month": "2026-10", "direction": "out", "number": 1204, "message_class": "",
        "source": "t.csv:2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("agency,month,direction,number\nsnvv,2026-10,out,1\n", ":2:1: agency: 'snvv'"),
        ("agency,month,direction,number\nsnv,2026-13,out,1\n", ":2:5: month: '2026-13'"),
        ("agency,month,direction,number\nsnv,2099-01,out,1\n", ":2:5: month: '2099-01': tháng chưa tới"),
        ("agency,month,direction,number\nsnv,2026-10,up,1\n", ":2:13: direction: 'up'"),
        ("agency,month,direction,number\nsnv,2026-10,out,-1\n", ":2:17: number: '-1'"),
        ("agency,month,direction,number\nsnv,2026-10,out,1.5\n", "number: '1.5'"),
        ("agency,month,direction,number\nsnv,2026-10,out,\n", ":2:17: number: trống"),
        ("agency,month,direction,number\nsnv,2026-10,out\n", ":2: 3 ô"),
        ("agency,month,direction,number\nsnv,2026-10,out,1\nsnv,10/2026,đi,2\n", ":3:1: agency: 'snv': đã có ở dòng 2"),
        ("agency,month,direction\nsnv,2026-10,out\n", ":1: thiếu cột / column missing: number"),
        ("agency,agency,month,direction,number\n", ":1:8: 'agency': cột có hai lần"),
        ("agency,month,direction,class,number\nsnv,2026-10,out,VB,1\n", "class: 'VB'"),
        ('agency,month,direction,number\n"snv"x,2026-10,out,1\n', "không phải CSV"),
        (b"agency,month,direction,number\nsnv,2026-10,\xe5i,1\n", ":2: byte 0xe5: không phải UTF-8"),
        ("agency,month,direction,number\n".encode("utf-16"), "không phải UTF-8"),
        (b"\0" * 10, "byte 0"),
        ("", "thiếu cột"),
    ],
)
def test_mistakes_are_told_with_place_value_and_cure(tmp_path, places, text, told):
    with pytest.raises(ConfigError) as error:
        tables.paper_rows(file(tmp_path, text), places)
    assert told in str(error.value)


def test_every_mistake_at_once_and_nothing_stored(tmp_path, places):
    text = "agency,month,direction,number\nx,2026-10,out,1\nsnv,0,up,a\n"
    with pytest.raises(ConfigError) as error:
        tables.paper_rows(file(tmp_path, text), places)
    assert [(one.line, one.column) for one in error.value.problems] == [(2, 1), (3, 5), (3, 7), (3, 10)]
    with pytest.raises(ConfigError):
        tables.paper_rows(tmp_path / "none.csv", places)


def test_counts_are_kept_with_their_past(tmp_path, places):
    database = Database.open(sqlite_url(tmp_path / "t.db"))
    head = "agency,month,direction,number\n"

    def bring(text):
        rows = tables.paper_rows(file(tmp_path, head + text), places)
        return asyncio.run(database.write(lambda c: tables.store_paper(c, rows, "Văn thư")))

    try:
        assert bring("snv,2026-10,out,5\nstc,2026-10,in,0\n") == (2, 0)
        assert bring("snv,2026-10,out,5\nstc,2026-10,in,0\n") == (0, 2)
        assert bring("snv,2026-10,out,7\n") == (1, 0)
        now = asyncio.run(database.read(lambda c: tables.paper_counts(c, "2026-10")))
        assert now == {("snv", "out", ""): 7, ("stc", "in", ""): 0}
        past = asyncio.run(database.read(lambda c: tables.paper_count_history(c, "snv", "2026-10")))
        assert [(one["number"], one["who"], one["source"]) for one in past] == [
            (5, "Văn thư", "t.csv:2"),
            (7, "Văn thư", "t.csv:2"),
        ]
        assert asyncio.run(database.read(lambda c: tables.paper_counts(c, "2026-09"))) == {}
    finally:
        database.close()


def test_meetings_publications_and_holidays_reach_the_directory(tmp_path, folder, places):
    def bring(kind, text, **more):
        return tables.bring(file(tmp_path, text), tables.TABLES[kind], folder, places, **more)

    bring("meetings", "Tên cuộc họp;Số giấy mời;Thời gian\nHọp tháng;35/GM-UBND;25/11/2026 8h30\n")
    bring("meetings", "title,code,start,chaired_by_committee\nHọp tháng,35/GM-UBND,26/11/2026 14:00,không\n")
    bring("publications", "agency;published_at\nUBND tỉnh Demo;17:00 20/11/2026\n")
    number, path = bring("holidays", "Ngày;Tên\n02/09/2027;Quốc khánh\n30.4.2027;\n")
    assert number == 2 and path.name == "holidays-imported.csv"
    found = directory.load(folder)
    at = dt.datetime(2026, 11, 24, 8, tzinfo=VIETNAM)
    meeting = found.meeting({"35/GM-UBND"}, "", at)
    assert meeting.start == dt.datetime(2026, 11, 26, 14, tzinfo=VIETNAM) and not meeting.chaired_by_committee
    assert found.publications("ubnd", at) == (dt.datetime(2026, 11, 20, 17, tzinfo=VIETNAM),)
    assert found.holidays == {dt.date(2027, 9, 2), dt.date(2027, 4, 30)}
    bring("holidays", "day\n2027-01-01\n", replace=True)
    assert directory.load(folder).holidays == {dt.date(2027, 1, 1)}
    before = path.read_bytes()
    for kind, text in (
        ("holidays", "day\n2027-01-02\n30/02/2027\n"),
        ("meetings", "title,start\nHọp,25/11/2026\n"),
        ("meetings", "title,start\nHọp,25/11/2026 25:00\n"),
        ("publications", "agency,published_at\nkhông có,25/11/2026 8:00\n"),
    ):
        with pytest.raises(ConfigError):
            bring(kind, text)
    assert path.read_bytes() == before


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(alphabet='agency,;\t"\n\r1/2026đi', max_size=120).map(str.encode)))
def test_any_bytes_are_rows_or_told(tmp_path_factory, places, data):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(data)
    for headings in (tables.HOLIDAYS, tables.PAPER_COUNTS):
        kinds = {one.name: tables._text for one in headings}
        try:
            tables.convert(path, headings, kinds)
        except ConfigError as error:
            assert error.problems
