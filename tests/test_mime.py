"""Reading mail: structure, letters, names, addresses, and everything that two programs could read differently."""

from __future__ import annotations

import base64
import runpy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import mime
from tests.harness import out_of_proportion

CRAFTED = runpy.run_path(str(Path(__file__).parent / "data" / "mime" / "crafted.py"))
PDF = b"%PDF-1.4 " + bytes(range(256)) * 3


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def reasons(message: mime.Message) -> set[str]:
    return {found.value for found in message.findings if found.kind == "ambiguous"}


def kinds(message: mime.Message) -> set[tuple[str, str]]:
    return {(found.kind, found.value) for found in message.findings}


def with_file(disposition: str, content_type: str = "application/pdf", encoding: str = "base64") -> bytes:
    body = base64.encodebytes(PDF).decode()
    return crlf(
        f"From: a@x.gov.vn\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b1\n\n--b1\n\ntext\n--b1\n"
        f"Content-Type: {content_type}\nContent-Disposition: {disposition}\nContent-Transfer-Encoding: {encoding}\n\n"
        f"{body}--b1--\n"
    )


# --- structure


def test_a_mail_with_a_pdf() -> None:
    message = mime.parse(with_file('attachment; filename="bao-cao.pdf"'))
    assert message.findings == ()
    assert [part.path for part in message.parts] == ["", "1", "2"]
    (file,) = message.attachments
    assert (file.filename, file.content_type, file.disposition) == ("bao-cao.pdf", "application/pdf", "attachment")
    assert file.decode(message.raw) == PDF
    (body,) = message.body_parts
    assert body.text(message.raw) == "text"


def test_the_same_structure_with_lf_line_ends() -> None:
    message = mime.parse(with_file('attachment; filename="a.pdf"').replace(b"\r\n", b"\n"))
    assert message.findings == ()
    assert message.attachments[0].decode(message.raw) == PDF


def test_nested_multiparts_have_paths_as_imap_counts_them() -> None:
    message = mime.parse(
        crlf(
            "From: a@x.vn\nContent-Type: multipart/mixed; boundary=out\n\n--out\n"
            "Content-Type: multipart/alternative; boundary=in\n\n--in\nContent-Type: text/plain\n\np\n--in\n"
            "Content-Type: text/html\n\n<p>h</p>\n--in--\n\n--out\nContent-Type: message/rfc822\n\n"
            "Subject: inner\n\ninner body\n--out--\n"
        )
    )
    assert [(part.path, part.content_type) for part in message.parts] == [
        ("", "multipart/mixed"),
        ("1", "multipart/alternative"),
        ("1.1", "text/plain"),
        ("1.2", "text/html"),
        ("2", "message/rfc822"),
    ]
    assert message.findings == ()
    assert [part.path for part in message.attachments] == ["2"]
    assert message.facts().body_text == "p"


@pytest.mark.parametrize("case", CRAFTED["CASES"], ids=lambda case: case.name)
def test_crafted_mails(case) -> None:
    """Each hostile mail: its file is found, or we say that the mail cannot be read in one way."""
    why, found = CRAFTED["judge"](mime.parse, case.raw)
    assert bool(why) == case.held, why
    assert why or found == case.file


def test_ordinary_mails_are_not_held() -> None:
    for name, raw in CRAFTED["ordinary"]().items():
        why, _ = CRAFTED["judge"](mime.parse, raw)
        assert why == set(), name


# --- totality

SOME = st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b"--b", b"--b--", b"Content-Type: multipart/mixed; boundary=b\r\n", b"From: ",
         b'"', b"(", b"<", b"@", b";", b"=", b"=?utf-8?b?", b"?=", b"Content-Transfer-Encoding: base64\r\n",
         b"filename*0*=", b"\0", b"\xff", b"\xe1\xba\xad", b"YWJj", b"Content-Disposition: attachment; filename=",
         b"begin 644 a\r\n", b"Content-Type: message/rfc822\r\n", b"Received: x;", b"DTSTART:", b"<!--",
         b"<a href='", b"&#x"]
    ) | st.binary(max_size=12),
    max_size=60,
).map(b"".join)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(SOME)
def test_any_bytes_give_a_message(raw: bytes) -> None:
    message = mime.parse(raw)
    facts = message.facts()
    assert facts.header_bytes <= len(raw)
    for part in message.parts:
        assert 0 <= part.header_start <= part.start <= part.end <= len(raw)
        assert isinstance(part.decode(raw), bytes)
    assert mime.parse(raw).findings == tuple(dict.fromkeys(mime.parse(raw).findings))
    assert mime.hops(raw) == facts.hops


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_as_html_address_date_and_name(text: str) -> None:
    assert isinstance(mime.html_text(text), str)
    assert isinstance(mime.parse_date(text), str)
    mime.mailboxes(text)
    box = mime.single_mailbox(text)
    assert box is None or "@" in box.address
    name, values = mime.clean_filename(text)
    assert not set(name) & set("/\\\0\r\n") and isinstance(values, tuple)


@given(st.binary(max_size=400), st.sampled_from(["\r\n", "\n"]))
def test_base64_comes_back_as_it_went_in(data: bytes, end: str) -> None:
    body = base64.encodebytes(data).replace(b"\n", end.encode())
    raw = f"Content-Type: image/png{end}Content-Transfer-Encoding: base64{end}{end}".encode() + body
    message = mime.parse(raw)
    assert message.parts[0].decode(raw) == data
    assert reasons(message) == set()


# --- letters


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("=?utf-8?B?VsSDbiB0aMawIFPhu58=?=", "Văn thư Sở"),
        ("=?UTF-8?Q?V=E1=BB=81_vi=E1=BB=87c?=", "Về việc"),
        ("=?utf-8?q?V=E1=BB?= =?utf-8?q?=81?=", "Về"),  # cut inside a letter
        ("=?utf-8?B?VsSD?=\t=?utf-8?B?bg==?=", "Văn"),
        ("=?utf-8?B?VsSD?= and =?utf-8?B?bg==?=", "Vă and n"),
        ("=?utf-8*vi?Q?a b?=", "a b"),
        ("=?iso-8859-1?Q?=E0?= =?utf-8?Q?=C3=A0?=", "àà"),
        ("=?utf-8?B?VsSDbg?=", "Văn"),  # without padding
        ("=?nonsense?Q?=E1=BA=ADt?=", "ật"),
        ("V\u00c3\u00b4".encode("latin-1").decode("latin-1"), "Vô"),  # raw UTF-8 bytes
        ("plain =? not a word ?=", "plain =? not a word ?="),
    ],
)
def test_encoded_words(value: str, text: str) -> None:
    assert mime.decode_words(value)[0] == text


@pytest.mark.parametrize(
    ("data", "charset", "text", "note"),
    [
        ("Tối mật".encode(), "", "Tối mật", ""),
        ("Tối mật".encode(), "us-ascii", "Tối mật", ""),
        ("Tối mật".encode(), "utf-8", "Tối mật", ""),
        (b"V\xf4 v\xe2n", "iso-8859-1", "Vô vân", ""),
        ("Quyê\u0301t đi\u0323nh".encode("cp1258"), "", "Quyết định", "undeclared"),
        (b"Quy\xd5t \xae\xdenh", "", "Quy\u00d5t \u00ae\u00denh", "undeclared"),  # TCVN3: kept byte for byte
        (b"t\xe8i m\xcbt", "", "t\u00e8i m\u00cbt", "undeclared"),
        (b"\xa7\xe9 m\xcbt", "x-viet-tcvn", "\u00a7\u00e9 m\u00cbt", "tcvn3"),
        (b"M\xa7t", "viscii", "M\u00a7t", "viscii"),
        (b"abc", "unicode_escape", "abc", ""),
        (b"\\u0041\xff", "unicode_escape", "\\u0041ÿ", "undeclared"),
        (b"+HqM-", "utf-7", "ả", ""),
    ],
)
def test_charsets(data: bytes, charset: str, text: str, note: str) -> None:
    import unicodedata

    got, value = mime.decode_text(data, charset)
    assert unicodedata.normalize("NFC", got) == text
    assert value == note


def test_quoted_printable() -> None:
    raw = crlf("Content-Transfer-Encoding: quoted-printable\nContent-Type: text/plain; charset=utf-8\n\n"
               "T=E1=BB=91i=  \n m=E1=BA=ADt  \nend=\n")  # fmt: skip
    assert mime.parse(raw).parts[0].text(raw) == "Tối mật\r\nend"


def test_html_becomes_what_a_reader_shows() -> None:
    source = (
        "<html><head><style>p{color:red}</style></head><body><!-- note --><p>T\u1ed1i <b>m</b>\u1eadt&nbsp;&amp;"
        "</p><table><tr><td>a<td>b</table><img alt='MẬT'><script>x()</script>a<br>b <p title='>'>c</p>"
    )
    text = mime.html_text(source)
    assert "Tối mật" in text and "MẬT" in text and "a\nb" in text and "a\tb" in text.replace("\ta\tb", "a\tb")
    assert "color" not in text and "x()" not in text and "note" not in text


@pytest.mark.parametrize("piece", ["<", "<!--", "<a ", "<a b='", "</", "&", "<script>", "<td>", '<p x="'])
def test_hostile_html_takes_linear_time(piece: str) -> None:
    whole, quarter = (piece * (size // len(piece)) for size in (600_000, 150_000))
    assert not out_of_proportion(lambda: mime.html_text(whole), lambda: mime.html_text(quarter))


# --- dates and the rest of the facts


def test_facts() -> None:
    raw = crlf(
        "Received: from b by c; Tue, 02 Jun 2026 08:00:05 +0700\n"
        "Received: from a by b; Tue, 02 Jun 2026 08:00:00 +0700\n"
        "From: =?utf-8?B?VsSDbiB0aMawIFPhu58=?= <Van.Thu@Sotttt.BinhDuong.gov.vn>\n"
        'Reply-To: x@gmail.com\nTo: a@b.vn,\n "S, B" <b@c.vn>\nCc: group:c@d.vn, d@e.vn;\n'
        "Subject: =?utf-8?Q?Gi=E1=BA=A5y_m=E1=BB=9Di?=\nDate: Tue, 2 Jun 2026 08:00:00 +0700 (ICT)\n"
        "Message-ID: <1@x>\nIn-Reply-To: <0@x>\nReferences: <a@x>\n <b@x>\nAuto-Submitted: auto-replied (x); y\n"
        "Precedence: Bulk\nList-Id: L <l.x>\nContent-Type: text/plain; charset=UTF-8\n\nXin chào\n"
    )
    facts = mime.parse(raw).facts()
    assert facts.subject == "Giấy mời"
    assert facts.from_[0].name == "Văn thư Sở" and facts.from_[0].address == "van.thu@sotttt.binhduong.gov.vn"
    assert [box.address for box in facts.to + facts.cc] == ["a@b.vn", "b@c.vn", "c@d.vn", "d@e.vn"]
    assert facts.reply_to[0].address == "x@gmail.com"
    assert facts.date == "2026-06-02T08:00:00+07:00" == facts.first_received_at
    assert facts.hops == 2 and facts.references == ("<a@x>", "<b@x>")
    assert facts.precedence == "bulk" and facts.list_id == "L <l.x>" and facts.charsets == ("utf-8",)
    assert facts.auto_submitted.startswith("auto-replied") and facts.body_text == "Xin chào"


@pytest.mark.parametrize(
    ("start", "when"),
    [
        ("DTSTART:20260602T010000Z", "2026-06-02T01:00:00+00:00"),
        ("DTSTART;TZID=Asia/Ho_Chi_Minh:20260602T080000", "2026-06-02T08:00:00+07:00"),
        ("DTSTART;TZID=SE Asia Standard Time:20260602T0800", "2026-06-02T08:00:00+07:00"),
        ("DTSTART;VALUE=DATE:20260602", "2026-06-02T00:00:00+07:00"),
        ("DTSTART:20261399T080000", ""),
    ],
)
def test_meetings(start: str, when: str) -> None:
    calendar = (
        f"BEGIN:VCALENDAR\r\nBEGIN:VTIMEZONE\r\nDTSTART:16010101T000000\r\nEND:VTIMEZONE\r\nBEGIN:VEVENT\r\n{start}"
    )
    assert mime.meeting_start(calendar) == when


# --- From


@pytest.mark.parametrize(("value", "address"), CRAFTED["FROM_FORMS"])
def test_from_forms(value: str, address: str | None) -> None:
    """D1: the right address, or none; never another one."""
    box = mime.single_mailbox(value)
    assert (box.address if box else None) == address


def test_an_address_in_the_display_name_is_told() -> None:
    message = mime.parse(b'From: "chu.tich@binhduong.gov.vn" <x@gmail.com>\r\n\r\n')
    assert ("display_name", "other_address") in kinds(message)
    same = mime.parse(b"From: \"'x@gmail.com'\" <x@gmail.com>\r\n\r\n")
    assert ("display_name", "other_address") not in kinds(same)


# --- file names


@pytest.mark.parametrize("trick", CRAFTED["FILENAMES"], ids=lambda trick: trick[0])
def test_file_names(trick) -> None:
    """M5."""
    _, header, name, expected = trick
    disposition, _, content_type = header.partition("|")
    raw = with_file(disposition, content_type or "application/octet-stream")
    message = mime.parse(raw)
    part = message.parts[2]
    assert part.filename == name
    values = {found.value for found in message.findings if found.kind == "filename"}
    values |= {"ambiguous"} if any(found.kind == "ambiguous" for found in message.findings) else set()
    assert values == set(expected)
