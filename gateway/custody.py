"""Who read what, how long mail is kept, what may not go, how it goes, and what was recalled.

Every act here is a leaf of the tree, written in the same transaction as the change it tells of:

    access      somebody was shown content; written before the first byte goes out
    compare     somebody held a file against the archive and put that on record
    hold        a legal hold was laid or released
    disposal    destruction was proposed, confirmed, withdrawn, done
    dispose     the content of one message is gone (`sha256`: its bytes too)
    recall      a person entered or took back a recall

Nothing is destroyed by itself: one person proposes, another confirms, each by an account of their own.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import getpass
import hashlib
import json
import os
import pwd
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from sqlalchemy import Connection, delete, func, select, update

from gateway import archive as archives
from gateway import config
from gateway import database as db
from gateway.archive import Archive, canonical, clean, from_ms, leaf, stamp
from gateway.config import Settings
from gateway.errors import Failure
from gateway.message import VIETNAM, new_case
from gateway.search import Query

#: Kinds of messages that came from somebody; what we wrote ourselves goes with the message it is about.
_RECEIVED = ("mail", "imported")
#: Cases named one by one in a leaf; longer lists go in by number and digest.
_NAMED = 1000
#: Messages destroyed in one step.
_STEP = 100


# ---------------------------------------------------------------------- who


@dataclass(frozen=True, slots=True)
class Person:
    """login: the account at the keyboard; name: how the person is called in the record."""

    login: str
    name: str

    def told(self) -> dict[str, str]:
        return {"who": clean(self.name), "login": clean(self.login)}


def at_the_keyboard(name: str = "") -> Person:
    """Who runs this program. The kernel keeps the account somebody logged in with (`loginuid`) through `sudo` and
    `su`; where it was never set (a container, a timer) it is who called sudo, or the account itself."""
    login = ""
    try:
        number = int(Path("/proc/self/loginuid").read_text())
        if number != 0xFFFFFFFF:
            login = pwd.getpwuid(number).pw_name
    except (OSError, ValueError, KeyError):
        pass
    if not login:
        login = os.environ.get("SUDO_USER", "")
    if not login:
        try:
            login = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            login = getpass.getuser()
    return Person(login, name.strip() or login)


# ---------------------------------------------------------------------- access


async def access(
    archive: Archive, person: Person, act: str, cases: Sequence[str], *, reason: str = "", **more: Any
) -> int:
    """Put on record that `person` is about to be shown content of these cases. Returns the leaf. Raises Failure: then
    nothing may be shown."""
    body: dict[str, Any] = {**person.told(), "act": act, **more}
    if reason:
        body["reason"] = clean(reason)
    case = cases[0] if len(cases) == 1 else ""
    if len(cases) > _NAMED:
        body["cases"] = {"count": len(cases), "sha256": hashlib.sha256(canonical(list(cases))).hexdigest()}
    elif not case:
        body["cases"] = list(cases)
    return await archive.note("access", body, case=case)


async def accesses(
    archive: Archive, case: str = "", who: str = "", since: int = 0, types: tuple[str, ...] = ("access", "compare")
) -> list[dict[str, Any]]:
    """Who was shown what, oldest first: the entries of leaves of these types. Raises Failure."""
    return await archive.database.read(lambda connection: _accesses(connection, case, who, since, types))


def _accesses(connection: Connection, case: str, who: str, since: int, types: tuple[str, ...]) -> list[dict[str, Any]]:
    table = db.leaf.c
    question = select(table.entry).where(table.type.in_(types), table.at >= since).order_by(table.idx)
    found = []
    for data in connection.execute(question).scalars():
        entry = json.loads(data)
        cases = entry.get("cases") or []
        if case and case != entry.get("case") and not (isinstance(cases, list) and case in cases):
            continue
        if who and who not in (entry.get("who"), entry.get("login")):
            continue
        found.append(entry)
    return found


# ---------------------------------------------------------------------- state of messages


async def states(archive: Archive, cases: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What became of messages, where anything did: `recalled` {at, by, who, reason}, `destroyed` {at, disposal},
    `holds` [names]. Raises Failure."""
    wanted = list(cases)
    return await archive.database.read(lambda connection: _states(connection, wanted))


def _states(connection: Connection, cases: list[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(cases), 500):
        some = cases[start : start + 500]
        d, r, h, l = db.destroyed.c, db.recall.c, db.hold_case.c, db.hold.c  # noqa: E741
        for row in connection.execute(select(db.destroyed).where(d.message.in_(some))):
            found.setdefault(row.message, {})["destroyed"] = {"at": stamp(from_ms(row.at)), "disposal": row.disposal}
        held = select(h.message, h.hold).join(db.hold, l.name == h.hold)
        for row in connection.execute(held.where(h.message.in_(some), l.released_at.is_(None)).order_by(h.hold)):
            found.setdefault(row.message, {}).setdefault("holds", []).append(row.hold)
        for case, told in _recalled(connection, some).items():
            found.setdefault(case, {})["recalled"] = told
        for row in connection.execute(select(db.recall).where(r.message.in_(some))):
            found.setdefault(row.message, {})["recalled"] = {
                "at": stamp(from_ms(row.at)), "by": "", "who": row.who, "reason": row.reason,
            }  # fmt: skip
    return found


def _recalled(connection: Connection, cases: list[str]) -> dict[str, dict[str, Any]]:
    """Documents of which a later notice of the same issuer said that they are recalled."""
    m, e = db.message.c, db.event.c
    rows = connection.execute(
        select(m.id, m.document_key, m.issuing_agency, m.sender, m.received_at).where(
            m.id.in_(cases), m.document_key != "", m.kind.in_(_RECEIVED)
        )
    ).all()
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        mark = f"recall|{row.document_key}|"
        notices = connection.execute(
            select(m.id, m.issuing_agency, m.sender, m.received_at)
            .join(db.event, e.message == m.id)
            .where(e.key >= mark, e.key < f"recall|{row.document_key}}}", m.id > row.id)
            .order_by(m.id)
        ).all()
        for notice in notices:
            if archives._same_issuer(notice, row):
                found[row.id] = {"at": stamp(from_ms(notice.received_at)), "by": notice.id, "who": "", "reason": ""}
                break
    return found


async def recall(archive: Archive, case: str, person: Person, reason: str, undo: bool = False) -> None:
    """Enter a recall that did not come by mail, or take one back that was entered. Raises KeyError, Failure."""
    if await archive.row(case) is None:
        raise KeyError(case)

    def write(connection: Connection) -> None:
        there = connection.execute(select(db.recall).where(db.recall.c.message == case)).first()
        if undo and there is None:
            raise Failure("", f"{case}: chưa ai ghi nhận thu hồi / no recall was entered by a person", retryable=False)
        if undo:
            connection.execute(delete(db.recall).where(db.recall.c.message == case))
        else:
            row = {"message": case, "at": _now(), "who": person.name, "reason": clean(reason)}
            if not db.insert(connection, db.recall, [row], ignore=True):
                raise Failure(
                    "", f"{case}: đã ghi nhận thu hồi từ trước / its recall was entered before", retryable=False
                )
        leaf(connection, "recall", {**person.told(), "act": "undo" if undo else "recall", "reason": reason}, case=case)

    await archive.database.write(write)


# ---------------------------------------------------------------------- retention


class RetentionClass(Settings):
    """How long some mail is kept. years: whole years after the year in which it came; null: for good. basis: key of
    `citations.yaml` or words. The first class that fits a message is its class; empty lists fit everything."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    name: str = ""
    years: int | None = Field(None, ge=1, le=100)
    basis: str = Field(min_length=1)
    agencies: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    message_classes: tuple[str, ...] = ()
    directions: tuple[str, ...] = ()

    def fits(self, row: Mapping[str, Any]) -> bool:
        return all(
            not wanted or row[name] in wanted
            for name, wanted in (
                ("agency", self.agencies),
                ("document_kind", self.kinds),
                ("message_class", self.message_classes),
                ("direction", self.directions),
            )
        )

    def until(self, received_at: int) -> dt.date | None:
        """The first day on which a message that came then may go; None: never."""
        if self.years is None:
            return None
        return dt.date(from_ms(received_at).astimezone(VIETNAM).year + 1 + self.years, 1, 1)


class Retention(Settings):
    """`retention.yaml`. What no class fits is kept for good."""

    classes: tuple[RetentionClass, ...] = ()

    @model_validator(mode="after")
    def _once_each(self) -> Retention:
        names = [one.id for one in self.classes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"class {name!r} is there twice")
        return self

    def of(self, row: Mapping[str, Any]) -> RetentionClass:
        return next((one for one in self.classes if one.fits(row)), KEEP)


KEEP = RetentionClass(id="keep", name="Giữ không thời hạn", basis="không có lớp nào phù hợp / no class fits")


def read_retention(directory: Path) -> Retention:
    """`retention.yaml` of a configuration folder; where there is none, everything is kept. Raises ConfigError."""
    path = directory / "retention.yaml"
    return config.load(Retention, path) if path.exists() else Retention()


_COLUMNS = ("id", "kind", "about", "agency", "document_kind", "message_class", "direction", "received_at", "sha256")


async def overview(archive: Archive, retention: Retention, today: dt.date) -> list[dict[str, Any]]:
    """For each class: how many messages, how many of them are over their time. Raises Failure."""

    def ask(connection: Connection) -> list[dict[str, Any]]:
        counts = {one.id: [0, 0] for one in (*retention.classes, KEEP)}
        m = db.message.c
        gone = select(db.destroyed.c.message)
        columns = [m[name] for name in _COLUMNS]
        for row in connection.execute(select(*columns).where(m.kind.in_(_RECEIVED), m.id.not_in(gone))).mappings():
            one = retention.of(row)
            until = one.until(row["received_at"])
            counts[one.id][0] += 1
            counts[one.id][1] += until is not None and until <= today
        return [
            {"class": one.id, "name": one.name, "years": one.years, "basis": one.basis,
             "messages": counts[one.id][0], "due": counts[one.id][1]}
            for one in (*retention.classes, KEEP)
        ]  # fmt: skip

    return await archive.database.read(ask)


# ---------------------------------------------------------------------- legal hold


async def lay_hold(archive: Archive, name: str, query: Query, person: Person, reason: str) -> int:
    """Forbid that anything the question finds is destroyed, now or later. Returns how many it finds now. Raises
    Failure, not retryable when the name is taken or the question empty."""
    if query.empty():
        raise Failure("", "lệnh giữ cần câu tìm: thư nào? / a hold needs a search: which messages?", retryable=False)
    cases = await archive.blocking(archive.index.cases, query)

    def write(connection: Connection) -> None:
        row = {"name": name, "question": json.dumps(query.given(), ensure_ascii=False), "at": _now(),
               "who": person.name, "reason": clean(reason)}  # fmt: skip
        if not db.insert(connection, db.hold, [row], ignore=True):
            raise Failure("", f"lệnh giữ {name!r} đã có / is there already", retryable=False)
        db.insert(connection, db.hold_case, [{"hold": name, "message": one} for one in cases])
        body = {**person.told(), "act": "lay", "hold": name, "question": query.given(), "reason": reason}
        leaf(connection, "hold", {**body, "count": len(cases)})

    await archive.database.write(write)
    return len(cases)


async def release_hold(archive: Archive, name: str, person: Person, reason: str) -> None:
    """Raises Failure, not retryable when there is no such hold in force."""

    def write(connection: Connection) -> None:
        h = db.hold.c
        changed = connection.execute(
            update(db.hold)
            .where(h.name == name, h.released_at.is_(None))
            .values(released_at=_now(), released_by=person.name, release_reason=clean(reason))
        )
        if not changed.rowcount:
            raise Failure("", f"không có lệnh giữ {name!r} đang hiệu lực / no such hold is in force", retryable=False)
        leaf(connection, "hold", {**person.told(), "act": "release", "hold": name, "reason": reason})

    await archive.database.write(write)


async def holds(archive: Archive) -> list[dict[str, Any]]:
    """All holds, released ones too, with `count` of the messages each found when it was laid."""

    def ask(connection: Connection) -> list[dict[str, Any]]:
        counts = dict(connection.execute(select(db.hold_case.c.hold, func.count()).group_by(db.hold_case.c.hold)).all())
        rows = connection.execute(select(db.hold).order_by(db.hold.c.at)).mappings()
        return [{**row, "question": json.loads(row["question"]), "count": counts.get(row["name"], 0)} for row in rows]

    return await archive.database.read(ask)


async def _held(archive: Archive) -> dict[str, str]:
    """Case to the name of a hold in force, over what each hold found when it was laid and what it finds now."""
    found: dict[str, str] = {}
    for one in await holds(archive):
        if one["released_at"] is None:
            question = {k: tuple(v) if isinstance(v, list) else v for k, v in one["question"].items()}
            for case in await archive.blocking(archive.index.cases, Query(**question)):
                found.setdefault(case, one["name"])

    def laid(connection: Connection) -> list[Any]:
        h = db.hold_case.c
        question = select(h.message, h.hold).join(db.hold, db.hold.c.name == h.hold)
        return list(connection.execute(question.where(db.hold.c.released_at.is_(None))))

    for row in await archive.database.read(laid):
        found.setdefault(row.message, row.hold)
    return found


# ---------------------------------------------------------------------- destruction


@dataclass(slots=True)
class Proposal:
    """What may go and what may not. refused: case to the reason."""

    id: str = ""
    cases: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


async def _judge(archive: Archive, retention: Retention, cases: Sequence[str], today: dt.date) -> Any:
    """(rows that may go with their class, refused): each case by itself."""
    held = await _held(archive)
    what = await states(archive, cases)

    def ask(connection: Connection) -> tuple[list[tuple[Any, RetentionClass]], dict[str, str]]:
        may: list[tuple[Any, RetentionClass]] = []
        refused: dict[str, str] = {}
        m, r = db.message.c, db.recipient.c
        columns = [m[name] for name in _COLUMNS]
        for case in dict.fromkeys(cases):
            row = connection.execute(select(*columns).where(m.id == case)).mappings().first()
            if row is None or row["kind"] not in _RECEIVED:
                refused[case] = (
                    "không có thư nhận được nào mang mã này / no received message has this id"
                    if row is None
                    else "hủy cùng với thư mà nó nói tới / goes with the message it is about"
                )
                continue
            one = retention.of(row)
            until = one.until(row["received_at"])
            open_ = select(r.id).where(r.message == case, r.state.in_(("queued", "held"))).limit(1)
            told = what.get(case, {})
            if "destroyed" in told:
                refused[case] = "đã hủy / destroyed already"
            elif case in held:
                refused[case] = f"đang có lệnh giữ {held[case]!r} / under hold"
            elif "recalled" in told:
                refused[case] = "đã thu hồi, giữ làm chứng / recalled: kept as evidence"
            elif until is None:
                refused[case] = f"lớp {one.id!r} giữ không thời hạn / kept for good"
            elif until > today:
                refused[case] = f"lớp {one.id!r}: còn phải giữ / to be kept until {until.isoformat()}"
            elif connection.execute(open_).first() is not None:
                refused[case] = "còn chờ giao hoặc chờ quyết định / waits for delivery or a decision"
            else:
                may.append((row, one))
        return may, refused

    return await archive.database.read(ask)


async def propose(
    archive: Archive,
    retention: Retention,
    person: Person,
    reason: str,
    cases: Sequence[str] = (),
    query: Query | None = None,
    today: dt.date | None = None,
) -> Proposal:
    """Propose to destroy messages. Named ones must all be free to go, else nothing is proposed (`id` is empty); of
    those a question finds, the ones that are free are taken. Raises Failure."""
    today = today or dt.datetime.now(VIETNAM).date()
    wanted = list(cases) if query is None else await archive.blocking(archive.index.cases, query)
    may, refused = await _judge(archive, retention, wanted, today)
    result = Proposal(cases=[row["id"] for row, _ in may], refused=refused)
    if not may or (query is None and refused):
        return result
    result.id = new_case()

    def write(connection: Connection) -> None:
        m = db.message.c
        taken = {row["id"]: (one.id, one.basis) for row, one in may}
        waiting = connection.execute(
            select(db.disposal_case.c.message)
            .join(db.disposal, db.disposal.c.id == db.disposal_case.c.disposal)
            .where(db.disposal.c.state.in_(("proposed", "confirmed")))
        ).scalars()
        if twice := sorted(taken.keys() & set(waiting)):
            raise Failure("", f"{twice[0]} đã có trong đề nghị khác / is in another proposal already", retryable=False)
        row = {"id": result.id, "at": _now(), "who": person.name, "reason": clean(reason), "state": "proposed"}
        db.insert(connection, db.disposal, [{**row, "decided_by": "", "decision_reason": ""}])
        ids = list(taken)
        for start in range(0, len(ids), 500):  # what we wrote about them quotes them, and goes with them
            about = select(m.id, m.about).where(m.about.in_(ids[start : start + 500]), m.kind.not_in(_RECEIVED))
            taken.update({own.id: taken[own.about] for own in connection.execute(about)})
        db.insert(
            connection,
            db.disposal_case,
            [{"disposal": result.id, "message": case, "class": a, "basis": b} for case, (a, b) in taken.items()],
        )
        body = {**person.told(), "act": "propose", "disposal": result.id, "reason": reason, "count": len(taken)}
        leaf(connection, "disposal", {**body, "sha256": hashlib.sha256(canonical(sorted(taken))).hexdigest()})

    await archive.database.write(write)
    return result


async def disposals(archive: Archive, name: str = "") -> list[dict[str, Any]]:
    """Proposals and what became of them, oldest first, each with `cases`."""

    def ask(connection: Connection) -> list[dict[str, Any]]:
        d, c = db.disposal.c, db.disposal_case.c
        question = select(db.disposal).order_by(d.at)
        if name:
            question = question.where(d.id == name)
        return [
            {**row, "cases": list(connection.execute(select(c.message).where(c.disposal == row["id"])).scalars())}
            for row in connection.execute(question).mappings()
        ]

    return await archive.database.read(ask)


async def withdraw(archive: Archive, name: str, person: Person, reason: str) -> None:
    """Take a proposal back; anybody may. Raises Failure."""

    def write(connection: Connection) -> None:
        if not _decide(connection, name, ("proposed",), "withdrawn", person, reason):
            raise Failure(
                "", f"không có đề nghị {name} nào chờ quyết định / no proposal waits for a decision", retryable=False
            )
        leaf(connection, "disposal", {**person.told(), "act": "withdraw", "disposal": name, "reason": reason})

    await archive.database.write(write)


async def confirm(
    archive: Archive,
    retention: Retention,
    name: str,
    person: Person,
    reason: str,
    today: dt.date | None = None,
) -> int:
    """Destroy what another person proposed, if all of it may still go. Returns how many messages are gone. Raises
    Failure, not retryable when it may not be. What was interrupted is continued by confirming again."""
    today = today or dt.datetime.now(VIETNAM).date()
    found = await disposals(archive, name)
    if not found or found[0]["state"] not in ("proposed", "confirmed"):
        raise Failure(
            "", f"không có đề nghị {name} nào chờ quyết định / no proposal waits for a decision", retryable=False
        )
    (proposal,) = found
    proposer = await archive.database.read(lambda connection: _proposer(connection, name))
    if person.login == proposer.get("login") or person.name.casefold() == proposer.get("who", "").casefold():
        words = (
            f"{person.name} ({person.login}) là người đề nghị: người khác xác nhận, bằng tài khoản khác / "
            "proposed it: another person confirms, from an account of their own"
        )
        raise Failure("", words, retryable=False)
    if proposal["state"] == "proposed":
        mail = await archive.database.read(lambda connection: _mail_of(connection, name))
        _, refused = await _judge(archive, retention, mail, today)
        if refused:
            first, why = next(iter(refused.items()))
            words = f"{len(refused)} / {len(mail)} thư không được hủy / may not go (any more); {first}: {why}"
            raise Failure("", words, retryable=False)

        def write(connection: Connection) -> None:
            if not _decide(connection, name, ("proposed",), "confirmed", person, reason):
                raise Failure("", f"đề nghị {name} vừa được quyết định / was decided meanwhile", retryable=False)
            leaf(connection, "disposal", {**person.told(), "act": "confirm", "disposal": name, "reason": reason})

        await archive.database.write(write)
    return await _carry_out(archive, {**proposal, "proposer": proposer, "confirmer": person.told()})


def _decide(
    connection: Connection, name: str, states: tuple[str, ...], state: str, person: Person, reason: str
) -> bool:
    d = db.disposal.c
    values = {"state": state, "decided_at": _now(), "decided_by": person.name, "decision_reason": clean(reason)}
    return bool(
        connection.execute(update(db.disposal).where(d.id == name, d.state.in_(states)).values(values)).rowcount
    )


def _proposer(connection: Connection, name: str) -> dict[str, str]:
    for data in connection.execute(select(db.leaf.c.entry).where(db.leaf.c.type == "disposal")).scalars():
        entry = json.loads(data)
        if entry.get("disposal") == name and entry.get("act") == "propose":
            return {"who": entry["who"], "login": entry["login"]}
    raise Failure("", f"proposal {name} has no leaf in the tree", retryable=False)


def _mail_of(connection: Connection, name: str) -> list[str]:
    c, m = db.disposal_case.c, db.message.c
    question = select(c.message).join(db.message, m.id == c.message).where(c.disposal == name, m.kind.in_(_RECEIVED))
    return list(connection.execute(question).scalars())


async def _carry_out(archive: Archive, proposal: dict[str, Any]) -> int:
    name = proposal["id"]
    gone = await archive.database.read(
        lambda c: set(c.execute(select(db.destroyed.c.message).where(db.destroyed.c.disposal == name)).scalars())
    )
    left = [case for case in proposal["cases"] if case not in gone]
    loop = asyncio.get_running_loop()
    for start in range(0, len(left), _STEP):
        some = left[start : start + _STEP]

        def meanwhile(some: list[str] = some) -> int:
            work = archive.database.write(lambda connection: _empty(connection, proposal, some))
            return asyncio.run_coroutine_threadsafe(work, loop).result()

        # The index forgets the words first and knows how many are gone: when the machine stops in between, it sees
        # that it knows of fewer than there are, and is made again.
        await archive.blocking(archive.index.forget, some, meanwhile)
    await archive.blocking(archive.index.scrub)
    # Bytes last, when a signed leaf says that they go on purpose. Also those of a step that was interrupted.
    await _sign(archive)
    digests = await archive.database.read(lambda connection: _unused(connection, proposal["cases"]))
    for digest in digests:
        await archive.blocking(archive.store.remove, digest)

    def done(connection: Connection) -> None:
        values = {"state": "done"}
        connection.execute(update(db.disposal).where(db.disposal.c.id == name).values(values))
        leaf(connection, "disposal", {"act": "done", "disposal": name, "count": len(proposal["cases"])})

    await archive.database.write(done)
    await archive.blocking(_scrub, archive)
    return len(proposal["cases"])


async def _sign(archive: Archive) -> None:
    """A checkpoint over what is there now. The running gateway signs too: then its turn comes first, and ours again."""
    for attempt in range(5):
        try:
            await archive.checkpoint()
            return
        except Failure as failure:
            if attempt == 4 or "another process" not in failure.private:
                raise


#: What stays of a destroyed message: envelope, times, number, kind, date and verdict; all else in its row is emptied.
_EMPTIED = {
    "subject": "", "header_from": "", "message_id": "", "abstract": "", "signer": "", "record": "{}", "trace": b"",
}  # fmt: skip


def _empty(connection: Connection, proposal: dict[str, Any], cases: list[str]) -> int:
    """Empty the rows of these messages, each with its leaf. Returns how many messages are destroyed by now."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
    m, now = db.message.c, _now()
    for case in cases:
        digest = connection.execute(select(m.sha256).where(m.id == case)).scalar_one()
        row = {"message": case, "disposal": proposal["id"], "at": now}
        if not db.insert(connection, db.destroyed, [row], ignore=True):
            continue
        body = {
            "disposal": proposal["id"], "proposed": proposal["proposer"], "confirmed": proposal["confirmer"],
            "reason": proposal["reason"], "class": _class_of(connection, proposal["id"], case),
        }  # fmt: skip
        shared = _kept_by(connection, digest)
        # The verifiers take `sha256` for: these bytes are gone. Where another message has the same bytes, they stay.
        leaf(connection, "dispose", {**body, "shared": shared} if shared else {**body, "sha256": digest}, case=case)
        connection.execute(update(db.message).where(m.id == case).values(_EMPTIED))
        for table, column in (
            (db.fulltext, "message"), (db.attachment, "message"), (db.likeness, "message"), (db.sighting, "case_id"),
        ):  # fmt: skip
            connection.execute(delete(table).where(table.c[column] == case))
        a = db.alert.c
        connection.execute(update(db.alert).where(a.case_id == case).values(subject="", text="", detail=""))
    return connection.execute(select(func.count()).select_from(db.destroyed)).scalar_one()


def _class_of(connection: Connection, disposal: str, case: str) -> str:
    c = db.disposal_case.c
    row = connection.execute(select(c["class"], c.basis).where(c.disposal == disposal, c.message == case)).one()
    return f"{row[0]}: {row[1]}"


def _kept_by(connection: Connection, digest: str) -> str:
    """A message with these bytes that is not destroyed, or empty."""
    m = db.message.c
    gone = select(db.destroyed.c.message)
    question = select(m.id).where(m.sha256 == digest, m.id.not_in(gone)).order_by(m.id).limit(1)
    return connection.execute(question).scalar() or ""


def _unused(connection: Connection, cases: list[str]) -> list[str]:
    m, found = db.message.c, set()
    for start in range(0, len(cases), 500):
        found |= set(connection.execute(select(m.sha256).where(m.id.in_(cases[start : start + 500]))).scalars())
    return sorted(digest for digest in found if not _kept_by(connection, digest))


def _scrub(archive: Archive) -> None:
    """Bring what was emptied out of the write-ahead log. With readers at work it stays there until the next time."""
    if archive.database.engine.dialect.name != "sqlite":
        return
    connection = archive.database.engine.raw_connection()
    try:
        connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # type: ignore[union-attr]
    finally:
        connection.close()


def _now() -> int:
    return int(time.time() * 1000)
