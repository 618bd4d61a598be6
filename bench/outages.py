"""Three gateways on one PostgreSQL and one bucket, under load: each killed, then the database and the store away.

    ./run measure outages [--seconds 60] [--senders 3]

Every message that got 250 must be in the archive exactly once, and the tree unbroken: `archive verify` at all three.
Copies delivered twice are counted, not forbidden: an interrupted delivery is tried again.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import shutil
import smtplib
import tempfile
import threading
import time
from pathlib import Path

from tests import harness
from tests.buckets import Bucket
from tests.test_gateway import CITIZEN, PROVINCE, letter
from tests.test_outage import Postgres

STORE = """
database: {url}
store:
  s3:
    endpoint: {endpoint}
    bucket: thu
    credentials: {{file: {credentials}}}
    lock: {{days: 1}}
"""


class Load:
    """Senders that keep on with one message until somebody takes it, as servers do."""

    def __init__(self, gateways: list[harness.Gateway], senders: int) -> None:
        self.gateways, self.taken, self.deferred = gateways, set[str](), 0
        self.running = True
        self.threads = [threading.Thread(target=self.send, args=(n,)) for n in range(senders)]
        for one in self.threads:
            one.start()

    def send(self, sender: int) -> None:
        number = 0
        while self.running:
            number += 1
            name, turn = f"Thu {sender}-{number}", sender
            while self.running:
                turn += 1
                port = self.gateways[turn % len(self.gateways)].ports["relay"]
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=60) as client:
                        client.sendmail(CITIZEN, [PROVINCE], letter(name))
                    self.taken.add(name)
                    break
                self.deferred += 1
                time.sleep(0.2)

    def during(self, seconds: float) -> tuple[int, int]:
        """Messages taken and refused for now within so many seconds."""
        before = len(self.taken), self.deferred
        time.sleep(seconds)
        return len(self.taken) - before[0], self.deferred - before[1]

    def end(self) -> None:
        self.running = False
        for one in self.threads:
            one.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="how long database and store are away")
    parser.add_argument("--senders", type=int, default=3)
    given = parser.parse_args()
    sink, passwords = harness.Sink(), harness.PasswordServer()
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"congvan-{n}-"))) for n in range(5)]
        postgres, bucket = Postgres(folders[3]).start(), Bucket(folders[4]).start()
        stack.callback(postgres.stop)
        stack.callback(bucket.stop)
        bucket.make("thu", lock=True)
        extra = STORE.format(url=postgres.url, endpoint=bucket.endpoint, credentials=bucket.credentials)
        gateways = []
        for folder in folders[:3]:
            config = harness.write_config(folder, hop_port=sink.port, auth_port=passwords.port, extra=extra)
            if gateways:  # hosts of one archive share its keys
                shutil.copytree(gateways[0].data / "keys", folder / "data" / "keys")
            gateways.append(harness.Gateway(config).start())
        for one in gateways:
            stack.callback(one.stop)
        load = Load(gateways, given.senders)
        print("quiet: {} taken, {} deferred in 10 s".format(*load.during(10)))
        for number, one in enumerate(gateways):
            one.kill()
            taken, deferred = load.during(3)
            one.start()
            print(f"gateway {number} killed: {taken} taken by the others, {deferred} deferred")
        for what, server in (("database", postgres), ("store", bucket)):
            server.stop()
            taken, deferred = load.during(given.seconds)
            server.start()
            start, already = time.monotonic(), len(load.taken)
            while len(load.taken) == already and time.monotonic() < start + 120:
                time.sleep(0.05)
            print(
                f"{what} away for {given.seconds:g} s: {taken} taken, {deferred} deferred; "
                f"taken again {time.monotonic() - start:.1f} s after it answered"
            )
            load.during(5)
        load.end()
        gateways[0].command("queue", "retry")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len({subject(data) for *_, data in sink.messages}) < len(load.taken):
            time.sleep(0.2)
        copies = collections.Counter(subject(data) for *_, data in sink.messages)
        for one in gateways:
            print(one.command("archive", "verify").strip())
        archived = archive_subjects(postgres)
        print(
            f"{len(load.taken)} got 250: {len(load.taken - set(archived))} not archived, "
            f"{sum(n > 1 for n in archived.values())} archived twice, {len(load.taken - set(copies))} not delivered, "
            f"{sum(n - 1 for n in copies.values())} copies too many"
        )


def subject(data: bytes) -> str:
    """`Thu 1-2` of a message as it was delivered."""
    return data.partition(b"\r\nSubject: ")[2].partition(b"\r\n")[0].decode()


def archive_subjects(postgres: Postgres) -> collections.Counter[str]:
    from sqlalchemy import create_engine, text

    engine = create_engine(postgres.url)
    with engine.connect() as rows:
        found = rows.execute(text("SELECT subject FROM message WHERE kind = 'mail'")).scalars().all()
    engine.dispose()
    return collections.Counter(found)


if __name__ == "__main__":
    main()
