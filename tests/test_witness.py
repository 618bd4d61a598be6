"""Checkpoints outside: countersigned, kept elsewhere, anchored in the tree, and missed when they are gone."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import random
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway import database as db
from gateway import hashtree as ht
from gateway.archive import Archive
from gateway.audit import audit
from gateway.store import Store
from gateway.witness import Witnesses, letter, origin_digest
from tests import outside
from tests.cases import SETTINGS, case, close, open_archive
from tests.outside import cv, cw

LOG = ht.Signer("log.example/a", b"k" * 32)
FORK = 37


def leaves(count: int, fork: bool = False) -> list[bytes]:
    """Two histories that are the same up to leaf `FORK`."""
    return [ht.leaf_hash(b"%d%s" % (n, b"x" if fork and n >= FORK else b"")) for n in range(count)]


def nodes(hashes: list[bytes]) -> ht.Node:
    return lambda level, index: ht.fold_pairs(hashes[index << level : (index + 1) << level])


def request(old: int, size: int, *, fork: bool = False, key: ht.Signer = LOG, proof_of: int | None = None) -> str:
    node = nodes(leaves(size, fork))
    note = key.sign(ht.Checkpoint(key.name, size, ht.root(size, node)).body())
    return ht.consistency_text(
        old, ht.consistency(min(proof_of if proof_of is not None else old, size), size, node), note
    )


def answer(one: cw.Witness, text: str) -> int:
    try:
        lines = one.add(text)
    except cw.Refused as refused:
        return refused.status
    body = text.partition("\n\n")[2].rpartition("\n\n")[0] + "\n"
    keys = [ht.Verifier.parse(key) for key in one.public_keys()]
    found = {key.algorithm for key, at, _ in ht.signatures_by(body, lines.splitlines(), keys) if at > 1_700_000_000}
    assert found == {ht.COSIGNATURE, ht.ML_DSA}, "the gateway's code checks the witness's signatures"
    return 200


@pytest.fixture
def one(tmp_path) -> cw.Witness:
    return outside.make_witness(tmp_path / "w", "w.example", LOG.verifier)


def test_a_witness_signs_what_continues_and_nothing_else(one):
    assert answer(one, request(0, 10)) == 200
    assert answer(one, request(0, 10)) == 409, "a replay: it knows 10 leaves now"
    assert answer(one, request(10, 10)) == 200, "the same tree once more is no harm"
    assert answer(one, request(10, 60)) == 200
    assert answer(one, request(10, 50)) == 409, "stale"
    assert answer(one, request(60, 50, proof_of=50)) == 400
    assert answer(one, request(60, 60, fork=True)) == 409, "two roots for one size"
    assert answer(one, request(60, 90, fork=True)) == 422, "another history"
    assert answer(one, request(60, 90, proof_of=59)) == 422
    stranger = ht.Signer("log.example/b", b"k" * 32)
    assert answer(one, request(0, 5, key=stranger)) == 404
    assert answer(one, request(60, 61, key=ht.Signer(LOG.name, b"s" * 32))) == 403
    for text in (
        "",
        "old 5\n",
        "old -1\n\n" + request(0, 5),
        "old 05\n\nx",
        request(0, 5).replace("old 0", "old 0\nAAAA"),
    ):
        assert answer(one, text) == 400, text
    digest = hashlib.sha256(LOG.name.encode()).hexdigest()
    assert one.newest(digest).splitlines()[1] == "60" and one.newest("0" * 64) == ""
    assert cw.Witness(one.folder).newest(digest) == one.newest(digest), "it is remembered"


def test_no_sequence_of_requests_gets_two_histories_signed(one):
    """What was signed, in the order it was signed, is one history that only grows."""
    chance, known, forked = random.Random(20261122), 0, False
    for _ in range(300):
        size, fork, old = chance.randint(0, 60), chance.random() < 0.4, chance.choice((known, chance.randint(0, 60)))
        if old > size:
            continue
        good = old == known and (size <= FORK or known <= FORK or fork == forked) and not (size == known == 0 and old)
        status = answer(one, request(old, size, fork=fork))
        assert (status == 200) == good, (old, size, fork, known, forked, status)
        if good:
            forked, known = (fork if size > FORK else forked if known > FORK else False), size


def test_requests_at_the_same_moment(one):
    """The race of C2SP tlog-witness: of two that continue the same tree one is signed, and the memory never shrinks."""
    assert answer(one, request(0, 1)) == 200
    size = 1
    for turn in range(15):
        asked = [request(size, size + more, fork=False) for more in (1, 5, 9)]
        statuses: list[int] = []
        gate = threading.Barrier(len(asked))

        def post(text: str, gate: threading.Barrier = gate, statuses: list[int] = statuses) -> None:
            gate.wait()
            statuses.append(answer(one, text))

        threads = [threading.Thread(target=post, args=(text,)) for text in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 409, 409], turn
        size = int(one.newest(hashlib.sha256(LOG.name.encode()).hexdigest()).splitlines()[1])


# ---------------------------------------------------------------------- the gateway


async def grow(archive: Archive, count: int, numbers: itertools.count) -> None:
    for _ in range(count):
        await archive.commit(case(number=next(numbers)))
    await archive.checkpoint()


async def anchors(archive: Archive) -> list[dict]:
    rows = await archive.database.read(
        lambda c: list(
            c.execute(select(db.leaf.c.entry).where(db.leaf.c.type == "anchor").order_by(db.leaf.c.idx)).scalars()
        )
    )
    return [json.loads(row) for row in rows]


def reopened(folder: Path, **more) -> Archive:
    made = outside.settings(**more)
    return Archive(db.Database.open(db.sqlite_url(folder / "gateway.db")), Store(folder / "blobs"), made)


@dataclass
class Whole:
    folder: Path
    given: dict
    puts: dict[str, bytes]
    url: str
    made: cw.Witness


@pytest.fixture
def whole(tmp_path):
    """An archive with everything outside that there can be: gives its folder, the settings and the servers' state."""
    folder = tmp_path / "archive"
    folder.mkdir()

    async def key() -> str:
        archive = open_archive(folder)
        await archive.start()
        await close(archive)
        return str(archive.log.verifier())

    vkey = asyncio.run(key())
    made = outside.make_witness(tmp_path / "w1", "w1.example", vkey)
    puts: dict[str, bytes] = {}

    def take(method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        puts[path] = body
        return 201, "text/plain", b""

    (tmp_path / "drop").mkdir()
    with outside.witness(made) as url, outside.server(take) as put:
        given = {
            "witnesses": [
                {"name": "w1", "url": url, "keys": made.public_keys()},
                {"name": "gone", "url": "http://127.0.0.1:9", "keys": made.public_keys()},
                {"name": "drop", "folder": str(tmp_path / "drop")},
                {"name": "away", "folder": str(tmp_path / "not-plugged-in")},
                {"name": "put", "put": f"{put}/kept"},
                {"name": "mail", "mail": "luu-tru@tinh.gov.vn"},
            ]
        }
        yield Whole(folder, given, puts, url, made)


def test_every_kind_of_witness_gets_the_checkpoint_and_nobody_waits(whole, tmp_path):
    folder, given = whole.folder, whole.given
    numbers = itertools.count(1)

    async def main() -> None:
        archive = reopened(folder, **given)
        await grow(archive, 5, numbers)
        said: dict[str, str] = {}
        outsiders = Witnesses(archive, outside.settings(**given))
        await outsiders.round(tell=said.__setitem__)
        assert {name for name, error in said.items() if error} == {"gone", "away"}
        note = archive.log.newest_note()
        keys = [ht.Verifier.parse(key) for key in whole.made.public_keys()]
        assert {key.algorithm for key, _, _ in ht.signatures_by(*ht.split_note(note), keys)} == {4, 6}
        place = f"{origin_digest(archive.log.origin)}/000000000005.note"
        assert (
            (tmp_path / "drop" / place).read_bytes()
            == whole.puts[f"/kept/{place}"]
            == (note.partition("\n\n")[0] + "\n\n").encode() + note.partition("\n\n")[2].splitlines(True)[0].encode()
        )
        mails = await archive.database.read(
            lambda c: list(c.execute(select(db.message.c.sha256).where(db.message.c.kind == "notice")))
        )
        assert len(mails) == 1
        state = await outsiders.status()
        assert state["leaves"] == 6 and state["signed"]["size"] == state["cosigned"]["size"] == 5
        by_name = {one["name"]: one for one in state["witnesses"]}
        assert by_name["w1"]["lag_leaves"] == 1 and by_name["gone"]["lag_leaves"] == 6 and by_name["gone"]["error"]
        await outsiders.round(tell=lambda *_: pytest.fail("nobody is due again already"))

        # Later leaves bring the anchor with them; a log at rest gets none.
        assert await anchors(archive) == []
        await grow(archive, 1, numbers)
        (anchor,) = await anchors(archive)
        assert anchor["size"] == 5 and [one["witness"] for one in anchor["cosignatures"]] == ["w1", "w1"]
        await archive.checkpoint()
        assert len(await anchors(archive)) == 1
        assert (await asyncio.to_thread(audit, archive)).damage == []
        await close(archive)

    asyncio.run(main())


def test_after_an_outage_the_newest_checkpoint_is_enough(whole, tmp_path):
    folder, given = whole.folder, whole.given
    numbers = itertools.count(1)

    async def main() -> None:
        archive = reopened(folder, **given)
        outsiders = Witnesses(archive, outside.settings(**given))
        broken = given["witnesses"][0] | {"url": "http://127.0.0.1:9"}
        without = Witnesses(archive, outside.settings(witnesses=[broken]))
        await grow(archive, 3, numbers)
        await outsiders.round(now=True)
        for _ in range(3):
            await grow(archive, 2, numbers)
            await without.round(now=True)
        (w1,) = (await without.status())["witnesses"]
        assert w1["error"] and w1["lag_leaves"] > 0 and w1["size"] == 3
        await outsiders.round(now=True)
        state = await outsiders.status()
        assert state["cosigned"]["size"] == state["signed"]["size"] and not state["witnesses"][0]["error"]
        assert whole.made.newest(origin_digest(archive.log.origin)).splitlines()[1] == str(state["signed"]["size"])
        await close(archive)

    asyncio.run(main())


def test_a_history_that_was_put_back_is_not_countersigned(whole, tmp_path):
    folder, given = whole.folder, whole.given
    numbers = itertools.count(1)

    async def main() -> None:
        archive = reopened(folder, **given)
        await grow(archive, 3, numbers)
        await Witnesses(archive, outside.settings(**given)).round(now=True)
        await close(archive)
        shutil.copytree(folder, tmp_path / "old")
        archive = reopened(folder, **given)
        await grow(archive, 20, numbers)
        await Witnesses(archive, outside.settings(**given)).round(now=True)
        newest = whole.made.newest(origin_digest(archive.log.origin))
        await close(archive)

        for folder_now, more, word in ((tmp_path / "old", 2, "rolled back"), (tmp_path / "old", 40, "HTTP 422")):
            archive = reopened(folder_now, **given)
            await grow(archive, more, itertools.count(1000 + more))
            said: dict[str, str] = {}
            await Witnesses(archive, outside.settings(**given)).round(now=True, tell=said.__setitem__)
            assert word in said["w1"], said
            report = await asyncio.to_thread(audit, archive, known=[newest])
            assert {one.kind for one in report.damage} <= {"rolled_back", "rewritten"} and report.damage
            await close(archive)

    asyncio.run(main())


def test_what_is_anchored_cannot_vanish(whole, tmp_path, capsys):
    folder, given = whole.folder, whole.given
    numbers = itertools.count(1)

    async def fill() -> str:
        archive = reopened(folder, **given)
        for _ in range(3):
            await grow(archive, 3, numbers)
            await Witnesses(archive, outside.settings(**given)).round(now=True)
        await grow(archive, 1, numbers)
        await close(archive)
        return str(archive.log.verifier())

    vkey = asyncio.run(fill())
    keys = whole.made.public_keys()
    policy = tmp_path / "policy"
    policy.write_text(f"log {vkey}\nwitness A {keys[0]}\nwitness B {keys[1]}\ngroup both all A B\nquorum both\n")

    def look() -> tuple[int, set[str], set[str]]:
        async def ours():
            archive = reopened(folder, **given)
            report = await asyncio.to_thread(audit, archive)
            await close(archive)
            return {one.kind for one in report.damage}

        mine = asyncio.run(ours())
        capsys.readouterr()
        code = cv.main(["audit", "--json", "--policy", str(policy), "--witness", whole.url, str(folder)])
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return code, {line["kind"] for line in lines if "kind" in line}, mine

    assert look() == (0, set(), set())
    notes = sorted((folder / "checkpoints").glob("*.note"))
    path = next(path for path in notes if path.read_text().count("\u2014") == 3)
    kept = path.read_text()
    path.unlink()
    assert look() == (1, {"evidence_missing"}, {"evidence_missing", "checkpoint_missing"})
    path.write_text(kept.rpartition("\u2014")[0])
    assert look() == (1, {"evidence_missing"}, {"evidence_missing"})
    path.write_text(kept)
    for one in notes:  # nothing that a witness signed is left
        one.write_text("".join(line for line in one.read_text().splitlines(True) if "w1.example" not in line))
    code, kinds, mine = look()
    assert code == 1 and "unwitnessed" in kinds and mine == {"evidence_missing"}


def test_a_proof_is_against_what_others_attested(whole, tmp_path, capsys):
    folder, given = whole.folder, whole.given

    async def main() -> tuple[str, bytes]:
        archive = reopened(folder, **given)
        receipt = await archive.commit(case(number=1))
        await archive.checkpoint()
        await Witnesses(archive, outside.settings(**given)).round(now=True)
        await grow(archive, 3, itertools.count(2))
        proof, data = await archive.prove(receipt.case), await archive.data(receipt.case)
        await close(archive)
        assert ht.check_proof(proof, archive.log.verifier()).checkpoint.size == 1
        return proof, data

    proof, data = asyncio.run(main())
    (tmp_path / "m.eml").write_bytes(data)
    (tmp_path / "m.tlog-proof").write_text(proof)
    keys = whole.made.public_keys()
    policy = tmp_path / "policy"
    vkey = (folder / "keys" / "log.vkey").read_text()
    policy.write_text(f"log {vkey}witness A {keys[0]}\nwitness B {keys[1]}\ngroup both all A B\nquorum both\n")
    words = ["proof", "--json", "--policy", str(policy), str(tmp_path / "m.eml"), str(tmp_path / "m.tlog-proof")]
    assert cv.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["witness"] for one in told["cosigned"]] == ["w1.example"] * 2
    (tmp_path / "m.tlog-proof").write_text(proof.rpartition("\u2014")[0])
    assert cv.main(words) == 1


def test_the_letter_carries_the_checkpoint():
    note = LOG.sign(ht.Checkpoint(LOG.name, 7, b"r" * 32).body())
    data = letter("a@b.vn", note, ht.Checkpoint(LOG.name, 7, b"r" * 32), SETTINGS)
    import email
    import email.policy

    (attached,) = email.message_from_bytes(data, policy=email.policy.default).iter_attachments()
    assert attached.get_content() == note.encode() and attached.get_filename() == "000000000007.note"
