"""The SMTP door in a process of its own, for measurements: what it costs is what this process costs."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import resource
import tempfile
import threading
from pathlib import Path
from typing import Any

import structlog

from gateway import config, smtp_in
from gateway.errors import Reply
from gateway.message import Origin, Received, Recipient, Sender
from tests.door import HOST, OURS, certificate


class _Counter:
    """Accepts everything, keeps counts and digests, forgets the bytes."""

    def __init__(self) -> None:
        self.count = 0
        self.octets = 0
        self.seen: list[tuple[str, str, tuple[str, ...]]] = []  # digest, sender, recipients

    def may_accept(self) -> Reply | None:
        return None

    async def sender(self, origin: Origin, sender: Sender, size: int | None) -> Reply | None:
        return None

    async def recipient(self, origin: Origin, sender: Sender, recipient: Recipient) -> Reply | None:
        return None

    async def message(self, received: Received) -> Reply:
        self.count += 1
        self.octets += received.body.size
        envelope = received.envelope
        if len(self.seen) < 200_000:
            recipients = tuple(str(recipient.address) for recipient in envelope.recipients)
            self.seen.append((received.body.sha256, str(envelope.sender), recipients))
        received.body.close()
        return Reply(250, f"Ok: {received.case}", "0.0")


def _peak() -> int:
    """Peak resident memory in bytes since `reset`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _serve(pipe: Any, folder: str, kind: str, limits: dict[str, Any], options: dict[str, Any], tls: bool) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    listener = config.Listener(kind=kind, port=0, **options)  # type: ignore[arg-type]
    settings = config.Gateway(
        hostname=HOST,
        data=Path(folder) / "data",
        listeners=(listener,),
        domains=(OURS,),
        tls=certificate(Path(folder) / "tls")[0] if tls else config.Tls(),
        next_hops=(config.NextHop(name="back", host="127.0.0.1"),),
        limits=config.Limits(**limits),
    )
    counter = _Counter()

    async def run() -> None:
        server = await smtp_in.start(listener, settings, counter, None)
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def answer() -> None:
            pipe.send(server.port)
            while True:
                try:
                    wish = pipe.recv()
                except EOFError:
                    wish = "stop"
                if wish == "stop":
                    loop.call_soon_threadsafe(done.set)
                    return
                if wish == "reset":
                    Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
                usage = resource.getrusage(resource.RUSAGE_SELF)
                pipe.send(
                    {
                        "cpu": usage.ru_utime + usage.ru_stime,
                        "peak": _peak(),
                        "sessions": len(server.sessions),
                        "count": counter.count,
                        "octets": counter.octets,
                        "seen": list(counter.seen) if wish == "seen" else [],
                    }
                )

        threading.Thread(target=answer, daemon=True).start()
        await done.wait()
        await server.drain(5)

    asyncio.run(run())


class EdgeProcess:
    """A context manager: `port`; `ask()` gives cpu (s), peak (bytes), sessions, count, octets; `ask("seen")` also what
    came: (SHA-256, sender, recipients); `ask("reset")` begins a new peak."""

    def __init__(self, kind: str = "relay", *, tls: bool = False, limits: dict[str, Any] | None = None, **options: Any):
        self._folder = tempfile.TemporaryDirectory(prefix="edge-")
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        self._pipe = ours
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(theirs, self._folder.name, kind, limits or {}, options, tls), daemon=True
        )

    def __enter__(self) -> EdgeProcess:
        self._process.start()
        self.port: int = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send("stop")
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()
        self._folder.cleanup()

    def ask(self, wish: str = "figures") -> dict[str, Any]:
        self._pipe.send(wish)
        return self._pipe.recv()  # type: ignore[no-any-return]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
