"""One attempt at one next hop: every answer in its class, every byte as it was."""

from __future__ import annotations

import dataclasses
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from bench import next_hop_table
from gateway.config import NextHop
from gateway.delivery import Connection, Content, DotStuffer, Letter, Outcome, Target, Timeouts, attempt, status_of
from gateway.errors import Reply
from tests import harness, peers
from tests.hop import PATIENT, Hop, run, undotted

MAIL = b"Subject: thu\r\n\r\nNoi dung\r\n.dong co dau cham\r\n"


def letter(*recipients: str, body: bytes = MAIL, trace: bytes = b"X-VBDT-Case: 1\r\n", **more: Any) -> Letter:
    targets = tuple(Target(one) for one in recipients or ("b@x.vn",))
    return Letter(more.pop("sender", "a@y.vn"), more.pop("targets", targets), Content(trace, (body,)), **more)


def next_hop(hop: Hop, **more: Any) -> NextHop:
    return NextHop(**{"name": "sau", "host": "127.0.0.1", "port": hop.port, "tls": "none", **more})


async def play(
    script: str,
    mail: Letter,
    *,
    tls: Any = None,
    tls_policy: str = "none",
    timeouts: Timeouts = PATIENT,
    **more: Any,
) -> tuple[list[Outcome], Hop]:
    async with Hop(script, tls=tls, lmtp=more.get("protocol") == "lmtp") as hop:
        outcomes = await attempt(next_hop(hop, tls=tls_policy, **more), "cong.y.vn", mail, timeouts=timeouts)
        return outcomes, hop


def test_bytes_arrive_as_they_were_under_the_trace_fields() -> None:
    outcomes, hop = run(play("", letter("b@x.vn", "c@x.vn")))
    assert [(one.address, one.result, one.reply) for one in outcomes] == [
        ("b@x.vn", "delivered", "250 2.0.0 taken"),
        ("c@x.vn", "delivered", "250 2.0.0 taken"),
    ]
    mail, recipients, wire = hop.messages[0]
    assert undotted(wire) == b"X-VBDT-Case: 1\r\n" + MAIL
    assert mail == f"MAIL FROM:<a@y.vn> SIZE={len(MAIL) + 16}"
    assert recipients == ["RCPT TO:<b@x.vn>", "RCPT TO:<c@x.vn>"]


@pytest.mark.parametrize("size", [0, 1, 4096, 262_143, 262_144, 262_145, 1_000_000])
def test_sizes_around_the_block(size: int) -> None:
    body = (b".12345678\r\n" * (size // 11 + 1))[:size]
    body = body.removesuffix(b"\r") + b"\r\n" if body and not body.endswith(b"\r\n") else body
    outcomes, hop = run(play("ehlo: 250-hop | 250 PIPELINING", letter(body=body, trace=b"T: 1\r\n")))
    assert outcomes[0].result == "delivered"
    assert undotted(hop.messages[0][2]) == b"T: 1\r\n" + body


@given(st.lists(st.text(alphabet=".\r\na", max_size=6), max_size=8))
def test_dots_are_doubled_wherever_blocks_are_cut(blocks: list[str]) -> None:
    stuffer, data = DotStuffer(), "".join(blocks).encode()
    wire = b"".join(stuffer.feed(block.encode()) for block in blocks) + stuffer.end()
    whole = b"\r\n" + data + (b"" if data.endswith(b"\r\n") or not data else b"\r\n")
    assert wire == whole.replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
    assert b"\r\n.\r\n" not in wire[:-1]  # no end but the end


@given(st.lists(st.text(alphabet="\r\na", max_size=5), max_size=6))
def test_a_bare_cr_or_lf_is_seen_across_blocks(blocks: list[str]) -> None:
    data = "".join(blocks)
    bare = "\r" in data.replace("\r\n", "") or "\n" in data.replace("\r\n", "")
    assert bool(Content(b"", [block.encode() for block in blocks]).fault) == bare


@pytest.mark.parametrize(
    "body", [b"a\nb\r\n", b"a\rb\r\n", b"a\r\n.\n\r\n", b"a\r\n.\r\r\n", b"a\r\n\r", b"a\n.\nMAIL"]
)
def test_a_bare_line_end_never_leaves(body: bytes) -> None:
    outcomes, hop = run(play("", letter(body=body)))
    assert outcomes[0].result == "failed" and "bare CR or LF" in outcomes[0].reply
    assert hop.commands == []


def test_recipients_have_their_own_answers() -> None:
    script = "rcpt b@x.vn: 550 5.1.1 no such user\nrcpt c@x.vn: 450 4.2.1 later"
    outcomes, hop = run(play(script, letter("a@x.vn", "b@x.vn", "c@x.vn")))
    assert [(one.result, one.status) for one in outcomes] == [
        ("delivered", "2.0.0"), ("failed", "5.1.1"), ("deferred", "4.2.1"),
    ]  # fmt: skip
    assert hop.messages[0][1] == ["RCPT TO:<a@x.vn>"]


@pytest.mark.parametrize("reply", ["452 4.5.3 too many", "552 too many"])
def test_too_many_recipients_go_in_a_second_transaction(reply: str) -> None:
    outcomes, hop = run(play(f"rcpt c@x.vn: {reply} ; 250 ok", letter("a@x.vn", "b@x.vn", "c@x.vn")))
    assert [one.result for one in outcomes] == ["delivered"] * 3
    assert [len(message[1]) for message in hop.messages] == [2, 1]
    assert hop.connections == 1


def test_all_refused_after_data_was_on_its_way() -> None:
    """RFC 2920 section 3.1: the hop answers 354 although nobody is left; the lone dot must follow, and no message."""
    outcomes, hop = run(play("rcpt: 550 5.1.1 no\nend: 554 no recipients", letter("b@x.vn", "c@x.vn")))
    assert [one.reply for one in outcomes] == ["550 5.1.1 no"] * 2
    assert hop.offered == [b""] and hop.messages == []


@pytest.mark.parametrize("early", ["250 2.0.0 taken", "550 5.0.0 no", "250-a | 250 b"])
@pytest.mark.parametrize("pipelining", ["PIPELINING", "8BITMIME"])
def test_an_answer_to_a_message_that_was_not_sent_yet_is_none(early: str, pipelining: str) -> None:
    script = f"ehlo: 250-hop | 250 {pipelining}\ndata: 354 go | {early}\nend: drop"
    outcomes, hop = run(play(script, letter("a@x.vn", "b@x.vn")))
    assert [one.result for one in outcomes] == ["deferred"] * 2 and hop.messages == []


def test_lmtp_answers_for_each_recipient() -> None:
    script = "ehlo: 250-hop | 250 PIPELINING\nend b@x.vn: 552 5.2.2 full"
    outcomes, _ = run(play(script, letter("a@x.vn", "b@x.vn"), protocol="lmtp"))
    assert [(one.result, one.status) for one in outcomes] == [("delivered", "2.0.0"), ("failed", "5.2.2")]


def test_lmtp_hop_that_leaves_in_the_middle() -> None:
    outcomes, _ = run(play("end b@x.vn: drop", letter("a@x.vn", "b@x.vn"), protocol="lmtp"))
    assert [(one.result, one.interrupted) for one in outcomes] == [("delivered", False), ("deferred", True)]


def test_a_connection_is_kept_and_a_stale_one_replaced() -> None:
    async def main() -> None:
        async with Hop("mail: 250 ok ; drop ; 250 ok") as hop:
            connection = Connection(next_hop(hop), "cong.y.vn", PATIENT)
            for _ in range(3):  # the second MAIL finds the connection dead
                assert (await connection.attempt(letter()))[0].result == "delivered"
            await connection.close()
            assert hop.connections == 2 and hop.commands[-1] == "QUIT"

    run(main())


def test_a_hop_that_said_good_bye_is_not_written_to() -> None:
    async def main() -> None:
        async with Hop("end: 250 ok | 421 4.3.2 closing ; 250 ok") as hop:
            connection = Connection(next_hop(hop), "cong.y.vn", PATIENT)
            assert (await connection.attempt(letter()))[0].result == "delivered"
            assert (await connection.attempt(letter()))[0].result == "delivered"
            await connection.close()
            assert hop.connections == 2

    run(main())


def test_a_refused_transaction_does_not_spoil_the_next() -> None:
    async def main() -> None:
        async with Hop("data: 451 4.3.0 no ; 354 go") as hop:
            connection = Connection(next_hop(hop), "cong.y.vn", PATIENT)
            assert (await connection.attempt(letter()))[0].result == "deferred"
            assert (await connection.attempt(letter()))[0].result == "delivered"
            assert hop.connections == 1 and "RSET" in hop.commands
            await connection.close()

    run(main())


def test_dsn_parameters_are_passed_on_to_a_hop_that_knows_them() -> None:
    target = Target("b@x.vn", notify="SUCCESS,FAILURE", orcpt="rfc822;B+40x.vn")
    mail = letter(targets=(target,), ret="HDRS", envid="QQ314159")
    outcomes, hop = run(play("", mail))
    assert hop.commands[1].endswith("RET=HDRS ENVID=QQ314159")
    assert hop.commands[2] == "RCPT TO:<b@x.vn> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;B+40x.vn"
    assert outcomes[0].dsn
    outcomes, hop = run(play("ehlo: 250-hop | 250 PIPELINING", mail))
    assert hop.commands[1:3] == ["MAIL FROM:<a@y.vn>", "RCPT TO:<b@x.vn>"] and not outcomes[0].dsn


@pytest.mark.parametrize(
    ("features", "mail", "status"),
    [
        ("SIZE 10", letter(), "5.3.4"),
        ("PIPELINING", letter(body="Chào\r\n".encode()), "5.6.3"),
        ("8BITMIME", letter("thư@x.vn"), "5.6.7"),
        ("8BITMIME", letter(body="Subject: Chào\r\n\r\n".encode(), smtputf8=True), "5.6.7"),
    ],
)
def test_what_the_hop_cannot_carry_is_failed_with_the_reason(features: str, mail: Letter, status: str) -> None:
    outcomes, hop = run(play(f"ehlo: 250-hop | 250 {features}", mail))
    assert (outcomes[0].result, outcomes[0].status) == ("failed", status)
    assert not any(command.startswith("MAIL") for command in hop.commands)


def test_utf8_goes_where_it_is_known() -> None:
    outcomes, hop = run(play("", letter("thư@x.vn", body="Subject: Chào\r\n\r\n".encode(), smtputf8=True)))
    assert outcomes[0].result == "delivered"
    assert hop.commands[1].endswith("BODY=8BITMIME SMTPUTF8") and hop.commands[2] == "RCPT TO:<thư@x.vn>"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return context, path


STARTTLS = "ehlo: 250-hop | 250-STARTTLS | 250-AUTH PLAIN LOGIN | 250 PIPELINING"


@pytest.mark.parametrize("policy", ["may", "encrypt", "verify"])
def test_tls(policy: str, authority: tuple[ssl.SSLContext, Path]) -> None:
    context, path = authority
    outcomes, hop = run(play(STARTTLS, letter(), tls=context, tls_policy=policy, ca=path))
    assert outcomes[0].result == "delivered"
    assert hop.commands[:3] == ["EHLO cong.y.vn", "STARTTLS", "EHLO cong.y.vn"]


def test_none_means_no_tls_though_it_is_offered(authority: tuple[ssl.SSLContext, Path]) -> None:
    outcomes, hop = run(play(STARTTLS, letter(), tls=authority[0], tls_policy="none"))
    assert outcomes[0].result == "delivered" and "STARTTLS" not in hop.commands


def test_an_unknown_certificate_stops_verify_and_nothing_else(authority: tuple[ssl.SSLContext, Path]) -> None:
    other = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.issue_cert("127.0.0.1").configure_cert(context)
    for policy, result in (("verify", "deferred"), ("encrypt", "delivered"), ("may", "delivered")):
        outcomes, _ = run(play(STARTTLS, letter(), tls=context, tls_policy=policy, ca=authority[1]))
        assert outcomes[0].result == result, policy
        assert outcomes[0].hop_down == (result == "deferred")


def test_may_goes_on_in_clear_when_the_handshake_fails_and_encrypt_does_not() -> None:
    for policy, result in (("may", "delivered"), ("encrypt", "deferred"), ("verify", "deferred")):
        for answer in ("plain", "silent"):
            timeouts = dataclasses.replace(PATIENT, tls=0.3) if answer == "silent" else PATIENT
            outcomes, _ = run(play(f"{STARTTLS}\nstarttls: {answer}", letter(), tls_policy=policy, timeouts=timeouts))
            assert outcomes[0].result == result, (policy, answer)


def test_words_before_the_handshake_are_not_taken_for_the_hops() -> None:
    """CVE-2011-0411, the client's side."""
    script = f"{STARTTLS}\nstarttls: 220 go | 250 injected"
    outcomes, _ = run(play(script, letter(), tls_policy="encrypt"))
    assert outcomes[0].result == "deferred" and "before the handshake" in outcomes[0].reply


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_login(mechanism: str, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("mật khẩu\n", encoding="utf-8")
    script = f"ehlo: 250-hop | 250 AUTH {mechanism}"
    if mechanism == "LOGIN":
        script += "\nauth: 334 VXNlcm5hbWU6 ; 334 UGFzc3dvcmQ6 ; 235 in"
    outcomes, hop = run(play(script, letter(), login="cong", password_file=secret))
    assert outcomes[0].result == "delivered" and hop.commands[1].startswith(f"AUTH {mechanism}")


def test_a_wrong_password_defers_and_says_so(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("sai")
    script = "ehlo: 250-hop | 250 AUTH PLAIN\nauth: 535 5.7.8 no"
    outcomes, _ = run(play(script, letter(), login="cong", password_file=secret))
    assert (outcomes[0].result, outcomes[0].status, outcomes[0].hop_down) == ("deferred", "4.7.8", True)
    assert "sai" not in outcomes[0].reply


def test_before_data_is_awaited_between_rcpt_and_data() -> None:
    async def main() -> None:
        async with Hop() as hop:
            seen: list[str] = []

            async def mark() -> None:
                seen.extend(hop.commands)

            outcomes = await attempt(next_hop(hop), "cong.y.vn", letter(), mark, PATIENT)
            assert outcomes[0].result == "delivered"
            assert seen[-1].startswith("RCPT") and "DATA" in hop.commands

    run(main())


def test_status_follows_the_code() -> None:
    assert status_of(Reply(550, "5.1.1 no")) == "5.1.1"
    assert status_of(Reply(450, "5.1.1 no")) == "4.0.0"  # they disagree: the code counts
    assert status_of(Reply(550, "no 5.1.1")) == "5.0.0"


def test_every_failure_at_every_stage_is_read_as_what_it_is(tmp_path: Path) -> None:
    """R8: the table is a measurement too, `./run measure next_hop_table`."""
    result = run(next_hop_table.whole(tmp_path))
    assert result["wrong"] == 0 and result["cases"] >= 40


@pytest.mark.peer
@pytest.mark.skipif(not shutil.which("smtp-sink"), reason="smtp-sink (Debian package postfix) is not installed")
def test_smtp_sink() -> None:
    import subprocess

    port = peers.free_port()
    sink = subprocess.Popen(["smtp-sink", "-u", "nobody", f"127.0.0.1:{port}", "100"])
    try:
        peers.wait_port(port, process=sink)

        async def main() -> None:
            hop = NextHop(name="sau", host="127.0.0.1", port=port, tls="none")
            connection = Connection(hop, "cong.y.vn", PATIENT)
            for _ in range(20):
                outcomes = await connection.attempt(letter("a@x.vn", "b@x.vn", body=MAIL * 1000))
                assert [one.result for one in outcomes] == ["delivered"] * 2
            await connection.close()

        run(main())
    finally:
        sink.kill()
        sink.wait()


@pytest.fixture
def postfix(open_folder: Path) -> Iterator[tuple[peers.Postfix, harness.Sink, Path]]:
    """A real next hop with TLS that refuses one recipient, puts off another, and passes the rest to a sink."""
    sink, ca = harness.Sink(), trustme.CA()
    pem = open_folder / "tls.pem"
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    ca.cert_pem.write_to_path(str(open_folder / "ca.pem"))
    made = peers.Postfix(
        open_folder / "postfix",
        relay_port=sink.port,
        settings=(
            f"smtpd_tls_chain_files = {pem}\nsmtpd_tls_security_level = may\n"
            "smtpd_recipient_restrictions = check_recipient_access inline:{bad@x.vn=REJECT, later@x.vn=DEFER},"
            " permit_mynetworks, reject"
        ),
    ).start()
    try:
        yield made, sink, open_folder / "ca.pem"
    finally:
        made.stop()
        sink.close()


@pytest.mark.peer
@pytest.mark.skipif(bool(peers.missing("postfix")), reason=peers.missing("postfix") or "-")
def test_postfix_as_next_hop(postfix: tuple[peers.Postfix, harness.Sink, Path]) -> None:
    made, sink, ca = postfix
    body = b"Message-ID: <1@y.vn>\r\nSubject: =?utf-8?q?Th=C6=B0?=\r\nDate: Mon, 02 Nov 2026 08:00:00 +0700\r\n"
    body += b"From: a@y.vn\r\nTo: b@x.vn\r\n\r\n" + "Chào\r\n.\r\n..hai chấm\r\n".encode() + b"x" * 900 + b"\r\n\r\n"

    async def main() -> None:
        for policy in ("none", "may", "encrypt", "verify"):
            hop = NextHop(name="sau", host="127.0.0.1", port=made.port, tls=policy, ca=ca)
            connection = Connection(hop, "cong.y.vn")
            for _ in range(3):  # on one connection, each time with a recipient that is refused
                targets = (Target("good@x.vn", "FAILURE", "rfc822;goc@x.vn"), Target("bad@x.vn"), Target("later@x.vn"))
                outcomes = await connection.attempt(letter(targets=targets, body=body, ret="HDRS", envid="E1"))
                assert [one.result for one in outcomes] == ["delivered", "failed", "deferred"], outcomes
                assert outcomes[0].dsn and outcomes[1].status == "5.7.1" and outcomes[2].status.startswith("4.7.")
            assert bool(connection.tls) == (policy != "none")
            await connection.close()

    run(main())
    for _, recipients, arrived in sink.wait(12):
        assert recipients == ["good@x.vn"]
        assert arrived.endswith(b"X-VBDT-Case: 1\r\n" + body)
