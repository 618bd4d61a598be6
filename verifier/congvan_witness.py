"""A witness for logs of congvan-gateway, and of any other log that speaks C2SP tlog-witness.

It remembers the newest checkpoint of each log that it knows and signs a later one only when that continues what it
remembers: whoever rewrites a history or rolls it back does not get its signature, and what it remembers is the proof.
Run by another body than the gateway; it learns sizes and digests, never mail. Python's library and `cryptography`.

    congvan-witness keys  --name witness.so-noi-vu.gov.vn DIR     make the keys, print their public halves
    congvan-witness serve --listen 127.0.0.1:8642 DIR             answer; put a web server with TLS in front

DIR/logs lists the logs, one `log KEY` a line; it is read anew for each request. DIR/witness.db is the memory: whoever
puts back an old copy of it makes the witness forget, so keep it as carefully as the key.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import http.server
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from congvan_verify import Key, Policy, Usage, Wrong, check_consistency, checkpoint, cosigned, mldsa, read_consistency
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: A checkpoint, 63 hashes, and room for the signatures of some dozen other witnesses.
MOST_BYTES = 256 << 10
#: Seconds a client may take for each piece of its request.
PATIENCE = 30


class Refused(Exception):
    """HTTP status and text for the client."""

    def __init__(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        super().__init__(text)
        self.status, self.text, self.kind = status, text, kind


class Witness:
    """The memory and the keys below `folder`. Several processes may share them. Raises Usage where there are none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            lines = (folder / "witness.key").read_text().split()
        except FileNotFoundError:
            raise Usage(f"{folder}: no keys yet; make them with `congvan-witness keys --name NAME {folder}`") from None
        self.name = lines[0]
        self.signers: list[tuple[int, Any, bytes]] = []  # type, private key, public bytes
        for line in lines[1:]:
            kind, seed = int(line.partition(":")[0]), bytes.fromhex(line.partition(":")[2])
            if kind == 4:
                private: Any = Ed25519PrivateKey.from_private_bytes(seed)
            elif mldsa is not None:
                private = mldsa.MLDSA44PrivateKey.from_seed_bytes(seed)
            else:
                raise Usage("the ML-DSA-44 key needs cryptography 48 or later")
            self.signers.append((kind, private, private.public_key().public_bytes_raw()))
        with self._memory() as memory:
            memory.execute(
                "CREATE TABLE IF NOT EXISTS log (origin TEXT PRIMARY KEY, size INTEGER, root BLOB, note TEXT)"
            )
            memory.execute("CREATE TABLE IF NOT EXISTS refused (at INTEGER, origin TEXT, why TEXT, note TEXT)")

    @contextlib.contextmanager
    def _memory(self) -> Iterator[sqlite3.Connection]:
        """One transaction that nobody else writes beside, durable when it ends well."""
        connection = sqlite3.connect(self.folder / "witness.db", timeout=PATIENCE, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous=EXTRA")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()

    def public_keys(self) -> list[str]:
        """The public keys."""
        return [spell(self.name, kind, public) for kind, _, public in self.signers]

    def logs(self) -> Policy:
        """The logs we know. Raises Usage."""
        try:
            return Policy([], (self.folder / "logs").read_text())
        except FileNotFoundError:
            raise Usage(f"{self.folder / 'logs'} is missing: one `log KEY` a line") from None

    def add(self, request: str, now: float | None = None) -> str:
        """Signature lines for the checkpoint of an add-checkpoint request. Raises Refused."""
        try:
            old, path, note = read_consistency(request)
            origin, size, root = checkpoint(note.rpartition("\n\n")[0] + "\n")
        except Wrong as error:
            raise Refused(400, f"{error}\n") from None
        logs = self.logs()
        if origin not in {log.name for log in logs.logs}:
            raise Refused(404, f"{origin} is no log known here\n")
        try:
            logs.open(note)
        except Wrong as error:
            raise Refused(403, f"{error}\n") from None
        if old > size:
            raise Refused(400, f"old size {old} is above {size}\n")
        # Between the look at the memory and its change nobody else may come, or a slow request for a small tree would
        # undo a quick one for a larger (C2SP tlog-witness). BEGIN IMMEDIATE holds off other threads and processes.
        refusal = None
        with self._memory() as memory:
            row = memory.execute("SELECT size, root FROM log WHERE origin = ?", (origin,)).fetchone()
            known, known_root = row or (0, hashlib.sha256(b"").digest())
            if old != known or (size == known and root != known_root):
                refusal = Refused(409, f"{known}\n", "text/x.tlog.size")
            else:
                try:
                    check_consistency(old, known_root, size, root, path)
                except Wrong as error:
                    refusal = Refused(422, f"{error}\n")
            if refusal is None:
                lines = self._sign(note, int(time.time() if now is None else now))
                values = (origin, size, root, note + lines)
                memory.execute("INSERT OR REPLACE INTO log (origin, size, root, note) VALUES (?, ?, ?, ?)", values)
            elif refusal.status == 422 or size == known:
                # Signed by the log and not what it signed before: this is the proof against it.
                memory.execute(
                    "INSERT INTO refused SELECT ?, ?, ?, ? WHERE (SELECT count(*) FROM refused) < 1000",
                    (int(time.time()), origin, refusal.text.strip(), request),
                )
        if refusal is not None:
            raise refusal
        return lines

    def _sign(self, note: str, at: int) -> str:
        body, lines = note.rpartition("\n\n")[0] + "\n", ""
        for kind, private, public in self.signers:
            signature = private.sign(cosigned(kind, self.name, at, body))
            whole = Key(spell(self.name, kind, public)).id + at.to_bytes(8, "big") + signature
            lines += f"\u2014 {self.name} {base64.b64encode(whole).decode()}\n"
        return lines

    def newest(self, digest: str) -> str:
        """The newest checkpoint signed here of the log whose origin has this SHA-256, or nothing."""
        with self._memory() as memory:
            for origin, note in memory.execute("SELECT origin, note FROM log"):
                if hashlib.sha256(origin.encode()).hexdigest() == digest:
                    return str(note)
        return ""


def spell(name: str, kind: int, public: bytes) -> str:
    """The public key as `name+hash+base64`."""
    key = bytes([kind]) + public
    digest = hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8]
    return f"{name}+{digest}+{base64.b64encode(key).decode()}"


def make_keys(folder: Path, name: str) -> None:
    """Raises Usage when there are keys already or the name cannot be one."""
    if not name or any(letter in name for letter in "+ \t\n") or len(name.encode()) > 255:
        raise Usage(f"{name!r} cannot be the name of a witness: no space, no +")
    folder.mkdir(parents=True, exist_ok=True)
    kinds = (4, 6) if mldsa is not None else (4,)
    text = "\n".join([name, *(f"{kind}:{os.urandom(32).hex()}" for kind in kinds)]) + "\n"
    try:
        handle = os.open(folder / "witness.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Usage(f"{folder / 'witness.key'} is there already") from None
    os.write(handle, text.encode())
    os.fsync(handle)
    os.close(handle)


def server(witness: Witness, address: str, port: int) -> http.server.ThreadingHTTPServer:
    """POST /add-checkpoint; GET /keys, GET /<SHA-256 of the origin>/checkpoint."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = PATIENCE

        def do_POST(self) -> None:
            try:
                length = int(self.headers.get("Content-Length") or -1)
                if not 0 <= length <= MOST_BYTES:
                    self.close_connection = True
                    raise Refused(413 if length > 0 else 411, "a length, and no more than 256 KB\n")
                request = self.rfile.read(length).decode()
                if not self.path.rstrip("/").endswith("/add-checkpoint"):
                    raise Refused(404, "POST goes to add-checkpoint\n")
                self._answer(200, witness.add(request))
            except Refused as refusal:
                self._answer(refusal.status, refusal.text, refusal.kind)
            except ValueError:
                self._answer(400, "not a request of tlog-witness\n")
            except (Usage, sqlite3.Error) as error:
                self.log_error("%s", error)
                self._answer(500, "the witness cannot answer now\n")

        def do_GET(self) -> None:
            words = self.path.strip("/").split("/")
            if words[-1] == "keys":
                self._answer(200, "".join(f"{key}\n" for key in witness.public_keys()))
            elif len(words) > 1 and words[-1] == "checkpoint" and (note := witness.newest(words[-2])):
                self._answer(200, note)
            else:
                self._answer(404, "nothing here\n")

        def _answer(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: Any) -> None:
            sys.stderr.write(f"{self.address_string()} {words[0] % words[1:]}\n")

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

    return Server((address, port), Handler)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="congvan-witness", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("keys")
    command.add_argument("--name", default="", help="name of this witness, as it stands on its signatures")
    command.add_argument("folder", type=Path)
    command = commands.add_parser("serve")
    command.add_argument("--listen", default="127.0.0.1:8642", help="address:port; port 0 takes a free one")
    command.add_argument("folder", type=Path)
    try:
        given = parser.parse_args(arguments)
    except SystemExit as stop:
        return 3 if stop.code else 0
    try:
        if given.command == "keys":
            if given.name or not (given.folder / "witness.key").exists():
                make_keys(given.folder, given.name)
            print("\n".join(Witness(given.folder).public_keys()))
            return 0
        witness = Witness(given.folder)
        witness.logs()
        address, _, port = given.listen.rpartition(":")
        if not port.isdigit():
            raise Usage(f"--listen {given.listen!r}: address:port, such as 127.0.0.1:8642")
        with server(witness, address.strip("[]") or "127.0.0.1", int(port)) as running:
            print(f"serving on {running.server_address[0]}:{running.server_address[1]}", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                running.serve_forever()
    except (Usage, OSError, ValueError) as error:
        print(f"congvan-witness: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
