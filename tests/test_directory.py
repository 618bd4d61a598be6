"""Agencies and mailboxes as of a date; domains and their imitations; sizes of a province."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from gateway import directory
from gateway.commands import directory as commands
from gateway.errors import ConfigError

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data" / "policy" / "directory"


def d(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("directory")
    shutil.copytree(ROOT / "config" / "lists", folder / "lists")
    shutil.copytree(DATA, folder / "directory")
    return folder


@pytest.fixture(scope="module")
def known(base: Path) -> directory.Directory:
    return directory.load(base / "directory")


def make(tmp_path: Path, **files: str) -> directory.Directory:
    """A directory from texts; names as `agencies_csv`."""
    (tmp_path / "directory").mkdir(exist_ok=True)
    shutil.copytree(ROOT / "config" / "lists", tmp_path / "lists", dirs_exist_ok=True)
    for name, text in files.items():
        (tmp_path / "directory" / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return directory.load(tmp_path / "directory")


def test_successor_answers_after_the_last_day(known: directory.Directory) -> None:
    assert known.agency("bd", d("2025-06-30")).id == "bd"
    assert known.agency("bd", d("2025-07-01")).id == "hcm"
    assert known.agency_of("vanthu@binhduong.gov.vn", d("2025-07-01")).id == "hcm"


def test_versions_of_one_agency(tmp_path: Path) -> None:
    known = make(
        tmp_path,
        agencies_csv="id,name,level,parent,valid_from,valid_to\n"
        "t,Tỉnh,province,,,\nx,Phòng Một,unit,t,,2014-12-31\nx,Phòng Hai,department,t,2015-01-01,\n",
    )
    assert known.agency("x", d("2014-12-31")).name == "Phòng Một"
    assert known.agency("x", d("2015-01-01")).level == "department"
    assert [one.name for one in known.agencies(d("2015-01-01"))] == ["Tỉnh", "Phòng Hai"]
    assert known.agency_named("phong mot", d("2014-12-31")) is None  # accents are kept
    assert known.agency_named("PHÒNG  MỘT", d("2014-12-31")).id == "x"
    assert known.agency_named("Phòng Một", d("2015-01-01")) is None


def test_agency_without_successor_is_gone(tmp_path: Path) -> None:
    known = make(tmp_path, agencies_csv="id,name,level,valid_to,domains\nx,X,unit,2014-12-31,x.gov.vn\n")
    assert known.agency("x", d("2015-01-01")) is None
    assert known.agency_of("a@x.gov.vn", d("2015-01-01")) is None


def test_owner_by_mailbox_then_by_longest_domain(known: directory.Directory) -> None:
    day = d("2014-10-01")
    assert known.agency_of("vanthu@stttt.binhduong.gov.vn", day).id == "bd-stttt"
    assert known.agency_of("la@moi.stttt.binhduong.gov.vn", day).id == "bd-stttt"
    assert known.agency_of("la@khac.binhduong.gov.vn", day).id == "bd"
    assert known.agency_of("LA@Binhduong.GOV.vn", day).id == "bd"
    assert known.agency_of("la@xbinhduong.gov.vn", day) is None
    assert known.agency_of("", day) is None


def test_logins(known: directory.Directory) -> None:
    assert known.owns("vanthu@stttt.binhduong.gov.vn", "VANTHU@stttt.binhduong.gov.vn")
    assert known.owns("chuyenvien@stttt.binhduong.gov.vn", "vanthu@stttt.binhduong.gov.vn")
    assert not known.owns("vanthu@stttt.binhduong.gov.vn", "chuyenvien@stttt.binhduong.gov.vn")
    assert not known.owns("ai@gmail.com", "vanthu@stttt.binhduong.gov.vn")


def test_issued_between_its_dates(known: directory.Directory) -> None:
    box = known.mailbox("cuudien@stttt.binhduong.gov.vn")
    assert not box.issued(d("2009-12-31")) and box.issued(d("2010-01-01"))
    assert box.issued(d("2014-05-31")) and not box.issued(d("2014-06-01"))
    assert known.owner_of_private("CHUYENVIEN.MOT@gmail.com").address == "chuyenvien@stttt.binhduong.gov.vn"
    assert not box.published and known.mailbox("vanthu@binhduong.gov.vn").published


def test_profile_comes_from_the_nearest_ancestor(known: directory.Directory) -> None:
    day = d("2014-10-01")
    assert known.profile_of(known.agency("bd-xa", day), day) == "binh_duong_2014"
    assert known.profile_of(None, day) == ""


@pytest.mark.parametrize(
    ("domain", "official"),
    [
        ("gov.vn", True), ("binhduong.gov.vn", True), ("a.b.gov.vn", True), ("chinhphu.vn", True), ("GOV.VN", True),
        ("hocvien.edu.vn", True),  # an agency names it
        ("gov.vn.example.com", False), ("binhduong-gov.vn", False), ("binhduong.gov.vn.co", False), ("gov.vn.", False),
        ("g\u043ev.vn", False), ("xgov.vn", False), ("edu.vn", False), ("gmail.com", False), ("", False), ("vn", False),
    ],
)  # fmt: skip
def test_official_domains(known: directory.Directory, domain: str, official: bool) -> None:
    assert known.is_official(domain) is official


def test_listed_official_is_the_list_alone(known: directory.Directory) -> None:
    assert not known.is_listed_official("hocvien.edu.vn") and known.is_listed_official("moha.gov.vn")


@pytest.mark.parametrize(
    ("domain", "imitated"),
    [
        ("gov.vn.example.com", "gov.vn"), ("binhduong-gov.vn", "binhduong.gov.vn"),
        ("binhduong.gov.vn.co", "binhduong.gov.vn"),
        ("binhduong.g\u043ev.vn", "binhduong.gov.vn"), ("xn--gv-jbc.vn", "gov.vn"),
        ("gov-vn.com", "gov.vn"), ("binhduong.gov.vn.", "binhduong.gov.vn"),
        ("binhduong.gov.vn", ""), ("gmail.com", ""), ("governor.vn", ""), ("", ""),
    ],
)  # fmt: skip
def test_imitations(known: directory.Directory, domain: str, imitated: str) -> None:
    assert known.imitated(domain)[0] == imitated


@pytest.mark.parametrize(
    ("domain", "free"),
    [("gmail.com", True), ("GMAIL.com", True), ("yahoo.com.vn", True), ("yahoo.co.uk", True), ("gmx.de", True),
     ("hotmail.fr", True), ("mygmail.com", False), ("vnn.vn", False), ("binhduong.gov.vn", False), ("", False)],
)  # fmt: skip
def test_free_domains(known: directory.Directory, domain: str, free: bool) -> None:
    assert known.is_free(domain) is free


@given(st.text(max_size=60))
def test_domain_questions_are_total(domain: str) -> None:
    small = directory.Directory(_official=frozenset({"gov.vn"}), _free=frozenset({"gmail.com"}))
    if small.is_official(domain):
        assert domain.lower() == "gov.vn" or domain.lower().endswith(".gov.vn")
        assert small.imitated(domain) == ("", "")
    assert isinstance(small.is_free(domain), bool)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ủy ban nhân dân", "Uỷ ban nhân dân"), ("HÒA BÌNH", "Hoà Bình"), ("Sở  Nội vụ", "sở nội vụ"),
     ("Đà Nẵng", "\u00d0à Nẵng"), ("Bắc Giang", "Ba\u0306\u0301c Giang"), ("Sở TT&TT", "sở TT TT")],
)  # fmt: skip
def test_spellings_of_one_name(one: str, other: str) -> None:
    assert directory.name_key(one) == directory.name_key(other)


def test_names_that_differ_stay_different() -> None:
    keys = {directory.name_key(one) for one in ("mật", "mặt", "mắt", "mất", "mát", "mạt", "mat", "Mẫu", "Mâu")}
    assert len(keys) == 9


@given(st.text())
def test_name_key_is_stable(name: str) -> None:
    key = directory.name_key(name)
    assert directory.name_key(key) == key


def test_semicolons_lists_and_byte_order_mark(tmp_path: Path) -> None:
    known = make(
        tmp_path,
        agencies_csv="\ufeffid;name;level;domains;certificate_issued_on;certificate_subjects;leader_phones;require_electronic\r\n"
        "x;Sở X;department;a.gov.vn b.gov.vn;2014-01-01;MST:1|MST:2;0900 111 222, 0901333444 +84902555666;có\r\n\r\n",
        mailboxes_csv="address;agency;logins\nv@a.gov.vn;x;u1 u2\n",
    )
    agency = known.agency("x", d("2020-01-01"))
    assert agency.domains == ("a.gov.vn", "b.gov.vn") and agency.certificate.subjects == ("MST:1", "MST:2")
    assert [one.phone for one in agency.leaders] == ["0900 111 222", "0901333444", "+84902555666"]
    assert agency.require_electronic
    assert known.owns("u2", "v@a.gov.vn") and known.mailbox("v@a.gov.vn").kind == "PERSONAL"


def test_several_files_and_forms_together(tmp_path: Path) -> None:
    known = make(
        tmp_path,
        agencies_csv="id,name,level\na,A,unit\n",
        **{"agencies-2_yaml": "agencies:\n  - {id: b, name: B, level: unit, parent: a}\n"},
    )
    assert [one.id for one in known.agencies()] == ["b", "a"] or [one.id for one in known.agencies()] == ["a", "b"]


def test_errors_of_all_files_with_lines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make(
            tmp_path,
            agencies_csv="id,name,level\na,A,unit\n",
            mailboxes_csv="address,agency\nx@a.gov.vn,b\n,a\nx@a.gov.vn,a\n",
            exceptions_csv="agency,address,reason,approved_by,expires_on\na,x@gmail.com,r,p,\n",
        )
    assert [f"{one.place}: {one.text}" for one in caught.value.problems] == [
        "directory/exceptions.csv:2:19: missing key 'expires_on'",
        "directory/mailboxes.csv:2:12: agency: unknown agency 'b'",
        "directory/mailboxes.csv:3:1: missing key 'address'",
        "directory/mailboxes.csv:4:1: mailbox 'x@a.gov.vn' is there twice",
    ]


def test_a_mistake_in_every_row_is_told_two_hundred_times(tmp_path: Path) -> None:
    rows = "".join(f"hop{number}@a.gov.vn,so-{number}\n" for number in range(1000))
    with pytest.raises(ConfigError) as caught:
        make(tmp_path, agencies_csv="id,name,level\na,A,unit\n", mailboxes_csv="address,agency\n" + rows)
    assert len(caught.value.problems) == 201
    assert caught.value.problems[-1].text == "800 more mistakes in this file"
    assert caught.value.problems[-1].vi == "còn 800 lỗi nữa trong tệp này"


def test_lines_and_columns_of_cells_with_breaks_and_marks(tmp_path: Path) -> None:
    text = 'address;holder;agency\r\nx@a.gov.vn;"Văn; thư\r\nphòng";a\r\ny@a.gov.vn;"a;b";zz\r\n'
    with pytest.raises(ConfigError) as caught:
        make(tmp_path, agencies_csv="id,name,level\na,A,unit\n", mailboxes_csv=text)
    assert [one.place for one in caught.value.problems] == ["directory/mailboxes.csv:4:18"]


@pytest.mark.parametrize(
    ("files", "place", "part"),
    [
        ({"agencies_csv": "id,name,level,domains\na,A,unit,gmail.com\n"}, "directory/agencies.csv:2:10", "'gmail.com'"),
        ({"mailboxes_csv": "agency,address\na,x@gmail.com\n"}, "directory/mailboxes.csv:2:3", "`private`"),
        ({"official": "gov.vn\n  # x\ngmail.com\n"}, "lists/official.txt:3:1", "'gmail.com'"),
        (
            {
                "agencies_csv": "id,name,level,valid_to,successor\na,A,unit,2020-01-01,b\nb,B,unit,2021-01-01,a\n",
            },
            "directory/agencies.csv:2:21",
            "a > b",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be(tmp_path: Path, files: dict[str, str], place: str, part: str) -> None:
    files = dict(files)
    official = files.pop("official", "")
    make(tmp_path, agencies_csv="id,name,level\na,A,unit\n")
    if official:
        (tmp_path / "lists" / "official.txt").write_text(official, "utf-8")
    with pytest.raises(ConfigError) as caught:
        make(tmp_path, **files) if files else directory.load(tmp_path / "directory")
    assert caught.value.problems[0].place == place
    assert part in caught.value.problems[0].text and part in caught.value.problems[0].vi


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    make(tmp_path, agencies_csv="id,name,level\na,A,unit\n")
    (tmp_path / "directory" / "mailboxes.csv").write_bytes(
        "address,agency\nx@a.gov.vn,Sở\n".encode("cp1258", "replace")
    )
    (tmp_path / "directory" / "mailboxes.csv").write_bytes(b"address,agency\nx@a.gov.vn,\xe9\xff\n")
    with pytest.raises(ConfigError) as caught:
        directory.load(tmp_path / "directory")
    assert "is not UTF-8" in str(caught.value)


def test_a_village_of_agencies_loads(tmp_path: Path) -> None:
    """A twentieth of the size of bench/policy_rate.py: 500 agencies, 15,000 mailboxes."""
    agencies = "id,name,level,parent,domains\n" + "".join(
        f"a{n},Cơ quan {n},unit,{'' if not n else 'a0'},c{n}.tinh.gov.vn\n" for n in range(500)
    )
    boxes = "address,kind,holder,agency,issued_on\n" + "".join(
        f"m{n}@c{n % 500}.tinh.gov.vn,PERSONAL,Chuyên viên {n},a{n % 500},2020-01-01\n" for n in range(15_000)
    )
    known = make(tmp_path, agencies_csv=agencies, mailboxes_csv=boxes)
    assert sum(1 for _ in known.mailboxes()) == 15_000
    assert known.agency_of("m14999@c499.tinh.gov.vn", d("2021-01-01")).id == "a499"


# -- the command -----------------------------------------------------------------------------------------------------

run = CliRunner()


def test_export_shows_published_mailboxes_only(base: Path) -> None:
    result = run.invoke(commands.app, ["export", "--config", str(base), "--at", "2014-10-01", "--format", "json"])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    addresses = {row["address"] for row in rows}
    assert "vanthu@stttt.binhduong.gov.vn" in addresses and "chuyenvien@stttt.binhduong.gov.vn" not in addresses


def test_export_is_inert(tmp_path: Path) -> None:
    make(
        tmp_path,
        agencies_csv='id,name,level\na,"=cmd()<b>",unit\n',
        mailboxes_csv="address,kind,holder,agency\nx@a.gov.vn,AGENCY,<script>,a\n",
    )
    page = run.invoke(commands.app, ["export", "--config", str(tmp_path), "--format", "html"]).stdout
    assert "<script>" not in page and "&lt;script&gt;" in page and page.startswith("<!doctype html>")
    table = run.invoke(commands.app, ["export", "--config", str(tmp_path), "--format", "csv"]).stdout
    assert "'=cmd()" in table


def test_list_as_of_a_day(base: Path) -> None:
    result = run.invoke(commands.app, ["list", "--config", str(base), "--at", "2026-01-01", "--json"])
    rows = {row["agency"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert "bd" not in rows and rows["hcm"]["profile"] == "national_2026"


def test_report_names_shortcomings(base: Path) -> None:
    result = run.invoke(commands.app, ["report", "--config", str(base), "--at", "2014-10-01", "--json"])
    rows = {(row["kind"], row["about"]) for row in map(json.loads, result.stdout.splitlines())}
    assert result.exit_code == 1
    assert ("unpublished", "tg-xa") in rows and ("expired", "ubndxatanphu@gmail.com") in rows


def test_bad_date_is_a_usage_error(base: Path) -> None:
    assert run.invoke(commands.app, ["list", "--config", str(base), "--at", "hôm nay"]).exit_code == 2
