"""What is known of mailboxes that are read: folders, messages, and what is still to be done on the server.

Functions for `Database.write` and `Database.read`; they wait for nothing but the database. Times are milliseconds.
Each UID that was ever on the server has a row, so that what is missing shows: a highest UID alone would hide a message
that was skipped.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, select, update

from gateway import database as db
from gateway.imap_session import Folder, Listed

folder, message, action = db.imap_folder, db.imap_message, db.imap_action

#: Seconds until a message or an act that failed is tried again: doubled each time, up to an hour.
_FIRST, _LAST = 30, 3600


def later(now: int, tries: int) -> int:
    return now + 1000 * min(_FIRST * 2 ** min(tries, 20), _LAST)


# ---------------------------------------------------------------------- folders


def open_folder(connection: Connection, account: str, role: str, seen: Folder, now: int) -> dict[str, Any]:
    """The row of a folder as the server shows it now. Another UIDVALIDITY, or UIDs that begin anew under the old one (a
    server put back from a backup), close the old row: its UIDs mean nothing any more (RFC 9051 2.3.1.1)."""
    rows = select(folder).where(folder.c.account == account, folder.c.name == seen.name).order_by(folder.c.id.desc())
    row = connection.execute(rows).mappings().first()
    if row is not None and row["closed_at"] is None:
        if row["uidvalidity"] == seen.uidvalidity and (not seen.told or seen.uidnext >= row["uidnext"]):
            if row["role"] != role:
                connection.execute(update(folder).where(folder.c.id == row["id"]).values(role=role))
            return {**row, "role": role}
        connection.execute(update(folder).where(folder.c.id == row["id"]).values(closed_at=now))
    real = and_(folder.c.account == account, folder.c.uidvalidity > 0)
    first = connection.execute(select(func.min(folder.c.first_at)).where(real)).scalar()
    before = connection.execute(select(folder.c.id).where(real, folder.c.name == seen.name).limit(1)).first()
    fresh = {
        "account": account,
        "name": seen.name,
        "role": role,
        "uidvalidity": seen.uidvalidity,
        # What lies in a folder that we never saw is history; under new numbers only the date can tell.
        "history": seen.uidnext if before is None else 0,
        "first_at": first or now,
    }
    db.insert(connection, folder, [fresh])
    return dict(connection.execute(rows).mappings().first() or {})


def add(
    connection: Connection,
    row: dict[str, Any],
    found: Iterable[Listed],
    uidnext: int,
    since: dt.date | None,
    now: int,
) -> None:
    """Messages that were found on the server, and up to where they are known by now."""
    start = dt.datetime.combine(since, dt.time(), dt.timezone(dt.timedelta(hours=7))) if since else None
    db.insert(
        connection,
        message,
        [
            {
                "folder": row["id"],
                "uid": one.uid,
                "account": row["account"],
                "state": "old" if start and one.internal and one.internal < start else "missing",
                "size": one.size,
                "internal_at": int(one.internal.timestamp() * 1000) if one.internal else None,
                "found_at": now,
            }
            for one in found
        ],
        ignore=True,
    )
    if uidnext > row["uidnext"]:
        connection.execute(update(folder).where(folder.c.id == row["id"]).values(uidnext=uidnext))
        row["uidnext"] = uidnext


def audit(connection: Connection, row: dict[str, Any], uids: Sequence[int], now: int) -> list[int]:
    """Hold the server's UIDs against ours. Returns those we do not know; marks those that are gone, and as `lost` what
    went before it was taken."""
    there = set(uids)
    m = message.c
    known = {one.uid: one for one in connection.execute(select(m.uid, m.state, m.gone_at).where(m.folder == row["id"]))}
    gone = [uid for uid, one in known.items() if uid not in there and one.gone_at is None]
    back = [uid for uid, one in known.items() if uid in there and one.gone_at is not None]
    for start in range(0, len(gone), 500):
        some = and_(m.folder == row["id"], m.uid.in_(gone[start : start + 500]))
        connection.execute(update(message).where(some).values(gone_at=now))
        connection.execute(update(message).where(some, m.state == "missing").values(state="lost"))
    for start in range(0, len(back), 500):
        some = and_(m.folder == row["id"], m.uid.in_(back[start : start + 500]))
        connection.execute(update(message).where(some).values(gone_at=None))
        connection.execute(update(message).where(some, m.state == "lost").values(state="missing"))
    connection.execute(update(folder).where(folder.c.id == row["id"]).values(audited_at=now))
    row["audited_at"] = now
    return sorted(there - set(known))


def named(connection: Connection, account: str, name: str) -> tuple[int, int] | None:
    """UIDVALIDITY and modseq of the last look at a folder that ended well; None when the server told no modseq."""
    question = select(folder.c.uidvalidity, folder.c.modseq).where(
        folder.c.account == account, folder.c.name == name, folder.c.closed_at.is_(None), folder.c.modseq > 0
    )
    row = connection.execute(question).first()
    return (row[0], row[1]) if row else None


def vanished(connection: Connection, row: dict[str, Any], ranges: Sequence[tuple[int, int]], now: int) -> None:
    """The server says that these UIDs are gone. What went before it was taken is `lost`."""
    m = message.c
    for first, last in ranges:
        some = and_(m.folder == row["id"], m.uid.between(first, last), m.gone_at.is_(None))
        connection.execute(update(message).where(some, m.state == "missing").values(state="lost"))
        connection.execute(update(message).where(some).values(gone_at=now))


def present(connection: Connection, row: dict[str, Any]) -> int:
    """How many messages of the folder we believe to be on the server."""
    question = select(func.count()).where(message.c.folder == row["id"], message.c.gone_at.is_(None))
    return int(connection.execute(question).scalar_one())


def looked(connection: Connection, row: dict[str, Any], seen: Folder, unseen: Sequence[int] | None, now: int) -> None:
    """A look at a folder ended well. unseen: UIDs without \\Seen, None when it was not asked for."""
    values: dict[str, Any] = {
        "success_at": now, "present": seen.exists, "modseq": seen.modseq, "error": "", "error_at": None,
    }  # fmt: skip
    if unseen is not None:
        oldest = None
        for start in range(0, len(unseen), 500):
            some = unseen[start : start + 500]
            question = select(func.min(message.c.internal_at)).where(
                message.c.folder == row["id"], message.c.uid.in_(some)
            )
            found = connection.execute(question).scalar()
            oldest = min(filter(None, (oldest, found)), default=None)
        values |= {"unseen": len(unseen), "oldest_unseen_at": oldest}
    connection.execute(update(folder).where(folder.c.id == row["id"]).values(**values))


def folders(connection: Connection, account: str) -> dict[str, str]:
    """Name and role of the folders that are being read."""
    rows = connection.execute(
        select(folder.c.name, folder.c.role).where(
            folder.c.account == account, folder.c.closed_at.is_(None), folder.c.uidvalidity > 0
        )
    )
    return {row[0]: row[1] for row in rows}


def closed(connection: Connection, account: str, name: str, now: int) -> None:
    """The folder is no longer there: renamed, or deleted."""
    where = (folder.c.account == account, folder.c.name == name, folder.c.closed_at.is_(None))
    connection.execute(update(folder).where(*where).values(closed_at=now))


def failed(connection: Connection, account: str, name: str | None, reason: str, now: int) -> None:
    """A look at a folder, or with None at the whole mailbox, did not end well."""
    where = [folder.c.account == account, folder.c.closed_at.is_(None)]
    if name is not None:
        where.append(folder.c.name == name)
    values = {"error": reason[:300], "error_at": now}
    if not connection.execute(update(folder).where(*where).values(**values)).rowcount:
        # A mailbox that never was reached must show too.
        row = {"account": account, "name": name or "INBOX", "role": "inbox" if name in (None, "INBOX") else "other",
               "uidvalidity": 0, "first_at": now, **values}  # fmt: skip
        db.insert(connection, folder, [row])


# ---------------------------------------------------------------------- messages


def due(connection: Connection, row: dict[str, Any], now: int, limit: int) -> list[Any]:
    """Messages that are to be taken now, in the order of their UIDs."""
    m = message.c
    question = select(m.uid, m.size, m.internal_at, m.tries).where(
        m.folder == row["id"], m.state == "missing", m.next_at <= now
    )
    return list(connection.execute(question.order_by(m.uid).limit(limit)))


def known(connection: Connection, account: str, role: str, digests: Iterable[str]) -> dict[str, str]:
    """Digest to case, of bytes that were taken before in the same mailbox, on the same side."""
    question = (
        select(message.c.digest, message.c.case_id)
        .join(folder, folder.c.id == message.c.folder)
        .where(message.c.digest.in_(set(digests)), message.c.account == account, folder.c.role == role)
        .where(message.c.case_id != "")
    )
    return {row[0]: row[1] for row in connection.execute(question)}


# Built once: building it takes SQLAlchemy longer than running it, and it runs for each message.
_TAKE = (
    update(message)
    .where(message.c.folder == bindparam("of"), message.c.uid == bindparam("number"))
    .values(
        state=bindparam("state"), case_id=bindparam("case"), digest=bindparam("digest"), size=bindparam("size"),
        taken_at=bindparam("at"), reason="",
    )
)  # fmt: skip


def taken(
    connection: Connection,
    row: dict[str, Any],
    uid: int,
    case: str,
    digest: str,
    size: int,
    secret: bool,
    act: dict[str, Any] | None,
    now: int,
) -> None:
    """The message is archived; what is to be done with it on the server becomes durable with the same commit."""
    state = "secret" if secret else "taken"
    values = {"of": row["id"], "number": uid, "state": state, "case": case, "digest": digest, "size": size, "at": now}
    connection.execute(_TAKE, values)
    if act is not None:
        db.insert(
            connection,
            action,
            [
                {
                    "account": row["account"], "folder": row["id"], "uid": uid, "digest": digest, "size": size,
                    "case_id": case, "at": now, **act,
                }
            ],
        )  # fmt: skip


def not_taken(
    connection: Connection, row: dict[str, Any], uid: int, tries: int, reason: str, now: int, *, wait: bool = True
) -> None:
    where = (message.c.folder == row["id"], message.c.uid == uid)
    values = {"tries": tries + 1, "next_at": later(now, tries) if wait else now, "reason": reason[:300]}
    connection.execute(update(message).where(*where).values(**values))


def lost(connection: Connection, row: dict[str, Any], uid: int, now: int) -> None:
    """Gone from the server before it could be taken."""
    where = (message.c.folder == row["id"], message.c.uid == uid, message.c.state == "missing")
    connection.execute(update(message).where(*where).values(state="lost", gone_at=now))


# ---------------------------------------------------------------------- acts


def open_actions(connection: Connection, account: str, now: int) -> list[dict[str, Any]]:
    """What is to be done in a mailbox, with the folder it was found in."""
    question = (
        select(action, folder.c.name, folder.c.uidvalidity, folder.c.closed_at, folder.c.role)
        .join(folder, folder.c.id == action.c.folder)
        .where(action.c.account == account, action.c.done_at.is_(None), action.c.next_at <= now)
        .order_by(action.c.id)
    )
    return [dict(one) for one in connection.execute(question).mappings()]


def begin(connection: Connection, act: dict[str, Any], now: int) -> None:
    """Before the first command: from here on the act may have happened, and it must be looked up before it is done
    again."""
    values = {"tries": act["tries"] + 1, "next_at": later(now, act["tries"]), "reason": "interrupted"}
    connection.execute(update(action).where(action.c.id == act["id"]).values(**values))


def put_off(connection: Connection, act: dict[str, Any], reason: str) -> None:
    connection.execute(update(action).where(action.c.id == act["id"]).values(reason=reason[:300]))


def done(connection: Connection, act: dict[str, Any], result: str, now: int) -> None:
    connection.execute(update(action).where(action.c.id == act["id"]).values(done_at=now, result=result, reason=""))


def renumbered(connection: Connection, act: dict[str, Any]) -> dict[str, Any] | None:
    """The same message in the folder's newer numbering; None while it has not been found there."""
    question = (
        select(message.c.folder, message.c.uid, folder.c.uidvalidity)
        .join(folder, folder.c.id == message.c.folder)
        .where(
            folder.c.account == act["account"], folder.c.name == act["name"], folder.c.closed_at.is_(None),
            message.c.digest == act["digest"], message.c.gone_at.is_(None),
        )
    )  # fmt: skip
    found = connection.execute(question).mappings().first()
    if found is None:
        return None
    connection.execute(update(action).where(action.c.id == act["id"]).values(folder=found["folder"], uid=found["uid"]))
    return {**act, **found, "closed_at": None}


def release(connection: Connection, case: str, now: int) -> int:
    """Move what was moved away for `case` back to where it was found. Returns how many messages."""
    rows = connection.execute(
        select(action).where(action.c.case_id == case, action.c.kind == "move").order_by(action.c.id)
    ).mappings()
    latest = {(one["account"], one["folder"]): dict(one) for one in rows}
    pending = connection.execute(
        select(action.c.account).where(action.c.case_id == case, action.c.kind == "release", action.c.done_at.is_(None))
    ).scalars()
    waiting = set(pending)
    names = ("account", "folder", "uid", "target", "digest", "size", "internal_at", "case_id")
    fresh = [
        {**{name: one[name] for name in names}, "kind": "release", "at": now}
        for one in latest.values()
        if one["account"] not in waiting
    ]
    # A move that has not happened yet need not happen any more.
    connection.execute(
        update(action)
        .where(action.c.case_id == case, action.c.kind == "move", action.c.done_at.is_(None), action.c.tries == 0)
        .values(done_at=now, result="released")
    )
    return db.insert(connection, action, fresh)


def wanting(connection: Connection, now: int) -> set[str]:
    """Accounts in which a person's decision waits to be carried out."""
    question = select(action.c.account).where(
        action.c.kind == "release", action.c.done_at.is_(None), action.c.next_at <= now
    )
    return set(connection.execute(question.distinct()).scalars())
