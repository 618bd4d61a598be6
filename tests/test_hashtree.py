"""RFC 6962 against a definition written another way, the RFC's own vectors, and C2SP's examples."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway import hashtree as ht


def naive(leaves: list[bytes]) -> bytes:
    """MTH as RFC 6962 section 2.1 defines it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + naive(leaves[:k]) + naive(leaves[k:])).digest()


def entries(count: int) -> list[bytes]:
    return [b"%d" % n for n in range(count)]


def nodes(leaves: list[bytes]) -> ht.Node:
    def node(level: int, index: int) -> bytes:
        part = leaves[index << level : (index + 1) << level]
        assert len(part) == 1 << level, "asked for a subtree that is not whole"
        return naive(part)

    return node


# The leaves and roots of the test that certificate-transparency implementations share.
CT_LEAVES = [
    bytes.fromhex(x)
    for x in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_roots_of_the_shared_vectors():
    for size, expected in enumerate(CT_ROOTS, 1):
        assert ht.root(size, nodes(CT_LEAVES)).hex() == expected
    assert ht.root(0, nodes([])).hex() == hashlib.sha256(b"").hexdigest()


def test_all_proofs_of_all_small_trees_hold_and_no_other():
    for size in range(1, 34):
        leaves = entries(size)
        node, top = nodes(leaves), naive(leaves)
        for index in range(size):
            proof = ht.inclusion(index, size, node)
            ht.verify_inclusion(ht.leaf_hash(leaves[index]), index, size, proof, top)
            with pytest.raises(ht.BadProof):
                ht.verify_inclusion(ht.leaf_hash(b"other"), index, size, proof, top)
            with pytest.raises(ht.BadProof):
                ht.verify_inclusion(ht.leaf_hash(leaves[index]), index, size, [*proof, bytes(32)], top)
            if proof:
                with pytest.raises(ht.BadProof):
                    ht.verify_inclusion(ht.leaf_hash(leaves[index]), index, size, proof[:-1], top)
        for old in range(size + 1):
            proof = ht.consistency(old, size, node)
            ht.verify_consistency(old, naive(leaves[:old]), size, top, proof)
            if 0 < old < size:
                with pytest.raises(ht.BadProof):
                    ht.verify_consistency(old, bytes(32), size, top, proof)
                with pytest.raises(ht.BadProof):
                    ht.verify_consistency(old, naive(leaves[:old]), size, bytes(32), proof)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_bit_or_another_place_never_passes(data):
    size = data.draw(st.integers(2, 600))
    leaves = entries(size)
    node = nodes(leaves)
    top = ht.root(size, node)
    index = data.draw(st.integers(0, size - 1))
    proof = ht.inclusion(index, size, node)
    leaf = ht.leaf_hash(leaves[index])
    ht.verify_inclusion(leaf, index, size, proof, top)
    at, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
    bad = bytearray(proof[at])
    bad[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ht.BadProof):
        ht.verify_inclusion(leaf, index, size, [*proof[:at], bytes(bad), *proof[at + 1 :]], top)
    other = data.draw(st.integers(0, size - 1))
    assume(other != index)
    with pytest.raises(ht.BadProof):
        ht.verify_inclusion(leaf, other, size, proof, top)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 511, 512, 700, 65535, 65536, 65537])
def test_tiles_give_the_same_tree(size):
    leaf_hashes = [ht.leaf_hash(b"%d" % n) for n in range(size)]
    levels = [leaf_hashes]
    while len(levels[-1]) >= ht.TILE_WIDTH:
        below = levels[-1]
        levels.append([ht.fold_pairs(below[n : n + 256]) for n in range(0, len(below) - 255, 256)])
    node = ht.TileNodes(lambda level, index: b"".join(levels[level][index * 256 : (index + 1) * 256]))

    def compact(hashes):  # root by merging equal peaks, a third way
        stack: list[tuple[int, bytes]] = []
        for one in hashes:
            stack.append((0, one))
            while len(stack) > 1 and stack[-1][0] == stack[-2][0]:
                (level, right), (_, left) = stack.pop(), stack.pop()
                stack.append((level + 1, ht.node_hash(left, right)))
        result = stack.pop()[1]
        while stack:
            result = ht.node_hash(stack.pop()[1], result)
        return result

    top = ht.root(size, node)
    assert top == compact(leaf_hashes)
    for index in {0, size // 2, size - 1}:
        ht.verify_inclusion(leaf_hashes[index], index, size, ht.inclusion(index, size, node), top)
    old = max(1, size * 2 // 3)
    ht.verify_consistency(old, compact(leaf_hashes[:old]), size, top, ht.consistency(old, size, node))


def test_tile_paths():
    assert ht.tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert ht.tile_path(0, 5) == "tile/0/005"
    assert ht.tile_path("entries", 0, 17) == "tile/entries/000.p/17"
    assert ht.tile_path(1, 1000) == "tile/1/x001/000"


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_bundles(items):
    assert ht.unbundle(ht.bundle(items)) == items
    if ht.bundle(items):
        with pytest.raises(ValueError):
            ht.unbundle(ht.bundle(items) + b"\0")


# The first log key and note of the documentation of Go's golang.org/x/mod/sumdb/note package.
GO_VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SIGNER = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_NOTE = (
    GO_TEXT + "\n\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZIn"
    "NIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_notes_are_those_of_other_programs():
    verifier = ht.Verifier.parse(GO_VERIFIER)
    assert ht.open_note(GO_NOTE, verifier) == GO_TEXT
    signer = ht.Signer.parse(GO_SIGNER)
    assert (str(signer), str(signer.verifier)) == (GO_SIGNER, GO_VERIFIER)
    assert signer.sign(GO_TEXT) == GO_NOTE


@settings(max_examples=300)
@given(st.integers(0, len(GO_NOTE.encode()) * 8 - 1))
def test_no_bit_of_a_note_can_be_flipped(bit):
    raw = bytearray(GO_NOTE.encode())
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ht.BadProof):
        ht.open_note(raw.decode("utf-8", "replace"), ht.Verifier.parse(GO_VERIFIER))


@pytest.mark.parametrize("text", ["", "a+b", "a+00000000+AAAA", GO_VERIFIER[:-4] + "AAAA", "+c74f20a3+ARpc"])
def test_keys_that_are_none(text):
    with pytest.raises(ht.BadProof):
        ht.Verifier.parse(text)
    with pytest.raises(ht.BadProof):
        ht.Signer.parse("PRIVATE+KEY+" + text)


def test_checkpoints():
    one = ht.Checkpoint("mail.tinh.gov.vn/archive", 7, bytes(32), ("time 2026-11-20T08:30:00.000+07:00",))
    assert ht.Checkpoint.parse(one.body()) == one
    good = one.body()
    for bad in (
        good[:-1],
        good.replace("\n7\n", "\n07\n"),
        good.replace("\n7\n", "\n-7\n"),
        "\n" + good,
        "a\n1\nAAAA\n",
    ):
        with pytest.raises(ht.BadProof):
            ht.Checkpoint.parse(bad)


def test_only_a_line_feed_ends_a_line():
    """A flipped bit makes a vertical tab of it, which many take for a line end: then two notes would say the same."""
    signer = ht.Signer("a", b"k" * 32)
    body = ht.Checkpoint("a", 1, b"r" * 32).body()
    note = signer.sign(body) + ht.Signer("b", b"k" * 32).sign(body).removeprefix(body + "\n")
    assert ht.open_note(note, signer.verifier) == body
    for other in "\v\f\r\x1c\x85\u2028":
        with pytest.raises(ht.BadProof):
            ht.open_note(note.replace("\n\u2014 b", f"{other}\u2014 b"), signer.verifier)
