"""A worker process: reads hostile files so that the daemon need not.

Started by `run.py` with one end of a socket pair. Each request is a JSON line with the message bytes in an anonymous
memory file beside it; each answer is an `Inspection` as JSON. The process gives up what it does not need before it
reads its first request: memory, CPU seconds per file, core dumps, new files, and the network (`confine.py`).
"""

from __future__ import annotations

import array
import base64
import contextlib
import json
import mmap
import os
import resource
import socket
import struct
import sys
import time

from gateway.inspection import confine
from gateway.inspection.findings import CheckRun, FileFacts, Inspection, Status

#: length of the JSON that follows, network order
HEADER = struct.Struct("!I")


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(_exactly(channel, HEADER.unpack(_exactly(channel, HEADER.size))[0]))
    from gateway.inspection import examine

    examiner = examine.Settings.from_json(settings)
    examine.warm(examiner)
    confine.confine(memory=examiner.budget.memory, readable=(examiner.trust,) if examiner.trust else ())
    channel.sendall(HEADER.pack(2) + b"{}")  # ready
    while True:
        request, descriptor = _request(channel)
        if request is None:
            return
        answer = _answer(examine, examiner, request, descriptor)
        channel.sendall(HEADER.pack(len(answer)) + answer)


def _request(channel: socket.socket) -> tuple[dict | None, int]:
    """The next request and the descriptor of its bytes; (None, -1) when the daemon hung up."""
    descriptors = array.array("i")
    first, ancillary, _, _ = channel.recvmsg(HEADER.size, socket.CMSG_LEN(descriptors.itemsize))
    if not first:
        return None, -1
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    first += _exactly(channel, HEADER.size - len(first)) if len(first) < HEADER.size else b""
    return json.loads(_exactly(channel, HEADER.unpack(first)[0])), descriptors[0]


def _answer(examine, settings, request: dict, descriptor: int) -> bytes:
    """Never raises for what a file does: memory errors and surprises become facts."""
    confine.allow_cpu(request["seconds"] + 2)
    deadline = time.monotonic() + request["seconds"]
    try:
        size = os.fstat(descriptor).st_size
        data = mmap.mmap(descriptor, size, prot=mmap.PROT_READ) if size else b""
    finally:
        os.close(descriptor)
    try:
        if request["what"] == "draw":
            return _drawn(examine, settings, bytes(data), request)
        if request["what"] == "message":
            facts = examine.examine_message(data, settings, deadline)
        else:
            facts = examine.examine_file(bytes(data), request["name"], settings, deadline)
    except MemoryError:
        facts = Inspection(runs=(CheckRun(check="secrecy", status=Status.FAILED, reason="out of memory"),))
    except Exception as error:  # a bug of ours: the message must not be lost or passed for it
        facts = Inspection(runs=(CheckRun(check="secrecy", status=Status.FAILED, reason=type(error).__name__),))
    finally:
        if isinstance(data, mmap.mmap):
            with contextlib.suppress(BufferError):  # a check kept a view; the kernel frees it with the last one
                data.close()
    return facts.model_dump_json(exclude_defaults=True).encode()


def _drawn(examine, settings, data: bytes, request: dict) -> bytes:
    """Pictures of the pages with what was seen, as JSON: [page, base64]; an empty list when none can be shown."""
    from gateway.inspection import annotate, pages

    file = FileFacts.model_validate(request["facts"])
    try:
        with pages.open_pages(data, file.type) as opened:
            boxes = examine.signature_boxes(data, settings) if file.signatures else ()
            found = annotate.drawn(opened, file, request["kind"], boxes, ((n, what) for n, what in request["marks"]))
    except Exception:  # whatever the file does, there is no picture
        found = []
    return json.dumps([(n, base64.b64encode(picture).decode()) for n, picture in found]).encode()


def _exactly(channel: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = channel.recv(size - len(data))
        if not piece:
            raise SystemExit(0)
        data += piece
    return bytes(data)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
