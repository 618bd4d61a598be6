"""The way of a message, and the only file that knows the order of the rooms.

    at the door        MAIL, RCPT: what the envelope alone decides is answered at once
    inspection         facts, from worker processes, within the budget
    judgement          policy.judge: pure
    secret             refused; only a tombstone stays
    archive            bytes, verdict and what is owed become durable in one commit: then, and only then, 250;
                       bytes that were taken before get the old receipt, and nothing happens twice
    queue              delivery and notices start; they were owed from the commit on

`docs/flow.md` tells the same walk in prose.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import format_datetime, getaddresses
from pathlib import Path
from typing import Any, Protocol

from gateway import log as logs
from gateway import policy as judging
from gateway import returns, stats
from gateway.archive import Archive, Case, Notice, Owed, Tombstone
from gateway.config import Clamd, Gateway
from gateway.directory import Directory
from gateway.errors import LOCAL_ERROR, Failure, Reply
from gateway.inspection import malware
from gateway.inspection.findings import CheckRun, Finding, Inspection, MessageFacts, SenderFacts
from gateway.message import (
    VIETNAM,
    Address,
    Body,
    Envelope,
    NullSender,
    Origin,
    Polled,
    Received,
    Recipient,
    Sender,
    Taken,
    new_case,
)
from gateway.policy import Disposition, Policy, Situation, Verdict
from gateway.wire import BAD_SENDER, Refused, parse_path


class Inspecting(Protocol):
    async def message(self, body: Body) -> Inspection: ...


class SenderCheck:
    """SPF, DKIM and DMARC of a message from outside, with our resolver. Blocking: call it in a thread."""

    def __init__(self, settings: Gateway) -> None:
        from gateway.inspection import sender

        self._check = settings.sender_check
        self._hostname = settings.hostname
        self._authenticate = sender.authenticate
        self._resolver = sender.Dns(self._check.resolvers, self._check.timeout)

    def __call__(self, received: Received) -> SenderFacts:
        origin = received.origin
        return self._authenticate(
            received.body.read(),
            origin.client or origin.peer,
            origin.helo,
            str(received.envelope.sender),
            self._resolver,
            self._hostname,
            arc_sealers=self._check.arc_sealers,
            seconds=self._check.timeout,
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """Policy and directory that are in force together: replaced as one by SIGHUP, so that no message sees a mixture."""

    policy: Policy
    directory: Directory


class Pipeline:
    """The receiver that `smtp_in` and `imap_poll` are given."""

    def __init__(
        self,
        settings: Gateway,
        rules: Rules,
        *,
        inspector: Inspecting,
        archive: Archive,
        sender_check: SenderCheck | None = None,
        clamd: Clamd | None = None,
        wake: Callable[[], None],
        log: Any,
        mail_log: logs.MailLog,
        data: Path,
    ) -> None:
        self.settings = settings
        self.rules = rules
        self._inspector = inspector
        self._archive = archive
        self._sender_check = sender_check
        self._clamd = clamd
        self._wake = wake
        self._log = log
        self._mail_log = mail_log
        self._data = data
        self.stopping = False
        self._turns = tuple(asyncio.Lock() for _ in range(64))

    # ----------------------------------------------------------------- at the door

    def may_accept(self) -> Reply | None:
        """Asked at connect and at MAIL. Low disk is 452 (reliability.md 1.3): the sender keeps the message."""
        if self.stopping:
            return Reply(421, "Service is shutting down, please try again later", "3.2")
        if self._archive.broken:
            return Reply(451, "Local error in processing, please try again later", "3.0")
        limits = self.settings.limits
        if shutil.disk_usage(self._data).free < max(limits.free_disk, 2 * limits.message_size):
            return Reply(452, "Insufficient system storage, please try again later", "3.1")
        return None

    async def sender(self, origin: Origin, sender: Sender, size: int | None) -> Reply | None:
        """A login may only use the addresses it owns; a null sender is the read receipt of a mail client."""
        if origin.login and isinstance(sender, Address) and not self.rules.directory.owns(origin.login, str(sender)):
            self._mail_log.write("-", "refused", sender=sender, login=origin.login, reason="not the login's address")
            return Reply(553, f"VBDT Dia chi {sender} khong thuoc tai khoan dang nhap", "7.1")
        return None

    async def recipient(self, origin: Origin, sender: Sender, recipient: Recipient) -> Reply | None:
        address = recipient.address
        if not self._hop(origin, address.domain):
            return Reply(550, "No route to this domain", "1.2")
        now = dt.datetime.now(VIETNAM)
        findings = judging.screen(self.rules.policy, self.rules.directory, origin, sender, recipient, now)
        refusing = [one for one in findings if one.disposition >= Disposition.RETURN]
        if not refusing:
            return None
        self._mail_log.write("-", "refused", sender=sender, recipient=address, rules=[one.rule for one in refusing])
        counts = stats.counts_of_refused_recipient(self.rules.directory, origin, sender, recipient, refusing, now)
        await self._archive.count(counts, now)
        return returns.reply_to_findings(refusing, "")

    # ----------------------------------------------------------------- the message

    async def message(self, received: Received) -> Reply:
        """The whole walk of one message. What goes wrong on our side is 451: the sender keeps it and tries again."""
        logs.bind_contextvars(case=received.case)
        try:
            return await self._walk(received)
        except Failure as failure:
            self._log.error("message not accepted", reason=failure.private or failure.public)
            self._mail_log.write(received.case, "deferred", sender=received.envelope.sender, reason=failure.public)
            return LOCAL_ERROR
        except Exception:
            self._log.exception("message not accepted: unexpected")
            self._mail_log.write(received.case, "deferred", sender=received.envelope.sender, reason="local error")
            return LOCAL_ERROR
        finally:
            received.body.close()
            logs.clear_contextvars()

    async def _walk(self, received: Received) -> Reply:
        rules = self.rules  # one pair for the whole walk, also when SIGHUP comes in between
        envelope, origin = received.envelope, received.origin
        direction = judging.direction(rules.directory, origin, envelope.sender, envelope.recipients, received.at)

        facts = await self._facts(received)
        if facts.message.hops > self.settings.limits.hops:
            self._mail_log.write(received.case, "refused", sender=envelope.sender, reason="mail loop")
            return Reply(554, "Too many hops, this is a mail loop", "4.6")
        situation = await self._situation(rules, received, direction, facts)
        verdict = judging.judge(rules.policy, rules.directory, situation)

        if verdict.disposition == Disposition.BLOCK_SECRET:
            return await self._refuse_secret(received, direction, facts, verdict)

        case = replace(self._case(rules, received, direction, facts, verdict), history=situation.history)
        receipt = await self._archive.commit(case)
        # The promise begins here: bytes, verdict, deliveries and notices owed are on disk in one commit. A crash on
        # the next line loses nothing; the peer may then offer the message again and gets the old receipt.
        if receipt.duplicate:
            self._log.info("offered again", first_case=receipt.case)
            return Reply(250, f"Ok, already accepted as {receipt.case}", "0.0")
        self._wake()
        self._tell(case)
        return self._answer(case)

    async def _situation(self, rules: Rules, received: Received, direction: str, facts: Inspection) -> Situation:
        """What is judged: the facts, and what archive and directory know of the past, so that judging stays pure."""
        sender = received.envelope.sender.key
        documents = await self._archive.history(facts)
        history = judging.history(rules.directory, sender, received.at, facts, documents)
        return Situation(received.at, direction, received.origin, received.envelope, facts, history)

    async def _facts(self, received: Received) -> Inspection:
        """What the message is, who it is from, and what the virus scanner says: asked at once, so that DNS does not
        wait for OCR."""
        facts, sender, (found, run) = await asyncio.gather(
            self._inspector.message(received.body), self._sender(received), self._scan(received)
        )
        return facts.model_copy(update={"sender": sender, "findings": facts.findings + found, "runs": facts.runs + run})

    async def _sender(self, received: Received) -> SenderFacts:
        if received.origin.login:
            return SenderFacts(aligned=True)
        if self._sender_check is None or received.origin.trusted:
            return SenderFacts()
        return await asyncio.to_thread(self._sender_check, received)

    async def _scan(self, received: Received) -> tuple[tuple[Finding, ...], tuple[CheckRun, ...]]:
        """clamd, where one is configured. The inspection workers have no sockets, so it is asked from here."""
        if self._clamd is None:
            return (), ()
        found, run = await asyncio.to_thread(malware.scan, received.body.chunks(), self._clamd)
        return found, (run,)

    async def _refuse_secret(self, received: Received, direction: str, facts: Inspection, verdict: Verdict) -> Reply:
        """A state secret is not spread: no byte of it is kept, only that it happened."""
        finding = next(one for one in verdict.findings if one.disposition == Disposition.BLOCK_SECRET)
        tombstone = Tombstone(
            case=received.case,
            at=received.at,
            sender=str(received.envelope.sender),
            recipients=tuple(str(one.address) for one in received.envelope.recipients),
            peer=received.origin.client or received.origin.peer,
            size=received.body.size,
            level=verdict.secrecy_level,
            rule=finding.rule,
            sha256=received.body.sha256,
            counts=stats.counts(received, direction, verdict),
            notices=self._alert(received, verdict) + self._notices(received, facts, verdict, refused=True),
        )
        await self._archive.bury(tombstone)
        self._wake()
        self._mail_log.write(received.case, "refused", sender=received.envelope.sender, reason="policy")
        return returns.reply(verdict, received.case)

    # ----------------------------------------------------------------- mailboxes

    async def disguise(self, sha256: str) -> str:
        """The digest by which a secret is known (`Archive.disguise`)."""
        return await self._archive.disguise(sha256)

    async def polled(self, polled: Polled) -> Taken:
        """A message read from a mailbox: the same facts, judgement and commit, but nothing is relayed, and nothing can
        be refused. Safe to repeat. Raises Failure."""
        case = new_case()
        logs.bind_contextvars(case=case, mailbox=polled.account)
        try:
            return await self._walk_polled(case, polled)
        finally:
            logs.clear_contextvars()

    async def _walk_polled(self, case: str, polled: Polled) -> Taken:
        rules, body = self.rules, polled.body
        own = _address(polled.account)
        head = _head(body)
        # A message in the folder of sent mail was put there by the owner of the mailbox; one in the inbox by anybody.
        sent = polled.role == "sent"
        origin = Origin("imap", polled.server, tls=polled.tls, login=polled.account if sent else "", protocol="IMAP")
        received = Received(case, polled.at, Envelope(NullSender(), ()), origin, body)
        facts = await self._facts(received)
        received = replace(received, envelope=_envelope(head, facts.message, own, sent))
        envelope = received.envelope
        direction = judging.direction(rules.directory, origin, envelope.sender, envelope.recipients, polled.at)
        situation = await self._situation(rules, received, direction, facts)
        verdict = judging.judge(rules.policy, rules.directory, situation)
        side = "out" if sent else "in"  # internal mail lies in two mailboxes: each proves its own side
        offends = verdict.disposition >= Disposition.HOLD
        # The same bytes may lie in several mailboxes, which are read at the same time: one of them is the first.
        async with self._turns[int(body.sha256[:2], 16) % len(self._turns)]:
            if verdict.disposition == Disposition.BLOCK_SECRET:
                digest = await self._archive.disguise(body.sha256)
                buried = await self._archive.buried(digest)
                if buried:
                    again = stats.counts(received, direction, verdict)
                    hidden = [replace(one, key=one.key.replace(body.sha256, digest)) for one in again]
                    await self._archive.count(hidden, polled.at, buried)
                else:
                    await self._refuse_secret(received, direction, facts, verdict)
                return Taken(buried or case, digest, secret=True, offends=True)
            counts = tuple(one for one in stats.counts(received, direction, verdict, facts) if one.direction == side)
            delivered = await self._delivered_by_us(head, body)
            if delivered:
                return Taken(delivered, body.sha256, offends=False)
            first = await self._archive.first_case(body.sha256)
            if first:
                await self._archive.count(counts, polled.at, first)
                return Taken(first, body.sha256, offends=offends)
            notices = () if polled.history else self._notices(received, facts, verdict, refused=False)
            whole = self._case(rules, received, direction, facts, verdict)
            owed = tuple(replace(one, state="seen", destination="") for one in whole.owed)
            past = situation.history
            whole = replace(whole, owed=owed, trace=b"", counts=counts, notices=notices, history=past)
            receipt = await self._archive.commit(whole)
        if notices:
            self._wake()
        self._tell(whole)
        return Taken(receipt.case, body.sha256, offends=offends)

    async def _delivered_by_us(self, head: bytes, body: Body) -> str:
        """The case of a message that we delivered ourselves: it names the case, and ends with the archived bytes below
        what we and the servers behind us put on top. The name alone proves nothing; the bytes do."""
        for found in _CASE.findall(head)[:3]:
            row = await self._archive.row(found.decode())
            if row is not None and await asyncio.to_thread(_ends_with, body, row["size"], row["sha256"]):
                return found.decode()
        return ""

    # ----------------------------------------------------------------- what is owed

    def _case(self, rules: Rules, received: Received, direction: str, facts: Inspection, verdict: Verdict) -> Case:
        """What the archive must make durable. On submission one refused recipient refuses the message (the sender
        mends it and sends again); from other servers the rest are delivered and the refused ones returned."""
        refused = self._refused(received.origin, verdict)
        owed = []
        by_address = {one.address.lower(): one for one in verdict.recipients}
        for one in received.envelope.recipients:
            judged = by_address[one.address.key]
            hop = self._hop(received.origin, one.address.domain)
            if refused:
                state = "refused"
            elif judged.disposition >= Disposition.RETURN:
                state = "returned"
            elif judged.disposition == Disposition.HOLD:
                state = "held"
            else:
                state = "queued"
            owed.append(
                Owed(str(one.address), one.notify, one.orcpt, judged.agency, judged.disposition.text, state, hop)
            )
        return Case(
            received=received,
            direction=direction,
            inspection=facts,
            verdict=verdict,
            trace=self._trace(received, verdict),
            owed=tuple(owed),
            notices=self._notices(received, facts, verdict, refused),
            counts=stats.counts(received, direction, verdict, facts),
            policy_text=rules.policy.canonical(),
            answerable=self._answerable(received.origin, facts),
        )

    def _refused(self, origin: Origin, verdict: Verdict) -> bool:
        worst = [one.disposition >= Disposition.RETURN for one in verdict.recipients]
        return any(worst) if origin.channel == "submission" else all(worst)

    def _hop(self, origin: Origin, domain: str) -> str:
        if origin.next_hop:
            return origin.next_hop
        hop = self.settings.hop_for(domain)
        return hop.name if hop else ""

    def _answerable(self, origin: Origin, facts: Inspection) -> bool:
        """May the envelope sender be written to? Only when it is not forged: authenticated, ours, or aligned."""
        return bool(origin.login) or origin.trusted or facts.sender.aligned

    def _notices(self, received: Received, facts: Inspection, verdict: Verdict, refused: bool) -> tuple[Notice, ...]:
        envelope, origin = received.envelope, received.origin
        if isinstance(envelope.sender, NullSender):
            return ()
        if refused and not (origin.login and self.settings.notify_authenticated_senders):
            return ()  # the peer reads the reply; a second message would be backscatter
        if not returns.may_notify(facts.message, envelope.sender, self._answerable(origin, facts)):
            return ()
        data = returns.notice(
            verdict,
            facts.message,
            sender=str(envelope.sender),
            recipients=[str(one.address) for one in envelope.recipients],
            case=received.case,
            received_at=received.at,
            sha256=received.body.sha256,
            contacts=self.settings.contacts,
            hostname=self.settings.hostname,
            inspection=facts,
        )
        if data is None:
            return ()
        hop = self.settings.hop_for(envelope.sender.domain)
        if hop is None:
            return ()
        rules = ",".join(sorted({one.rule for one in verdict.findings}))
        key = f"{envelope.sender.key}|{rules}|{received.body.sha256}"
        return (Notice("notice", data, ((str(envelope.sender), hop.name),), received.case, key),)

    def _alert(self, received: Received, verdict: Verdict) -> tuple[Notice, ...]:
        """The security officer learns that, when, from whom and to whom; and nothing of what."""
        officer = self.settings.contacts.security_officer
        hop = self.settings.hop_for(officer.rpartition("@")[2].lower()) if "@" in officer else None
        if hop is None:
            return ()
        data = returns.secrecy_alert(received, verdict, self.settings.contacts, self.settings.hostname)
        return (Notice("alert", data, ((officer, hop.name),), received.case, f"alert|{received.case}"),)

    def _trace(self, received: Received, verdict: Verdict) -> bytes:
        """The header fields put on top at delivery; the received bytes themselves are never changed.

        RFC 5321 section 4.4 for Received; RFC 3848 for the protocol word."""
        origin = received.origin
        peer = origin.client or origin.peer
        tls = f" ({origin.tls})" if origin.tls else ""
        lines = [
            f"Received: from {_token(origin.helo) or 'unknown'} ([{peer}]){tls}",
            f"\tby {self.settings.hostname} with {origin.protocol} id {received.case};",
            f"\t{format_datetime(received.at.astimezone(VIETNAM))}",
            f"X-VBDT-Case: {received.case}",
            f"X-VBDT-Verdict: {verdict.disposition.text}",
            *(f"{name}: {value}" for name, value in verdict.headers),
        ]
        return "".join(f"{line}\r\n" for line in lines).encode("ascii", "replace")

    # ----------------------------------------------------------------- answers

    def _answer(self, case: Case) -> Reply:
        if all(one.state == "refused" for one in case.owed):
            return returns.reply(case.verdict, case.received.case)
        if all(one.state == "held" for one in case.owed):
            return Reply(250, f"VBDT HOLD Thu dang duoc tam giu cho Van thu xem xet, ma {case.received.case}", "0.0")
        return Reply(250, f"Ok, accepted as {case.received.case}", "0.0")

    def _tell(self, case: Case) -> None:
        received, verdict = case.received, case.verdict
        rules = [one.rule for one in verdict.findings]
        states = {one.state for one in case.owed}
        act = "refused" if states == {"refused"} else "held" if states == {"held"} else "received"
        self._mail_log.write(
            received.case,
            act,
            sender=received.envelope.sender or "<>",
            recipients=[str(one.address) for one in received.envelope.recipients],
            size=received.body.size,
            verdict=verdict.disposition.text,
            rules=rules,
        )
        self._log.info(
            "judged",
            verdict=verdict.disposition.text,
            message_class=verdict.message_class,
            rules=rules,
            failed=[f"{run.check}:{run.status}" for run in case.inspection.failed],
            size=received.body.size,
            channel=received.origin.channel,
        )


def _token(text: str) -> str:
    """HELO as given, made harmless for a header field."""
    return "".join(letter for letter in text if letter.isascii() and (letter.isalnum() or letter in ".-:[]_"))[:255]


#: Bytes of a message that are looked at for the fields below; servers put theirs on top.
_HEAD = 64 << 10
_CASE = re.compile(rb"(?mi)^X-VBDT-Case:[ \t]*([0-9A-HJKMNP-TV-Z]{16})[ \t]*\r?$")
_RETURN_PATH = re.compile(rb"(?mi)^Return-Path:[ \t]*(<[^<>\r\n]*>)")
_BCC = re.compile(rb"(?mi)^Bcc:([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)")


def _head(body: Body) -> bytes:
    """The header, as far as it lies in the first 64 KiB."""
    first = next(iter(body.chunks(_HEAD)), b"")
    end = re.search(rb"\r?\n\r?\n", first)
    return first[: end.start() + 1] if end else first


def _ends_with(body: Body, size: int, sha256: str) -> bool:
    digest, skip = hashlib.sha256(), body.size - size
    if skip < 0:
        return False
    for chunk in body.chunks():
        digest.update(chunk[skip:])
        skip = max(0, skip - len(chunk))
    return digest.hexdigest() == sha256


def _address(text: str) -> Address | None:
    try:
        address, rest = parse_path(f"<{text.strip()}>", BAD_SENDER)
    except Refused:
        return None
    return None if rest else address


def _envelope(head: bytes, facts: MessageFacts, own: Address | None, sent: bool) -> Envelope:
    """What the envelope must have been. Received mail: Return-Path, which the last server wrote (RFC 5321 4.4), else
    From; to the mailbox it lies in. Sent mail: From; to everybody named."""
    writer = next((found for one in facts.from_ if (found := _address(one.address))), None)
    if sent:
        names = [one.address for one in (*facts.to, *facts.cc)]
        if (bcc := _BCC.search(head)) is not None:
            names += [one for _, one in getaddresses([bcc[1].decode("utf-8", "replace")])]
        addresses = {one.key: one for name in names if (one := _address(name)) is not None}
        return Envelope(writer or own or NullSender(), tuple(map(Recipient, addresses.values())))
    sender: Sender = writer or NullSender()
    if (path := _RETURN_PATH.search(head)) is not None:
        inside = path[1].decode("utf-8", "replace")[1:-1].strip()
        sender = (_address(inside) or sender) if inside else NullSender()
    return Envelope(sender, (Recipient(own),) if own is not None else ())
