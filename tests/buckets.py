"""A real S3 server with object lock (SeaweedFS, one program from a wheel) for tests and measurements."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ACCESS, SECRET = "congvan", "congvan-secret"


def program() -> str | None:
    """The server, beside this Python or on the path."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on. The server adds 10000 for its own talk; both stay below 32768, where the kernel
    does not take ports for connections, so that they are still free at the next start."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in range(10111 + os.getpid() % 500 * 20, 22700):
            try:
                for one in (port, port + 10000):
                    taken = held.enter_context(socket.socket())
                    taken.bind(("127.0.0.1", one))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise OSError("no free ports")


class Bucket:
    """The server over `folder`; `stop` and `start` again keep what it holds and where it listens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = _free_ports(4)
        self.endpoint = f"http://127.0.0.1:{self.ports[3]}"
        self.credentials = folder / "credentials"
        self.credentials.write_text(f"{ACCESS}\n{SECRET}\n")
        keys = [{"accessKey": ACCESS, "secretKey": SECRET}]
        identity = {"name": "gateway", "credentials": keys, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Bucket:
        weed = program()
        assert weed is not None
        master, volume, filer, s3 = self.ports
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    weed, "server", f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                    f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3",
                    f"-s3.port={s3}", f"-s3.config={self.folder / 's3.json'}", "-volume.max=0",
                    "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64",
                ],
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 240
        while True:
            with (
                contextlib.suppress(OSError, urllib.error.URLError),
                urllib.request.urlopen(self.endpoint + "/healthz"),
            ):
                return self
            ended = self.process.poll()
            assert ended is None and time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.1)

    def stop(self, how: int = signal.SIGKILL) -> None:
        """By default as in a power cut: an orderly end takes this server half a minute."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None

    def client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET, config=Config(s3={"addressing_style": "path"}),
        )  # fmt: skip

    def make(self, name: str, *, lock: bool = False) -> str:
        """A bucket of this name. The first volumes of a fresh server take a moment to be ready for bytes."""
        client, deadline = self.client(), time.monotonic() + 240
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
        while True:
            try:
                client.put_object(Bucket=name, Key="ready", Body=b"x")
                return name
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def settings(self, bucket: str, **more: Any) -> dict[str, Any]:
        """For `store.s3` of gateway.yaml."""
        credentials = {"file": str(self.credentials)}
        return {"endpoint": self.endpoint, "bucket": bucket, "credentials": credentials, "timeout": 60, **more}
