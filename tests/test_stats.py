"""Figures against counts made another way; the same message once."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import random
from collections import Counter
from types import SimpleNamespace

import pytest

from gateway import stats
from gateway.archive import Tombstone
from gateway.classify import History
from gateway.inspection.findings import FileFacts, Inspection, Signature, SignatureState
from gateway.message import Address, NullSender, Origin, Recipient
from tests.cases import AT, Disposition, Found, RecipientVerdict, Verdict, case, close, open_archive


@dataclasses.dataclass(frozen=True, slots=True)
class Finding(Found):
    mode: str = "enforce"


def verdict(outcome: Disposition = Disposition.DELIVER, *agencies: str, **other) -> Verdict:
    recipients = tuple(RecipientVerdict(f"x@{one}", outcome, one) for one in agencies)
    return dataclasses.replace(Verdict(), disposition=outcome, recipients=recipients, **other)


def kinds(counts) -> list[tuple[str, str, str, str]]:
    return sorted((one.kind, one.direction, one.agency, one.rule) for one in counts)


def test_events_by_direction():
    received = case().received
    assert kinds(stats.counts(received, "out", verdict(Disposition.DELIVER, ""))) == [("sent", "out", "so-tttt", "")]
    assert kinds(stats.counts(received, "in", verdict(Disposition.DELIVER, "a", "b", "a"))) == [
        ("received", "in", "a", ""),
        ("received", "in", "b", ""),
    ]
    assert kinds(stats.counts(received, "internal", verdict(Disposition.DELIVER, "a"))) == [
        ("received", "in", "a", ""),
        ("sent", "out", "so-tttt", ""),
    ]


def test_returned_is_not_sent_and_a_rule_counts_once():
    findings = (Finding("FM-01", Disposition.RETURN), Finding("FM-01", Disposition.RETURN))
    counts = stats.counts(case().received, "out", verdict(Disposition.RETURN, "", findings=findings))
    assert kinds(counts) == [("finding", "out", "so-tttt", "FM-01"), ("returned", "out", "so-tttt", "")]


def test_signed_needs_a_valid_signature():
    def facts(state):
        file = FileFacts(name="a", path="a", sha256="", size=1, type="pdf", signatures=(Signature(state=state),))
        return Inspection(files=(file,))

    made = {
        state: "signed" in {c.kind for c in stats.counts(case().received, "out", verdict(), facts(state))}
        for state in (SignatureState.VALID, SignatureState.TAMPERED)
    }
    assert made == {SignatureState.VALID: True, SignatureState.TAMPERED: False}


def test_mail_between_two_of_ours_counts_for_both_and_its_faults_for_the_sender():
    findings = (Finding("TM-03", Disposition.DELIVER, "late"),)
    counts = stats.counts(case().received, "out", verdict(Disposition.DELIVER, "b", "", findings=findings))
    assert kinds(counts) == [
        ("finding", "out", "so-tttt", "TM-03"),
        ("late", "out", "so-tttt", "TM-03"),
        ("received", "in", "b", ""),
        ("sent", "out", "so-tttt", ""),
    ]
    assert {one.scope for one in counts if one.kind in ("sent", "received")} == {"inter_agency"}
    # on submission one refused recipient refuses the message: then nobody received it
    counts = stats.counts(case().received, "out", verdict(Disposition.RETURN, "b"))
    assert kinds(counts) == [("returned", "out", "so-tttt", "")]


def directory(**known):
    """A directory that knows these mailboxes: agency by address with `_` for `@` and `.`."""
    boxes = {address: SimpleNamespace(agency=agency, issued=lambda day: True) for address, agency in known.items()}

    def spelled(address):
        return address.replace("@", "_").replace(".", "_").replace("-", "_")

    return SimpleNamespace(
        mailbox=lambda address: boxes.get(spelled(address)),
        agency=lambda name, day: SimpleNamespace(id=name),
        agency_of=lambda address, at: None,
        is_official=lambda domain: domain.endswith(".gov.vn"),
    )


def test_between_whom():
    def scope(direction, **about):
        kind = about.pop("message_class", "OFFICIAL_DOC")
        one = case(**about)
        counts = stats.counts(one.received, direction, verdict(message_class=kind), None, None, directory())
        counts += stats.counts(one.received, direction, verdict(Disposition.DELIVER, "x", message_class=kind))
        return {each.scope for each in counts if each.kind in ("sent", "received")}

    assert scope("internal") == {"internal"}
    assert scope("in", message_class="CITIZEN_MAIL") == {"outside"}
    found = stats.counts(case(to=("a@congty.vn",)).received, "out", verdict(), None, None, directory())
    assert {one.scope for one in found} == {"outside"}
    found = stats.counts(case(to=("a@bo.gov.vn",)).received, "out", verdict(), None, None, directory())
    assert {one.scope for one in found} == {"inter_agency"}
    sender = case(sender="a@congty.vn").received
    found = stats.counts(sender, "in", verdict(Disposition.DELIVER, "x"), None, None, directory())
    assert {one.scope for one in found} == {"outside"}


def test_a_mailbox_is_in_use_once_a_month():
    known = directory(van_thu_so_tttt_tinh_gov_vn="so-tttt")

    def active(number, at=AT):
        counts = stats.counts(case(number=number, at=at).received, "out", verdict(), None, None, known)
        return [one for one in counts if one.kind == "active"]

    (one,), (two,), (later,) = active(1), active(2), active(3, AT.replace(month=12))
    assert one.key == two.key != later.key and one.value == later.value and "@" not in one.value
    assert (
        stats.counts(case().received, "in", verdict(Disposition.DELIVER, "x"), None, None, known)[-1].kind != "active"
    )


def test_meeting_papers_and_calendars():
    def told(message_class, history, *rules):
        found = tuple(Finding(rule, Disposition.DELIVER) for rule in rules)
        judged = verdict(message_class=message_class, findings=found)
        counts = stats.counts(case().received, "out", judged, Inspection(), history)
        return [one.value for one in counts if one.kind in ("meeting", "calendar")]

    def start(hours):
        return History(meeting_start=AT + dt.timedelta(hours=hours))

    assert told("MEETING_MATERIAL", start(24)) == ["on_time"]
    assert told("MEETING_MATERIAL", start(23)) == ["late"]
    assert told("MEETING_MATERIAL", History()) == []
    assert told("MEETING_MATERIAL", History(), "TM-01") == ["late"]
    published = History(calendar_publications=(AT,))
    assert told("WORK_CALENDAR", published) == ["lead_ok"]
    assert told("WORK_CALENDAR", published, "TM-02") == ["late"]
    assert told("WORK_CALENDAR", History()) == []


def test_refused_recipients_once_a_day():
    directory = SimpleNamespace(
        agency_of=lambda address, at: SimpleNamespace(id="so-tttt") if "so" in address else None
    )
    sender, recipient = Address("a", "so.gov.vn"), Recipient(Address("b", "gmail.com"))
    finding = Finding("MB-01", Disposition.RETURN)

    def count(origin, sender=sender, at=AT):
        (one,) = stats.counts_of_refused_recipient(directory, origin, sender, recipient, [finding], at)
        return one

    out = Origin("submission", "127.0.0.1", login="a")
    assert (count(out).agency, count(out).direction, count(out).rule) == ("so-tttt", "out", "MB-01")
    assert count(out).key == count(out).key != count(out, at=AT.replace(day=21)).key
    assert count(Origin("relay", "127.0.0.1"), NullSender()).agency == ""


def test_the_month_table_equals_a_count_by_hand(tmp_path):
    seed = 20261122
    chance = random.Random(seed)
    expected: Counter[tuple[str, str]] = Counter()
    cases = []
    for number in range(120):
        agency = chance.choice(["a", "b", "c"])
        outcome = chance.choice(list(Disposition))
        kind = chance.choice(["OFFICIAL_DOC", "DRAFT", "CITIZEN_MAIL"])
        mode = chance.choice(["electronic_only", "electronic_and_paper", "unlisted"])
        rules = chance.sample(["FM-01", "SG-01", "TM-03"], chance.randint(0, 2))
        at = chance.choice([AT, AT, AT.replace(month=10)])
        judged = verdict(
            outcome,
            "",
            agency=agency,
            message_class=kind,
            delivery_mode=mode,
            findings=tuple(Finding(rule, outcome) for rule in rules),
        )
        one = case(number=number, at=at)
        one = dataclasses.replace(one, verdict=judged, counts=stats.counts(one.received, "out", judged))
        cases.append(one)
        if at != AT:
            continue
        if outcome == Disposition.DELIVER:
            expected[agency, "sent"] += 1
            if kind != "CITIZEN_MAIL":  # a letter, no document
                expected[agency, "documents_sent"] += 1
                expected[
                    agency, {"electronic_only": "e_only", "electronic_and_paper": "e_and_paper"}.get(mode, mode)
                ] += 1
            for name, wanted in (("official_sent", "OFFICIAL_DOC"), ("official", "OFFICIAL_DOC"), ("drafts", "DRAFT")):
                expected[agency, name] += kind == wanted
        else:
            expected[agency, "returned"] += 1
            expected[agency, "returned_out"] += 1
            for rule in rules:
                expected[agency, f"by {rule}"] += 1

    async def work():
        archive = open_archive(tmp_path)
        try:
            # every message is offered twice, as after a lost reply
            for one in [*cases, *cases]:
                await archive.commit(one)
            rows = await archive.database.read(lambda c: stats.month_table(c, "2026-11"))
            got: Counter[tuple[str, str]] = Counter()
            for row in rows:
                got.update({(row.agency, key): number for key, number in row.figures.items() if number})
                got.update({(row.agency, f"by {rule}"): number for rule, number in row.returned_by.items()})
            assert +got == +expected, f"seed {seed}"
            (only,) = await archive.database.read(lambda c: stats.month_table(c, "2026-11", "b"))
            assert only.values() == next(row for row in rows if row.agency == "b").values()
            ids = await archive.database.read(lambda c: stats.messages_of(c, "2026-11", "sent", "b"))
            assert len(ids) == only.figures["sent"] and len({*ids}) == len(ids)
            assert stats.total("2026-11", rows).figures["sent"] == sum(row.figures["sent"] for row in rows)
            assert await archive.database.read(lambda c: stats.month_table(c, "2026-09")) == []
        finally:
            await close(archive)

    asyncio.run(work())


def test_a_secret_leaves_no_digest_and_no_class_in_its_events(tmp_path):
    class Secret:
        text = "block-secret"

    received = case().received
    judged = dataclasses.replace(Verdict(), disposition=Secret(), findings=(Finding("SC-01", Secret()),))
    counts = stats.counts(received, "out", judged)
    assert {(one.kind, one.message_class) for one in counts} == {("blocked_secret", ""), ("finding", "")}

    async def work():
        archive = open_archive(tmp_path)
        try:
            await archive.bury(
                Tombstone("C1", AT, "a@b", ("c@d",), "::1", 5, "mat", "SC-01", received.body.sha256, counts)
            )
        finally:
            await close(archive)

    asyncio.run(work())
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert received.body.sha256.encode() not in kept


def test_unknown_figures_are_named():
    with pytest.raises(KeyError):
        stats.messages_of(None, "2026-11", "nonsense", "a")  # type: ignore[arg-type]
