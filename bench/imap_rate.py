"""Import of mailboxes from a Dovecot, beside a plain `mbsync` pull of the same mailboxes in the same run.

    ./run measure imap_rate --mailboxes 50 --messages 2000

mbsync writes files and looks at nothing; the gateway inspects, judges, archives with fsync, counts and signs. Reports
messages a second of both, their ratio, the largest resident memory of the daemon, and the delay from delivery to the
archive under IDLE. `--light` leaves the inspection workers out, to show what the reading itself costs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.imap_kills import PASSWORD, Nursery, letter
from tests import harness, peers


def fill(root: Path, addresses: list[str], messages: int) -> int:
    """Maildirs as a delivery agent leaves them; much faster than APPEND. Returns the bytes of one mailbox."""
    size = 0
    for address in addresses:
        box = root / address
        for part in ("cur", "new", "tmp"):
            (box / part).mkdir(parents=True)
        size = 0
        for number in range(messages):
            raw = letter(f"r{number}-{address}", "clean", (0, 2000, 2000, 12_000, 60_000)[number % 5])
            stored = raw.replace(b"\r\n", b"\n")
            name = f"17730{number:05}.M{number}P1.may,S={len(stored)},W={len(raw)}:2,S"  # Dovecot believes both sizes
            (box / "cur" / name).write_bytes(stored)
            size += len(raw)
        for path in (box, *box.rglob("*")):
            shutil.chown(path, "nobody", "nogroup")
    return size


def mbsync(folder: Path, port: int, addresses: list[str]) -> float:
    """Seconds for a pull into empty Maildirs."""
    lines = []
    for number, address in enumerate(addresses):
        (folder / "pulled" / str(number)).mkdir(parents=True)
        lines.append(
            f'IMAPAccount a{number}\nHost 127.0.0.1\nPort {port}\nUser "{address}"\nPass "{PASSWORD}"\nSSLType None\n'
            f"AuthMechs LOGIN\n\nIMAPStore far{number}\nAccount a{number}\n\n"
            f"MaildirStore near{number}\nInbox {folder}/pulled/{number}/INBOX\nPath {folder}/pulled/{number}/\n\n"
            f"Channel c{number}\nFar :far{number}:\nNear :near{number}:\nPatterns INBOX\nSync Pull\nCreate Near\n"
            f"SyncState {folder}/pulled/{number}.state\n\n"
        )
    rc = folder / "mbsyncrc"
    rc.write_text("".join(lines))
    began = time.monotonic()
    subprocess.run(["mbsync", "-q", "-a", "-c", str(rc)], check=True)
    return time.monotonic() - began


def rss(pid: int) -> int:
    """KiB resident of one process; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def cpu(pid: int) -> tuple[float, float]:
    """CPU seconds, user and kernel, of a process, and of the workers below it."""
    total = [0.0, 0.0]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat.parent.name) == pid or int(fields[1]) == pid:
            total[int(fields[1]) == pid] += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total[0], total[1]


def count(data: Path) -> int:
    try:
        with sqlite3.connect(f"file:{data}/gateway.db?mode=ro", uri=True, timeout=20) as base:
            return int(base.execute("select count(*) from imap_message where state = 'taken'").fetchone()[0])
    except sqlite3.Error:
        return 0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mailboxes", type=int, default=50)
    options.add_argument("--messages", type=int, default=2000)
    options.add_argument("--light", action="store_true")
    options.add_argument("--limit", type=float, default=3600, help="seconds after which the import is broken off")
    options.add_argument("--pulled", type=int, default=0, help="mailboxes that mbsync pulls; 0: all")
    options.add_argument("--latency", type=int, default=20, help="messages delivered one by one afterwards")
    arguments = options.parse_args()
    addresses = [f"hop-thu-{number}@{harness.OURS}" for number in range(arguments.mailboxes)]
    with tempfile.TemporaryDirectory(prefix="congvan-imap-rate-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        dovecot = peers.Dovecot(folder / "dovecot", PASSWORD)
        size = fill(dovecot.folder / "mail", addresses, arguments.messages)
        dovecot.start()
        (folder / "pass").write_text(PASSWORD)
        accounts = ", ".join(f"{{address: {one}, password_file: {folder}/pass}}" for one in addresses)
        config = harness.write_config(
            folder,
            hop_port=1,
            auth_port=1,
            extra="limits: {free_disk: 0}\nimap: {poll: 30s, servers: "
            f"[{{host: 127.0.0.1, port: {dovecot.port}, tls: none, accounts: [{accounts}]}}]}}\n",
        )
        total = arguments.mailboxes * arguments.messages
        gateway = harness.Gateway(config)
        nursery = None
        began = time.monotonic()
        if arguments.light:
            nursery = Nursery(config, folder / "child.log")
            pid = nursery.start()
        else:
            gateway.start(120)
            assert gateway.process is not None
            pid = gateway.process.pid
        began, most, early = time.monotonic(), 0, None
        while (done := count(folder / "data")) < total:
            if early is None and done > total // 10:  # by then the workers have started
                early = (done, cpu(pid))
            most = max(most, rss(pid))
            time.sleep(0.5)
            if time.monotonic() - began > arguments.limit:
                break
        seconds, late = time.monotonic() - began, cpu(pid)
        used = [0.0, 0.0]
        if early is not None and done > early[0]:
            used = [1000 * (late[one] - early[1][one]) / (done - early[0]) for one in (0, 1)]
        delays = [] if done < total else latency(dovecot.port, addresses[0], folder / "data", arguments.latency, total)
        if nursery is not None:
            nursery.kill(pid)
            nursery.close()
        else:
            gateway.stop()
        # Afterwards, when Dovecot has its indexes: what is first pays for them.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        some = addresses[: arguments.pulled or None]
        pulled = mbsync(folder, dovecot.port, some) * len(addresses) / len(some)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        mbsync_used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        dovecot.stop()
    print(
        json.dumps(
            {
                "measurement": "imap_rate", "light": arguments.light, "mailboxes": arguments.mailboxes,
                "messages": total, "taken": done, "mailbox_bytes": size,
                "mbsync_per_second": round(total / pulled, 1), "gateway_per_second": round(done / seconds, 1),
                "times_slower": round(seconds / pulled * total / max(done, 1), 2),
                "mbsync_cpu_ms": round(1000 * mbsync_used / (len(some) * arguments.messages), 2),
                "daemon_cpu_ms": round(used[0], 2), "workers_cpu_ms": round(used[1], 2),
                "daemon_rss_mib": round(most / 1024),
                "latency_ms_median": round(1000 * statistics.median(delays)) if delays else None,
                "latency_ms_max": round(1000 * max(delays)) if delays else None,
                "load": os.getloadavg()[0],
            }
        )
    )  # fmt: skip
    sys.exit(0 if done == total else 1)


def latency(port: int, address: str, data: Path, messages: int, before: int) -> list[float]:
    """Seconds from the end of APPEND to the row that says it is archived, one message at a time."""
    from imapclient import IMAPClient

    delays = []
    pause = threading.Event()
    with IMAPClient("127.0.0.1", port, ssl=False, timeout=30) as box:
        box.login(address, PASSWORD)
        for number in range(messages):
            pause.wait(0.3)  # IDLE has begun again by then; what comes sooner is told at once
            box.append("INBOX", letter(f"l{number}", "clean", 2000))
            began = time.monotonic()
            while count(data) < before + number + 1 and time.monotonic() - began < 30:
                pause.wait(0.005)
            delays.append(time.monotonic() - began)
    return delays


if __name__ == "__main__":
    main()
