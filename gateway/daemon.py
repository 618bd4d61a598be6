"""Composition only: configuration to objects to tasks; signals, readiness, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from gateway import __version__, clock, config, directory, handover, policy, register, registrar, returns, smtp_in
from gateway import log as logs
from gateway.alerts import Alerts
from gateway.archive import Archive
from gateway.database import Database
from gateway.errors import ConfigError, Failure, Problem
from gateway.imap_poll import Poller
from gateway.inspection.run import Inspector
from gateway.message import VIETNAM
from gateway.objectstore import open_store
from gateway.passwords import PasswordChecker
from gateway.pipeline import Pipeline, Rules, SenderCheck
from gateway.queue import Queue
from gateway.watch import Trouble, Watch
from gateway.witness import Witnesses

#: How long connections and deliveries under way may finish after SIGTERM (reliability.md R11: at most 25 s in all).
DRAIN_SECONDS = 20.0
#: reliability.md 2.4: sequence and sign within a second.
CHECKPOINT_SECONDS = 1.0
#: How often new arrivals go into the folders of document systems.
DROP_SECONDS = 20.0
DROP_REST = 600.0
#: How often it is asked whether a report is due: one indexed question.
REPORT_SECONDS = 60.0
#: How often we look whether a witness is due.
WITNESS_SECONDS = 5.0


def notify(state: str) -> None:
    """Tell the service manager (sd_notify(3)); does nothing where there is none."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), address)


def read_rules(directory_path: Path) -> Rules:
    """Policy and directory. Raises ConfigError."""
    rules = Rules(policy.load(directory_path), directory.load(directory_path / "directory"))
    if problems := policy.cross_check(rules.policy, rules.directory):
        raise ConfigError(problems)
    return rules


def boot(hostname: str, policy_digest: str) -> dict[str, Any]:
    """The `boot` leaf: which program began to serve, under which policy, and what its clock is worth."""
    code = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        code.update(path.relative_to(package).as_posix().encode() + b"\0")
        code.update(hashlib.sha256(path.read_bytes()).digest())
    return {
        "version": __version__,
        "code": code.hexdigest(),
        "host": hostname,
        "policy": policy_digest,
        "clock_state": clock.state(),
    }


def inspecting(
    settings: config.Gateway, config_path: Path, log: Any, *, late: bool = False, workers: int = 0
) -> Inspector:
    """The inspection workers. late: with the time that there is when nobody waits for the answer."""
    budget = settings.budget
    if late:
        most = {"seconds": budget.late, "file_seconds": budget.late / 2, "ocr_seconds": budget.late / 2}
        budget = budget.model_copy(update=most)
    return Inspector(
        {
            "budget": budget.model_dump(mode="json"),
            "trust": str((config_path / "trust").resolve()),
            "clamd": settings.clamd.model_dump(mode="json") if settings.clamd else None,
        },
        workers=workers or budget.workers,
        seconds=budget.seconds,
        log=log,
    )


class Daemon:
    """Everything that runs, in the order in which it starts. `run` returns when it has ended in good order."""

    def __init__(self, config_path: Path, *, log: Any = None) -> None:
        self._config = config_path
        self.settings = config.read(config_path)
        self.rules = read_rules(config_path)
        self._log = log or logs.get()
        self._stop = asyncio.Event()
        self._trust = self._trust_state()
        self._index_problem = ""
        self._listeners: list[Any] = []
        self._watcher: Watch | None = None
        self.ports: dict[str, int] = {}

    async def run(self, ready: Callable[[Daemon], Awaitable[None]] | None = None) -> None:
        """Serve until SIGTERM or SIGINT. `ready` is called once everything listens."""
        settings = self.settings
        os.umask(0o077)
        try:
            settings.data.mkdir(parents=True, exist_ok=True)
            # Two of them over one folder would take each other's work for what a crash left behind.
            self._lock = (settings.data / "serve.lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mail_log = logs.MailLog((settings.data / "mail.log").open("a", encoding="utf-8"))
        except BlockingIOError:
            where = f"{settings.data}: một cổng khác đang chạy trên thư mục này / another gateway runs on it"
            raise Failure(where) from None
        except OSError as error:
            text = f"data: {error.filename or settings.data}: {error.strerror}; the account of the service must own it"
            raise ConfigError([Problem(str(self._config / "gateway.yaml"), 0, 0, text)]) from None
        returns.use_templates(self._config / "templates")
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

        database = Database.open(settings.database_url)
        store = open_store(settings)
        archive = self.archive = Archive(database, store, settings)
        archive.follower = register.Follower(settings.registers, self._log)
        inspector = self._inspector = inspecting(settings, self._config, self._log)
        queue = self.queue = Queue(database, store, settings, log=self._log, mail_log=mail_log)
        alerts = Alerts(settings, archive, log=self._log, mail_log=mail_log, wake_queue=queue.wake)
        self.pipeline = Pipeline(
            settings,
            self.rules,
            inspector=inspector,
            archive=archive,
            sender_check=SenderCheck(settings) if settings.sender_check.enabled else None,
            clamd=settings.clamd,
            wake=queue.wake,
            alerts=alerts,
            late=lambda: inspecting(settings, self._config, self._log, late=True, workers=1),
            log=self._log,
            mail_log=mail_log,
            data=settings.data,
        )
        authenticator = PasswordChecker(settings.passwords) if settings.passwords else None
        scheduler = self._jobs(archive, inspector)
        tasks: list[asyncio.Task[Any]] = []
        try:
            await archive.start()
            await archive.note("boot", boot(settings.hostname, self.rules.policy.digest))
            # Workers take a second to import what they need; mail that comes earlier waits for them, not for a port.
            tasks.append(asyncio.create_task(inspector.run(), name="inspector"))
            tasks.append(asyncio.create_task(queue.run(self._stop), name="queue"))
            tasks.append(asyncio.create_task(self.pipeline.run_late(), name="late"))
            tasks.append(asyncio.create_task(alerts.run(self._stop), name="alerts"))
            if settings.alerts is not None and settings.alerts.admin is not None:
                watch = self._watcher = Watch(
                    settings, self._config, archive, alerts, hops_down=queue.down, log=self._log
                )
                tasks.append(asyncio.create_task(watch.run(self._stop), name="watch"))
            scheduler.start()
            gate = smtp_in.Gate(settings.limits)
            for listener in settings.listeners:
                try:
                    server = await smtp_in.start(listener, settings, self.pipeline, authenticator, self._log, gate=gate)
                except OSError as error:
                    where = f"listener {listener.kind} on {listener.address}:{listener.port}"
                    reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
                    raise ConfigError(
                        [Problem(str(self._config / "gateway.yaml"), 0, 0, f"{where}: {reason}")]
                    ) from None
                self._listeners.append(server)
                self.ports[listener.kind if listener.kind not in self.ports else f"{listener.kind}:{server.port}"] = (
                    server.port
                )
            self._write_ports()
            if settings.imap is not None:
                spill = settings.data / "spill"
                spill.mkdir(mode=0o700, exist_ok=True)
                poller = Poller(settings.imap, self.pipeline, database, self._log, spill=spill, limits=settings.limits)
                tasks.append(asyncio.create_task(poller.run(self._stop), name="imap"))
            notify("READY=1\nSTATUS=serving")
            self._log.info("serving", ports=self.ports, policy=self.rules.policy.digest)
            if ready is not None:
                tasks.append(asyncio.create_task(ready(self), name="ready"))
            await self._watch(tasks)
        finally:
            notify("STOPPING=1\nSTATUS=draining")
            self.pipeline.stopping = True
            self._stop.set()
            await asyncio.gather(*(server.drain(DRAIN_SECONDS) for server in self._listeners), return_exceptions=True)
            if scheduler.running:
                scheduler.shutdown(wait=False)
            for task in tasks:
                if task.get_name() not in ("queue", "alerts"):
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(Exception):
                await archive.checkpoint()
            await inspector.stop()
            await archive.close()
            database.close()
            self._lock.close()
            self._log.info("ended")

    async def _watch(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Until told to stop. A task that ends by itself is a bug: better a restart than half a gateway."""
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        watched = [task for task in tasks if task.get_name() != "ready"]
        interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6 or None
        while True:
            done, _ = await asyncio.wait([stop, *watched], timeout=interval, return_when=asyncio.FIRST_COMPLETED)
            notify("WATCHDOG=1")
            if stop in done:
                return
            for task in done:
                stop.cancel()
                task.result()
                raise RuntimeError(f"the task {task.get_name()!r} ended by itself")

    def _jobs(self, archive: Archive, inspector: Inspector) -> AsyncIOScheduler:
        """What happens by the clock. In memory: each start sets them up anew, and none is missed that matters, because
        each looks at what is there and not at what it did last time."""
        scheduler = AsyncIOScheduler(
            timezone=VIETNAM, job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1}
        )

        in_step = clock.state()["synchronised"]
        trouble = ""

        async def checkpoint() -> None:
            nonlocal in_step, trouble
            try:
                if (now := clock.state())["synchronised"] != in_step:
                    await archive.note("clock", now)
                    in_step = now["synchronised"]
                await archive.checkpoint()
                trouble = ""
            except Failure as failure:
                if failure.private != trouble:  # it is tried every second, and told once
                    self._log.error("no checkpoint", reason=failure.private, help="congvan archive verify")
                trouble = failure.private
            except Exception:
                self._log.exception("no checkpoint")
            if archive.index.problem != self._index_problem:  # mail goes on; searches may not
                self._index_problem = archive.index.problem
                if self._index_problem:
                    self._log.error("search index", reason=self._index_problem, help="congvan archive index")
                else:
                    self._log.info("search index is whole again")

        witnesses, failing = Witnesses(archive, self.settings), dict[str, str]()

        def tell(name: str, error: str) -> None:
            """Once when it begins and once when it is over, not with every try."""
            if error and failing.get(name) != error:
                self._log.warning("checkpoint not taken", witness=name, reason=error, help="congvan archive status")
            elif not error and name in failing:
                self._log.info("checkpoint taken again", witness=name)
            if error:
                failing[name] = error
            else:
                failing.pop(name, None)

        async def witness() -> None:
            try:
                await witnesses.round(tell=tell)
            except Failure as failure:
                tell("", failure.private)
            except Exception:
                self._log.exception("checkpoint not sent")

        async def verify() -> None:
            """A thousand messages a night from their bytes up, in a process of its own."""
            words = ("-m", "gateway.cli", "archive", "verify", "--sample", "1000", "--config", str(self._config))
            quiet = asyncio.subprocess.DEVNULL
            process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=quiet, stderr=quiet)
            code = await process.wait()
            if code:
                self._log.error("archive verify", exit_code=code, help="congvan archive verify")
            if self._watcher is not None:
                bad = Trouble("kiem chung kho luu tru thay sai lech", "congvan archive verify")
                self._watcher.note("archive", bad if code == 1 else None)
            # A flipped bit in the index hides a word without an error: messages by chance are looked for.
            words = ("-m", "gateway.cli", "archive", "index", "--check", "--config", str(self._config))
            process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=quiet, stderr=quiet)
            if code := await process.wait():
                self._log.error("archive index", exit_code=code, help="congvan archive index")

        registers, rested = self.settings.registers, 0.0

        async def enter() -> None:
            """Entries that trouble kept out of the registers, or all of them for an archive that had none."""
            try:
                await registrar.heal(archive.database, registers)
            except Exception:
                self._log.exception("registers not made", help="congvan register rebuild")

        async def drop() -> None:
            """New arrivals for the agencies' document systems. In a process of its own: it reads message bodies."""
            nonlocal rested
            if time.monotonic() < rested:
                return
            try:
                if not await archive.database.read(lambda c: handover.anything(c, registers)):
                    return
            except Failure:
                return  # the next round asks again
            words = ("-m", "gateway.cli", "register", "drop", "--config", str(self._config))
            process = await asyncio.create_subprocess_exec(
                sys.executable, *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
            )
            _, told = await process.communicate()
            if process.returncode:  # an agency without an identifier, a folder that is gone: not again at once
                rested = time.monotonic() + DROP_REST
                self._log.error("not handed over", reason=told.decode("utf-8", "replace")[-500:].strip())

        async def report() -> None:
            """Publications, the operator's mail, reminders: in a process of its own, and only when one is due. What is
            claimed there is done once, however many daemons there are (reports.py)."""
            from gateway import reports

            try:
                now = dt.datetime.now(VIETNAM)
                if not await archive.database.read(lambda connection: reports.due(connection, self.settings, now)):
                    return
            except Failure as failure:
                self._log.error("no look at the reports", reason=failure.private)
                return
            words = ("-m", "gateway.cli", "report", "run", "--config", str(self._config))
            process = await asyncio.create_subprocess_exec(sys.executable, *words)  # its log lines are ours
            if code := await process.wait():
                self._log.error("report run", exit_code=code, help="congvan report jobs")
            self.queue.wake()

        scheduler.add_job(checkpoint, "interval", seconds=CHECKPOINT_SECONDS, id="checkpoint")
        scheduler.add_job(report, "interval", seconds=REPORT_SECONDS, id="report")
        if self.settings.witnesses or self.settings.timestamps:
            scheduler.add_job(witness, "interval", seconds=WITNESS_SECONDS, id="witness")
        scheduler.add_job(self._renew_trust, "interval", minutes=10, id="trust")
        scheduler.add_job(enter, id="registers")
        scheduler.add_job(enter, "cron", hour=1, minute=30, id="registers-nightly")
        if any(one.drop is not None for one in registers.agencies.values()):
            scheduler.add_job(drop, "interval", seconds=DROP_SECONDS, id="drop")
        scheduler.add_job(verify, "cron", hour=2, minute=30, id="verify")
        return scheduler

    async def _renew_trust(self) -> None:
        """Revocation lists come by a mirror job of the site; workers read them when they start."""
        seen = self._trust_state()
        if seen != self._trust:
            self._trust = seen
            self._log.info("trust store changed, inspection workers start anew")
            await self._inspector.renew()

    def _trust_state(self) -> tuple[tuple[str, int, int], ...]:
        """Names, sizes and times of the files of the trust store."""
        files = sorted(path for path in (self._config / "trust").rglob("*") if path.is_file())
        return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)

    def stop(self) -> None:
        """End in good order, as SIGTERM does."""
        self._stop.set()

    def reload(self) -> None:
        """SIGHUP: a good policy and directory replace the old pair at once; a bad one changes nothing and says so."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            rules = read_rules(self._config)
        except ConfigError as error:
            for problem in error.problems:
                self._log.error("policy not reloaded", problem=f"{problem.place}: {problem.text}", vi=problem.vi)
        else:
            self.rules = self.pipeline.rules = rules
            self._log.info("policy reloaded", policy=rules.policy.digest)
        self._renewal = asyncio.create_task(self._renew_trust())  # kept: a task without a reference may vanish
        for server in self._listeners:
            try:
                server.reload_tls()
            except OSError as error:
                self._log.error("certificate not reloaded", reason=str(error))
        notify("READY=1")

    def _write_ports(self) -> None:
        """Where we listen, for people and scripts; the ports may have been chosen by the system."""
        path = self.settings.data / "ports.json"
        path.with_suffix(".tmp").write_text(json.dumps(self.ports, indent=1) + "\n")
        path.with_suffix(".tmp").replace(path)


def serve(config_path: Path, *, json_log: bool = True) -> None:
    """Run the daemon in the foreground. Raises ConfigError for a configuration that cannot be used."""
    logs.configure(json=json_log)
    # SQLite's driver lets go of the interpreter at every step of a statement and waits for it afterwards, by default
    # 5 ms where another thread is busy: twenty steps a message, and the writer does nothing but wait.
    sys.setswitchinterval(0.0005)
    asyncio.run(Daemon(config_path).run())
