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
import contextlib
import datetime as dt
import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import format_datetime, getaddresses
from pathlib import Path
from typing import Any, Protocol

from gateway import alerts as alerting
from gateway import journal, likeness, returns, stats
from gateway import log as logs
from gateway import policy as judging
from gateway.archive import Archive, Case, Count, Notice, Owed, Tombstone
from gateway.config import Clamd, Gateway
from gateway.directory import Directory
from gateway.errors import LOCAL_ERROR, Failure, Reply
from gateway.inspection import malware
from gateway.inspection.findings import CheckRun, Finding, Inspection, MessageFacts, SenderFacts, Status
from gateway.late import Held, Waiting
from gateway.message import (
    VIETNAM,
    Address,
    Body,
    Envelope,
    MemoryBody,
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
from gateway.sightings import Sighting
from gateway.wire import BAD_SENDER, BodyWriter, Pool, Refused, parse_path


class Inspecting(Protocol):
    async def message(self, body: Body) -> Inspection: ...


class LateInspecting(Inspecting, Protocol):
    async def run(self) -> None: ...

    async def stop(self) -> None: ...


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
        alerts: alerting.Alerts | None = None,
        late: Callable[[], LateInspecting] | None = None,
        log: Any,
        mail_log: logs.MailLog,
        data: Path,
    ) -> None:
        """late: workers for what takes longer than its sender can wait; without them such mail is judged by what is
        known when the time is over."""
        self.settings = settings
        self.rules = rules
        self._inspector = inspector
        self._archive = archive
        self._sender_check = sender_check
        self._clamd = clamd
        self._wake = wake
        self._alerts = alerts
        self._log = log
        self._mail_log = mail_log
        self._data = data
        self.stopping = False
        self._turns = tuple(asyncio.Lock() for _ in range(64))
        self._journal = frozenset(one.lower() for one in settings.journal)
        self._pool = Pool()
        self._unwrapping = asyncio.Semaphore(2)  # a report is in memory as a whole while it is taken apart
        self._late = late
        self._waiting = Waiting(data)
        self._late_turn, self._late_news = asyncio.Lock(), asyncio.Event()
        self._going: dict[str, asyncio.Task[Any]] = {}  # by digest: inspections that somebody was told 451 for
        self._final: dict[str, Inspection] = {}  # by digest: what they found
        if late is not None:
            self._waiting.clear()

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
        if address.key in self._journal:
            # Anybody could tell tales there: reports are believed of our own servers only.
            return None if origin.trusted else Reply(550, "No such recipient here", "1.1")
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
        others = tuple(one for one in received.envelope.recipients if one.address.key not in self._journal)
        if not others:
            return await self._walk_journal(received)
        if len(others) < len(received.envelope.recipients):  # the copy comes with the message itself: it is this one
            received = replace(received, envelope=replace(received.envelope, recipients=others))
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
        if self._late is not None and over_budget(facts):
            if received.origin.login:
                return await self._hold(received)
            await self._go_on(received.body)
            return _STILL

        core, _ = await _core(received.body)
        case = replace(self._case(rules, received, situation, verdict), core=core)
        receipt = await self._archive.commit(case)
        # The promise begins here: bytes, verdict, deliveries and notices owed are on disk in one commit. A crash on
        # the next line loses nothing; the peer may then offer the message again and gets the old receipt.
        await self._acknowledged(received, facts)
        if receipt.duplicate:
            self._log.info("offered again", first_case=receipt.case)
            return Reply(250, f"Ok, already accepted as {receipt.case}", "0.0")
        self._wake()
        self._alert_now(case.alerts)
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
        if self._clamd is None and (self._sender_check is None or received.origin.login or received.origin.trusted):
            facts = await self._inspected(received.body)
            return facts.model_copy(update={"sender": await self._sender(received)})
        facts, sender, (found, run) = await asyncio.gather(
            self._inspected(received.body), self._sender(received), self._scan(received)
        )
        return facts.model_copy(update={"sender": sender, "findings": facts.findings + found, "runs": facts.runs + run})

    async def _inspected(self, body: Body) -> Inspection:
        """What a late inspection found, else what one finds now."""
        final = self._final.get(body.sha256)
        return final if final is not None else await self._inspector.message(body)

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

    async def _refuse_secret(
        self, received: Received, direction: str, facts: Inspection, verdict: Verdict, *, late: bool = False
    ) -> Reply:
        """A state secret is not spread: no byte of it is kept, only that it happened. late: its sender was told 250,
        and learns it by mail alone."""
        tombstone = replace(
            self._tombstone(received, verdict, (await _core(received.body))[0]),
            counts=stats.counts(received, direction, verdict),
            notices=self._alert(received, verdict) + self._notices(received, facts, verdict, refused=not late),
            alerts=alerting.of_secret(self.settings.alerts, received),
        )
        await self._archive.bury(tombstone)
        self._wake()
        self._alert_now(tombstone.alerts)
        self._mail_log.write(received.case, "refused", sender=received.envelope.sender, reason="policy")
        return returns.reply(verdict, received.case)

    def _tombstone(self, received: Received, verdict: Verdict, core: str) -> Tombstone:
        finding = next(one for one in verdict.findings if one.disposition == Disposition.BLOCK_SECRET)
        return Tombstone(
            case=received.case,
            at=received.at,
            sender=str(received.envelope.sender),
            recipients=tuple(str(one.address) for one in received.envelope.recipients),
            peer=received.origin.client or received.origin.peer or received.origin.channel,
            size=received.body.size,
            level=verdict.secrecy_level,
            rule=finding.rule,
            sha256=received.body.sha256,
            core=core,
        )

    # ----------------------------------------------------------------- what takes longer

    async def _hold(self, received: Received) -> Reply:
        """250 before the verdict: the sender's client cannot wait. The bytes lie under a key of their own until it is
        known that they are no secret; `run_late` finds out."""
        mark, envelope = await self._archive.disguise(received.body.sha256), received.envelope
        wanted = {one.address.key for one in envelope.recipients}

        def hold() -> str:
            for held in self._waiting.all():
                there = {one.address.key for one in held.envelope.recipients}
                if held.mark == mark and held.envelope.sender.key == envelope.sender.key and wanted <= there:
                    return held.case
            try:
                self._waiting.hold(received, mark)
            except OSError as error:
                with contextlib.suppress(OSError):
                    self._waiting.forget(received.case)
                raise Failure(LOCAL_ERROR.text, f"late: {error.strerror}") from error
            return received.case

        case = await asyncio.to_thread(hold)
        self._late_news.set()
        self._mail_log.write(received.case, "held", sender=envelope.sender or "<>", reason="inspection goes on")
        return Reply(250, f"VBDT HOLD Thu dang duoc kiem tra, ma {case}", "0.0")

    async def _go_on(self, body: Body) -> None:
        """Inspect to the end what a server was told 451 for; it finds the answer when it comes again."""
        sha256 = body.sha256
        if sha256 in self._going or len(self._going) >= _MOST_GOING:
            return
        copy = await asyncio.to_thread(lambda: self._inner(body.read()))

        async def work() -> None:
            try:
                await self._inspect_late(copy)
            except Exception:
                self._log.exception("late inspection failed")
            finally:
                copy.close()
                self._going.pop(sha256, None)

        self._going[sha256] = asyncio.create_task(work(), name="late-inspection")

    async def _must_be_decided(self, body: Body, facts: Inspection) -> None:
        """For mail that can be asked for again: not archived before it is known whether it is a secret."""
        if self._late is not None and over_budget(facts):
            await self._go_on(body)
            raise Failure(_STILL.text, "inspection goes on")

    async def _inspect_late(self, body: Body) -> None:
        """With workers of its own, one message after another, so that the mail of the day does not wait for it."""
        assert self._late is not None
        async with self._late_turn:
            if body.sha256 in self._final:
                return
            inspector = self._late()
            running = asyncio.create_task(inspector.run())
            asking = asyncio.create_task(inspector.message(body))
            try:
                await asyncio.wait((running, asking), return_when=asyncio.FIRST_COMPLETED)
                if not asking.done():
                    raise Failure(LOCAL_ERROR.text, f"late inspection cannot start: {running.exception()}")
                facts = asking.result()
            finally:
                running.cancel()
                asking.cancel()
                await asyncio.gather(running, asking, return_exceptions=True)
                await inspector.stop()
        while len(self._final) >= _MOST_FINAL:
            del self._final[next(iter(self._final))]
        # What has not answered now will not answer: that is the last word, and the policy has one for it.
        runs = tuple(
            one.model_copy(update={"status": Status.FAILED}) if one.status is Status.TIMED_OUT else one
            for one in facts.runs
        )
        self._final[body.sha256] = facts.model_copy(update={"runs": runs})

    async def run_late(self) -> None:
        """Give what is held its verdict, oldest first, also what was held before a restart. Runs until cancelled."""
        while True:
            self._late_news.clear()
            pause = None
            for held in await asyncio.to_thread(lambda: list(self._waiting.all())):
                logs.bind_contextvars(case=held.case)
                try:
                    await self._settle(held)
                except Failure as failure:
                    self._log.error("held message waits on", reason=failure.private or failure.public)
                    pause = _LATE_AGAIN
                except Exception:
                    self._log.exception("held message waits on")
                    pause = _LATE_AGAIN
                finally:
                    logs.clear_contextvars()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._late_news.wait(), pause)

    async def _settle(self, held: Held) -> None:
        """The verdict, and then the key goes. A kill at any line repeats what is not done."""
        if not await self._archive.decided(held.case):
            body = await asyncio.to_thread(self._waiting.body, held.case)
            if body is None:
                raise Failure(LOCAL_ERROR.text, "ALARM: the key of a held message is gone")
            received = Received(held.case, held.at, held.envelope, held.origin, body)
            await self._inspect_late(body)
            facts = await self._facts(received)
            rules, envelope = self.rules, held.envelope
            direction = judging.direction(rules.directory, held.origin, envelope.sender, envelope.recipients, held.at)
            situation = await self._situation(rules, received, direction, facts)
            verdict = judging.judge(rules.policy, rules.directory, situation)
            if verdict.disposition == Disposition.BLOCK_SECRET:
                await self._refuse_secret(received, direction, facts, verdict, late=True)
            else:
                core, _ = await _core(body)
                case = replace(self._case(rules, received, situation, verdict, late=True), core=core)
                receipt = await self._archive.commit(case)
                await self._acknowledged(received, facts)
                if not receipt.duplicate:
                    self._wake()
                    self._alert_now(case.alerts)
                    self._tell(case)
            self._final.pop(body.sha256, None)
        try:
            await asyncio.to_thread(self._waiting.forget, held.case)
        except OSError as error:
            raise Failure(LOCAL_ERROR.text, f"late: {error.strerror}") from error

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
            if polled.journal:
                origin = Origin("journal", polled.server, tls=polled.tls, protocol="IMAP", trusted=True)
                sha256, place = polled.body.sha256, polled.account
                taken = await self._journaled(case, polled.body, polled.at, origin, place, None, polled.history)
                digest = await self._archive.disguise(sha256) if taken.secret else sha256
                return replace(taken, digest=digest, offends=taken.secret)
            return await self._walk_polled(case, polled)
        finally:
            logs.clear_contextvars()

    async def _walk_polled(self, case: str, polled: Polled) -> Taken:
        body, own, head = polled.body, _address(polled.account), _head(polled.body)
        # A message in the folder of sent mail was put there by the owner of the mailbox; one in the inbox by anybody.
        sent = polled.role == "sent"
        origin = Origin("imap", polled.server, tls=polled.tls, login=polled.account if sent else "", protocol="IMAP")
        received = Received(case, polled.at, Envelope(NullSender(), ()), origin, body)
        facts = await self._facts(received)
        await self._must_be_decided(body, facts)
        received = replace(received, envelope=_envelope(head, facts.message, own, sent))
        side = "out" if sent else "in"  # internal mail lies in two mailboxes: each proves its own side
        return await self._seen(received, facts, Sighting("imap", polled.account, body.sha256), side, polled.history)

    async def _walk_journal(self, received: Received) -> Reply:
        """Journal reports and copies of all mail: taken whatever is in them, and owed to nobody."""
        place = received.envelope.recipients[0].address.key
        origin = replace(received.origin, channel="journal", next_hop="")
        taken = await self._journaled(
            received.case, received.body, received.at, origin, place, received.envelope.sender, False
        )
        return Reply(250, f"Ok, recorded as {taken.case}", "0.0")

    async def _journaled(
        self, case: str, outer: Body, at: dt.datetime, origin: Origin, place: str, sender: Sender | None, history: bool
    ) -> Taken:
        """What a journal tells of: the message in a report, or the copy itself, judged and archived like one that lies
        in a mailbox. A report that cannot be unwrapped is archived as it is, with its defect."""
        async with self._unwrapping:
            report, inner = await asyncio.to_thread(self._unwrap, outer)
        try:
            received = Received(case, at, Envelope(NullSender(), ()), origin, inner)
            facts = await self._facts(received)
            await self._must_be_decided(inner, facts)
            if report is None:
                envelope = _envelope(_head(inner), facts.message, None, True)
                envelope = envelope if sender is None else replace(envelope, sender=sender)
                sighting = Sighting("bcc", place, outer.sha256)
            else:
                if report.defect:
                    self._log.warning("journal report not unwrapped", reason=report.defect, place=place)
                    found = Finding(kind="mime", value="journal_report", where=report.defect)
                    facts = facts.model_copy(update={"findings": (*facts.findings, found)})
                envelope = _told_envelope(report)
                sighting = Sighting("journal", place, outer.sha256, report.head, report.text())
            return await self._seen(replace(received, envelope=envelope), facts, sighting, "", history)
        finally:
            if inner is not outer:
                inner.close()

    def _unwrap(self, outer: Body) -> tuple[journal.Report | None, Body]:
        """The report, without its message, and the message; for other mail the mail itself. In a thread."""
        report = journal.read(outer.read())
        if report is None or report.inner is None:
            return report, outer
        return replace(report, inner=None), self._inner(report.inner)

    def _inner(self, data: bytes) -> Body:
        """A body of its own, under the same care as one off the wire. In a thread."""
        folder = self._data / "spill"
        folder.mkdir(mode=0o700, exist_ok=True)
        writer = BodyWriter(folder, self.settings.limits.memory_size, self._pool)
        try:
            for start in range(0, len(data), 1 << 20):
                writer.put(data[start : start + (1 << 20)])
            return writer.finish()
        except BaseException:
            writer.discard()
            raise

    async def _seen(self, received: Received, facts: Inspection, sighting: Sighting, side: str, history: bool) -> Taken:
        """Judge and archive what others have delivered. side: `in` or `out` when only that is proved, else both are
        counted; history: nobody is told of it."""
        rules, body, envelope, origin = self.rules, received.body, received.envelope, received.origin
        ours = rules.directory.agency_of(envelope.sender.key, received.at) if envelope.sender.key else None
        # Our own server journals what one of ours has sent: for the direction that is as good as a login.
        speaker = replace(origin, login=envelope.sender.key) if ours and origin.channel == "journal" else origin
        direction = judging.direction(rules.directory, speaker, envelope.sender, envelope.recipients, received.at)
        situation = await self._situation(rules, received, direction, facts)
        verdict = judging.judge(rules.policy, rules.directory, situation)
        offends = verdict.disposition >= Disposition.HOLD
        core, top = await _core(body)
        if verdict.disposition == Disposition.BLOCK_SECRET:
            # The same bytes may lie in several mailboxes, which are read at the same time: one of them is the first.
            async with self._turns[int(core[:2], 16) % len(self._turns)]:
                digest, alike = await self._archive.disguise(body.sha256), await self._archive.disguise(core)
                buried = await self._archive.buried(digest, alike)
                if buried:
                    again = stats.counts(received, direction, verdict)
                    hidden = [replace(one, key=one.key.replace(body.sha256, digest)) for one in again]
                    await self._archive.see(buried, hidden, received.at, None)
                else:
                    await self._refuse_secret(received, direction, facts, verdict)
            return Taken(buried or received.case, digest, secret=True, offends=True)
        counts = stats.counts(received, direction, verdict, facts, situation.history, rules.directory)
        # A journal names everybody; only agencies of the directory are counted, unless there is none.
        known = side or any(one.agency for one in counts)
        counts = tuple(one for one in counts if one.direction == side or (not side and (one.agency or not known)))
        sighting = replace(sighting, head=sighting.head or top)
        first = await self._delivered_by_us(_head(body), body)
        if first:
            if sighting.via != "imap":
                await self._archive.see(first, (), received.at, sighting)
            return Taken(first, body.sha256, offends=False)
        first, own = await self._archive.first_case(body.sha256, core)
        if own:
            return Taken(first, body.sha256, offends=False)
        if first:
            await self._archive.see(first, counts, received.at, sighting)
            return Taken(first, body.sha256, offends=offends)
        notices = () if history else self._notices_of_seen(rules, received, facts, verdict, sighting)
        whole = self._case(rules, received, situation, verdict)
        owed = tuple(replace(one, state="seen", destination="") for one in whole.owed)
        whole = replace(whole, owed=owed, trace=b"", counts=counts, notices=notices, core=core)
        told = () if history or side == "out" else alerting.of_message(self.settings.alerts, rules.directory, whole)
        whole = replace(whole, alerts=told)
        receipt = await self._archive.commit(whole, sighting)
        await self._acknowledged(received, facts)
        if receipt.duplicate:
            return Taken(receipt.case, body.sha256, offends=offends)
        if notices:
            self._wake()
        self._alert_now(told)
        self._tell(whole)
        return Taken(receipt.case, body.sha256, offends=offends)

    # ----------------------------------------------------------------- old mail

    async def imported(self, data: bytes, form: str) -> tuple[str, str]:
        """Old mail from a file: the same facts and the same judgement, as of its Date field; nobody is told, nothing
        is owed, no figure and no register counts it. Safe to repeat.

        Returns what became of it (`imported`, `known`, `secret`, or `undecided` when the inspection took too long to
        know) and the case. Raises Failure."""
        body = MemoryBody(data, hashlib.sha256(data).hexdigest())
        # Files often have bare line feeds where the message had CRLF when it came by SMTP.
        wire = body if b"\n" not in data.replace(b"\r\n", b"") else _with_crlf(data)
        core, _ = await _core(wire)
        first, _ = await self._archive.first_case(wire.sha256, core)
        known = first or await self._archive.imported_case(body.sha256)
        if known:
            return "known", known
        digest, alike = await self._archive.disguise(wire.sha256), await self._archive.disguise(core)
        if buried := await self._archive.buried(digest, alike):
            return "secret", buried
        now = dt.datetime.now(VIETNAM)
        origin = Origin("import", "", protocol=form)
        received = Received(new_case(), now, Envelope(NullSender(), ()), origin, body)
        facts = await self._facts(received)
        envelope = _envelope(_head(body), facts.message, None, True)
        received = replace(received, envelope=envelope)
        rules = self.rules
        claimed = _claimed(facts.message.date, now)
        ours = rules.directory.agency_of(envelope.sender.key, claimed) if envelope.sender.key else None
        speaker = replace(origin, login=envelope.sender.key) if ours else origin
        direction = judging.direction(rules.directory, speaker, envelope.sender, envelope.recipients, claimed)
        situation = await self._situation(rules, replace(received, at=claimed), direction, facts)
        verdict = judging.judge(rules.policy, rules.directory, situation)
        if verdict.disposition == Disposition.BLOCK_SECRET:
            await self._archive.bury(self._tombstone(replace(received, body=wire), verdict, core))
            return "secret", received.case
        if over_budget(facts):
            return "undecided", ""
        whole = self._case(rules, received, situation, verdict)
        owed = tuple(replace(one, state="seen", destination="") for one in whole.owed)
        event = Count(f"import|{body.sha256}", "imported", verdict.agency, direction, verdict.message_class, value=form)
        whole = replace(
            whole, kind="imported", owed=owed, trace=b"", counts=(event,), notices=(), alerts=(), answerable=False,
            core="",
        )  # fmt: skip
        receipt = await self._archive.commit(whole)
        return "known" if receipt.duplicate else "imported", receipt.case

    async def _delivered_by_us(self, head: bytes, body: Body) -> str:
        """The case of a message that we delivered ourselves: it names the case, and ends with the archived bytes below
        what we and the servers behind us put on top. The name alone proves nothing; the bytes do."""
        for found in _CASE.findall(head)[:3]:
            row = await self._archive.row(found.decode())
            if row is not None and await asyncio.to_thread(_ends_with, body, row["size"], row["sha256"]):
                return found.decode()
        return ""

    # ----------------------------------------------------------------- what is owed

    def _case(
        self, rules: Rules, received: Received, situation: Situation, verdict: Verdict, *, late: bool = False
    ) -> Case:
        """What the archive must make durable. On submission one refused recipient refuses the message (the sender
        mends it and sends again); from other servers, and where 250 was said already (`late`), the rest are delivered
        and the refused ones returned."""
        facts = situation.inspection
        refused = not late and self._refused(received.origin, verdict)
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
        case = Case(
            received=received,
            direction=situation.direction,
            inspection=facts,
            verdict=verdict,
            trace=self._trace(received, verdict),
            owed=tuple(owed),
            notices=self._notices(received, facts, verdict, refused),
            counts=stats.counts(received, situation.direction, verdict, facts, situation.history, rules.directory),
            policy_text=rules.policy.canonical(),
            answerable=self._answerable(received.origin, facts),
            history=situation.history,
        )
        return replace(case, alerts=alerting.of_message(self.settings.alerts, rules.directory, case))

    def _alert_now(self, owed: tuple[alerting.Alert, ...]) -> None:
        if owed and self._alerts is not None:
            self._alerts.wake()

    async def _acknowledged(self, received: Received, facts: Inspection) -> None:
        """A person answered an alert: that counts when they are who they say, and no machine answers for them."""
        names, origin, sender = facts.message.from_, received.origin, received.envelope.sender
        if self._alerts is None or not (facts.message.in_reply_to or facts.message.references):
            return
        if len(names) == 1 and returns.may_notify(facts.message, sender, self._answerable(origin, facts)):
            writer = sender.key if origin.login else names[0].address.lower()
            await self._alerts.answered(facts.message, writer)

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
        # In a folder of sent mail the header may name anybody; the owner of the mailbox put it there.
        sender = (_address(origin.login) if origin.channel == "imap" else None) or envelope.sender
        if isinstance(sender, NullSender):
            return ()
        if refused and not (origin.login and self.settings.notify_authenticated_senders):
            return ()  # the peer reads the reply; a second message would be backscatter
        if not returns.may_notify(facts.message, sender, self._answerable(origin, facts)):
            return ()
        data = returns.notice(
            verdict,
            facts.message,
            sender=str(sender),
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
        hop = self.settings.hop_for(sender.domain)
        if hop is None:
            return ()
        rules = ",".join(sorted({one.rule for one in verdict.findings}))
        key = f"{sender.key}|{rules}|{received.body.sha256}"
        return (Notice("notice", data, ((str(sender), hop.name),), received.case, key),)

    def _notices_of_seen(
        self, rules: Rules, received: Received, facts: Inspection, verdict: Verdict, sighting: Sighting
    ) -> tuple[Notice, ...]:
        """Who learns of mail that others delivered and that breaks a rule: its sender when that is sure, else the clerk
        of the agency that has it."""
        if received.origin.channel != "journal" and (received.origin.login or facts.sender.aligned):
            return self._notices(received, facts, verdict, refused=False)
        if verdict.disposition < Disposition.HOLD or isinstance(received.envelope.sender, NullSender):
            return ()
        notices = []
        for address in self._clerks(rules, received, verdict, sighting):
            hop = self.settings.hop_for(address.domain)
            if hop is not None and address.key != received.envelope.sender.key:
                data = returns.clerk_notice(
                    verdict, received, clerk=str(address), contacts=self.settings.contacts,
                    hostname=self.settings.hostname, inspection=facts,
                )  # fmt: skip
                key = f"clerk|{address.key}|{received.body.sha256}"
                notices.append(Notice("notice", data, ((str(address), hop.name),), received.case, key))
        return tuple(notices)

    def _clerks(self, rules: Rules, received: Received, verdict: Verdict, sighting: Sighting) -> list[Address]:
        """The văn thư of each agency concerned: as the directory names it, else the agency's own mailbox, else the one
        of the settings, else the mailbox in which it lies."""
        directory, found = rules.directory, dict[str, Address]()
        agencies = {one.agency for one in verdict.recipients} if verdict.recipients else {verdict.agency}
        for identifier in sorted(agencies):
            agency = directory.agency(identifier, received.at) if identifier else None
            words = [agency.clerk.email] if agency is not None and agency.clerk is not None else []
            if agency is not None:
                day = received.at.date()
                boxes = (one for one in directory.mailboxes(agency.id) if one.kind == "AGENCY" and one.issued(day))
                words += [one.address for one in boxes][:1]
            words += [self.settings.contacts.clerk_email, sighting.place if sighting.via == "imap" else ""]
            address = next((one for word in words if (one := _address(word))), None)
            if address is not None:
                found[address.key] = address
        return list(found.values())

    def _alert(self, received: Received, verdict: Verdict) -> tuple[Notice, ...]:
        """The security officer learns that, when, from whom and to whom; and nothing of what."""
        contacts, owed = self.settings.contacts, []
        for officer in dict.fromkeys((contacts.security_officer, alerting.officer_mail(self.settings.alerts))):
            hop = self.settings.hop_for(officer.rpartition("@")[2].lower()) if "@" in officer else None
            if hop is not None:
                named = contacts.model_copy(update={"security_officer": officer})
                data = returns.secrecy_alert(received, verdict, named, self.settings.hostname)
                key = f"alert|{received.case}|{officer}"
                owed.append(Notice("alert", data, ((officer, hop.name),), received.case, key))
        return tuple(owed)

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


#: Inspections after a 451 that may wait for their turn, and answers that wait for their server.
_MOST_GOING, _MOST_FINAL = 32, 256
#: Seconds before a held message is tried again for which database or store was away.
_LATE_AGAIN = 5.0
_STILL = Reply(451, "Inspection takes longer than this session, please try again later", "3.0")


#: Checks that must have answered before it is known that a message is no secret (rule SC-01).
_SECRECY = ("mime", "containers", "text", "secrecy", "ocr", "frames", "inspection")


def over_budget(facts: Inspection) -> bool:
    """Did time run out before it was known whether this is a secret? What failed otherwise will not change."""
    return any(run.check in _SECRECY and run.status is Status.TIMED_OUT for run in facts.runs)


def _claimed(date: str, now: dt.datetime) -> dt.datetime:
    """When the message says it was written; now, when it says nothing that can be true."""
    try:
        claimed = dt.datetime.fromisoformat(date)
    except ValueError:
        return now
    return claimed.astimezone(VIETNAM) if claimed.tzinfo is not None and claimed < now and claimed.year > 1990 else now


def _with_crlf(data: bytes) -> MemoryBody:
    whole = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return MemoryBody(whole, hashlib.sha256(whole).hexdigest())


async def _core(body: Body) -> tuple[str, bytes]:
    """`likeness.core`, away from the loop where it takes long."""
    return likeness.core(body) if body.size < 1 << 18 else await asyncio.to_thread(likeness.core, body)


def _told_envelope(report: journal.Report) -> Envelope:
    """The envelope that a journal report tells of."""
    addresses = {one.key: one for named in report.recipients if (one := _address(named.address)) is not None}
    return Envelope(_address(report.sender) or NullSender(), tuple(map(Recipient, addresses.values())))


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
