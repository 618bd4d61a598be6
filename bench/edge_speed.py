"""CPU of the SMTP door alone, per message: a 4 KB text, a 270 KB mail, a 2.7 MB mail; new and kept connections.

    ./run measure edge_speed [--messages 2000] [--seed 1]

The receiver answers 250 at once. Median of three rounds; the sender is another process and does not count.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import socket
import statistics
import threading
from typing import Any

from bench._edge import EdgeProcess
from tests.door import OURS


def corpus(seed: int) -> dict[str, bytes]:
    source = random.Random(seed)
    words = ["kính", "gửi", "Ủy", "ban", "nhân", "dân", "tỉnh", "báo", "cáo", "số", "12/BC-UBND", "ngày", "tháng."]
    text = "\r\n".join(" ".join(source.choices(words, k=9)) for _ in range(60)).encode()[:4000]
    head = b"From: a@example.vn\r\nTo: b@x.vn\r\nSubject: Bao cao\r\nMIME-Version: 1.0\r\n"

    def encoded(size: int) -> bytes:
        return base64.encodebytes(source.randbytes(size)).replace(b"\n", b"\r\n")

    return {
        "4 KB text": head + b"\r\n" + text + b"\r\n.\r\n",
        "270 KB": head + b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded(200_000) + b".\r\n",
        "2.7 MB": head + b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded(2_000_000) + b".\r\n",
    }


def send(port: int, data: bytes, count: int, kept: bool) -> None:
    """One connection for all messages, or one for each, as smtplib or Postfix would speak (pipelined envelope)."""
    envelope = f"MAIL FROM:<a@example.vn>\r\nRCPT TO:<b@{OURS}>\r\nDATA\r\n".encode()
    peer: Any = None
    for _ in range(count):
        if peer is None:
            peer = socket.create_connection(("127.0.0.1", port))
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            lines = peer.makefile("rb")
            expect(lines, b"220")
            peer.sendall(b"EHLO client.example\r\n")
            expect(lines, b"250")
        peer.sendall(envelope)
        for code in (b"250", b"250", b"354"):
            expect(lines, code)
        peer.sendall(data)
        expect(lines, b"250")
        if not kept:
            peer.sendall(b"QUIT\r\n")
            expect(lines, b"221")
            peer.close()
            peer = None


def expect(lines: Any, code: bytes) -> None:
    line = lines.readline()
    while line[3:4] == b"-":
        line = lines.readline()
    if not line.startswith(code):
        raise RuntimeError(f"{line!r} instead of {code!r}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--messages", type=int, default=1000)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    figures: dict[str, Any] = {"bench": "edge_speed", "seed": given.seed, "messages": given.messages, "ms_cpu": {}}
    limits = {"connections_per_host": 1000, "new_connections_per_minute": 10**9, "messages_per_session": 10**9}
    with EdgeProcess(limits=limits) as edge:
        for name, data in corpus(given.seed).items():
            count = max(given.messages * 4000 // max(len(data), 4000), 20)
            count = count if len(data) < 10_000 else max(count, 100) if len(data) < 10**6 else count
            for kept in (False, True):
                rounds = []
                for number in range(4):
                    before = edge.ask()["cpu"]
                    senders = [
                        threading.Thread(target=send, args=(edge.port, data, count // 4, kept)) for _ in range(4)
                    ]
                    for sender in senders:
                        sender.start()
                    for sender in senders:
                        sender.join()
                    if number:  # the first round warms up
                        rounds.append((edge.ask()["cpu"] - before) / (count // 4 * 4) * 1000)
                label = f"{name}, {'kept connection' if kept else 'a connection each'}"
                figures["ms_cpu"][label] = round(statistics.median(rounds), 3)
    print(json.dumps(figures, ensure_ascii=False))


if __name__ == "__main__":
    main()
