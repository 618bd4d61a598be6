"""Journal reports: what a mail server tells about a message that it passed on, with the message inside.

Exchange sends them (header X-MS-Journal-Report): a multipart whose first part is a list of lines such as `Sender:`,
`Recipient:`, `To: a@x, Expanded: list@x`, and whose next part is the message as it was, message/rfc822. Other servers
have taken over the form. Names of lines may be translated. Nothing here is believed of a report that did not come from
one of our own servers; that is for the caller to see to.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

from gateway import mime
from gateway.likeness import HEAD
from gateway.vietnamese import fold

#: What the lines are called, folded (lower case, no accents). Vietnamese as translated clients and connectors write it.
_KINDS = {
    "sender": "sender", "from": "sender", "nguoi gui": "sender", "tu": "sender",
    "on-behalf-of": "on_behalf_of", "on behalf of": "on_behalf_of", "thay mat": "on_behalf_of",
    "thay mat cho": "on_behalf_of", "duoc gui thay mat": "on_behalf_of",
    "message-id": "message_id", "ma thu": "message_id", "id thu": "message_id", "ma thong diep": "message_id",
    "recipient": "recipient", "recipients": "recipient", "nguoi nhan": "recipient",
    "to": "to", "den": "to", "toi": "to", "gui den": "to", "gui toi": "to",
    "cc": "cc", "dong gui": "cc", "dong kinh gui": "cc", "ban sao": "cc",
    "bcc": "bcc", "bi mat": "bcc", "dong gui an": "bcc", "ban sao an": "bcc", "gui an": "bcc", "bcc an": "bcc",
    "expanded": "expanded", "mo rong": "expanded", "mo rong tu": "expanded", "duoc mo rong": "expanded",
    "forwarded": "forwarded", "chuyen tiep": "forwarded", "chuyen tiep tu": "forwarded",
}  # fmt: skip
_RECIPIENTS = ("recipient", "to", "cc", "bcc")
_LINE = re.compile(r"[ \t]*([^:\r\n]{1,40}?)[ \t]*:[ \t]*(.*)")
_ADDRESS = re.compile(r"[^\s<>,;:\"()\[\]]+@[^\s<>,;:\"()\[\]]+")
#: Lines of a report that are read: a list of 20,000 recipients is longer than any that exists.
_LINES = 20_000


@dataclass(frozen=True, slots=True)
class Named:
    """A recipient of the envelope. kind: recipient, to, cc, bcc; expanded: the list it stands for; forwarded: who it
    was meant for."""

    address: str
    kind: str
    expanded: str = ""
    forwarded: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """sender is empty where the envelope had none (a bounce). inner: the message; None when it cannot be had, and then
    `defect` tells why. head: the bytes of the report before it."""

    sender: str
    on_behalf_of: str
    message_id: str
    recipients: tuple[Named, ...]
    inner: bytes | None
    head: bytes = b""
    defect: str = ""

    def text(self) -> str:
        """The envelope as JSON, keys that are empty left out."""
        return json.dumps(
            {
                "sender": self.sender,
                **({"on_behalf_of": self.on_behalf_of} if self.on_behalf_of else {}),
                "message_id": self.message_id,
                "recipients": [
                    {name: value for name in one.__slots__ if (value := getattr(one, name))} for one in self.recipients
                ],
            },
            ensure_ascii=False,
        )


def read(raw: bytes) -> Report | None:
    """What a journal says; None for mail that is no journal report (a plain copy). Never raises, whatever the bytes."""
    message = mime.parse(raw)
    marked = any(name in ("x-ms-journal-report", "x-journal-report") for name, _ in message.fields)
    leaves = message.leaves
    said = next((one for one in leaves if one.content_type == "text/plain"), None)
    told = _told(said.text(raw)) if said is not None else None
    nested = next((one for one in leaves if one.nested), None)
    if not marked and (told is None or nested is None or nested.path.count(".") > 0 or said is not leaves[0]):
        return None
    if told is None or not (told[0] or told[3]):
        return Report("", "", "", (), None, defect="the report names neither sender nor recipients")
    sender, behalf, number, recipients = told
    if nested is None:
        return Report(sender, behalf, number, recipients, None, defect="the report has no message in it")
    inner = nested.decode(raw)
    if not inner.strip():
        return Report(sender, behalf, number, recipients, None, defect="the message in the report is empty")
    damaged = [one.value for one in nested.findings if one.kind == "ambiguous"]
    if nested.encoding == "base64" and damaged:
        return Report(sender, behalf, number, recipients, None, defect=f"the message in the report: {damaged[0]}")
    if not inner.endswith(b"\n"):
        # RFC 2046 5.1.1: the last line end belongs to the boundary. By SMTP it came with one (RFC 5321 4.1.1.4).
        inner += b"\r\n"
    return Report(sender, behalf, number, recipients, inner, bytes(raw[: min(nested.start, HEAD)]))


def _told(text: str) -> tuple[str, str, str, tuple[Named, ...]] | None:
    """Sender, on behalf of, Message-ID, recipients; None for a text that is no report."""
    sender = behalf = number = ""
    known = False
    found: dict[str, Named] = {}
    for line in text.splitlines()[:_LINES]:
        match = _LINE.match(line)
        if match is None:
            continue
        kind, value = _KINDS.get(fold(match[1]).replace("\u00a0", " ").strip(), ""), match[2].strip()
        address = _ADDRESS.search(value)
        if kind in _RECIPIENTS:
            known = True
            for named in _named(kind, value):
                # The same address as `Recipient` and as `Bcc`: the line that says more stays.
                old = found.get(named.address.lower())
                if old is None or old.kind == "recipient":
                    found[named.address.lower()] = named
        elif kind == "sender" and not sender:
            sender = address[0] if address else ""
            known = True
        elif kind == "on_behalf_of" and address is not None:
            behalf = behalf or address[0]
        elif kind == "message_id":
            number = number or value[:998]
    return (sender, behalf, number, tuple(found.values())) if known else None


def _named(kind: str, value: str) -> list[Named]:
    """The recipients of one line: mostly one, and behind it `, Expanded: list@x` or `, Forwarded: b@x`."""
    found: list[Named] = []
    for piece in re.split("[,;]", value):
        match, address = _LINE.match(piece), _ADDRESS.search(piece)
        word = _KINDS.get(fold(match[1]).strip(), "") if match is not None else ""
        if address is not None and found and word in ("expanded", "forwarded"):
            found[-1] = replace(found[-1], **{word: address[0]})
        elif address is not None and not word:
            found.append(Named(address[0], kind))
    return found
