"""A small IMAP server in memory that misbehaves as told: what no real server can be asked to do at a given moment."""

from __future__ import annotations

import base64
import contextlib
import itertools
import re
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from imapclient import imap_utf7

DATE = "02-Mar-2026 09:00:00 +0700"


@dataclass
class Mail:
    uid: int
    data: bytes
    flags: set[str] = field(default_factory=set)
    date: str = DATE


class Box:
    """One folder."""

    def __init__(self, *mail: bytes, uidvalidity: int = 7, flags: str = "") -> None:
        self.uidvalidity, self.uidnext, self.flags = uidvalidity, 1, flags
        self.mail: list[Mail] = []
        for one in mail:
            self.add(one)

    def add(self, data: bytes, flags: set[str] | None = None, date: str = DATE) -> int:
        self.mail.append(Mail(self.uidnext, data, set(flags or ()), date))
        self.uidnext += 1
        return self.uidnext - 1

    def renumber(self, uidvalidity: int) -> None:
        """As after a repair: the same messages under other numbers."""
        self.uidvalidity, self.uidnext = uidvalidity, 1
        for one in self.mail:
            one.uid, self.uidnext = self.uidnext, self.uidnext + 1


class Drop(Exception):
    """The server hangs up."""


class ImapServer:
    """boxes: folders of every account alike. trouble: called with each command line before it is carried out; may
    change the boxes, return bytes to send instead of the answer (`{tag}` is filled in), raise Drop, or wait on `stall`.
    size: what RFC822.SIZE says of a message. after: like trouble, but once the command is done and not answered yet."""

    def __init__(self, boxes: dict[str, Box], capabilities: str = "IDLE MOVE UIDPLUS") -> None:
        self.boxes, self.capabilities = boxes, capabilities
        self.trouble: Callable[[str], bytes | None] = lambda line: None
        self.after: Callable[[str], bytes | None] = lambda line: None
        self.size: Callable[[Mail], int] = lambda mail: len(mail.data)
        self.cut: Callable[[bytes], bytes] = lambda piece: piece
        self.lines: list[str] = []
        self.stall = threading.Event()
        self.changed = threading.Condition()
        self.lock = threading.RLock()
        self.connections = 0
        self.most = 0
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with server.lock:
                    server.connections += 1
                    server.most = max(server.most, server.connections)
                try:
                    with contextlib.suppress(OSError, Drop):
                        _Talk(server, self.rfile, self.wfile).run()
                finally:
                    with server.lock:
                        server.connections -= 1

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def deliver(self, name: str, data: bytes) -> None:
        with self.changed, self.lock:
            self.boxes[name].add(data)
            self.changed.notify_all()

    def close(self) -> None:
        self.stall.set()
        self._server.shutdown()
        self._server.server_close()


class _Talk:
    def __init__(self, server: ImapServer, lines, out) -> None:  # type: ignore[no-untyped-def]
        self.server, self.lines, self.out = server, lines, out
        self.box: Box | None = None
        self.writing = False

    def say(self, text: str | bytes) -> None:
        self.out.write(text.encode() if isinstance(text, str) else text)

    def run(self) -> None:
        self.say(f"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN {self.server.capabilities}] ready\r\n")
        while line := self.lines.readline():
            tag, _, command = line.decode("utf-8", "replace").strip().partition(" ")
            with self.server.lock:
                self.server.lines.append(command)
            if (instead := self.server.trouble(command)) is not None:
                self.say(instead.replace(b"{tag}", tag.encode()))
                continue
            if command.upper().startswith("IDLE"):
                self.idle(tag)
                continue
            with self.server.lock:
                answer = self.answer(command)
            if (instead := self.server.after(command)) is not None:
                self.say(instead.replace(b"{tag}", tag.encode()))
                continue
            self.say(f"{tag} {answer}\r\n")
            if command.upper() == "LOGOUT":
                return

    def idle(self, tag: str) -> None:
        assert self.box is not None
        self.say("+ idling\r\n")
        done = threading.Event()
        before = len(self.box.mail)

        def tell() -> None:
            with self.server.changed:
                while not done.is_set():
                    if self.box is not None and len(self.box.mail) != before:
                        with contextlib.suppress(OSError, ValueError):
                            self.say(f"* {len(self.box.mail)} EXISTS\r\n")
                        return
                    self.server.changed.wait(0.1)

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        line = self.lines.readline()
        done.set()
        teller.join()
        if not line:
            raise Drop
        self.say(f"{tag} OK done\r\n")

    def answer(self, command: str) -> str:
        boxes = self.server.boxes
        words = [one[0] or one[1] for one in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', command)]
        verb = words[0].upper()
        if verb == "UID":
            verb, words = words[1].upper(), words[1:]
            return self.on_messages(verb, words, command)
        if verb == "CAPABILITY":
            self.say(f"* CAPABILITY IMAP4rev1 AUTH=PLAIN {self.server.capabilities}\r\n")
        elif verb == "AUTHENTICATE":
            if len(words) < 3:
                self.say("+ \r\n")
                base64.b64decode(self.lines.readline())
        elif verb == "LIST":
            for name, box in boxes.items():
                if words[2] in ("*", imap_utf7.encode(name).decode()):
                    self.say(f'* LIST ({box.flags}) "/" "{imap_utf7.encode(name).decode()}"\r\n')
        elif verb in ("EXAMINE", "SELECT"):
            name = imap_utf7.decode(words[1].encode())
            if name not in boxes:
                return "NO [NONEXISTENT] no such folder"
            self.box, self.writing = boxes[name], verb == "SELECT"
            told = self.box
            self.say(f"* {len(told.mail)} EXISTS\r\n* 0 RECENT\r\n* FLAGS (\\Seen)\r\n")
            self.say(f"* OK [UIDVALIDITY {told.uidvalidity}]\r\n* OK [UIDNEXT {told.uidnext}]\r\n")
            return f"OK [READ-{'WRITE' if self.writing else 'ONLY'}] open"
        elif verb == "FETCH":
            return self.on_messages(verb, words, command, by_place=True)
        elif verb == "CREATE":
            boxes[imap_utf7.decode(words[1].encode())] = Box()
        elif verb == "LOGOUT":
            self.say("* BYE\r\n")
        elif verb not in ("LOGIN", "NOOP", "SUBSCRIBE"):
            return "BAD unknown"
        return "OK done"

    def on_messages(self, verb: str, words: list[str], command: str, by_place: bool = False) -> str:
        box = self.box
        if box is None:
            return "BAD nothing is open"
        if verb == "SEARCH":
            found = box.mail
            if words[1] == "UID":
                found = self.named(words[2])
            elif words[1] == "UNSEEN":
                found = [one for one in box.mail if "\\Seen" not in one.flags]
            self.say(f"* SEARCH {' '.join(str(one.uid) for one in found)}\r\n")
            return "OK done"
        chosen = self.named(words[1])
        if by_place:
            chosen = [box.mail[int(place) - 1] for place in words[1].split(",") if int(place) <= len(box.mail)]
        if verb == "FETCH":
            for one in chosen:
                place = next(number for number, other in enumerate(box.mail, 1) if other is one)
                self.say(f"* {place} FETCH (UID {one.uid}")
                if "RFC822.SIZE" in command:
                    self.say(f' RFC822.SIZE {self.server.size(one)} INTERNALDATE "{one.date}"')
                if "FLAGS" in command:
                    self.say(f" FLAGS ({' '.join(sorted(one.flags))})")
                if "BODY.PEEK[]<" in command:
                    offset, size = map(int, re.findall(r"<(\d+)\.(\d+)>", command)[0])
                    piece = self.server.cut(one.data[offset : offset + size])
                    self.say(f" BODY[]<{offset}> {{{len(piece)}}}\r\n")
                    self.say(piece)
                self.say(")\r\n")
            return "OK done"
        if not self.writing and verb != "COPY":
            return "NO read-only"
        if verb == "STORE":
            for one in chosen:
                one.flags |= set(re.findall(r"\(([^)]*)\)", command)[-1].split())
        elif verb in ("COPY", "MOVE"):
            target = self.server.boxes[imap_utf7.decode(words[2].encode())]
            for one in chosen:
                target.add(one.data, one.flags, one.date)
            if verb == "MOVE":
                box.mail = [one for one in box.mail if one not in chosen]
        elif verb == "EXPUNGE":
            box.mail = [one for one in box.mail if one not in chosen or "\\Deleted" not in one.flags]
        return "OK done"

    def named(self, numbers: str) -> list[Mail]:
        """The messages of a sequence set, in the order of the folder."""
        assert self.box is not None
        highest = max((one.uid for one in self.box.mail), default=0)
        wanted: list[range] = []
        for part in numbers.split(","):
            ends = [highest if end == "*" else int(end) for end in part.split(":")]
            wanted.append(range(min(ends), max(ends) + 1))
        uids = {one.uid for one in self.box.mail}
        chosen = set(itertools.chain(*(uids & set(one) if len(one) < 10_000 else uids for one in wanted)))
        return [one for one in self.box.mail if one.uid in chosen]
