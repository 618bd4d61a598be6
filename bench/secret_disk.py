"""No byte of a refused secret on the disk: the raw blocks of the file system are searched, also after kills.

    ./run measure secret_disk --rounds 12 --seed 1        (root; loop device)

The data folder, the log and the temporary folder lie on a small loop-mounted ext4. Secrets of every size (in memory, at
the border, spilled) are sent whole, or are cut off while they are sent, or the gateway is killed at a random moment.
Then the file system is unmounted and the image is searched, block for block, for the secret's words in plain UTF-8, in
NFD, in UTF-16, and as base64 in all three alignments. Core dumps are allowed by the harness and must not appear.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import random
import resource
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
from pathlib import Path

from tests import harness

WORDS = "Phương án Kim Quy số bảy"


def needles() -> list[bytes]:
    plain = WORDS.encode()
    found = [plain, unicodedata.normalize("NFD", WORDS).encode(), WORDS.encode("utf-16-le"), b"Kim Quy"]
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + plain)
        found.append(coded[4 if shift else 0 : len(coded) // 4 * 4 - 4])
    return found


def letter(rng: random.Random, size: int) -> bytes:
    mark = rng.choice(("TUYỆT MẬT", "TỐI MẬT", "T Ố I  M Ậ T", unicodedata.normalize("NFD", "TUYỆT MẬT")))
    line = f"{WORDS}: nội dung kế hoạch\r\n"
    text = f"Kính gửi.\r\n\r\n{mark}\r\n\r\n" + line * max(1, size // len(line.encode()))
    encoded = rng.random() < 0.5
    body = base64.encodebytes(text.encode()).replace(b"\n", b"\r\n") if encoded else text.encode()
    head = (
        f"From: nguoidan@citizen.example\r\nTo: ubnd@{harness.OURS}\r\nSubject: Gui {rng.randrange(10**9)}\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: {'base64' if encoded else '8bit'}\r\n\r\n"
    )
    return head.encode() + body


def whole(port: int, raw: bytes) -> int:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=60) as client:
        client.ehlo()
        client.mail("nguoidan@citizen.example")
        client.rcpt(f"ubnd@{harness.OURS}")
        return client.data(raw)[0]


def cut(port: int, raw: bytes, share: float) -> None:
    """Sends a part of the message and hangs up."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        lines = connection.makefile("rb")
        commands = (b"", b"EHLO a\r\n", b"MAIL FROM:<a@b.example>\r\n", f"RCPT TO:<ubnd@{harness.OURS}>\r\n".encode())
        for command in (*commands, b"DATA\r\n"):
            connection.sendall(command)
            while lines.readline()[3:4] == b"-":
                pass
        connection.sendall(raw[: int(len(raw) * share)])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=12)
    options.add_argument("--seed", type=int, default=1)
    arguments = options.parse_args()
    rng = random.Random(arguments.seed)
    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
    sizes = (500, 60_000, (1 << 20) - 2000, (1 << 20) + 2000, 4 << 20)
    sent = refused = kills = 0
    with tempfile.TemporaryDirectory(prefix="congvan-secret-") as temporary:
        image, mount = Path(temporary) / "image", Path(temporary) / "disk"
        mount.mkdir()
        image.write_bytes(b"")
        with image.open("r+b") as file:
            file.truncate(256 << 20)
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
        sink, passwords = harness.Sink(), harness.PasswordServer()
        try:
            (mount / "tmp").mkdir()
            config = harness.write_config(
                mount,
                hop_port=sink.port,
                auth_port=passwords.port,
                extra="limits: {free_disk: 0, message_size: 8M}\nbudget: {workers: 1}\n",
            )
            for number in range(arguments.rounds):
                gateway = harness.Gateway(config, {"TMPDIR": str(mount / "tmp")}).start()
                for size in sizes:
                    sent += 1
                    refused += whole(gateway.ports["relay"], letter(rng, size)) == 550
                    cut(gateway.ports["relay"], letter(rng, size), rng.random())
                    sent += 1
                raw = letter(rng, rng.choice(sizes))
                thread = threading.Thread(target=_ignore, args=(gateway.ports["relay"], raw))
                thread.start()
                time.sleep(rng.uniform(0, 0.4))  # the moment of the kill is the measurement, not a wait
                gateway.kill()
                kills += 1
                thread.join()
                print(f"{number + 1} rounds", file=sys.stderr)
        finally:
            sink.close()
            passwords.close()
            subprocess.run(["sync"], check=True)
            deadline = time.monotonic() + 30  # a worker whose daemon was killed needs a moment to notice
            while subprocess.run(["umount", str(mount)], check=False, capture_output=True).returncode:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{mount} is still in use: a process outlived the gateway")
                time.sleep(0.2)
        data = image.read_bytes()
        # the search itself must be able to find: what is on the disk is found
        control = b"X-VBDT" in data or b"gateway.db" in data
        hits = {needle.hex(): data.count(needle) for needle in needles() if needle in data}
    result = {
        "measurement": "secret_disk",
        "seed": arguments.seed,
        "secrets_sent": sent,
        "refused_whole": refused,
        "kills": kills,
        "image_bytes": len(data),
        "control_found": control,
        "found": hits,
    }
    print(json.dumps(result))
    sys.exit(1 if hits or not control else 0)


def _ignore(port: int, raw: bytes) -> None:
    with contextlib.suppress(OSError, smtplib.SMTPException):
        whole(port, raw)


if __name__ == "__main__":
    main()
