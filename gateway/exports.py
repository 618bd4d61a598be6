"""Messages handed out: as files, mbox, Maildir, a BagIt bag, or a package for submission to an archive.

Always exactly the received bytes. A bag (RFC 8493) and a package carry a proof for each message, the checkpoint that
the proofs lead to and the log's public key, so that `congvan-verify` checks them without this gateway. The package has
the layout of Circular 05/2025/TT-BNV as far as it is known (rules.md 2.7): METS, descriptive and preservation metadata,
representations; that it meets every demand there is not claimed.
"""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import hashlib
import io
import json
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from gateway import __version__, custody, mime
from gateway.archive import Archive, from_ms, stamp
from gateway.message import VIETNAM

FORMATS = ("eml", "mbox", "maildir", "bagit", "sip")
#: Those that make a folder.
FOLDERS = ("maildir", "bagit", "sip")


@dataclass(frozen=True, slots=True)
class Package:
    """What a person adds: file_code (mã hồ sơ), title, and who hands it out."""

    file_code: str = ""
    title: str = ""
    person: str = ""


@dataclass(frozen=True, slots=True)
class _Message:
    """One message on its way out. leaf: place of its leaf in the tree."""

    case: str
    data: bytes
    row: dict[str, Any]
    proof: str = ""
    state: dict[str, Any] = field(default_factory=dict)


async def write(
    archive: Archive, cases: Sequence[str], output: Path | None, format_: str, package: Package
) -> list[str]:
    """Write these messages; `output` None is standard output (mbox). Returns remarks for the person. Raises KeyError,
    Damaged, Failure, OSError."""
    if format_ == "mbox":
        return await _mbox(archive, cases, output)
    assert output is not None
    output.mkdir(parents=True, exist_ok=True)
    if format_ == "eml":
        for case in cases:
            await asyncio.to_thread((output / f"{case}.eml").write_bytes, await archive.data(case))
        return []
    if format_ == "maildir":
        for name in ("cur", "new", "tmp"):
            (output / name).mkdir(exist_ok=True)
        for case in cases:
            row = await archive.row(case)
            assert row is not None
            # As one that was read: seconds, something unique, host; `:2,S` are its flags.
            name = f"{row['received_at'] // 1000}.{case}.congvan:2,S"
            await asyncio.to_thread((output / "cur" / name).write_bytes, await archive.data(case))
        return []
    await archive.checkpoint()
    messages = [await _one(archive, case) for case in cases]
    maker = _bag if format_ == "bagit" else _package
    return await asyncio.to_thread(maker, archive, messages, output, package)


async def _one(archive: Archive, case: str) -> _Message:
    row = await archive.row(case)
    if row is None:
        raise KeyError(case)
    state = (await custody.states(archive, [case])).get(case, {})
    return _Message(case, await archive.data(case), row, await archive.prove(case), state)


# ---------------------------------------------------------------------- mbox

_FROM = re.compile(rb"^(>*From )", re.M)


async def _mbox(archive: Archive, cases: Sequence[str], output: Path | None) -> list[str]:
    """mboxrd: each line `From ` gets a `>` in front, more than one gets one more, so that it can be taken away again.
    Line ends stay as they were received."""
    notes: list[str] = []
    target: IO[bytes] = output.open("wb") if output is not None else sys.stdout.buffer
    try:
        for case in cases:
            row, data = await archive.row(case), await archive.data(case)
            assert row is not None
            at = from_ms(row["received_at"]).astimezone(dt.UTC)
            target.write(f"From {row['sender'] or 'MAILER-DAEMON'} {at:%a %b %e %H:%M:%S %Y}\n".encode())
            target.write(_FROM.sub(rb">\1", data))
            if not data.endswith(b"\n"):
                target.write(b"\n")
                notes.append(f"{case}: không có xuống dòng cuối, mbox thêm một / mbox adds the last line end")
            target.write(b"\n")
        target.flush()
    finally:
        if output is not None:
            target.close()
    return notes


# ---------------------------------------------------------------------- BagIt


def _bag(archive: Archive, messages: list[_Message], output: Path, package: Package) -> list[str]:
    """A bag: messages in `data/`, proofs and what they rest on beside it as tag files."""
    payload = {f"data/{one.case}.eml": one.data for one in messages}
    tags = {f"proofs/{one.case}.tlog-proof": one.proof.encode() for one in messages} | _evidence(archive)
    tags["messages.csv"] = _table(messages)
    size = sum(map(len, payload.values()))
    info = {
        "Source-Organization": archive.log.origin,
        "Bagging-Date": dt.datetime.now(VIETNAM).date().isoformat(),
        "Bag-Software-Agent": f"congvan-gateway {__version__}",
        "Payload-Oxum": f"{size}.{len(payload)}",
        "Bag-Size": f"{size} bytes",
    }
    if package.title:
        info["External-Description"] = package.title
    if package.file_code:
        info["External-Identifier"] = package.file_code
    if package.person:
        info["Contact-Name"] = package.person
    tags["bagit.txt"] = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
    tags["bag-info.txt"] = "".join(f"{key}: {_line(value)}\n" for key, value in info.items()).encode()
    tags["manifest-sha256.txt"] = _manifest(payload)
    for name, data in (payload | tags | {"tagmanifest-sha256.txt": _manifest(tags)}).items():
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return []


def _line(value: str) -> str:
    return " ".join(value.split())


def _manifest(files: dict[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())).encode()


def _evidence(archive: Archive) -> dict[str, bytes]:
    """The checkpoint the proofs lead to, and the key that signed it."""
    return {
        "log/checkpoint": (archive.folder / "log" / "checkpoint").read_bytes(),
        "log/log.vkey": f"{archive.log.verifier()}\n".encode(),
    }


def _table(messages: list[_Message]) -> bytes:
    """One line a message, for a person with a spreadsheet."""
    file = io.StringIO()
    table = csv.writer(file)
    table.writerow(
        ["case", "received_at", "direction", "sender", "recipients", "document_code", "document_date", "abstract",
         "subject", "verdict", "state", "sha256", "size"]
    )  # fmt: skip
    for one in messages:
        row = one.row
        state = "recalled" if "recalled" in one.state else ""
        table.writerow(
            [one.case, stamp(from_ms(row["received_at"])), row["direction"], row["sender"],
             "; ".join(to["address"] for to in row["recipients"]), row["document_code"], row["document_date"],
             row["abstract"], row["subject"], row["verdict"], state, row["sha256"], row["size"]]
        )  # fmt: skip
    return file.getvalue().encode("utf-8-sig")


# ---------------------------------------------------------------------- submission package

_METS, _XLINK = "http://www.loc.gov/METS/", "http://www.w3.org/1999/xlink"
_PREMIS, _XSI = "http://www.loc.gov/premis/v3", "http://www.w3.org/2001/XMLSchema-instance"
_EAD = "http://ead3.archivists.org/schema/"
for _prefix, _uri in (("mets", _METS), ("xlink", _XLINK), ("premis", _PREMIS), ("xsi", _XSI), ("ead", _EAD)):
    ET.register_namespace(_prefix, _uri)

#: What XML 1.0 cannot hold.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MEDIA = {
    ".eml": "message/rfc822", ".pdf": "application/pdf", ".xml": "text/xml", ".docx":
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document", ".xlsx":
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", ".doc": "application/msword", ".zip":
    "application/zip", ".txt": "text/plain", ".csv": "text/csv", ".jpg": "image/jpeg", ".png": "image/png",
}  # fmt: skip


def _text(value: object) -> str:
    return _ILLEGAL.sub("\ufffd", str(value))


def _add(parent: ET.Element, tag: str, content: object = None, **attributes: object) -> ET.Element:
    """A child in the parent's namespace."""
    space = parent.tag[: parent.tag.index("}") + 1]
    child = ET.SubElement(parent, space + tag, {key: _text(value) for key, value in attributes.items()})
    if content is not None:
        child.text = _text(content)
    return child


def _xml(root: ET.Element) -> bytes:
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _package(archive: Archive, messages: list[_Message], output: Path, package: Package) -> list[str]:
    """One folder named after the package's OBJID, with `:` as `_`."""
    notes: list[str] = []
    host = archive.log.origin.partition("/")[0]
    name = re.sub(r"[^\w.-]+", "-", package.file_code or messages[0].case)
    objid = f"urn:vbdt:{host}:{name}"
    now = dt.datetime.now(VIETNAM).isoformat(timespec="seconds")
    received = {f"{one.case}.eml": one.data for one in messages}
    files: dict[str, bytes] = {}
    for one in messages:
        files |= dict(_attached(one, notes))
    whole: dict[str, bytes] = {}
    representations = []
    for number, (content, use) in enumerate(((received, "Thư như đã nhận / as received"),
                                             (files, "Tệp trong thư / files of the messages")), 1):  # fmt: skip
        if content:
            base = f"representations/rep{number}"
            whole |= {f"{base}/data/{path}": data for path, data in content.items()}
            inner = _mets(
                f"{objid}:rep{number}", now, host, {f"data/{path}": data for path, data in content.items()}, use
            )
            whole[f"{base}/METS.xml"] = inner
            representations.append((f"{base}/METS.xml", use))
    whole["metadata/descriptive/EAD.xml"] = _ead(messages, objid, now, host, package)
    whole["metadata/preservation/PREMIS.xml"] = _premis(messages, files, now, host)
    for one in messages:
        whole[f"metadata/preservation/proofs/{one.case}.tlog-proof"] = one.proof.encode()
    whole |= {f"metadata/preservation/{path}": data for path, data in _evidence(archive).items()}
    whole["METS.xml"] = _mets(objid, now, host, whole, package.title or "Gói nộp lưu / submission package",
                              representations)  # fmt: skip
    target = output / objid.replace(":", "_")
    for path, data in whole.items():
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return notes


def _attached(one: _Message, notes: list[str]) -> Iterator[tuple[str, bytes]]:
    """The files of a message whose digests are in its archived record; others are named."""
    wanted = {file["sha256"] for file in one.row["attachments"]}
    for number, part in enumerate(mime.parse(one.data).attachments, 1):
        data = bytes(part.decode(one.data))
        base = PurePosixPath((part.filename or "").replace("\\", "/")).name
        name = re.sub(r"[^\w.() -]+", "_", base).strip(". ")[:120] or "tep"
        if hashlib.sha256(data).hexdigest() in wanted:
            yield f"{one.case}/{number:02}-{name}", data
        else:
            notes.append(f"{one.case}: {part.filename or number}: không có trong bản ghi / not in its record, left out")


def _mets(
    objid: str, now: str, host: str, files: dict[str, bytes], label: str, inner: Sequence[tuple[str, str]] = ()
) -> bytes:
    """A METS document over these files (relative paths), with pointers to those of the representations."""
    root = ET.Element(f"{{{_METS}}}mets", {"OBJID": objid, "TYPE": "SIP", "LABEL": _text(label)})
    head = _add(root, "metsHdr", CREATEDATE=now)
    agent = _add(head, "agent", ROLE="CREATOR", TYPE="OTHER", OTHERTYPE="SOFTWARE")
    _add(agent, "name", f"congvan-gateway {__version__} ({host})")

    def attributes(path: str) -> dict[str, str]:
        data = files[path]
        return {
            "MIMETYPE": _MEDIA.get(PurePosixPath(path).suffix.lower(), "application/octet-stream"),
            "SIZE": str(len(data)), "CREATED": now, "CHECKSUM": hashlib.sha256(data).hexdigest(),
            "CHECKSUMTYPE": "SHA-256",
        }  # fmt: skip

    def locate(element: ET.Element, path: str) -> None:
        element.set("LOCTYPE", "URL")
        element.set(f"{{{_XLINK}}}type", "simple")
        element.set(f"{{{_XLINK}}}href", "/".join(_quoted(step) for step in path.split("/")))

    for path, section, wrapper, kind in (
        ("metadata/descriptive/EAD.xml", "dmdSec", "", "EAD"),
        ("metadata/preservation/PREMIS.xml", "amdSec", "digiprovMD", "PREMIS"),
    ):
        if path in files:
            holder = _add(root, section, ID=f"{kind}-section")
            if wrapper:
                holder = _add(holder, wrapper, ID=kind)
            reference = _add(holder, "mdRef", MDTYPE=kind, **attributes(path))
            locate(reference, path)
    described = ("metadata/descriptive/EAD.xml", "metadata/preservation/PREMIS.xml")
    section = _add(root, "fileSec")
    group = _add(section, "fileGrp", USE=label)
    ids: dict[str, str] = {}
    for number, path in enumerate(sorted(set(files) - set(described)), 1):
        ids[path] = f"f{number:06}"
        one = _add(group, "file", ID=ids[path], **attributes(path))
        locate(_add(one, "FLocat"), path)
    structure = _add(root, "structMap", TYPE="PHYSICAL", LABEL="CSIP")
    top = _add(structure, "div", LABEL=objid)
    pointers = dict(inner)
    for path, use in inner:
        part = _add(top, "div", LABEL=use)
        locate(_add(part, "mptr"), path)
    listed = _add(top, "div", LABEL="files")
    for path, id_ in ids.items():
        if path not in pointers:
            _add(listed, "fptr", FILEID=id_)
    return _xml(root)


def _quoted(step: str) -> str:
    from urllib.parse import quote

    return quote(step)


def _ead(messages: list[_Message], objid: str, now: str, host: str, package: Package) -> bytes:
    """Descriptive metadata in the form of EAD3: the file, and each document in it."""
    root = ET.Element(f"{{{_EAD}}}ead")
    control = _add(root, "control")
    _add(control, "recordid", objid)
    title = package.title or f"Thư điện tử công vụ, {len(messages)} thư"
    _add(_add(_add(control, "filedesc"), "titlestmt"), "titleproper", title)
    _add(control, "maintenancestatus", value="new")
    _add(_add(control, "maintenanceagency"), "agencyname", host)
    event = _add(_add(control, "maintenancehistory"), "maintenanceevent")
    _add(event, "eventtype", value="created")
    _add(event, "eventdatetime", now, standarddatetime=now)
    _add(event, "agenttype", value="human" if package.person else "machine")
    _add(event, "agent", package.person or f"congvan-gateway {__version__}")
    whole = _add(root, "archdesc", level="file")
    did = _add(whole, "did")
    _add(did, "unitid", package.file_code or objid)
    _add(did, "unittitle", title)
    days = sorted(stamp(from_ms(one.row["received_at"]))[:10] for one in messages)
    _add(did, "unitdate", f"{days[0]}/{days[-1]}", normal=f"{days[0]}/{days[-1]}")
    listed = _add(whole, "dsc")
    for one in messages:
        row = one.row
        part = _add(listed, "c", level="item")
        inner = _add(part, "did")
        _add(inner, "unitid", row["document_code"] or one.case)
        if row["document_code"]:
            _add(inner, "unitid", one.case)
        _add(inner, "unittitle", row["abstract"] or row["subject"] or one.case)
        day = row["document_date"] or stamp(from_ms(row["received_at"]))[:10]
        _add(inner, "unitdate", day, normal=day)
        if row["issuing_agency"]:
            _add(_add(_add(inner, "origination"), "corpname"), "part", row["issuing_agency"])
        to = "; ".join(each["address"] for each in row["recipients"])
        note = f"Từ {row['sender']} đến {to}; nhận {stamp(from_ms(row['received_at']))}; kết luận {row['verdict']}"
        _add(_add(part, "scopecontent"), "p", note)
        if told := one.state.get("recalled"):
            _add(_add(part, "accessrestrict"), "p", f"Đã thu hồi {told['at']}")
    return _xml(root)


def _premis(messages: list[_Message], files: dict[str, bytes], now: str, host: str) -> bytes:
    """Preservation metadata in PREMIS 3: digests of each object, and what happened to it."""
    root = ET.Element(f"{{{_PREMIS}}}premis", {"version": "3.0"})
    everything = {f"representations/rep1/data/{one.case}.eml": one.data for one in messages}
    everything |= {f"representations/rep2/data/{path}": data for path, data in files.items()}
    for path, data in everything.items():
        thing = _add(root, "object")
        thing.set(f"{{{_XSI}}}type", "premis:file")
        _identifier(thing, "object", "path", path)
        about = _add(thing, "objectCharacteristics")
        fixity = _add(about, "fixity")
        _add(fixity, "messageDigestAlgorithm", "SHA-256")
        _add(fixity, "messageDigest", hashlib.sha256(data).hexdigest())
        _add(about, "size", len(data))
        media = _MEDIA.get(PurePosixPath(path).suffix.lower(), "application/octet-stream")
        _add(_add(_add(about, "format"), "formatDesignation"), "formatName", media)
        _add(thing, "originalName", PurePosixPath(path).name)
    for one in messages:
        row, path = one.row, f"representations/rep1/data/{one.case}.eml"
        record = json.loads(row["record"])
        rules = sorted({found["rule"] for found in record.get("verdict", {}).get("findings", ())})
        received = stamp(from_ms(row["received_at"]))
        events = [
            ("ingestion", received, f"Nhận qua {row['channel']} từ {row['peer'] or host}", "archived"),
            (
                "validation",
                received,
                f"Quy tắc vi phạm / rules broken: {', '.join(rules) or 'không / none'}",
                row["verdict"],
            ),
            ("fixity check", now, f"SHA-256 {row['sha256']} và lá của cây băm / and the leaf of the hash tree", "pass"),
        ]
        if told := one.state.get("recalled"):
            events.append(("recall", told["at"], f"Thu hồi / recalled: {told['by'] or told['reason']}", "recalled"))
        for number, (kind, at, detail, outcome) in enumerate(events, 1):
            event = _add(root, "event")
            _identifier(event, "event", "case", f"{one.case}/{number}")
            _add(event, "eventType", kind)
            _add(event, "eventDateTime", at)
            _add(_add(event, "eventDetailInformation"), "eventDetail", detail)
            _add(_add(event, "eventOutcomeInformation"), "eventOutcome", outcome)
            _identifier(event, "linkingAgent", "host", host)
            _identifier(event, "linkingObject", "path", path)
    agent = _add(root, "agent")
    _identifier(agent, "agent", "host", host)
    _add(agent, "agentName", f"congvan-gateway {__version__}")
    _add(agent, "agentType", "software")
    return _xml(root)


def _identifier(parent: ET.Element, name: str, kind: str, value: str) -> None:
    holder = _add(parent, f"{name}Identifier")
    _add(holder, f"{name}IdentifierType", kind)
    _add(holder, f"{name}IdentifierValue", value)
