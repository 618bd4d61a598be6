"""Is this file in the archive: the same bytes, a revision of the same signed file, or its number with other content?

A signed PDF grows: each further signature, stamp or note is written behind what was signed before, so two files that
begin with the same signed bytes are revisions of one document. A document of the same number is the same document only
where issuer and year do not speak against it (Decree 30/2020, 15.1).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from gateway import custody, likeness
from gateway import database as db
from gateway.archive import Archive, from_ms, stamp
from gateway.classify import name_key
from gateway.inspection.findings import Inspection
from gateway.message import MemoryBody
from gateway.search import Query, Revision, number_key

SAME, REVISION, OTHER, NOTHING = "same", "same-signed-revision", "other-content", "not-found"


@dataclass(slots=True)
class Answer:
    """result: one of the four above; matches: oldest first, the cases with what of them matches."""

    result: str
    sha256: str
    size: int
    document_code: str = ""
    matches: list[dict[str, Any]] = field(default_factory=list)


async def compare(archive: Archive, data: bytes, facts: Inspection) -> Answer:
    """Hold a file against the archive. facts: of the file, as the worker found them. Raises Failure."""
    digest = hashlib.sha256(data).hexdigest()
    first = facts.files[0] if facts.files else None
    signed = {one.revision: one.revision_length for one in first.signatures if one.revision} if first else {}
    code = first.document.code.value if first and first.document and first.document.code else ""
    answer = Answer(NOTHING, digest, len(data), code)
    # Ends of revisions, signed or not: an archived file may be what this one was before it was signed.
    held = await archive.blocking(archive.index.holding, [digest, *signed])
    same = [(case, None) for value, case, part in held if value == digest and part is None]
    below = 0
    if not same and (first is None or first.type in ("eml", "txt", "unknown")):
        cases, below = await _as_mail(archive, data)
        same = [(case, None) for case in cases]
    parts: list[tuple[str, Revision]] = []
    for value, case, part in held:
        if part is not None:
            parts.append((case, part))
        elif value != digest:  # the archived file is, whole, a signed revision of this one
            parts.append((case, Revision(value, "", signed[value])))
    if same:
        answer.result, found = SAME, same
    elif parts:
        longest: dict[str, Revision] = {}
        for case, part in parts:
            if case not in longest or longest[case].length < part.length:
                longest[case] = part
        answer.result, found = REVISION, list(longest.items())
    elif code:
        found = [(case, None) for case in await _same_number(archive, code, facts)]
        answer.result = OTHER if found else NOTHING
    else:
        found = []
    state = await custody.states(archive, [case for case, _ in found])
    for case, part in dict(found).items():
        match = await _match(archive, case, digest, part)
        if match is not None:
            if below:
                match["below_header_bytes"] = below
            answer.matches.append({**match, **state.get(case, {})})
    answer.matches.sort(key=lambda one: one["since"])
    if not answer.matches:
        answer.result = NOTHING
    return answer


async def _as_mail(archive: Archive, data: bytes) -> tuple[list[str], int]:
    """Cases of which this is a copy out of a mailbox: with header fields of servers on top, or with the line ends of a
    file system; and how many bytes stand on top. Nothing inside the message may differ."""
    for copy in dict.fromkeys((data, data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))):
        digest = hashlib.sha256(copy).hexdigest()
        core, top = likeness.core(MemoryBody(copy, digest))
        cases = [case for _, case, part in await archive.blocking(archive.index.holding, [digest, core]) if not part]
        table = db.likeness.c
        question = select(table.message).where(table.core.in_((digest, core)))
        cases += await archive.database.read(lambda c, q=question: list(c.execute(q).scalars()))
        if cases:
            return list(dict.fromkeys(cases)), len(top)
    return [], 0


async def _match(archive: Archive, case: str, digest: str, part: Revision | None) -> dict[str, Any] | None:
    row = await archive.row(case)
    if row is None:
        return None
    sha256 = part.sha256 if part is not None else digest
    path = part.path if part is not None else ""
    path = path or next((one["path"] for one in row["attachments"] if one["sha256"] == sha256), "")
    shown: dict[str, Any] = {
        "case": case,
        "file": path,
        "kind": row["kind"],
        "since": stamp(from_ms(row["received_at"])),
        "direction": row["direction"],
        "sender": row["sender"],
        "recipients": [one["address"] for one in row["recipients"]],
        "document_code": row["document_code"],
        "document_date": row["document_date"],
        "issuing_agency": row["issuing_agency"],
    }
    if part is not None:
        shown["revision"] = {"sha256": part.sha256, "range": [0, part.length]}
    return shown


async def _same_number(archive: Archive, code: str, facts: Inspection) -> list[str]:
    document = facts.files[0].document
    assert document is not None
    issuer = name_key(document.issuing_agency.value) if document.issuing_agency else ""
    year = document.date.value[:4] if document.date else ""
    key = number_key(code)
    cases = await archive.blocking(archive.index.cases, Query(number=code))
    if not cases:
        return []

    def ask(connection: Any) -> list[str]:
        m = db.message.c
        columns = select(m.id, m.document_code, m.issuing_agency, m.document_date)
        found = []
        for start in range(0, len(cases), 500):
            for row in connection.execute(
                columns.where(m.id.in_(cases[start : start + 500]), m.kind.in_(("mail", "imported")))
            ):
                if number_key(row.document_code) != key:
                    continue
                if issuer and row.issuing_agency and name_key(row.issuing_agency) != issuer:
                    continue
                if year and row.document_date and row.document_date[:4] != year:
                    continue
                found.append(row.id)
        return found

    return await archive.database.read(ask)
