"""The pool of inspection workers: bytes in, facts out, whatever the bytes do to the worker.

Workers are started once and stay warm (importing pyHanko alone takes a second). One job at a time each; a worker that
dies, hangs or answers nonsense is replaced, and the message it was reading is tried once more in a fresh one. What
dies twice, or exceeds its time, becomes a fact that the policy answers.
"""

from __future__ import annotations

import array
import asyncio
import base64
import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ValidationError

from gateway.inspection.findings import CheckRun, FileFacts, Inspection, Status
from gateway.inspection.worker import HEADER
from gateway.message import Body

#: An answer above this is nonsense: facts of a message are kilobytes, texts are cut per file.
_LARGEST_ANSWER = 64 << 20
_START_SECONDS = 60.0


class _WorkerDied(Exception):
    pass


class _Worker:
    """One process and our end of its channel. Used by one job at a time."""

    def __init__(self, settings: bytes) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None

    async def start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        # One thread each: a pool of processes is the parallelism, and libraries that start threads of their own
        # per process (OpenMP, OpenBLAS) would only fight for the cores and the address space.
        environment = {**os.environ, "OMP_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.inspection.worker", str(theirs.fileno()),
                pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL, env=environment,
                start_new_session=True,
            )  # fmt: skip
        self._channel = ours
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(ours, HEADER.pack(len(self._settings)) + self._settings)
        async with asyncio.timeout(_START_SECONDS):
            await self._receive()

    async def ask(self, request: dict[str, Any], data: Iterable[bytes]) -> bytes:
        """The worker's answer to one request. Raises _WorkerDied."""
        assert self._channel is not None
        loop = asyncio.get_running_loop()
        text = json.dumps(request).encode()
        descriptor = _memory_file(data)
        try:
            # A few dozen bytes into an empty socket buffer: sendmsg cannot block here.
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
            sent = self._channel.sendmsg([HEADER.pack(len(text)) + text], rights)
            if sent < HEADER.size + len(text):
                await loop.sock_sendall(self._channel, (HEADER.pack(len(text)) + text)[sent:])
            return await self._receive()
        except OSError as error:  # the channel broke, which only its end can do
            raise _WorkerDied(await self._obituary()) from error
        finally:
            os.close(descriptor)

    async def _receive(self) -> bytes:
        size = HEADER.unpack(await self._exactly(HEADER.size))[0]
        if size > _LARGEST_ANSWER:
            raise _WorkerDied("answer too large")
        return await self._exactly(size)

    async def _exactly(self, size: int) -> bytes:
        assert self._channel is not None
        loop = asyncio.get_running_loop()
        data = bytearray()
        while len(data) < size:
            piece = await loop.sock_recv(self._channel, min(size - len(data), 1 << 20))
            if not piece:
                raise _WorkerDied(await self._obituary())
            data += piece
        return bytes(data)

    async def _obituary(self) -> str:
        assert self._process is not None
        code = await self._process.wait()
        return f"worker ended by signal {-code}" if code < 0 else f"worker ended with exit code {code}"

    async def stop(self) -> None:
        """Kill the process and its children (its own session). Safe to call twice."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            await self._process.wait()
            self._process = None


def _memory_file(data: Iterable[bytes]) -> int:
    """An anonymous file in memory, sealed against writing, at its start."""
    descriptor = os.memfd_create("message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for piece in data:
            view = memoryview(piece)
            while view:
                view = view[os.write(descriptor, view) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class Inspector:
    """Workers, and the queue before them. Facts by digest are kept for a while: a server that was told 451 because an
    inspection took too long finds the answer at its next try."""

    def __init__(
        self, settings: dict[str, Any], *, workers: int, seconds: float, log: Any, remember: int = 256
    ) -> None:
        self._settings = json.dumps(settings).encode()
        self._size = workers
        self._seconds = seconds
        self._log = log
        self._free: asyncio.Queue[_Worker] = asyncio.Queue()
        self._all: set[_Worker] = set()
        self._remembered: dict[str, Inspection] = {}
        self._remember = remember
        self.deaths = 0

    async def run(self) -> None:
        """Start the workers and stay; ends with an error when one cannot be started at all. Cancel, then `stop`."""
        await asyncio.gather(*(self._add() for _ in range(self._size)))
        await asyncio.Event().wait()

    async def _add(self) -> None:
        worker = _Worker(self._settings)
        self._all.add(worker)
        await worker.start()
        self._free.put_nowait(worker)

    async def renew(self) -> None:
        """Start every worker anew, each when it is free: new roots and revocation lists are read. What was remembered
        is forgotten, because it rests on the old ones."""
        for _ in range(self._size):
            await self._replace(await self._free.get())
        self._remembered.clear()

    async def stop(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._all))
        self._all.clear()

    async def message(self, body: Body) -> Inspection:
        """The facts about a message; never raises for what the message does."""
        known = self._remembered.get(body.sha256)
        if known is not None:
            return known
        facts = await self._job({"what": "message"}, body.chunks)
        if not facts.failed:
            self._keep(body.sha256, facts)
        return facts

    async def file(self, data: bytes, name: str) -> Inspection:
        """The facts about one file."""
        return await self._job({"what": "file", "name": name}, lambda: (data,))

    async def draw(
        self, data: bytes, facts: FileFacts, kind: str, marks: list[tuple[int, str]]
    ) -> list[tuple[int, bytes]]:
        """Pictures of the pages with what was seen on them (annotate.py), made where the file was read. kind: `pdf` or
        `png`. Empty when the file has no pages that can be shown."""
        what = facts.model_dump(mode="json", include={"name", "path", "sha256", "size", "type", "seals", "signatures"})
        request = {"what": "draw", "facts": what, "kind": kind, "marks": marks}
        answer = await self._asked(request, lambda: (data,))
        if isinstance(answer, Inspection):
            return []
        return [(int(n), base64.b64decode(picture)) for n, picture in json.loads(answer)]

    def _keep(self, sha256: str, facts: Inspection) -> None:
        while len(self._remembered) >= self._remember:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[sha256] = facts

    async def _job(self, request: dict[str, Any], chunks: Callable[[], Iterable[bytes]]) -> Inspection:
        answer = await self._asked(request, chunks, Inspection.model_validate_json)
        return answer if isinstance(answer, Inspection) else _broken(Status.FAILED, "no facts")

    async def _asked(
        self,
        request: dict[str, Any],
        chunks: Callable[[], Iterable[bytes]],
        read: Callable[[bytes], Inspection | bytes] = bytes,
    ) -> Inspection | bytes:
        """A worker's answer; facts that say what went wrong when none can give one. read: refuses nonsense."""
        reason = ""
        for _ in range(2):  # a worker may have died of an earlier file's leftovers: try once more in a fresh one
            worker = await self._free.get()
            healthy = False
            try:
                # The examiner keeps to its own deadline; what still runs two seconds later hangs.
                async with asyncio.timeout(self._seconds + 2):
                    answer = await worker.ask({**request, "seconds": self._seconds}, chunks())
                healthy = True
                return read(answer)
            except TimeoutError:
                return _broken(Status.TIMED_OUT, f"no answer within {self._seconds:g} s")
            except (_WorkerDied, ValidationError) as error:
                healthy = False
                reason = str(error).split("\n")[0]
            finally:
                if healthy:
                    self._free.put_nowait(worker)
                else:
                    self.deaths += 1
                    self._log.warning("inspection worker replaced", reason=reason)
                    await asyncio.shield(self._replace(worker))
        return _broken(Status.FAILED, reason)

    async def _replace(self, worker: _Worker) -> None:
        self._all.discard(worker)
        await worker.stop()
        await self._add()


def _broken(status: Status, reason: str) -> Inspection:
    """Facts about a message that no worker could read: the checks that must not be missed did not answer."""
    return Inspection(
        runs=tuple(CheckRun(check=check, status=status, reason=reason) for check in ("secrecy", "malware"))
    )
