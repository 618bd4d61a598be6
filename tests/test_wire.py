"""The end-of-data reader, the body and the grammar: pure, so any split and any octets can be tried."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import wire
from gateway.errors import Reply
from gateway.message import Address, NullSender
from gateway.wire import (
    ALWAYS_MEMORY,
    BARE_LINE_END,
    LINE_TOO_LONG,
    NUL_BYTE,
    TOO_LARGE,
    BodyWriter,
    DataReader,
    Pool,
    Refused,
    parse_mail,
    parse_rcpt,
)

MB = 1 << 20


def read(blocks: list[bytes], folder: Path, *, size: int = MB, line: int = 65536, memory: int = MB) -> tuple:
    """What came of these blocks: (fault, bytes, rest)."""
    pool = Pool()
    writer = BodyWriter(folder, memory, pool)
    reader = DataReader(writer, size, line)
    for number, block in enumerate(blocks):
        if reader.feed(block):
            assert number == len(blocks) - 1 or not any(blocks[number + 1 :]), "ended early"
            break
        if writer.wants_spill:
            writer.spill()
    else:
        raise AssertionError("no end of data")
    if reader.fault:
        assert pool.used == 0, "a refused message keeps no memory"
        return reader.fault, None, reader.rest
    if writer.spilled:
        writer.spill()
    body = writer.finish()
    data = body.read()
    assert body.size == len(data) and body.sha256 == hashlib.sha256(data).hexdigest()
    assert b"".join(body.chunks(7)) == data
    body.close()
    body.close()
    assert pool.used == 0
    return None, data, reader.rest


def stuffed(message: bytes) -> bytes:
    """The message as a client sends it (RFC 5321 4.5.2)."""
    lines = message.split(b"\r\n")
    assert lines[-1] == b"", "a message ends with CRLF or is empty"
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines[:-1]) + b".\r\n"


LINES = st.lists(
    st.one_of(
        st.sampled_from([b"", b".", b"..", b"...", b".x", b"x.", b"QUIT", b" .", b"\xc3\xa0"]),
        st.binary(max_size=40).map(lambda line: bytes(octet for octet in line if octet not in b"\r\n\0")),
    ),
    max_size=12,
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(LINES, st.lists(st.integers(0, 10_000), max_size=8))
def test_any_split_gives_the_same_bytes(tmp_path_factory, lines: list[bytes], cuts: list[int]) -> None:
    message = b"".join(line + b"\r\n" for line in lines)
    assert read(pieces(stuffed(message), cuts), tmp_path_factory.getbasetemp()) == (None, message, b"")


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=8))
def test_any_octets_end_the_same_way_however_they_are_split(tmp_path_factory, data: bytes, cuts: list[int]) -> None:
    data += b"\r\n.\r\n"
    data = data[: (b"\r\n" + data).index(b"\r\n.\r\n") + 3]  # up to the first end; the CRLF of DATA counts for it
    folder = tmp_path_factory.getbasetemp()
    whole = read([data], folder, line=50)
    assert read([data[n : n + 1] for n in range(len(data))], folder, line=50) == whole
    assert read(pieces(data, cuts), folder, line=50) == whole
    fault = whole[0]
    alone = data.replace(b"\r\n", b"")
    assert (fault is not None) == (
        b"\r" in alone or b"\n" in alone or b"\0" in data or max(map(len, data.split(b"\r\n"))) > 50
    )


def test_what_follows_the_end_of_data_is_left_for_the_command_loop(tmp_path: Path) -> None:
    assert read([b"a\r\n.\r\nQUIT\r\n"], tmp_path) == (None, b"a\r\n", b"QUIT\r\n")
    assert read([b".\r\n.\r\n"], tmp_path) == (None, b"", b".\r\n")


#: The 24 forms of an end of data that some server somewhere takes for one (S1), besides CRLF.CRLF itself.
FALSE_ENDS = [
    *(a + b"." + b for a in (b"\n", b"\r", b"\r\n", b"\r\r\n", b"\n\r") for b in (b"\n", b"\r", b"\r\n", b"\r\r\n")),
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\0\r\n.\r\0\n",
    b"\r\n.\r\x85\n",
    b"\n\n.\n\n",
]
FALSE_ENDS.remove(b"\r\n.\r\n")


@pytest.mark.parametrize("end", FALSE_ENDS)
@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_a_false_end_of_data_is_refused_and_ends_nothing(end: bytes, step: int, tmp_path: Path) -> None:
    data = b"one" + end + b"MAIL FROM:<evil@evil.example>\r\nRCPT TO:<x@y>\r\nDATA\r\ntwo\r\n.\r\n"
    blocks = [data[n : n + step] for n in range(0, len(data), step)]
    if end == b"\r\r\n.\r\n" or end == b"\n\r\n.\r\n":  # these hold a true end
        with pytest.raises(AssertionError, match="ended early") if step < 1000 else contextlib.nullcontext():
            fault, _, rest = read(blocks, tmp_path)
            assert fault is BARE_LINE_END and rest.startswith(b"MAIL")
        return
    fault, _, rest = read(blocks, tmp_path)
    assert fault in (BARE_LINE_END, NUL_BYTE) and rest == b""


def test_limits_of_lines_and_size(tmp_path: Path) -> None:
    line = b"x" * 100 + b"\r\n"
    assert read([line * 5 + b".\r\n"], tmp_path, line=100)[1] == line * 5
    assert read([line, b"x" + line, b".\r\n"], tmp_path, line=100)[0] is LINE_TOO_LONG
    assert read([line * 3 + b"x" * 101 + b"\r\n" + line + b".\r\n"], tmp_path, line=100)[0] is LINE_TOO_LONG
    assert read([b"x" * 60, b"x" * 40, b"\r\n.\r\n"], tmp_path, line=100)[1] == line
    assert read([b"x" * 60, b"x" * 41, b"\r\n.\r\n"], tmp_path, line=100)[0] is LINE_TOO_LONG
    assert read([line * 10 + b".\r\n"], tmp_path, size=1020)[1] == line * 10
    assert read([line * 10 + b"\r\n.\r\n"], tmp_path, size=1021)[0] is TOO_LARGE
    # RFC 1870 section 5: neither the added dots nor the end count
    assert read([b"..\r\n" * 10 + b".\r\n"], tmp_path, size=30)[1] == b".\r\n" * 10


def test_a_refused_message_is_not_read_for_ever(tmp_path: Path) -> None:
    reader = DataReader(BodyWriter(tmp_path, MB, Pool()), 1000, 100)
    fed = 0
    while not reader.hopeless:
        assert not reader.feed(b"x" * 100)
        fed += 100
    assert reader.fault is LINE_TOO_LONG and fed < 10_000


def test_a_large_body_is_on_disk_without_a_name_and_unreadable(tmp_path: Path) -> None:
    secret = b"T\xe1\xbb\x90I M\xe1\xba\xacT " * 3000
    pool = Pool()
    writer = BodyWriter(tmp_path, 1000, pool)
    writer.write(secret)
    assert writer.wants_spill and pool.used == len(secret)
    writer.spill()
    assert pool.used == 0 and list(tmp_path.iterdir()) == []
    on_disk = os.pread(writer._handle, len(secret) + 1, 0)
    assert len(on_disk) == len(secret) and b"\xe1\xbb\x90I" not in on_disk
    body = writer.finish()
    handle, key = body._handle, body._key  # type: ignore[attr-defined]
    writer.discard()
    assert body.read() == secret
    body.close()
    assert not any(key), "the key is gone with the body"
    with pytest.raises(OSError):
        os.fstat(handle)
    with pytest.raises(OSError):
        body.read()


def test_bodies_are_spilled_early_when_many_are_in_memory(tmp_path: Path) -> None:
    pool = Pool(limit=100_000)
    first, second = BodyWriter(tmp_path, MB, pool), BodyWriter(tmp_path, MB, pool)
    first.write(b"x" * 90_000)
    assert not first.wants_spill
    second.write(b"y" * ALWAYS_MEMORY)
    assert not second.wants_spill and first.wants_spill
    body = second.finish()
    assert pool.used == 90_000 + ALWAYS_MEMORY, "a body in memory counts until it is closed"
    del body
    assert pool.used == 90_000
    first.discard()
    assert pool.used == 0


def test_single_octets_cost_no_more_than_blocks(tmp_path: Path) -> None:
    writer = BodyWriter(tmp_path, MB, Pool())
    tracemalloc.start()
    for _ in range(100_000):
        writer.write(b"x")
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 200_000
    writer.write(b"y" * 5000)
    writer.write(b"z")
    assert writer.finish().read() == b"x" * 100_000 + b"y" * 5000 + b"z"


def test_a_discarded_writer_leaves_nothing_open(tmp_path: Path) -> None:
    def ours() -> int:
        """Open files of the folder, named or not: other threads of the tests may open and close what they like."""
        found = 0
        for one in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found += str(one.readlink()).startswith(f"{tmp_path}/")
        return found

    writer = BodyWriter(tmp_path, 10, Pool())
    writer.write(b"x" * 100)
    writer.spill()
    assert ours() == 1
    writer.discard()
    writer.discard()
    assert ours() == 0


# --- grammar ---


GOOD_PATHS = {
    b"<van.thu@so.tinh.gov.vn>": ("van.thu", "so.tinh.gov.vn"),
    b"<Van.Thu@SO.Tinh.GOV.VN>": ("Van.Thu", "so.tinh.gov.vn"),
    b"<o'neil+tag=x@b.vn>": ("o'neil+tag=x", "b.vn"),
    b'<"van.thu"@b.vn>': ("van.thu", "b.vn"),
    b'<"\\v\\a\\n"@b.vn>': ("van", "b.vn"),
    b'<"a b"@b.vn>': ('"a b"', "b.vn"),
    b'<"a\\"b"@b.vn>': ('"a\\"b"', "b.vn"),
    b'<"x@evil.example"@b.vn>': ('"x@evil.example"', "b.vn"),
    b"<a@[192.0.2.1]>": ("a", "[192.0.2.1]"),
    b"<a@[IPv6:2001:DB8::1]>": ("a", "[ipv6:2001:db8::1]"),
    b"<@x.vn,@y.vn:a@b.vn>": ("a", "b.vn"),
    b"<a@so-tttt.gov.vn>": ("a", "so-tttt.gov.vn"),
    b"<a@xn--tnh-dn3b.vn>": ("a", "xn--tnh-dn3b.vn"),
    b"<a@localhost>": ("a", "localhost"),
}

BAD_PATHS = [
    b"", b"a@b.vn", b"<a@b.vn", b"a@b.vn>", b"<a>", b"<@b.vn>", b"<a@>", b"<a@b.vn>>", b"<<a@b.vn>>", b"<a b@b.vn>",
    b"<a@b vn>", b"<a@b..vn>", b"<a@.vn>", b"<a@b.vn.>", b"<.a@b.vn>", b"<a.@b.vn>", b"<a..b@b.vn>", b"<a@-b.vn>",
    b"<a@b-.vn>", b"<a@b_c.vn>", b"<a@b.vn\x0b>", b"<a@b\tc.vn>", b"<a@b\x0bRCPT>", b"<a@[1.2.3]>", b"<a@[300.1.1.1]>",
    b"<a@[IPv6:zz]>", b"<a@[tag:x]>", b"<a@b@c.vn>", b"<a,b@c.vn>", b"<a;b@c.vn>", b'<"a@b.vn>', b'<"a"b@b.vn>',
    b'<""@b.vn>', b"<x:a@b.vn>", b"<@:a@b.vn>", b"<@x.vn a@b.vn>", b"<@x_y.vn:a@b.vn>", b"<a@" + b"b" * 64 + b".vn>",
    b"<a@" + b"b." * 127 + b"vn>", b"<" + b"a" * 260 + b"@b.vn>", b"<a%00b@b.vn\x7f>", "<a\u202eb@b.vn>".encode(),
    "<a@b\u3000.vn>".encode(), "<a\u00a0b@b.vn>".encode(), b"<\xff@b.vn>", b"<a@\xc3.vn>", "<a@\u2488com>".encode(),
]  # fmt: skip


@pytest.mark.parametrize("path", GOOD_PATHS)
def test_good_paths(path: bytes) -> None:
    assert parse_mail(b"FROM:" + path).sender == Address(*GOOD_PATHS[path])
    assert parse_rcpt(b"to: " + path).address == Address(*GOOD_PATHS[path])


@pytest.mark.parametrize("path", BAD_PATHS)
def test_bad_paths(path: bytes) -> None:
    for parse in (lambda: parse_mail(b"FROM:" + path + b" SMTPUTF8"), lambda: parse_rcpt(b"TO:" + path, smtputf8=True)):
        with pytest.raises(Refused) as refused:
            parse()
        assert refused.value.reply.permanent and refused.value.reply.text.isascii()


def test_null_sender_and_postmaster() -> None:
    assert parse_mail(b"FROM:<>").sender == NullSender()
    assert parse_rcpt(b"TO:<PostMaster>").address == Address("postmaster", "")
    for bad in (b"TO:<>", b"TO:<abuse>"):
        with pytest.raises(Refused):
            parse_rcpt(bad)
    with pytest.raises(Refused):
        parse_mail(b"FROM:<postmaster>")


def test_a_bounce_sender_may_be_long_but_no_recipient() -> None:
    long = b"<" + b"a" * 100 + b"@b.vn>"
    assert str(parse_mail(b"FROM:" + long).sender) == "a" * 100 + "@b.vn"
    with pytest.raises(Refused):
        parse_rcpt(b"TO:" + long)


def test_international_addresses_need_smtputf8() -> None:
    path = "<văn.thư@tỉnh.vn>".encode()
    sender = parse_mail(b"FROM:" + path + b" SMTPUTF8").sender
    assert sender == Address("văn.thư", "tỉnh.vn")
    decomposed = "<va\u0306n.thu\u031b@ti\u0309nh.vn>".encode()
    assert parse_mail(b"FROM:" + decomposed + b" SMTPUTF8").sender == sender, "NFC, RFC 6532 3.1"
    assert parse_mail("FROM:<a@ＧＯＶ.vn> SMTPUTF8".encode()).sender == Address("a", "gov.vn")
    for parse in (lambda: parse_mail(b"FROM:" + path), lambda: parse_rcpt(b"TO:" + path)):
        with pytest.raises(Refused) as refused:
            parse()
        assert (refused.value.reply.code, refused.value.reply.enhanced) == (553, "5.6.7")
    assert wire.domain_key("TỈNH.vn") == "xn--tnh-epa.vn" or wire.domain_key("TỈNH.vn").startswith("xn--")
    assert wire.domain_key("tỉnh.vn") == wire.domain_key(wire.domain_key("TỈNH.VN"))


def test_parameters() -> None:
    mail = parse_mail(
        b"FROM:<a@b.vn> size=1000 BODY=8bitmime RET=hdrs ENVID=QQ+2B314 AUTH=<> SMTPUTF8".replace(
            b"AUTH=<>", b"AUTH=+3C+3E"
        )
    )
    assert (mail.size, mail.body, mail.ret, mail.envid, mail.smtputf8) == (1000, "8BITMIME", "HDRS", "QQ+2B314", True)
    recipient = parse_rcpt(b"TO:<a@b.vn> NOTIFY=success,FAILURE ORCPT=rfc822;Bob+2B@b.vn")
    assert (recipient.notify, recipient.orcpt) == ("SUCCESS,FAILURE", "rfc822;Bob+2B@b.vn")
    assert parse_rcpt("TO:<a@b.vn> ORCPT=utf-8;tỉnh@b.vn".encode(), smtputf8=True).orcpt == "utf-8;tỉnh@b.vn"
    assert parse_mail(b"FROM:<a@b.vn> AUTH=<>").sender


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        (b" SIZE=", 501), (b" SIZE=x", 501), (b" SIZE=-1", 501), (b" SIZE", 501), (b" SIZE=1 SIZE=2", 501),
        (b" SIZE=" + b"9" * 21, 501), (b" BODY=BINARYMIME", 501), (b" BODY", 501), (b" SMTPUTF8=1", 501),
        (b" RET=ALL", 501), (b" RET", 501), (b" ENVID=", 501), (b" ENVID=+zz", 501), (b" ENVID=a+0D+0Ab", 501),
        (b" ENVID=" + b"x" * 101, 501), (b" AUTH=", 501), (b" AUTH=a=b", 501), (b"SIZE=1", 501), (b"\tSIZE=1", 501),
        (b" HOLDFOR=5", 555), (b" X", 555), (b" NOTIFY=NEVER", 555), (b" =x", 501), (b" SIZE=1\x00", 501),
    ],
)  # fmt: skip
def test_bad_parameters_of_mail(parameters: bytes, code: int) -> None:
    with pytest.raises(Refused) as refused:
        parse_mail(b"FROM:<a@b.vn>" + parameters)
    assert refused.value.reply.code == code


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        (b" NOTIFY=", 501), (b" NOTIFY=NEVER,SUCCESS", 501), (b" NOTIFY=SUCCESS,SUCCESS", 501), (b" NOTIFY=LATER", 501),
        (b" ORCPT=rfc822", 501), (b" ORCPT=x400;a", 501), (b" ORCPT=rfc822;" + b"a" * 500, 501),
        (b" ORCPT=rfc822;a+0A", 501), (b" RET=FULL", 555), (b" SIZE=3", 555),
    ],
)  # fmt: skip
def test_bad_parameters_of_rcpt(parameters: bytes, code: int) -> None:
    with pytest.raises(Refused) as refused:
        parse_rcpt(b"TO:<a@b.vn>" + parameters)
    assert refused.value.reply.code == code


def test_parameters_need_ehlo() -> None:
    with pytest.raises(Refused):
        parse_mail(b"FROM:<a@b.vn> SIZE=1", extended=False)
    assert parse_mail(b"FROM:<a@b.vn> ", extended=False).sender == Address("a", "b.vn")


@given(st.binary(max_size=80))
@settings(max_examples=400)
def test_the_grammar_answers_anything_with_a_value_or_a_refusal(data: bytes) -> None:
    for parse in (
        lambda: parse_mail(data),
        lambda: parse_mail(b"FROM:<" + data + b">"),
        lambda: parse_mail(b"FROM:<a@b.vn> " + data),
        lambda: parse_rcpt(b"TO:<" + data + b"> SMTPUTF8", smtputf8=True),
        lambda: parse_rcpt(b"TO:<a@b.vn> " + data, smtputf8=True),
        lambda: wire.parse_attributes(data, frozenset({"NAME"})),
    ):
        with contextlib.suppress(Refused):
            parse()


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=20))
@settings(max_examples=400)
def test_an_accepted_address_reads_the_same_again(local: str, domain: str) -> None:
    try:
        sender = parse_mail(f"FROM:<{local}@{domain}> SMTPUTF8".encode()).sender
    except Refused:
        return
    again = parse_mail(f"FROM:<{sender}> SMTPUTF8".encode()).sender
    assert again == sender
    assert not any(letter in str(sender) for letter in "\r\n\0\t")


def test_xtext_and_attributes() -> None:
    assert wire.xtext("a+2Bb") == "a+b" and wire.xtext("a+2bb") is None and wire.xtext("a+0Db") is None
    names = frozenset({"NAME", "ADDR"})
    assert wire.parse_attributes(b"name=mail+2Ex ADDR=[UNAVAILABLE]", names) == {"NAME": "mail.x", "ADDR": ""}
    for bad in (b"", b"NAME", b"OTHER=x", b"NAME=a+00"):
        with pytest.raises(Refused):
            wire.parse_attributes(bad, names)


def test_refusals_carry_replies_that_agree_with_themselves() -> None:
    for name in dir(wire):
        reply = getattr(wire, name)
        if isinstance(reply, Reply):
            assert reply.enhanced.startswith(str(reply.code // 100)) and reply.text.isascii()
