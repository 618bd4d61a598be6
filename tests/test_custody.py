"""Keeping: who read what, retention, holds, destruction by two, recalls. Through the commands, as people use them."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from gateway import custody
from gateway import database as db
from gateway.archive import Archive, Count, Notice
from gateway.audit import audit
from gateway.cli import build
from gateway.errors import ConfigError, Failure
from gateway.inspection.findings import FileFacts
from gateway.message import VIETNAM
from gateway.search import Query
from gateway.store import Store
from tests.cases import SETTINGS, case, close, mail, open_archive
from tests.test_postgresql import server

__all__ = ["server"]

VERIFIER = Path(__file__).resolve().parent.parent / "verifier" / "congvan_verify.py"
OLD = dt.datetime(2001, 5, 1, 9, tzinfo=VIETNAM)
#: Stands in body, file and subject of the message that is destroyed, and nowhere else.
TRACES = ("khongdauvet", "tepbimat", "tieudela")


def word(n: int) -> str:
    return ("mot", "hai", "ba", "bon", "nam")[n]


def letter(n: int) -> bytes:
    return mail(n) + f"{TRACES[0]} noi dung {word(n)}\r\n".encode()


def write_config(folder: Path) -> Path:
    (folder / "gateway.yaml").write_text(
        "hostname: mail.tinh.gov.vn\ndata: data\nlisteners: [{kind: relay, port: 0}]\n"
        "next_hops: [{name: hop, host: 127.0.0.1}]\nstore: {compress: false}\n"
    )
    (folder / "retention.yaml").write_text(
        "classes:\n- {id: muoi-nam, name: Mười năm, years: 10, basis: Bảng thời hạn, kinds: [CT]}\n"
    )
    return folder


@pytest.fixture
def config(tmp_path) -> Path:
    """Five old letters and one of now; of the second of them there is a notice, the fifth has the bytes of a sixth."""
    folder = write_config(tmp_path)

    async def fill() -> None:
        archive = open_archive(folder / "data")
        for n in range(5):
            file = FileFacts(name="a.pdf", path=f"{TRACES[1]}-{n}.pdf", sha256=f"{n:02}" * 32, size=9, type="pdf")
            notice = Notice("notice", f"Subject: {TRACES[2]}\r\n\r\n".encode(), (("a@b.vn", "hop"),), "", "n")
            one = case(
                letter(n), number=n, subject=f"{TRACES[2]} {word(n)}", texts={"": f"{TRACES[0]} nội dung {word(n)}"},
                at=OLD, state="seen", files=(file,), code=f"{n + 1}/CT-UBND",
            )  # fmt: skip
            if n == 1:
                one = dataclasses_replace(one, notices=(dataclasses_replace(notice, about=one.received.case),))
            await archive.commit(one)
        await archive.commit(case(number=9, subject="mới", state="seen", code="9/CT-UBND"))
        await close(archive)

    asyncio.run(fill())
    return folder


def dataclasses_replace(value, **changes):
    from dataclasses import replace

    return replace(value, **changes)


@functools.cache
def program(noun: str):
    """The commands of a noun, put together once and not for each of a hundred calls."""
    return get_command(build(noun))


def congvan(*words: object, login: str = "luu.tru"):
    arguments = [str(one) for one in words]
    with patch("typer.testing._get_command", lambda _: program(arguments[0])):
        return CliRunner().invoke(None, arguments, env={"SUDO_USER": login})


def lines(result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def found(config, *words) -> list[dict]:
    return lines(congvan("archive", "search", *words, "--json", "--config", config))


def the_case(config, n: int) -> str:
    (one,) = found(config, "--number", f"{n + 1}/CT-UBND")
    return one["case"]


def leaves(config, kind: str) -> list[dict]:
    async def read():
        database = db.Database.open(db.sqlite_url(config / "data" / "gateway.db"))
        rows = await database.read(
            lambda c: c.execute(db.leaf.select().where(db.leaf.c.type == kind).order_by(db.leaf.c.idx)).all()
        )
        database.close()
        return [json.loads(row.entry) for row in rows]

    return asyncio.run(read())


def holders(folder: Path, words: tuple[str, ...]) -> list[str]:
    """Files that hold one of the words, as it is, in base64, or without accents."""
    wanted = [one.encode() for one in words] + [base64.b64encode(one.encode())[:8] for one in words]
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(one in path.read_bytes() for one in wanted)
    ]


# ---------------------------------------------------------------------- who read what


def test_each_command_that_shows_content_is_one_leaf(config, tmp_path):
    case_id = the_case(config, 0)
    eml, bag = tmp_path / "x.eml", tmp_path / "bag"
    (tmp_path / "f.pdf").write_bytes(b"%PDF-1.4 nothing")
    for act, words, code in (
        ("search", ["search", "noi dung"], 0),
        ("search", ["search", "khongcogi"], 1),
        ("show", ["show", case_id], 0),
        ("export", ["export", case_id, "-o", eml], 0),
        ("export", ["export", case_id, the_case(config, 1), "-o", bag, "--format", "bagit"], 0),
        ("compare", ["compare", tmp_path / "f.pdf"], 1),
        ("prove", ["prove", case_id, "-o", tmp_path / "proof"], 0),
    ):
        before = len(leaves(config, "access"))
        named = () if act == "prove" else ("--reason", "thanh tra", "--who", "Văn thư")
        done = congvan("archive", *words, *named, "--config", config)
        assert done.exit_code == code, (words, done.output)
        after = leaves(config, "access")
        assert len(after) == before + 1, words
        assert (after[-1]["act"], after[-1]["login"]) == (act, "luu.tru")
        if named:
            assert (after[-1]["who"], after[-1]["reason"]) == ("Văn thư", "thanh tra")
    told = lines(congvan("archive", "access", case_id, "--json", "--config", config))
    assert {one["act"] for one in told} == {"search", "show", "export", "prove"}
    assert congvan("archive", "show", "NONE", "--config", config).exit_code == 1
    assert lines(congvan("archive", "verify", "--json", "--config", config))[-1]["ok"]


def test_the_leaf_is_there_when_the_reader_is_killed_on_the_way(config, tmp_path):
    """The bytes go into a pipe that nobody empties, and the program is killed while it waits."""
    case_id = the_case(config, 0)
    data = config / "data"

    async def enlarge() -> str:
        archive = open_archive(data)
        big = case(mail(77, 1 << 20), number=77, state="seen")
        await archive.commit(big)
        await close(archive)
        return big.received.case

    big = asyncio.run(enlarge())
    before = len(leaves(config, "access"))
    for wanted in (case_id, big):
        read, write = os.pipe()
        words = ["archive", "export", wanted, "-o", "-", "--config", str(config)]
        process = subprocess.Popen([sys.executable, "-m", "gateway.cli", *words], stdout=write)
        os.close(write)
        assert os.read(read, 10)  # the first bytes are out
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(read)
    assert [one["case"] for one in leaves(config, "access")[before:]] == [case_id, big]


# ---------------------------------------------------------------------- retention and holds


def test_retention_classes(config):
    table = {one["class"]: one for one in lines(congvan("archive", "retention", "--json", "--config", config))}
    assert (table["muoi-nam"]["messages"], table["muoi-nam"]["due"], table["keep"]["messages"]) == (6, 5, 0)
    one = custody.RetentionClass(id="x", years=2, basis="b")
    day = int(dt.datetime(2001, 12, 31, 23, 30, tzinfo=VIETNAM).timestamp() * 1000)
    assert one.until(day) == dt.date(2004, 1, 1) and custody.KEEP.until(day) is None
    assert one.fits({"agency": "", "document_kind": "", "message_class": "", "direction": ""})
    (config / "retention.yaml").write_text("classes: [{id: x, years: 0, basis: y}, {id: x, basis: y}]\n")
    with pytest.raises(ConfigError) as caught:
        custody.read_retention(config)
    assert "retention.yaml:1" in str(caught.value)


def test_what_may_not_go(config):
    def propose(*words):
        return congvan("archive", "destroy", "propose", *words, "--json", "--config", config)

    mine = [the_case(config, n) for n in range(5)]
    (new,) = found(config, "--number", "9/CT-UBND")
    assert propose("--case", mine[0]).exit_code == 2, "a reason is needed"
    assert propose("--reason", "x").exit_code == 2, "so are messages"
    (told,) = lines(propose("--case", mine[0], "--case", new["case"], "--reason", "hết hạn"))
    assert told["proposal"] == "" and "until 2037-01-01" in told["refused"][new["case"]]
    assert congvan("archive", "hold", "add", "noi", "--reason", "thanh tra", "--name", "thanh-tra-2026", "--number",
                   "1/CT-UBND", "--config", config).exit_code == 0  # fmt: skip
    again = congvan("archive", "hold", "add", "--reason", "x", "--name", "thanh-tra-2026", "noi", "--config", config)
    assert again.exit_code == 1 and "already" in again.output
    congvan("archive", "recall", mine[1], "--reason", "thông báo giấy", "--config", config)
    (told,) = lines(propose("--reason", "hết hạn", "noi", "dung"))
    assert sorted(told["cases"]) == sorted(mine[2:])
    assert "thanh-tra-2026" in told["refused"][mine[0]] and "recalled" in told["refused"][mine[1]]
    assert "another proposal" in propose("--case", mine[2], "--reason", "x").output
    # laid after the proposal, it still holds
    congvan("archive", "hold", "add", "--name", "sau", "--reason", "x", "--number", "4/CT-UBND", "--config", config)
    confirmed = congvan("archive", "destroy", "confirm", told["proposal"], "--reason", "y", "--config", config,
                        login="lanh.dao")  # fmt: skip
    assert confirmed.exit_code == 1 and "sau" in confirmed.output
    assert found(config, "--number", "4/CT-UBND")[0]["state"] == ""
    assert congvan("archive", "hold", "release", "sau", "--reason", "xong", "--config", config).exit_code == 0
    assert congvan("archive", "hold", "release", "sau", "--reason", "xong", "--config", config).exit_code == 1
    (_, released) = lines(congvan("archive", "hold", "list", "--json", "--config", config))
    assert (released["released_by"], released["release_reason"], released["count"]) == ("luu.tru", "xong", 1)
    assert [one["act"] for one in leaves(config, "hold")] == ["lay", "lay", "release"]
    show = lines(congvan("archive", "show", mine[0], "--json", "--config", config))[0]
    assert show["holds"] == ["thanh-tra-2026"]


def test_two_people_destroy_and_nothing_is_left(config):
    data = config / "data"
    mine = [the_case(config, n) for n in range(5)]
    assert holders(data, TRACES)
    (told,) = lines(congvan("archive", "destroy", "propose", "noi", "dung", "--reason", "hết thời hạn", "--json",
                            "--config", config))  # fmt: skip
    name = told["proposal"]
    assert sorted(told["cases"]) == sorted(mine)

    def confirm(login: str, *more: str):
        return congvan(
            "archive", "destroy", "confirm", name, "--reason", "đồng ý", *more, "--config", config, login=login
        )

    assert confirm("luu.tru").exit_code == 1 and confirm("luu.tru", "--who", "Khác").exit_code == 1
    assert confirm("khac", "--who", "LUU.TRU").exit_code == 1
    (before,) = lines(congvan("archive", "checkpoint", "--json", "--config", config))
    done = confirm("lanh.dao", "--who", "Chánh Văn phòng")
    assert done.exit_code == 0, done.output
    assert confirm("lanh.dao").exit_code == 1, "once is enough"
    assert found(config, "noi dung") == []
    # names of files stand in the leaves of their messages, which stay; all else is gone
    rest = [name for name in holders(data, (TRACES[0], TRACES[2]))]
    assert rest == []
    assert all("log/" in name or name.startswith("gateway.db") for name in holders(data, (TRACES[1],)))
    (row,) = found(config, "--number", "2/CT-UBND")
    assert (row["state"], row["subject"], row["document_code"]) == ("destroyed", "", "2/CT-UBND")
    shown = congvan("archive", "show", mine[1], "--json", "--config", config)
    (one,) = lines(shown)
    assert shown.exit_code == 0 and (one["bytes"], one["destroyed"]["disposal"]) == ("destroyed", name)
    assert congvan("archive", "export", mine[1], "-o", config / "x.eml", "--config", config).exit_code == 1
    known = config / "known.note"
    known.write_text(before["note"])
    stranger = subprocess.run(
        [sys.executable, VERIFIER, "audit", "--key", data / "keys" / "log.vkey", "--known", known, data],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert stranger.returncode == 0, stranger.stdout + stranger.stderr
    verified = congvan("archive", "verify", "--known", known, "--json", "--config", config)
    summary = lines(verified)[-1]
    assert verified.exit_code == 0 and summary["destroyed"] == 6 and summary["ok"], verified.stdout
    entries = leaves(config, "dispose")
    assert len(entries) == 6 and all("sha256" in entry for entry in entries)
    assert entries[0]["proposed"]["who"] == "luu.tru" and entries[0]["confirmed"]["who"] == "Chánh Văn phòng"
    assert entries[0]["class"] == "muoi-nam: Bảng thời hạn"
    assert [one["act"] for one in leaves(config, "disposal")] == ["propose", "confirm", "done"]
    # and an index made anew knows as much
    assert congvan("archive", "index", "--rebuild", "--config", config).exit_code == 0
    assert found(config, "noi dung") == [] and len(found(config, "--kind", "CT")) == 6


def test_bytes_that_another_message_has_stay(config):
    async def share() -> str:
        archive = open_archive(config / "data")
        other = case(letter(0), number=0, to=("khac@xa.gov.vn",), direction="in", code="77/QĐ-X", state="seen")
        await archive.commit(other)
        await close(archive)
        return other.received.case

    kept = asyncio.run(share())
    mine = the_case(config, 0)
    (told,) = lines(congvan("archive", "destroy", "propose", "--case", mine, "--reason", "x", "--json", "--config",
                            config))  # fmt: skip
    confirm = ["archive", "destroy", "confirm", told["proposal"], "--reason", "y", "--config", config]
    assert congvan(*confirm, login="khac").exit_code == 0
    assert leaves(config, "dispose")[0]["shared"] == kept
    assert congvan("archive", "export", kept, "-o", config / "x.eml", "--config", config).exit_code == 0
    assert (config / "x.eml").read_bytes() == letter(0)
    assert lines(congvan("archive", "verify", "--json", "--config", config))[-1]["ok"]


def test_a_withdrawn_proposal_does_nothing_and_an_interrupted_one_goes_on(config, monkeypatch):
    mine = [the_case(config, n) for n in range(5)]

    def propose(*cases: str) -> str:
        named = [word for one in cases for word in ("--case", one)]
        done = congvan("archive", "destroy", "propose", *named, "--reason", "x", "--json", "--config", config)
        return lines(done)[0]["proposal"]

    first = propose(mine[0])
    assert congvan("archive", "destroy", "withdraw", first, "--reason", "nhầm", "--config", config).exit_code == 0
    confirm = ["--reason", "y", "--config", config]
    assert congvan("archive", "destroy", "confirm", first, *confirm, login="khac").exit_code == 1
    second = propose(*mine)
    monkeypatch.setattr(custody, "_STEP", 2)
    with monkeypatch.context() as patch:
        real, calls = custody._empty, []

        def stop(connection, proposal, cases):
            calls.append(cases)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(connection, proposal, cases)

        patch.setattr(custody, "_empty", stop)
        congvan("archive", "destroy", "confirm", second, *confirm, login="khac")
    states = {one["case"]: one["state"] for one in found(config, "--kind", "CT")}
    assert sorted(states.values()).count("destroyed") < 5
    assert congvan("archive", "destroy", "confirm", second, *confirm, login="khac").exit_code == 0
    assert [one["state"] for one in found(config, "--until", "2002-01-01")] == ["destroyed"] * 5
    assert holders(config / "data", (TRACES[0], TRACES[2])) == []
    assert lines(congvan("archive", "verify", "--json", "--config", config))[-1]["ok"]


# ---------------------------------------------------------------------- recall


def test_a_recall_shows_everywhere(config, tmp_path):
    mine = the_case(config, 2)

    async def recalled_by_mail() -> str:
        archive = open_archive(config / "data")
        notice = case(number=50, code="60/TB-UBND", state="seen")
        counts = (Count(f"recall|3/CT-UBND|{notice.received.case}", "recalled", "so-tttt", "out", value="3/CT-UBND"),)
        await archive.commit(dataclasses_replace(notice, counts=counts))
        await close(archive)
        return notice.received.case

    by = asyncio.run(recalled_by_mail())
    assert found(config, "--number", "3/CT-UBND")[0]["state"] == "recalled"
    assert "ĐÃ THU HỒI" in congvan("archive", "search", "--number", "3/CT-UBND", "--config", config).stdout
    told = congvan("archive", "show", mine, "--config", config).stdout
    assert "ĐÃ THU HỒI" in told and by in told
    (tmp_path / "x").write_bytes(letter(2))
    (answer,) = lines(congvan("archive", "compare", tmp_path / "x", "--json", "--config", config))
    assert answer["result"] == "same" and answer["matches"][0]["recalled"]["by"] == by
    assert "thu hồi" in congvan("archive", "export", mine, "-o", tmp_path / "y", "--config", config).output

    other = the_case(config, 3)
    words = ["archive", "recall", other, "--reason", "thông báo giấy", "--config", config]
    assert congvan(*words).exit_code == 0 and congvan(*words).exit_code == 1
    assert found(config, "--number", "4/CT-UBND")[0]["state"] == "recalled"
    assert congvan(*words, "--undo").exit_code == 0 and congvan(*words, "--undo").exit_code == 1
    assert found(config, "--number", "4/CT-UBND")[0]["state"] == ""
    assert congvan("archive", "recall", "NONE", "--reason", "x", "--config", config).exit_code == 1


# ---------------------------------------------------------------------- PostgreSQL


def test_the_same_in_postgresql(server, tmp_path):
    url, _ = server
    write_config(tmp_path)
    retention = custody.read_retention(tmp_path)

    async def work():
        archive = Archive(db.Database.open(url), Store(tmp_path / "blobs"), SETTINGS)
        made = [
            case(
                letter(n),
                number=n,
                at=OLD,
                state="seen",
                code=f"{n + 1}/CT-X",
                subject=TRACES[2],
                texts={"": TRACES[0]},
            )
            for n in range(3)
        ]
        for one in made:
            await archive.commit(one)
        one, two = custody.Person("a", "Một"), custody.Person("b", "Hai")
        await custody.lay_hold(archive, "h", Query(number="3/CT-X"), one, "x")
        proposal = await custody.propose(archive, retention, one, "hết hạn", query=Query(text=TRACES[0]))
        assert len(proposal.cases) == 2 and len(proposal.refused) == 1
        with pytest.raises(Failure):
            await custody.confirm(archive, retention, proposal.id, one, "y")
        assert await custody.confirm(archive, retention, proposal.id, two, "y") == 2
        assert (await archive.search(Query(text=TRACES[0]))).total == 1
        page = await archive.search(Query(number="1/CT-X"))
        assert page.total == 1 and page.rows[0]["subject"] == "" and page.lag == 0
        assert "destroyed" in (await custody.states(archive, [page.rows[0]["id"]]))[page.rows[0]["id"]]
        assert not archive.store.exists(page.rows[0]["sha256"])
        await archive.checkpoint()
        report = await asyncio.to_thread(audit, archive)
        assert report.damage == [] and report.destroyed == 2
        await close(archive)

    asyncio.run(work())
