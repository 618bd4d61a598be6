"""S4: what is archived and relayed is what was received, byte for byte, trace fields aside; signatures still verify.

    ./run measure fidelity --count 500 --seed 1

Sends mail of every shape that SMTP allows (dots at line starts, long lines, octets above 127, empty bodies, odd MIME,
no final line end before the dot), a part of it with DKIM and S/MIME signatures, and compares what arrives at the next
hop and what the archive exports with what was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import datetime as dt
import hashlib
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import dkim
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from bench.throughput import send
from gateway.config import read
from gateway.database import Database
from gateway.queue import Queue
from gateway.store import Store
from tests import harness

SENDER = f"sonoivu@{harness.OURS}"


class Keys:
    """One RSA key for DKIM and S/MIME, with a self-signed certificate."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fidelity")])
        now = dt.datetime.now(dt.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        public = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)

    def dkim(self, raw: bytes) -> bytes:
        return dkim.sign(raw, b"s", harness.OURS.encode(), self.pem, include_headers=[b"From", b"Subject"]) + raw

    def smime(self, head: bytes, text: bytes) -> bytes:
        builder = pkcs7.PKCS7SignatureBuilder().set_data(text)
        builder = builder.add_signer(self.certificate, self.key, hashes.SHA256())
        signed = builder.sign(serialization.Encoding.SMIME, [pkcs7.PKCS7Options.DetachedSignature])
        return head + signed.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def body(rng: random.Random) -> bytes:
    """Lines of every shape; always valid for SMTP: no bare CR or LF, no NUL."""
    rows = []
    for _ in range(rng.randrange(1, 40)):
        shape = rng.randrange(8)
        if shape == 0:
            rows.append(b"." * rng.randrange(1, 5))
        elif shape == 1:
            rows.append(b"." + rng.randbytes(rng.randrange(60)).translate(None, b"\r\n\0"))
        elif shape == 2:
            rows.append(b"")
        elif shape == 3:
            rows.append(b"x" * rng.choice((76, 997, 998, 999, 2000, 40_000)))
        elif shape == 4:
            rows.append("Ủy ban nhân dân tỉnh, văn bản điện tử".encode())
        elif shape == 5:
            rows.append(bytes(rng.choice(range(1, 256)) for _ in range(rng.randrange(70))).translate(None, b"\r\n\0"))
        elif shape == 6:
            rows.append(b"   \t trailing blanks \t ")
        else:
            rows.append(b"From the start of a line")
    return b"\r\n".join(rows) + b"\r\n" * rng.randrange(1, 4)


def message(rng: random.Random, number: int, keys: Keys) -> tuple[str, bytes]:
    """Kind (plain, dkim, smime) and bytes."""
    head = (
        f"From: {SENDER}\r\nTo: ubnd@{harness.OURS}\r\nSubject: trao doi {number}\r\n"
        f"Message-ID: <f{number}@{harness.OURS}>\r\nX-Odd:\tfolded\r\n  \tvalue \r\n"
    ).encode()
    kind = ("plain", "plain", "dkim", "smime")[number % 4]
    if kind == "smime":
        return kind, keys.smime(
            head,
            b"Content-Type: text/plain\r\n\r\nKinh gui quy co quan.\r\n.hai cham\r\n" + str(number).encode() + b"\r\n",
        )
    raw = head + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + body(rng)
    return kind, keys.dkim(raw) if kind == "dkim" else raw


def verifies(kind: str, raw: bytes, keys: Keys, folder: Path) -> bool:
    if kind == "dkim":
        return bool(dkim.verify(raw, dnsfunc=lambda name, timeout=5: keys.record))
    if kind == "smime" and shutil.which("openssl"):
        path = folder / "smime.eml"
        path.write_bytes(raw)
        words = ["openssl", "smime", "-verify", "-noverify", "-in", str(path), "-out", "/dev/null"]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    return True


async def release_all(config: Path) -> int:
    """Let go what is held for a person, as `congvan held release` does; how many there were."""
    settings = read(config)
    database = Database.open(settings.database_url)
    try:
        queue = Queue(database, Store(settings.data / "blobs"), settings)
        held = await queue.held()
        for one in held:
            await queue.release(one["case"], "bench", "bench")
        return len(held)
    finally:
        database.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=500)
    options.add_argument("--seed", type=int, default=1)
    arguments = options.parse_args()
    rng, keys = random.Random(arguments.seed), Keys()
    mails = [message(rng, number, keys) for number in range(arguments.count)]
    with tempfile.TemporaryDirectory(prefix="congvan-fidelity-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        sink, passwords = harness.Sink(), harness.PasswordServer()
        config = harness.write_config(
            folder,
            hop_port=sink.port,
            auth_port=passwords.port,
            extra="limits: {messages_per_session: 100000, new_connections_per_minute: 100000}",
        )
        settings = config / "gateway.yaml"
        trusting = "{kind: relay, port: 0, networks: [127.0.0.0/8]}"
        settings.write_text(settings.read_text().replace("{kind: relay, port: 0}", trusting))
        gateway = harness.Gateway(config).start()
        asyncio.run(send(gateway.ports["relay"], [raw for _, raw in mails], 4))
        held = asyncio.run(release_all(config))
        with sink.arrived:  # notices of the gateway come from the null sender and are not what was sent
            sink.arrived.wait_for(lambda: sum(1 for one in sink.messages if one[0]) >= len(mails), 120)
        arrived = [one for one in sink.messages if one[0]]
        case = arrived[0][2].split(b"X-VBDT-Case: ")[1].split(b"\r\n")[0].decode()
        gateway.command("archive", "export", case, "-o", str(folder / "out.eml"))
        gateway.command("archive", "verify")  # every stored message has the digest that its row and its leaf name
        gateway.stop()
        exported = [(folder / "out.eml").read_bytes()]
        with sqlite3.connect(gateway.data / "gateway.db") as base:
            digests = {digest for (digest,) in base.execute("select sha256 from message where kind = 'mail'")}
        sent = {raw for _, raw in mails}
        relayed_wrong = sum(1 for _, _, raw in arrived if not any(raw.endswith(one) for one in sent))
        archived_wrong = sum(1 for raw in exported if raw not in sent)
        archived_wrong += len({hashlib.sha256(raw).hexdigest() for raw in sent} ^ digests)
        broken = sum(
            1
            for kind, raw in mails
            for got in (next((got for _, _, got in arrived if got.endswith(raw)), b""),)
            if kind != "plain" and not verifies(kind, got, keys, folder)
        )
        result = {
            "measurement": "fidelity",
            "seed": arguments.seed,
            "sent": len(mails),
            "arrived": len(arrived),
            "relayed_wrong": relayed_wrong,
            "archived_wrong": archived_wrong,
            "signed": sum(1 for kind, _ in mails if kind != "plain"),
            "signatures_broken": broken,
            "held_first": held,
        }
        print(json.dumps(result))
        sys.exit(1 if relayed_wrong or archived_wrong or broken or len(arrived) != len(mails) else 0)


if __name__ == "__main__":
    main()
