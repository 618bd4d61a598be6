"""Old mail from files: every form is found, nothing of it stops the rest, and it is never taken for what was seen."""

from __future__ import annotations

import io
import json
import mailbox
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway import mailfiles
from tests import harness
from tests.test_gateway import PROVINCE, SECRETS, letter, query, relay

LINES = st.lists(
    st.sampled_from(
        [
            b"",
            b"From here on",
            b"From a@b Mon Nov  2 08:00:00 2026",
            b">From x",
            b">>From y",
            b"Subject: no",
            b"x",
            b"From",
        ]
    ),
    max_size=12,
)


def quoted(data: bytes) -> bytes:
    """As mboxrd writes it."""
    return b"".join(
        b">" + line if line.lstrip(b">").startswith(b"From ") else line for line in data.splitlines(keepends=True)
    )


@given(st.lists(LINES, max_size=4))
def test_an_mbox_gives_back_what_was_put_in(bodies):
    messages = [b"Subject: %d\n\n" % n + b"".join(line + b"\n" for line in body) for n, body in enumerate(bodies)]
    whole = b"".join(b"From a@b Mon Nov  2 08:00:00 2026\n" + quoted(one) + b"\n" for one in messages)
    assert list(mailfiles.split(io.BytesIO(whole))) == messages
    crlf = [one.replace(b"\n", b"\r\n") for one in messages]
    assert list(mailfiles.split(io.BytesIO(whole.replace(b"\n", b"\r\n")))) == crlf


def test_lines_that_only_look_like_a_separator_split_nothing():
    inside = b"Subject: a\n\nKinh gui\n\nFrom Ha Noi, 2 November 2026\nwe write\n\nFrom now on\n\nHet\n"
    whole = b"From - Mon Nov  2 08:00:00 2026\n" + inside + b"\nFrom a@b 2026\nSubject: b\n\nx"
    assert list(mailfiles.split(io.BytesIO(whole))) == [inside, b"Subject: b\n\nx"]


def test_what_is_mail_and_what_is_not(tmp_path):
    (tmp_path / "a.eml").write_bytes(b"\xff\x00 nothing of a header")
    (tmp_path / "b.txt").write_bytes(b"Received: x\n\ny")
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "Inbox.msf").write_bytes(b"// <!-- <mdb:mork:z -->")
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "Inbox").write_bytes(b"From - Mon Nov  2 08:00:00 2026\nSubject: x\n\ny\n\n")
    (tmp_path / "f.eml").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path)
    for name in ("cur", "new", "tmp", ".Sub/cur", ".Sub/new"):
        (tmp_path / "M" / name).mkdir(parents=True)
        (tmp_path / "M" / name / "1.x:2,S").write_bytes(b"Subject: " + name.encode())
    found = [(one.source.removeprefix(f"{tmp_path}/"), one.form, one.problem) for one in mailfiles.find(tmp_path)]
    assert found == [
        ("M/.Sub/cur/1.x:2,S", "maildir", ""),
        ("M/.Sub/new/1.x:2,S", "maildir", ""),
        ("M/cur/1.x:2,S", "maildir", ""),
        ("M/new/1.x:2,S", "maildir", ""),
        ("a.eml", "eml", ""),
        ("b.txt", "eml", ""),
        ("c.png", "", "not a message, mbox or Maildir"),
        ("d/e/Inbox#1", "mbox", ""),
        ("f.eml", "", "no file"),
    ]


def old_mail(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.eml").write_bytes(letter("Công văn cũ", "Nội dung về đê điều").replace(b"\r\n", b"\n"))
    (folder / "mat.eml").write_bytes(SECRETS["body"])
    (folder / "hong.eml").write_bytes(b"\x00\xff nothing of a header\n\n\nFrom x")
    (folder / "anh.png").write_bytes(b"\x89PNG\r\n\x1a\n123")
    box = mailbox.mbox(folder / "Inbox")
    for number in range(3):
        box.add(mailbox.mboxMessage(letter(f"Trong hộp {number}")))
    box.flush()
    files = mailbox.Maildir(folder / "Maildir")
    files.add(letter("Trong thư mục"))
    files.add_folder("Luu.2019").add(letter("Trong thư mục con"))


def imported(gateway: harness.Gateway, *paths: Path, code: int = 0) -> tuple[list[dict], dict]:
    told = gateway.command("archive", "import", *map(str, paths), "--json", code=code).splitlines()
    return [json.loads(line) for line in told[:-1]], json.loads(told[-1])


def test_old_mail_is_found_beside_new_and_told_from_it(gateway: harness.Gateway, sink: harness.Sink, tmp_path) -> None:
    old = tmp_path / "old"
    old_mail(old)
    seen = letter("Đã đến qua SMTP")
    assert relay(gateway, seen).startswith("250")
    sink.wait(1)
    (old / "known.eml").write_bytes(seen.replace(b"\r\n", b"\n"))
    figures = gateway.command("stats", "--month", query(gateway, "select max(month) from event")[0][0], "--json")

    rows, whole = imported(gateway, old)
    assert whole == {"ok": True, "imported": 7, "known": 1, "secret": 1, "undecided": 0, "skipped": 1, "failed": 0}
    cases = {Path(row["source"]).name: row["case"] for row in rows}
    again, whole = imported(gateway, old)
    assert (whole["imported"], whole["known"], whole["secret"]) == (0, 8, 1)
    assert {Path(row["source"]).name: row["case"] for row in again} == cases
    assert query(gateway, "select count(*) from tombstone") == [(1,)]

    # found by what stands in it, exactly the bytes of the file, marked as imported wherever it is shown
    hit = json.loads(gateway.command("archive", "search", "đê điều", "--json").splitlines()[0])
    assert (hit["case"], hit["kind"]) == (cases["a.eml"], "imported")
    assert "imported" in gateway.command("archive", "search", "đê điều")
    assert json.loads(gateway.command("archive", "show", hit["case"], "--json"))["kind"] == "imported"
    gateway.command("archive", "export", hit["case"], "-o", str(tmp_path / "out.eml"))
    assert (tmp_path / "out.eml").read_bytes() == (old / "a.eml").read_bytes()
    (entry,) = query(gateway, f"select entry from leaf where type = 'message' and case_id = '{hit['case']}'")
    told = json.loads(entry[0])
    assert (told["kind"], told["channel"]) == ("imported", "import")
    assert told["times"]["date_field"].startswith("2026-11-02T08:00:00") and told["received"] > "2026-11-02"
    assert json.loads(gateway.command("archive", "verify", "--json").splitlines()[-1])["imported"] == 7
    assert query(gateway, "select count(*) from event where kind = 'imported'") == [(7,)]

    # no figure counts it, nobody gets it
    month = query(gateway, "select max(month) from event")[0][0]
    assert gateway.command("stats", "--month", month, "--json") == figures
    assert len(sink.messages) == 1

    # and what was only imported is taken and delivered when it really comes
    assert relay(gateway, letter("Trong hộp 1")).startswith("250")
    assert sink.wait(2)[1][1] == [PROVINCE]
    assert query(gateway, "select count(*) from message where kind = 'mail'") == [(2,)]
    rows, whole = imported(gateway, old / "anh.png", tmp_path / "none", old / "hong.eml", code=1)
    assert [row["result"] for row in rows] == ["failed", "failed", "known"] and whole["failed"] == 2
    gateway.command("archive", "verify")
