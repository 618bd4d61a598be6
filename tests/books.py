"""Messages with documents, as registers are made of them: for the tests of registers and their measurement."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from pathlib import Path

from gateway import register
from gateway.archive import Archive, Case, Owed
from gateway.config import Registers
from gateway.inspection.findings import Document, DocumentField, FileFacts, Inspection, NamedRecipient
from tests.cases import AT, case, open_archive

ALLOCATE = Registers.model_validate({"default": {"incoming": "allocate", "outgoing": "allocate"}})


class Log:
    """Fails the test where the gateway would only tell of trouble."""

    def exception(self, event: str, **about: object) -> None:
        raise AssertionError(f"{event}: {about}")


def follow(archive: Archive, settings: Registers = ALLOCATE) -> Archive:
    archive.follower = register.Follower(settings, Log())
    return archive


def opened(folder: Path, settings: Registers = ALLOCATE) -> Archive:
    return follow(open_archive(folder), settings)


def paper(code: str = "15/TB-SNV", *, content: str = "", **more: object) -> FileFacts:
    """A signed-looking PDF with number and form. `content` tells two with the same number apart."""
    date = str(more.pop("date", "2026-11-20"))
    issuer = str(more.pop("issuer", "Sở Nội vụ"))
    number = code.split("/")[-1].split("-")[0]
    kind = number if number in ("TB", "QĐ", "BC", "CT", "KH", "GM") else "CV"
    sure = float(more.pop("confidence", 0.98))  # type: ignore[arg-type]

    def field(value: str) -> DocumentField:
        return DocumentField(value=value, source="text", confidence=sure)

    document = Document(
        code=field(code) if code else None,
        kind=field(kind),
        date=field(date) if date else None,
        place=field("Tỉnh Demo"),
        abstract=field(str(more.pop("abstract", "Về việc sử dụng văn bản điện tử"))),
        issuing_agency=field(issuer) if issuer else None,
        signer=field("Nguyễn Văn Mẫu"),
        signer_title=field("GIÁM ĐỐC"),
        recipients=(NamedRecipient(name="Như trên"), NamedRecipient(name="Lưu: VT")),
        components=6,
        **more,  # type: ignore[arg-type]
    )
    name = f"{code.replace('/', '-') or 'van-ban'}.pdf"
    sha256 = hashlib.sha256(f"{code}|{date}|{issuer}|{content}".encode()).hexdigest()
    return FileFacts(name=name, path=name, sha256=sha256, size=10, type="pdf", pages=2, document=document)


def message(
    number: int,
    *files: FileFacts,
    to: dict[str, str] | None = None,
    state: str = "queued",
    direction: str = "out",
    agency: str = "snv",
    message_class: str = "OFFICIAL_DOC",
    at: dt.datetime = AT,
    urgency: str = "",
    **facts: object,
) -> Case:
    """A message from an agency with these files. to: address to agency."""
    to = {"vanthu@ubnd.tinh.gov.vn": "ubnd"} if to is None else to
    one = case(number=number, direction=direction, at=at, to=tuple(to), sender="vanthu@snv.tinh.gov.vn", counts=())
    header = one.inspection.message.model_copy(update=facts)
    main = files[0].document if files else None
    return dataclasses.replace(
        one,
        inspection=Inspection(message=header, files=files, texts=one.inspection.texts),
        verdict=dataclasses.replace(
            one.verdict, document=main, agency=agency, message_class=message_class, urgency=urgency
        ),
        owed=tuple(Owed(address, "", "", owner, "deliver", state, "hop") for address, owner in to.items()),
    )


async def rows(archive: Archive, settings: Registers = ALLOCATE, **query: object) -> list[dict]:
    asked = register.Query(**query)  # type: ignore[arg-type]
    return await archive.database.read(lambda c: register.entries(c, asked, settings))


async def row(archive: Archive, key: str, settings: Registers = ALLOCATE) -> dict:
    return await archive.database.read(lambda c: register.entry(c, key, settings))
