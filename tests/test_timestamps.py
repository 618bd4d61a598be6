"""RFC 3161: stamps of a real `openssl ts`, and each way in which a stamp does not hold, named by both readers."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import json
import shutil
from pathlib import Path

import pytest
from asn1crypto import keys as asn1_keys
from asn1crypto import pem, tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pyhanko.sign.timestamps import DummyTimeStamper
from pyhanko_certvalidator.registry import SimpleCertificateStore

from gateway import database as db
from gateway import timestamps
from gateway.archive import Archive
from gateway.audit import audit
from gateway.store import Store
from gateway.witness import Witnesses
from tests import outside
from tests.cases import case, close
from tests.outside import cv

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

import congvan_stamp as cs  # noqa: E402  its folder is on the path through tests.outside

BODY = b"log.example/a\n7\ncm9vdA==\n"
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tsa") / "authority"
    outside.make_authority(folder)
    return folder


def both(response: bytes, body: bytes, ca: Path) -> tuple[str, str]:
    """What is wrong, as the gateway and as the verifier say it; empty when nothing is."""
    said = []
    for reader, error in ((timestamps, timestamps.BadStamp), (cs, cs.BadStamp)):
        try:
            reader.check(response, body, reader.read_roots(ca))
            said.append("")
        except error as wrong:
            said.append(str(wrong))
    return said[0], said[1]


def test_a_real_authority(made, tmp_path):
    query, nonce = timestamps.request(BODY)
    response = outside.stamp(made, query)
    assert both(response, BODY, made / "ca.pem") == ("", "")
    found = timestamps.check(response, BODY, timestamps.read_roots(made / "ca.pem"), nonce=nonce)
    assert abs((found.at - dt.datetime.now(dt.UTC)).total_seconds()) < 3600 and "Authority tsa" in found.authority
    (tmp_path / "stamp.tsr").write_bytes(response)
    (tmp_path / "body").write_bytes(BODY)
    told = outside.openssl(
        made, "ts", "-verify", "-data", tmp_path / "body", "-in", tmp_path / "stamp.tsr", "-CAfile", "ca.pem"
    )
    assert b"OK" in told
    with pytest.raises(timestamps.BadStamp, match="nonce"):
        timestamps.check(response, BODY, timestamps.read_roots(made / "ca.pem"), nonce=nonce + 1)


def authority(
    usage=ExtendedKeyUsageOID.TIME_STAMPING, days: tuple[int, int] = (-1, 5), critical: bool = True
) -> tuple[DummyTimeStamper, bytes]:
    """A time stamp authority whose certificate may be wrong, and the PEM of its root."""
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, word)]) for word in ("Root", "Authority")]
    keys = [rsa.generate_private_key(65537, 2048) for _ in names]  # pyHanko's has no other
    made = []
    for place, (name, key) in enumerate(zip(names, keys, strict=True)):
        start, end = (NOW + dt.timedelta(days=one) for one in ((-900, 900) if place == 0 else days))
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(names[0])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(place == 0, None), True)
        )
        if place:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical)
        made.append(builder.sign(keys[0], hashes.SHA256()))
    ours = [asn1_x509.Certificate.load(one.public_bytes(serialization.Encoding.DER)) for one in made]
    form = (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    store = SimpleCertificateStore()
    store.register(ours[0])
    private = asn1_keys.PrivateKeyInfo.load(keys[1].private_bytes(*form))
    return DummyTimeStamper(ours[1], private, certs_to_embed=store), made[0].public_bytes(serialization.Encoding.PEM)


def made_by(stamper: DummyTimeStamper, at: dt.datetime | None = None) -> bytes:
    stamper.fixed_dt = at
    query, _ = timestamps.request(BODY)
    response = asyncio.run(stamper.async_request_tsa_response(tsp.TimeStampReq.load(query)))
    return response.dump(force=True)


def test_every_wrong_stamp_is_named(made, tmp_path):
    good = outside.stamp(made, timestamps.request(BODY)[0])
    assert all("imprint" in said for said in both(good, BODY + b"x", made / "ca.pem"))
    assert all("refused" in said for said in both(b"\x30\x05\x30\x03\x02\x01\x02", BODY, made / "ca.pem"))
    for broken in (b"", b"\x30\x00", b"no DER at all", good[:-1], good + b"\0"):
        assert all(both(broken, BODY, made / "ca.pem")), broken[:20]

    ca = tmp_path / "ca.pem"
    cases = {
        "": (authority(), None),
        "extended key usage": (authority(ExtendedKeyUsageOID.SERVER_AUTH), None),
        "expired": (authority(days=(-60, -30)), None),
        "not yet valid": (authority(days=(10, 20)), None),
    }
    for word, ((stamper, root), at) in cases.items():
        ca.write_bytes(root)
        assert all((word in said) if word else not said for said in both(made_by(stamper, at), BODY, ca)), word
    stamper, root = authority()
    ca.write_bytes(root)
    late = made_by(stamper, NOW + dt.timedelta(hours=6))
    with pytest.raises(timestamps.BadStamp, match="future"):
        timestamps.check(late, BODY, timestamps.read_roots(ca))
    assert all(both(made_by(stamper), BODY, made / "ca.pem")), "another root"


def test_certificates_in_any_order(made):
    """openssl puts them in as they come, not sorted as DER wants a SET: no reason to refuse."""
    names = ["ca.pem", "sub.pem"]
    for order in itertools.permutations(names):
        (made / "chain.pem").write_text("".join((made / name).read_text() for name in order))
        response = outside.stamp(made, timestamps.request(BODY)[0])
        held = [pem.unarmor((made / name).read_bytes())[2] in response for name in names]
        assert held == [True, True] and both(response, BODY, made / "ca.pem") == ("", "")


def test_no_bit_of_a_stamp_changes_unnoticed(made):
    """But for a few words that nobody signs (status `granted with mods`, absent parameters): their digest is in the
    tree. Each flip is told, and nothing breaks."""
    good = outside.stamp(made, timestamps.request(BODY)[0])
    roots = cs.read_roots(made / "ca.pem")
    passed = []
    for place in range(0, len(good), 3):
        broken = bytearray(good)
        broken[place] ^= 1 << place % 8
        try:
            cs.check(bytes(broken), BODY, roots)
            passed.append(place)
        except cs.BadStamp:
            continue
    assert len(passed) <= 3, passed


def test_stamps_are_kept_anchored_caught_up_and_checked(made, tmp_path, capsys):
    folder = tmp_path / "archive"
    folder.mkdir()
    down = {"timestamps": {"url": "http://127.0.0.1:9", "ca": str(made / "ca.pem"), "every": 0}}
    numbers = itertools.count(1)

    def opened(given: dict) -> tuple[Archive, Witnesses]:
        settings = outside.settings(**given)
        archive = Archive(db.Database.open(db.sqlite_url(folder / "gateway.db")), Store(folder / "blobs"), settings)
        return archive, Witnesses(archive, settings)

    async def main(url: str) -> None:
        archive, outsiders = opened(down)
        await archive.commit(case(number=next(numbers)))
        await archive.checkpoint()
        await outsiders.round(now=True)
        (state,) = (await outsiders.status())["witnesses"]
        assert state["error"] and state["lag_leaves"] == 1, "the authority is down: mail goes on, and it shows"
        await archive.commit(case(number=next(numbers)))
        await close(archive)

        archive, outsiders = opened({"timestamps": {**down["timestamps"], "url": url}})
        await archive.checkpoint()
        await outsiders.round(now=True)
        status = await outsiders.status()
        assert status["stamped"]["size"] == 2 and not status["witnesses"][0]["error"]
        receipt = await archive.commit(case(number=next(numbers)))
        await archive.checkpoint()
        assert (await asyncio.to_thread(audit, archive, stamp_roots=made / "ca.pem")).damage == []
        (tmp_path / "m.tlog-proof").write_text(await archive.prove(receipt.case))
        first = await archive.database.read(lambda c: c.execute(db.message.select().order_by(db.message.c.id)).first())
        (tmp_path / "1.tlog-proof").write_text(await archive.prove(first.id))
        (tmp_path / "1.eml").write_bytes(await archive.data(first.id))
        await close(archive)

    with outside.authority(made) as url:
        asyncio.run(main(url))
    key = str(folder / "keys" / "log.vkey")
    tsr = folder / "checkpoints" / "000000000002.tsr"
    body = tsr.with_suffix(".note").read_text().partition("\n\n")[0] + "\n"
    (tmp_path / "body").write_text(body)
    outside.openssl(made, "ts", "-verify", "-data", tmp_path / "body", "-in", tsr, "-CAfile", "ca.pem")

    def verify(*words: str) -> tuple[int, list[dict]]:
        capsys.readouterr()
        code = cv.main([words[0], "--json", "--key", key, "--tsa-ca", str(made / "ca.pem"), *words[1:]])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def kinds() -> set[str]:
        return {one["kind"] for one in verify("audit", str(folder))[1] if "kind" in one}

    assert verify("audit", str(folder))[0] == 0
    code, (told,) = verify("proof", str(tmp_path / "1.eml"), str(tmp_path / "1.tlog-proof"))
    assert code == 0 and "Authority tsa" in told["time_stamp_by"]
    assert abs(dt.datetime.fromisoformat(told["time_stamp"]) - dt.datetime.now(dt.UTC)) < dt.timedelta(days=1)

    kept = tsr.read_bytes()
    tsr.write_bytes(outside.stamp(made, timestamps.request(body.encode())[0]))
    assert kinds() == {"evidence_changed"}
    tsr.write_bytes(outside.stamp(made, timestamps.request(b"else")[0]))
    assert {one["kind"] for one in verify("audit", str(folder))[1] if "kind" in one} == {
        "evidence_changed",
        "stamp_bad",
    }
    tsr.unlink()
    assert kinds() == {"evidence_missing"}

    async def ours() -> set[str]:
        archive, _ = opened(down)
        report = await asyncio.to_thread(audit, archive, stamp_roots=made / "ca.pem")
        await close(archive)
        return {one.kind for one in report.damage}

    assert asyncio.run(ours()) == {"evidence_missing"}
    tsr.write_bytes(kept)
    assert asyncio.run(ours()) == set()
