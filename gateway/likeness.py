"""Which bytes are the message, and which lines were put on top of it on the way.

Every server that passes a message on puts header fields on top and leaves the rest alone (RFC 5321 4.4), so two copies
of one message are alike below those fields. The digest of that part recognises a message that came by SMTP, lies in
two mailboxes and was journaled. Nothing is concluded from a Message-ID: those are repeated, by accident and on purpose.
"""

from __future__ import annotations

import hashlib
import re

from gateway.message import Body

#: Bytes in which the fields on top must end; a message with more of them is compared whole.
HEAD = 64 << 10
#: Fields that servers write at delivery, and nobody who writes a message.
_TOP = re.compile(
    rb"(?i)(?:(?:Return-Path|Received|Delivered-To|X-Original-To|Envelope-To|Delivery-Date|Received-SPF|"
    rb"X-Envelope-(?:From|To)|Authentication-Results|ARC-(?:Seal|Message-Signature|Authentication-Results)|"
    rb"X-(?:VBDT|Spam|Virus|Amavis|MDaemon|MD|MS-Exchange|MS-Journal|Forefront|Zimbra|Proofpoint)-?[\w-]*)"
    rb"[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*)*"
)
_NAMED = re.compile(rb"(?i)(?:^|\n)Message-ID[ \t]*:[^\n]*\S")


def core(body: Body) -> tuple[str, bytes]:
    """The SHA-256 of the message below the fields that servers put on top, and those fields. A message that would be
    hard to tell from others without them (no Message-ID, no end of the header in the first 64 KiB) is taken whole."""
    first = next(iter(body.chunks(HEAD)), b"")
    found = _TOP.match(first)
    size = found.end() if found else 0
    end = re.search(rb"\r?\n\r?\n", first[max(0, size - 2) :])
    if not size or end is None or not _NAMED.search(first[size : max(0, size - 2) + end.start()]):
        return body.sha256, b""
    digest, skip = hashlib.sha256(), size
    for chunk in body.chunks():
        digest.update(memoryview(chunk)[skip:])
        skip = max(0, skip - len(chunk))
    return digest.hexdigest(), bytes(first[:size])
