"""Publications: what is in them, what is not, how they are proved and restated; work by the clock."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import datetime as dt
import hashlib
import io
import json
import random
import re
import shutil
import sqlite3
import subprocess
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from gateway import cli, policy, report_files, reports, stats
from gateway import database as db
from gateway import directory as directories
from gateway.archive import Archive, to_ms
from gateway.config import read as read_settings
from gateway.message import VIETNAM, Address, Envelope, Recipient
from gateway.reports import Jobs, Slot
from gateway.stats import Book, Period
from gateway.store import Store
from tests import cases
from tests.cases import AT, Disposition, RecipientVerdict, Verdict
from tests.house import Log
from tests.test_postgresql import server as postgresql  # noqa: F401  (a fixture)

NOVEMBER = Period.parse("2026-11")
#: After the day on which November 2026 is published.
THEN = dt.datetime(2026, 12, 6, 9, 0, tzinfo=VIETNAM)
SECRET_WORDS = ("tran.thi.bi.mat", "Nguyễn Thị Không Công Khai", "Trích yếu riêng tư 4711")

AGENCIES = """agencies:
  - {id: ubnd-tinh, name: Ủy ban nhân dân tỉnh, level: province, domains: [tinh.gov.vn],
     leaders: [{title: Chánh Văn phòng, phone: "0274 000 002"}]}
  - {id: so-a, name: "=SUM(A1:A9)", level: department, parent: ubnd-tinh, domains: [a.tinh.gov.vn],
     clerk: {title: Văn thư, email: van.thu@a.tinh.gov.vn}}
  - {id: so-b, name: Sở <B> & "C", level: department, parent: ubnd-tinh, domains: [b.tinh.gov.vn]}
  - {id: xa-c, name: Ủy ban nhân dân xã C, level: commune, parent: ubnd-tinh, domains: [c.tinh.gov.vn]}
"""
MAILBOXES = f"""address,kind,holder,agency
{SECRET_WORDS[0]}@a.tinh.gov.vn,PERSONAL,{SECRET_WORDS[1]},so-a
van.thu@b.tinh.gov.vn,AGENCY,Văn thư,so-b
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A configuration of four agencies; the data beside it."""
    config = tmp_path / "config"
    (config / "directory").mkdir(parents=True)
    for name in ("profiles", "lists"):
        shutil.copytree(Path("config") / name, config / name)
    shutil.copy(Path("config") / "citations.yaml", config)
    (config / "policy.yaml").write_text("profile: national_2026\nrules: {SG-01: {mode: observe, to: 2026-12-31}}\n")
    (config / "directory" / "agencies.yaml").write_text(AGENCIES)
    (config / "directory" / "mailboxes.csv").write_text(MAILBOXES)
    (config / "gateway.yaml").write_text(
        "hostname: cong.tinh.gov.vn\ndata: ../data\nlisteners: [{kind: relay, port: 0}]\n"
        'next_hops: [{name: hop, host: 127.0.0.1, domains: ["*"]}]\n'
        "contacts: {agency_name: UBND tỉnh, mail_admin: quan.tri@tinh.gov.vn}\n"
    )
    return config


def opened(config: Path) -> Archive:
    settings = read_settings(config)
    return Archive(db.Database.open(settings.database_url), Store(settings.data / "blobs"), settings)


async def close(archive: Archive) -> None:
    await archive.close()
    archive.database.close()


def known(config: Path):
    return directories.load(config / "directory"), policy.load(config), read_settings(config)


def message(number: int, directory, at: dt.datetime = AT, to: str = "van.thu@b.tinh.gov.vn", **judged):
    """A message of so-a with the events that the gateway makes of it."""
    sender, agency = f"{SECRET_WORDS[0]}@a.tinh.gov.vn", to.rpartition("@")[2].partition(".")[0]
    verdict = Verdict(
        agency="so-a",
        recipients=(RecipientVerdict(to, Disposition.DELIVER, {"b": "so-b", "c": "xa-c"}.get(agency, "")),),
        delivery_mode="electronic_only",
    )
    verdict = dataclasses.replace(verdict, **judged)
    one = cases.case(number=number, at=at, sender=sender, to=(to,), subject=SECRET_WORDS[2])
    local, _, domain = to.rpartition("@")
    envelope = Envelope(one.received.envelope.sender, (Recipient(Address(local, domain)),))
    received = dataclasses.replace(one.received, envelope=envelope)
    counts = stats.counts(received, "out", verdict, one.inspection, None, directory)
    return dataclasses.replace(one, received=received, verdict=verdict, counts=counts)


async def paper(
    archive: Archive, month: str = "2026-11", number: int = 3, agencies=("ubnd-tinh", "so-a", "so-b", "xa-c")
):
    rows = [
        {"agency": agency, "month": month, "direction": way, "message_class": "", "number": number, "at": 1}
        for agency in agencies
        for way in ("out", "in")
    ]
    await archive.database.write(lambda connection: db.insert(connection, db.paper_count, rows))


def run(config: Path, work, *more):
    async def whole():
        archive = opened(config)
        try:
            return await work(archive, *known(config), *more)
        finally:
            await close(archive)

    return asyncio.run(whole())


def public(config: Path, period: str = "2026-11") -> Path:
    return config.parent / "data" / "reports" / "cong-khai" / period


def congvan(*words):
    return CliRunner().invoke(cli.build(str(words[0])), [str(word) for word in words], catch_exceptions=False)


async def publish(archive, directory, rules, settings, period=NOVEMBER, now=THEN):
    return await reports.publish(archive, period, directory, rules, settings, settings.data / "reports", now)


def test_a_publication_and_its_proof(place, tmp_path):
    async def work(archive, directory, rules, settings):
        for number in range(5):
            await archive.commit(message(number, directory))
            await archive.commit(message(number, directory))  # offered again
        await archive.commit(message(9, directory, to="van.thu@c.tinh.gov.vn", delivery_mode="electronic_and_paper"))
        await paper(archive)
        made = await publish(archive, directory, rules, settings)
        again = await publish(archive, directory, rules, settings, now=THEN + dt.timedelta(days=3))
        return made, again

    made, again = run(place, work)
    assert (made.revision, made.new) == (1, True)
    assert (again.revision, again.new, again.sha256) == (1, False, made.sha256)
    folder = public(place)
    data = (folder / "figures.json").read_bytes()
    assert hashlib.sha256(data).hexdigest() == made.sha256
    report = json.loads(data)
    numbers = {one["id"]: one["own"] for one in report["agencies"]}
    assert numbers["so-a"]["figures"]["documents_sent"] == 6
    assert numbers["so-b"]["figures"]["documents_received"] == 5
    assert numbers["xa-c"]["figures"]["documents_received"] == 1
    assert numbers["so-a"]["figures"]["active_mailboxes"] == numbers["so-a"]["figures"]["issued_mailboxes"] == 1
    assert numbers["so-a"]["shares"]["e_any_ratio"] == {"part": 6, "whole": 12, "percent": "50.0", "why": None}
    assert numbers["so-a"]["shares"]["e_full_ratio"]["percent"] == "41.6"  # 5 of 12, cut
    whole = next(one["whole"] for one in report["agencies"] if one["id"] == "ubnd-tinh")
    assert (whole["agencies"], whole["figures"]["sent"], whole["figures"]["received"]) == (4, 6, 6)
    assert {one["rule"]: one["until"] for one in report["observed"]} == {"SG-01": "2026-12-31"}
    assert {one["key"]: one["state"] for one in report["targets"]}["any_80"] == "not_met"
    assert report["policies"] == ["d" * 64]

    # somebody else's program checks the signature, with what lies beside it
    command = "openssl pkeyutl -verify -pubin -inkey report-key.pem -rawin -in figures.json -sigfile figures.json.sig"
    checked = subprocess.run(command.split(), cwd=folder, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    told = congvan("stats", "recompute", "--month", "2026-11", "--config", place)
    assert told.exit_code == 0, told.stdout
    assert "6 thư" in told.stdout
    assert congvan("archive", "verify", "--config", place).exit_code == 0

    contents = (folder.parent / "index.html").read_text()
    assert "Tháng 11/2026" in contents and 'href="2026-11/index.html"' in contents


def test_what_is_public_names_nobody(place):
    async def work(archive, directory, rules, settings):
        for number in range(3):
            await archive.commit(message(number, directory))
        await publish(archive, directory, rules, settings)

    run(place, work)
    seen = 0
    for path in public(place).parent.rglob("*"):
        if not path.is_file():
            continue
        texts = [path.read_bytes()]
        if path.suffix == ".xlsx":
            with zipfile.ZipFile(path) as book:
                texts = [book.read(name) for name in book.namelist()]
        if path.suffix == ".pdf":
            from pypdf import PdfReader

            texts = [" ".join(page.extract_text() for page in PdfReader(path).pages).encode()]
        for text in texts:
            plain = text.decode("utf-8", "replace")
            seen += "ubnd-tinh" in plain or "Ủy ban nhân dân" in plain
            for word in (*SECRET_WORDS, "van.thu", "0274", "14/CT-UBND", "Lê Văn Đ"):
                assert word not in plain, (path.name, word)
            assert not re.search(r"[\w.+-]+@[\w-]+\.\w", plain), path.name
    assert seen > 10
    report = json.loads((public(place) / "figures.json").read_text())
    keys = set(report["agencies"][0]["own"]["figures"])
    # who broke which rule is for those concerned
    assert not keys & {"returned", "held", "blocked_secret", "malware", "free_mailbox_findings"}
    inner = (public(place).parent.parent / "noi-bo" / "2026-11" / "co-quan" / "so-a.html").read_text()
    assert "Tạm giữ" in inner and "không công bố" in inner


def test_names_are_never_formulas_or_markup(place):
    async def work(archive, directory, rules, settings):
        await archive.commit(message(1, directory))
        await publish(archive, directory, rules, settings)

    run(place, work)
    with zipfile.ZipFile(public(place) / "figures.xlsx") as book:
        sheets = [book.read(name) for name in book.namelist() if "worksheets/" in name]
        strings = " ".join(book.read(name).decode() for name in book.namelist() if name.endswith(".xml"))
    assert all(not ElementTree.fromstring(one).findall(".//{*}f") for one in sheets)
    assert "=SUM(A1:A9)" in strings
    table = list(csv.DictReader(io.StringIO((public(place) / "figures.csv").read_bytes().decode("utf-8-sig"))))
    names = {one["agency"]: one["name"] for one in table}
    assert (names["so-a"], names["so-b"]) == ("'=SUM(A1:A9)", 'Sở <B> & "C"')
    assert next(one for one in table if one["agency"] == "so-a")["e_any_ratio_percent"] == ""  # no paper counts
    page = (public(place) / "index.html").read_text()
    assert "Sở &lt;B&gt; &amp;" in page and "<B>" not in page
    assert "không đủ số liệu" in page and "100,0 %" not in re.sub(r"chỉ tiêu 100", "", page.split('id="co-quan"')[1])


def test_the_workbook_has_the_numbers_of_the_json(place):
    from python_calamine import CalamineWorkbook

    async def work(archive, directory, rules, settings):
        for number in range(3):
            await archive.commit(message(number, directory))
        await paper(archive)
        await publish(archive, directory, rules, settings)

    run(place, work)
    report = json.loads((public(place) / "figures.json").read_text())
    rows = CalamineWorkbook.from_path(str(public(place) / "figures.xlsx")).get_sheet_by_name("Cơ quan").to_python()
    head, lines = rows[2], {row[1]: row for row in rows[3:]}
    assert set(lines) == {one["id"] for one in report["agencies"]}
    checked = 0
    for agency in report["agencies"]:
        for one in report["definitions"]:
            name = f"{one['vi']}\n{one['en']}" + (" (%)" if one["type"] == "ratio" else "")
            cell = lines[agency["id"]][head.index(name)]
            if one["type"] == "ratio":
                text = agency["own"]["shares"][one["key"]]["percent"]
                assert cell == (float(text) if text else "không đủ số liệu")
            else:
                value = agency["own"]["figures"][one["key"]]
                assert cell == ("—" if value is None else value)
            checked += 1
    assert checked > 100


def test_late_mail_restates_a_month_openly(place):
    async def work(archive, directory, rules, settings):
        await archive.commit(message(1, directory))
        first = await publish(archive, directory, rules, settings)
        assert await archive.database.read(reports.stale) == []
        await archive.commit(message(2, directory))  # received in November, read from a mailbox in December
        assert await archive.database.read(reports.stale) == [NOVEMBER]
        proof = await archive.database.read(lambda c: reports.recompute(c, NOVEMBER, directory, archive.folder))
        second = await publish(archive, directory, rules, settings, now=THEN + dt.timedelta(days=1))
        fresh = await archive.database.read(lambda c: reports.recompute(c, NOVEMBER, directory, archive.folder))
        return first, second, proof, fresh

    first, second, proof, fresh = run(place, work)
    assert (first.revision, second.revision) == (1, 2)
    # before it was restated, the difference has a name
    assert [(one.kind, one.detail) for one in proof.differences if "documents_sent" in one.detail] == [
        ("published", "so-a documents_sent: published 1, computed 2")
    ]
    assert fresh.differences == []
    report = json.loads((public(place) / "figures.json").read_text())
    assert report["first_published"]["sha256"] == first.sha256
    changed = {(one["agency"], one["figure"]): (one["first"], one["now"]) for one in report["restated"]}
    assert changed["so-a", "documents_sent"] == ("1", "2")
    assert changed["so-b", "documents_received"] == ("1", "2")
    for page in ("index.html", "en.html", "co-quan/so-a.html"):
        text = (public(place) / page).read_text()
        assert "06/12/2026" in text or "2026-12-06" in text
        assert re.search(r"<td>1</td><td>2</td>", text), page
    kept = [json.loads(line) for line in congvan("report", "list", "--json", "--config", place).stdout.splitlines()]
    assert [(one["period"], one["revision"], one["sha256"]) for one in kept] == [
        ("2026-11", 1, first.sha256),
        ("2026-11", 2, second.sha256),
    ]


def test_each_tampering_is_named(place):
    async def prepare(archive, directory, rules, settings):
        for number in range(3):
            await archive.commit(message(number, directory))
        await publish(archive, directory, rules, settings)

    run(place, prepare)
    origin = place.parent / "data" / "gateway.db"
    shutil.copy(origin, place.parent / "kept.db")
    tamperings = {
        "DELETE FROM event WHERE kind = 'sent' AND id = (SELECT min(id) FROM event)": ("missing", "published"),
        "UPDATE event SET value = 'unlisted' WHERE id = (SELECT min(id) FROM event)": ("changed", "published"),
        "UPDATE event SET agency = 'xa-c' WHERE id = (SELECT min(id) FROM event)": ("changed", "published"),
        "INSERT INTO event SELECT 9999, key || 'x', at, month, kind, 'so-b', direction, message_class, profile, rule, "
        "mode, value, message, scope FROM event WHERE kind = 'sent' LIMIT 1": ("extra", "published"),
        "UPDATE message SET record = replace(record, 'electronic_only', 'unlisted') WHERE kind = 'mail'": ("record",),
        "UPDATE publication SET sha256 = 'ab'": ("published",),
        "UPDATE publication SET signature = x'00'": ("published",),
        "UPDATE publication SET leaf = 0": ("published",),
    }
    for statement, kinds in tamperings.items():
        for name in ("gateway.db-wal", "gateway.db-shm"):
            (place.parent / "data" / name).unlink(missing_ok=True)
        shutil.copy(place.parent / "kept.db", origin)
        with sqlite3.connect(origin) as raw:
            raw.execute(statement)
        raw.close()
        told = congvan("stats", "recompute", "--month", "2026-11", "--json", "--config", place)
        lines = [json.loads(line) for line in told.stdout.splitlines()]
        assert told.exit_code == 1, statement
        assert set(kinds) <= {one["kind"] for one in lines[:-1]}, (statement, lines)
        assert lines[-1]["ok"] is False and lines[-1]["differences"] == len(lines) - 1


def test_a_month_that_goes_on_is_provisional(place):
    async def work(archive, directory, rules, settings):
        await archive.commit(message(1, directory))
        early = await publish(archive, directory, rules, settings, now=AT)
        page = (public(place) / "index.html").read_text()
        await archive.commit(message(2, directory))
        proof = await archive.database.read(lambda c: reports.recompute(c, NOVEMBER, directory, archive.folder))
        final = await publish(archive, directory, rules, settings)
        return early, final, page, proof

    early, final, page, proof = run(place, work)
    assert (early.revision, final.revision) == (0, 1)
    assert "tạm tính" in page
    assert proof.differences == []
    assert json.loads((public(place) / "figures.json").read_text())["restated"] == []


def test_explain(place):
    async def work(archive, directory, rules, settings):
        for number in range(4):
            await archive.commit(message(number, directory))
        await paper(archive)

    run(place, work)
    told = congvan("stats", "explain", "documents_sent", "--month", "2026-11", "--agency", "so-a", "--config", place)
    assert "d" * 64 in told.stdout and "message_class in (OFFICIAL_DOC" in told.stdout
    words = ("stats", "explain", "e_any_ratio", "--month", "2026-11", "--agency", "ubnd-tinh", "--rollup", "--json")
    lines = [json.loads(line) for line in congvan(*words, "--config", place).stdout.splitlines()]
    assert lines[0]["value"] == 8 / 32 and lines[0]["policies"] == ["d" * 64]
    assert len(lines) == 9 and {one["part"] for one in lines[1:]} == {"numerator"}
    bad = congvan("stats", "explain", "nonsense", "--month", "2026-11", "--config", place)
    assert bad.exit_code == 2
    assert congvan("stats", "--month", "2026-11", "--half", "2026-H1", "--config", place).exit_code == 2
    assert congvan("stats", "--half", "2026-11", "--config", place).exit_code == 2
    assert congvan("stats", "--month", "2026-11", "--level", "village", "--config", place).exit_code == 2
    assert congvan("stats", "--month", "2026-11", "--agency", "so-z", "--config", place).exit_code == 2
    for words in (["--half", "2026-H2"], ["--year", "2026"], ["--month", "2026-11", "--by", "class,direction"]):
        (line, *_) = congvan("stats", *words, "--json", "--config", place).stdout.splitlines()
        assert json.loads(line)["period"] in ("2026-H2", "2026", "2026-11")


# ---------------------------------------------------------------------- by the clock


def states(archive: Archive) -> dict[tuple[str, str], bool]:
    with archive.database.engine.connect() as connection:
        return {(row.name, row.slot): row.finished_at is not None for row in reports.job_rows(connection)}


def test_jobs_run_once_however_many_daemons_there_are(place):
    async def work(archive, directory, rules, settings):
        await archive.commit(message(1, directory))
        others = [opened(place) for _ in range(3)]
        jobs = [Jobs(one, settings, directory, rules, Log(), lambda: THEN) for one in (archive, *others)]
        done = await asyncio.gather(*(one.run() for one in jobs))
        for one in others:
            await close(one)
        assert await Jobs(archive, settings, directory, rules, Log(), lambda: THEN).run() == 0  # after a restart
        mails = await archive.database.read(
            lambda c: (
                c.exec_driver_sql(
                    "SELECT r.address FROM recipient r JOIN message m ON m.id = r.message "
                    "WHERE m.kind = 'notice' AND m.sender = '' ORDER BY 1"
                )
                .scalars()
                .all()
            )
        )
        return sum(done), states(archive), mails, [one.log.events("error") for one in jobs]

    done, found, mails, errors = run(place, work)
    assert found == {
        ("publish", "2026-11"): True,
        ("daily", "2026-12-06"): True,
        ("restate", "2026-12-06"): True,
        ("remind", "2026-11"): True,
    }
    assert done == 4 and errors == [[], [], [], []]
    # the operator once; each agency with an address once, because paper counts are missing
    assert mails == ["quan.tri@tinh.gov.vn", "van.thu@a.tinh.gov.vn", "van.thu@b.tinh.gov.vn"]
    assert len(list(public(place).parent.glob("2026-*"))) == 1


def test_the_command_that_the_daemon_calls(place):
    with (place / "gateway.yaml").open("a") as more:
        more.write("reports: {hour: 0, operator: ca.truc@tinh.gov.vn}\n")

    async def nothing(archive, directory, rules, settings):
        pass

    run(place, nothing)  # an archive without mail
    before = [json.loads(line) for line in congvan("report", "jobs", "--json", "--config", place).stdout.splitlines()]
    assert {(one["job"], one["state"]) for one in before} == {("daily", "due"), ("restate", "due")}
    assert congvan("report", "run", "--config", place).exit_code == 0
    after = [json.loads(line) for line in congvan("report", "jobs", "--json", "--config", place).stdout.splitlines()]
    assert {(one["job"], one["state"], one["result"]) for one in after if one["state"] == "done"} >= {
        ("daily", "done", "sent"),
        ("restate", "done", "0 of 0 restated"),
    }
    listed = congvan("queue", "list", "--config", place).stdout
    assert listed.count("ca.truc@tinh.gov.vn") >= 1


def test_after_an_outage_everything_is_made_up_for(place):
    """Mail since August, nobody awake until January: five months, the half-year and the year; one daily mail."""

    async def work(archive, directory, rules, settings):
        await archive.commit(message(1, directory, at=AT.replace(month=8)))
        late = dt.datetime(2027, 1, 9, 10, 0, tzinfo=VIETNAM)
        before = await archive.database.read(lambda c: reports.due(c, settings, late))
        jobs = Jobs(archive, settings, directory, rules, Log(), lambda: late)
        assert await jobs.run() == len(before)
        return before, sorted(one.period for one in await archive.database.read(reports.kept))

    before, published = run(place, work)
    assert [one for one in before if one.name != "publish"] == [
        Slot("daily", "2027-01-09"),
        Slot("restate", "2027-01-09"),
        Slot("remind", "2026-12"),
    ]
    assert published == ["2026", "2026-08", "2026-09", "2026-10", "2026-11", "2026-12", "2026-H2"]


def test_nothing_is_due_before_its_day(place):
    async def work(archive, directory, rules, settings):
        await archive.commit(message(1, directory))
        times = [dt.datetime(2026, 12, day, hour, tzinfo=VIETNAM) for day, hour in ((1, 5), (1, 6), (5, 5), (5, 6))]
        return [await archive.database.read(lambda c, at=at: reports.due(c, settings, at)) for at in times]

    early, day_one, almost, then = run(place, work)
    assert early == []
    assert [one.name for one in day_one] == ["daily", "restate"]
    assert almost == []
    assert Slot("publish", "2026-11") in then


def test_a_job_of_somebody_who_died_is_taken_over(place):
    one = Slot("publish", "2026-11")

    async def work(archive, directory, rules, settings):
        def claim(at, who):
            return archive.database.write(lambda c: reports.claim(c, one, at, who))

        assert await claim(THEN, "first")
        assert not await claim(THEN + dt.timedelta(minutes=5), "second")
        assert await claim(THEN + reports.LEASE, "second")
        # the first one wakes up: what it says is no longer heard
        await archive.database.write(lambda c: reports.finish(c, one, THEN + reports.LEASE, "first", "late"))
        assert states(archive) == {("publish", "2026-11"): False}
        await archive.database.write(
            lambda c: reports.finish(c, one, THEN + reports.LEASE, "second", "broken", done=False)
        )
        assert not await claim(THEN + reports.LEASE + dt.timedelta(minutes=4), "third")
        assert await claim(THEN + reports.LEASE + reports.AGAIN, "third")
        await archive.database.write(lambda c: reports.finish(c, one, THEN, "third", "done"))
        assert not await claim(THEN + dt.timedelta(days=9), "fourth")

    run(place, work)


def test_a_job_that_fails_is_tried_again_and_told(place, monkeypatch):
    async def work(archive, directory, rules, settings):
        await archive.commit(message(1, directory))
        log, now = Log(), [THEN]
        jobs = Jobs(archive, settings, directory, rules, log, lambda: now[0])
        whole = report_files.pdf

        def broken(*_):
            raise OSError("no space")

        monkeypatch.setattr(report_files, "pdf", broken)
        await jobs.run()
        assert log.events("error") == ["job failed"]
        assert not public(place).exists() and not list(public(place).parent.glob(".*"))
        monkeypatch.setattr(report_files, "pdf", whole)
        assert await jobs.run() == 0  # not at once
        now[0] += reports.AGAIN
        assert await jobs.run() == 1

    run(place, work)
    assert (public(place) / "report.pdf").exists()


def test_the_operators_mail(place):
    async def work(archive, directory, rules, settings):
        now = AT + dt.timedelta(hours=10)
        held = message(1, directory)
        owed = tuple(dataclasses.replace(one, state="held") for one in held.owed)
        await archive.commit(dataclasses.replace(held, owed=owed))
        back = message(2, directory, disposition=Disposition.RETURN)
        await archive.commit(back)
        failed = message(3, directory)
        await archive.commit(failed)
        await archive.database.write(
            lambda c: c.execute(
                db.recipient.update()
                .where(db.recipient.c.message == failed.received.case)
                .values(state="failed", settled_at=to_ms(AT) + 5)
            )
        )
        letter = await archive.database.read(
            lambda c: reports.daily(c, directory, rules, AT - dt.timedelta(hours=1), now)
        )
        return letter, held.received.case, back.received.case, failed.received.case, now, settings

    letter, held, back, failed, now, settings = run(place, work)
    for text in (letter.vi, letter.en):
        assert held in text and back in text and failed in text
        for word in SECRET_WORDS:
            assert word not in text
    assert (letter.facts["held"], letter.facts["returned"], letter.facts["failed"]) == (1, 1, 1)
    assert "SG-01: hết thời gian theo dõi" not in letter.vi  # still six weeks
    made = reports.notice(letter, "quan.tri@tinh.gov.vn", "k", now, settings)
    text = made.data.decode()
    assert "Auto-Submitted:" in text and made.recipients == (("quan.tri@tinh.gov.vn", "hop"),)
    told = congvan("report", "daily", "--json", "--config", place)
    assert told.exit_code == 0 and "held" in json.loads(told.stdout)


def test_replays_with_crashes_give_the_same_publication(place, tmp_path):
    """The same mail in another order, offered several times, the archive closed and opened in between."""
    seed = 20261122
    chance = random.Random(seed)
    directory = directories.load(place / "directory")
    mails = [(n, chance.choice(["van.thu@b.tinh.gov.vn", "van.thu@c.tinh.gov.vn", "x@gmail.com"])) for n in range(25)]

    def numbers(order: list[tuple[int, str]], pieces: int) -> bytes:
        data = place.parent / "data"
        shutil.rmtree(data, ignore_errors=True)
        size = -(-len(order) // pieces)

        async def some(archive, directory, rules, settings, part):
            for number, to in part:
                await archive.commit(message(number, directory, to=to))

        for start in range(0, len(order), size):
            run(place, some, order[start : start + size])

        async def read(archive, directory, rules, settings):
            def ask(connection):
                book = Book(connection, NOVEMBER, directory)
                return [row.values() for row in (*book.rows(), *book.rows(rollup=True), book.total())]

            proof = await archive.database.read(lambda c: reports.recompute(c, NOVEMBER, directory, archive.folder))
            assert proof.differences == [], seed
            return json.dumps(await archive.database.read(ask), sort_keys=True).encode()

        return run(place, read)

    once = numbers(mails, 1)
    often = [*mails, *chance.sample(mails, 15)]
    chance.shuffle(often)
    assert numbers(often, 5) == once, seed
    assert directory is not None


# ---------------------------------------------------------------------- PostgreSQL


def test_over_postgresql_two_gateways_publish_once(postgresql, place):  # noqa: F811
    """Figures, publication, proof and claims of jobs, with two gateways over one database."""
    url, _ = postgresql
    with (place / "gateway.yaml").open("a") as more:
        more.write(f"database: {url}\n")

    async def work(archive, directory, rules, settings):
        other = opened(place)
        for number in range(12):  # the same mail at both
            await asyncio.gather(*(one.commit(message(number, directory)) for one in (archive, other)))
        await paper(archive)
        both = [Jobs(one, settings, directory, rules, Log(), lambda: THEN) for one in (archive, other)]
        done = await asyncio.gather(*(one.run() for one in both))
        published = await archive.database.read(reports.kept)
        proof = await other.database.read(lambda c: reports.recompute(c, NOVEMBER, directory, other.folder))
        row = next(iter(await other.database.read(lambda c: Book(c, NOVEMBER, directory).rows(agency="so-a"))))
        await close(other)
        return sum(done), published, proof, row, [one.log.lines for one in both]

    done, published, proof, row, logs = run(place, work)
    assert done == 4, logs
    assert [(one.period, one.revision) for one in published] == [("2026-11", 1)]
    assert (proof.differences, proof.messages) == ([], 12)
    assert (row.figures["sent"], row.shares["e_any_ratio"].percent) == (12, "66.6")
