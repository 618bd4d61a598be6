"""One connection to a mail server, as the poller needs it: every call blocks, so call it in a thread.

Nothing here changes a flag or marks mail as read: folders are opened with EXAMINE (RFC 9051 6.3.3) and bytes are
fetched with BODY.PEEK. Only `act` of `imap_poll` opens a folder for writing. What a server sends is bounded: one
literal, and all it says in answer to one command.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import imaplib
import os
import re
import socket
import ssl
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imapclient import IMAPClient, SocketTimeout
from imapclient.exceptions import IMAPClientError, LoginError

from gateway import config
from gateway.errors import Failure

#: A message is asked for in pieces of this many bytes.
PIECE = 256 << 10
#: Seconds to wait for a connection and its greeting: nobody can cut these short, and an orderly end waits for them.
CONNECT = 10.0
#: Messages whose sizes or dates are asked for at a time.
LISTED = 500
#: Messages under one UID, which no server should have: the n-th of them is known here as UID + n * 2**32.
DOUBLED = 1 << 32
#: What a server may say in answer to one command, besides the bytes of messages that it was asked for. A list of all
#: UIDs of a folder of a million messages takes 8 MB.
CHATTER = 16 << 20

# imaplib takes a line of 1 MB at most: the answer to SEARCH is one line, and folders of 200,000 messages exist.
imaplib._MAXLINE = CHATTER  # type: ignore[attr-defined]

#: Everything that the library, the socket and a server that talks nonsense raise; none of it is a bug of ours.
TROUBLE = (OSError, EOFError, imaplib.IMAP4.error, IMAPClientError, ValueError, IndexError, KeyError, AssertionError,
           TypeError, AttributeError)  # fmt: skip

#: Names that clients and servers give the folder of sent mail where the server does not mark one (RFC 6154).
_SENT = {"sent", "sent items", "sent mail", "sent messages", "đã gửi", "thư đã gửi", "mục đã gửi", "hộp thư đi đã gửi"}


class Refused(Exception):
    """The server answered NO or BAD. code: the response code of RFC 5530 or 9051, such as OVERQUOTA, or empty."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.split())[:200])
        found = re.search(r"\[([A-Z][A-Z-]*)", text)
        self.code = found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Folder:
    """What EXAMINE or SELECT says. modseq 0: the server does not keep any (RFC 7162). told: uidnext is the server's
    own; else it is one above the highest UID, and goes down when that message is removed. vanished: ranges of UIDs that
    are gone since the state that was named, ends included."""

    name: str
    uidvalidity: int
    uidnext: int
    exists: int
    modseq: int = 0
    told: bool = True
    vanished: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """One message as a list of a folder shows it."""

    uid: int
    size: int
    internal: dt.datetime | None


def secret_of(account: config.ImapAccount) -> str:
    """The password, or the token. Raises Failure, without the password and without its place in `public`."""
    try:
        if account.credential:
            folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
            if not folder:
                raise Failure("No password", f"{account.address}: CREDENTIALS_DIRECTORY is not set")
            path = Path(folder) / account.credential
        else:
            assert account.password_file is not None
            path = account.password_file
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise Failure("No password", f"{account.address}: password: {reason}") from None
    if not lines or not lines[0]:
        raise Failure("No password", f"{account.address}: the password file is empty")
    return lines[0]


class Session:
    """A logged-in connection. `kill` may be called from another thread; everything else from one at a time."""

    def __init__(self, server: config.ImapServer, account: config.ImapAccount) -> None:
        self._server, self._account = server, account
        self._spoken, self._allowed = 0, CHATTER
        self._prefix: str | None = None
        self._places: dict[int, int] = {}
        self.capabilities: set[str] = set()
        self.tls = ""
        self.qresync = False
        self.idling = False
        self.client: Any = None

    def connect(self) -> None:
        """Connect and log in. Raises OSError, Failure for a login that was refused, and others of TROUBLE."""
        server, account = self._server, self._account
        password = secret_of(account)
        implicit = server.tls == "implicit"
        wait = server.timeout or None
        self.client = IMAPClient(
            server.host,
            server.port,
            ssl=implicit,
            ssl_context=_tls(server) if implicit else None,
            timeout=SocketTimeout(min(CONNECT, wait or CONNECT), wait),
        )
        # imapclient turns imaplib's tracing on and throws the text away: it would format every message twice.
        self.client._imap.debug = 0
        self.client.normalise_times = False  # else INTERNALDATE loses its zone
        self._bound()
        try:
            if server.tls == "starttls":
                self.client.starttls(_tls(server))
                self._bound()
            self._login(server, account, password)
        except BaseException:
            self.kill()
            raise
        self.tls = self._tls_version()
        # Asked again after the login, which changes them.
        self.capabilities = {word.decode("ascii", "replace").upper() for word in self.client.capabilities()}
        if {"QRESYNC", "ENABLE"} <= self.capabilities:
            with contextlib.suppress(Refused), self._command() as client:
                self.qresync = b"QRESYNC" in [word.upper() for word in client.enable("QRESYNC")]

    def _login(self, server: config.ImapServer, account: config.ImapAccount, password: str) -> None:
        login = account.login or account.address
        client = self.client
        try:
            if server.auth == "xoauth2":
                client.oauth2_login(login, password)
            elif server.auth == "plain" and client.has_capability("AUTH=PLAIN"):
                client.plain_login(login, password)  # any UTF-8; LOGIN has no charset (RFC 3501 6.2.3)
            else:
                client.login(login, password)
        except LoginError as error:
            raise Failure("Login refused", f"login refused: {_short(error)}") from None
        client._cached_capabilities = None

    def _tls_version(self) -> str:
        found = self.client.socket()
        version = found.version() if isinstance(found, ssl.SSLSocket) else None
        return version or ""

    def _bound(self) -> None:
        """Count what the server says, so that it cannot fill the memory: imaplib collects until the tagged line."""
        imap = self.client._imap
        read, readline = type(imap).read, type(imap).readline

        def count(octets: int) -> None:
            self._spoken += octets
            if self._spoken > self._allowed:
                raise imaplib.IMAP4.abort(f"the server sent more than {self._allowed} bytes for one command")

        def bounded_read(size: int) -> bytes:
            count(size)  # before it is read: the size of a literal is a promise of the server's
            return read(imap, size)  # type: ignore[no-any-return]

        def bounded_readline() -> bytes:
            line = readline(imap)
            count(len(line))
            return line  # type: ignore[no-any-return]

        imap.read, imap.readline = bounded_read, bounded_readline

    @contextlib.contextmanager
    def _command(self, octets: int = 0) -> Iterator[IMAPClient]:
        """A command that may bring `octets` of literals. NO and BAD become Refused."""
        self._spoken, self._allowed = 0, CHATTER + octets
        try:
            yield self.client
        except imaplib.IMAP4.readonly:
            raise Refused("the folder is read-only") from None
        except imaplib.IMAP4.abort:
            raise  # the connection is over
        except IMAPClientError as error:  # imaplib.IMAP4.error: the server answered, and not OK
            raise Refused(str(error)) from None

    # ------------------------------------------------------------------ folders

    def folders(self, account: config.ImapAccount) -> list[tuple[str, str]]:
        """The folders to look at, as (name, role). Those in the settings that the server does not have are left in,
        so that opening them tells."""
        with self._command() as client:
            listed = [
                (flags, name if isinstance(name, str) else str(name), delimiter)
                for flags, delimiter, name in client.list_folders()
            ]
        usable = [one for one in listed if not {b"\\noselect", b"\\nonexistent"} & {flag.lower() for flag in one[0]}]
        found = [("INBOX", "inbox")]
        sent = [account.sent] if account.sent else []
        if not sent:
            sent = [name for flags, name, _ in usable if b"\\sent" in {flag.lower() for flag in flags}]
        if not sent:
            sent = [name for _, name, delimiter in usable if _leaf(name, delimiter) in _SENT][:1]
        found += [(name, "sent") for name in sent]
        found += [(name, "other") for name in account.folders]
        return list({name: (name, role) for name, role in reversed(found)}.values())[::-1]

    def examine(self, name: str, *, writing: bool = False, since: tuple[int, int] | None = None) -> Folder:
        """Open a folder, for reading only unless told. since: UIDVALIDITY and modseq of an earlier state; the server
        may tell what is gone since then (QRESYNC, RFC 7162 3.2.5). Raises Refused where there is no such folder."""
        if since is None or not self.qresync:
            with self._command() as client:
                told = client.select_folder(name, readonly=not writing)
        else:
            try:
                with self._command() as client:
                    asked = client._normalise_folder(name) + b" (QRESYNC (%d %d))" % since
                    client._command_and_check("select", asked, not writing)
                    told = client._process_select_response(client._imap.untagged_responses)
            except Refused:
                self.qresync = False  # offered, and not understood
                return self.examine(name, writing=writing)
        uidvalidity, uidnext = told.get(b"UIDVALIDITY"), told.get(b"UIDNEXT")
        if not uidvalidity:
            raise Refused(f"{name}: the server has no UIDVALIDITY, so that no message in it can be named")
        exists = int(told.get(b"EXISTS", 0))
        highest = 0 if uidnext else max(self.search("ALL"), default=0)  # RFC 2060 did not ask servers to say
        modseq = told.get(b"HIGHESTMODSEQ", 0)
        modseq = modseq if isinstance(modseq, int) else 0
        vanished = _ranges(told.get(b"VANISHED", ()))
        return Folder(name, int(uidvalidity), int(uidnext or highest + 1), exists, modseq, bool(uidnext), vanished)

    def search(self, *criteria: str) -> list[int]:
        """UIDs in order, each once, whatever the server says."""
        with self._command() as client:
            return sorted({uid for uid in client.search(list(criteria)) if 0 < uid < 1 << 32})

    def doubled(self, exists: int) -> list[int]:
        """Messages of the open folder that share a UID, each under a number of its own (`DOUBLED`), in their order."""
        told: dict[int, Any] = {}
        for start in range(1, exists + 1, LISTED):
            with self._command() as client, _by_place(client):
                told |= client.fetch(range(start, min(start + LISTED, exists + 1)), ["UID"])
        places: dict[int, list[int]] = {}
        for place, one in sorted(told.items()):
            if isinstance(uid := one.get(b"UID"), int) and 0 < uid < DOUBLED:
                places.setdefault(uid, []).append(place)
        self._places = {
            uid + number * DOUBLED: place
            for uid, some in places.items()
            if len(some) > 1
            for number, place in enumerate(some, 1)
        }
        return sorted(self._places)

    def _asked(self, client: Any, uids: Sequence[int], items: list[str]) -> dict[int, Any]:
        """FETCH by UID; of one that shares its UID, by its place in the folder."""
        if not uids or uids[0] < DOUBLED:
            return client.fetch(uids, items)  # type: ignore[no-any-return]
        (uid,) = uids
        if uid not in self._places:
            return {}
        with _by_place(client):
            told = client.fetch([self._places[uid]], [*items, "UID"])
        right = [one for one in told.values() if one.get(b"UID") == uid % DOUBLED]
        return dict.fromkeys((uid,), right[0]) if right else {}

    def listed(self, uids: Sequence[int]) -> list[Listed]:
        """Size and INTERNALDATE of messages; those that are gone are left out."""
        with self._command() as client:
            told = self._asked(client, uids, ["RFC822.SIZE", "INTERNALDATE"])
        return [
            Listed(
                uid, size if isinstance(size := one.get(b"RFC822.SIZE"), int) else 0, _aware(one.get(b"INTERNALDATE"))
            )
            for uid, one in sorted(told.items())
        ]

    def flags(self, uid: int) -> tuple[bytes, ...] | None:
        """None: the message is gone."""
        with self._command() as client:
            told = client.fetch([uid], ["FLAGS"])
        return tuple(told[uid].get(b"FLAGS", ())) if uid in told else None

    # ------------------------------------------------------------------ bytes

    def pieces(self, uids: Sequence[int], offset: int = 0, size: int = PIECE) -> dict[int, bytes]:
        """`size` bytes from `offset` of several messages (RFC 9051 6.4.5.1). A message that is gone has no entry;
        one that ends before `offset` has empty bytes."""
        with self._command(len(uids) * (size + 1024)) as client:
            told = self._asked(client, uids, [f"BODY.PEEK[]<{offset}.{size}>"])
        found: dict[int, bytes] = {}
        for uid, one in told.items():
            for key in (f"BODY[]<{offset}>".encode(), b"BODY[]"):
                if key in one:
                    data = one[key]
                    data = b"" if data is None else data if isinstance(data, bytes) else str(data).encode()
                    # A server that ignores the range sends everything from the start.
                    found[uid] = data[offset : offset + size] if key == b"BODY[]" else data[:size]
                    break
        return found

    # ------------------------------------------------------------------ waiting

    def idle(self) -> bool:
        """Begin IDLE (RFC 2177) in the open folder. False: the server has news already, and IDLE was ended again."""
        with self._command() as client:
            client.idle()
        self.idling = True
        if self._pending():
            return not self.idle_end()
        return True

    def idle_end(self) -> bool:
        """End IDLE. Whether the server told anything but that it is still there."""
        with self._command() as client:
            self.idling = False
            _, told = client.idle_done()
        return any(len(one) > 1 and one[0] not in (b"OK", "OK") for one in told)

    def _pending(self) -> bool:
        """Whether bytes are here that no file descriptor will tell of: in imaplib's buffer, or inside TLS."""
        imap = self.client._imap
        self.client.socket().settimeout(0)
        try:
            return bool((getattr(imap, "_file", None) or imap.file).peek(1))
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        finally:
            self.client._set_read_timeout()

    def fileno(self) -> int:
        return int(self.client.socket().fileno())

    # ------------------------------------------------------------------ changes

    def keyword(self, uid: int, keyword: str) -> None:
        with self._command() as client:
            client.add_flags([uid], [keyword.encode("ascii")], silent=True)

    def ensure(self, name: str) -> None:
        """Make a folder when there is none, and subscribe to it so that mail clients show it."""
        with self._command() as client:
            if client.folder_exists(name):
                return
            client.create_folder(name)
        with contextlib.suppress(Refused), self._command() as client:
            client.subscribe_folder(name)

    def place(self, name: str) -> str:
        """The folder's whole name: some servers want all folders below INBOX (RFC 2342)."""
        if self._prefix is None:
            self._prefix = ""
            if "NAMESPACE" in self.capabilities:
                with contextlib.suppress(Refused), self._command() as client:
                    personal = client.namespace().personal
                    if personal:
                        prefix = personal[0][0]
                        self._prefix = prefix if isinstance(prefix, str) else prefix.decode("ascii", "replace")
        return name if name.upper() == "INBOX" or name.startswith(self._prefix) else self._prefix + name

    def move(self, uid: int, target: str) -> None:
        """MOVE (RFC 6851): the message is in one folder or the other, never in both or none."""
        with self._command() as client:
            client.move([uid], target)

    def copy(self, uid: int, target: str) -> None:
        with self._command() as client:
            client.copy([uid], target)

    def expunge(self, uid: int) -> None:
        """Remove this one message from the open folder (UIDPLUS, RFC 4315); others that people marked stay."""
        with self._command() as client:
            client.add_flags([uid], [b"\\Deleted"], silent=True)
            client.uid_expunge([uid])

    # ------------------------------------------------------------------ the end

    def close(self) -> None:
        """Log out, politely if that is quick."""
        with contextlib.suppress(*TROUBLE, Refused):
            self.client.socket().settimeout(2)
            if self.idling:
                self.idle_end()
            self.client.logout()
        self.kill()

    def kill(self) -> None:
        """Cut the connection; a call in another thread ends with an error at once."""
        with contextlib.suppress(*TROUBLE):
            self.client.socket().shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(*TROUBLE):
            self.client.shutdown()


@contextlib.contextmanager
def _by_place(client: Any) -> Iterator[None]:
    """Within it, numbers of messages are their places in the folder."""
    client.use_uid = False
    try:
        yield
    finally:
        client.use_uid = True


def _tls(server: config.ImapServer) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(server.ca) if server.ca else None)
    if not server.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _leaf(name: str, delimiter: Any) -> str:
    """The last part of a folder's name, folded: `INBOX.Đã Gửi` → `đã gửi`."""
    text = delimiter.decode("ascii", "replace") if isinstance(delimiter, bytes) else delimiter or ""
    return unicodedata.normalize("NFC", name.rpartition(text)[2] if text else name).casefold()


def _ranges(told: Any) -> tuple[tuple[int, int], ...]:
    """The UIDs of VANISHED responses: `(EARLIER) 41,43:116` → ((41, 41), (43, 116))."""
    found = []
    for one in told if isinstance(told, list | tuple) else ():
        text = one.decode("ascii", "replace") if isinstance(one, bytes) else str(one)
        for first, last in re.findall(r"(\d{1,10})(?::(\d{1,10}))?(?=,|$)", text.strip()):
            ends = sorted((int(first), int(last or first)))
            found.append((ends[0], ends[1]))
    return tuple(found)


def _aware(internal: Any) -> dt.datetime | None:
    """INTERNALDATE with its zone; None for what is no date."""
    if not isinstance(internal, dt.datetime):
        return None
    try:
        aware = internal if internal.tzinfo is not None else internal.replace(tzinfo=dt.UTC)
        aware.timestamp()
    except (OverflowError, ValueError, OSError):
        return None
    return aware


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
