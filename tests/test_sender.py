"""SPF, DKIM, DMARC and ARC without network."""

from __future__ import annotations

import base64

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from gateway.inspection import sender

KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
)
RECORD = b"v=DKIM1; k=rsa; p=" + base64.b64encode(
    KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
)
IP = "192.0.2.10"
ZONE = {
    ("binhduong.gov.vn", "TXT"): [b"v=spf1 ip4:192.0.2.0/24 -all"],
    ("sotttt.binhduong.gov.vn", "TXT"): [b"v=spf1 include:binhduong.gov.vn -all"],
    ("_dmarc.binhduong.gov.vn", "TXT"): [b"v=DMARC1; p=reject; sp=quarantine"],
    ("evil.com", "TXT"): [b"v=spf1 +all"],
    ("s._domainkey.binhduong.gov.vn", "TXT"): [RECORD],
    ("s._domainkey.evil.com", "TXT"): [RECORD],
    ("s._domainkey.list.vn", "TXT"): [RECORD],
    ("s._domainkey.xn--gv-fmc.vn", "TXT"): [RECORD],
}
HEAD = b"To: b@y.gov.vn\r\nSubject: s\r\nDate: Tue, 02 Jun 2026 08:00:00 +0700\r\n"


def mail(from_: str = "Van thu <van.thu@sotttt.binhduong.gov.vn>", body: bytes = b"xin chao\r\n") -> bytes:
    return b"From: " + from_.encode() + b"\r\n" + HEAD + b"\r\n" + body


def signed(raw: bytes, domain: bytes = b"binhduong.gov.vn", **rest) -> bytes:
    return dkim.sign(raw, b"s", domain, PEM, **rest) + raw


def check(raw: bytes, mail_from: str = "x@sotttt.binhduong.gov.vn", ip: str = IP, zone=ZONE, **rest):
    return sender.authenticate(raw, ip, "mx.binhduong.gov.vn", mail_from, zone, "gw.example", **rest)


def test_everything_good() -> None:
    facts = check(signed(mail()))
    assert (facts.spf, facts.dkim, facts.dmarc, facts.aligned) == ("pass", "pass", "pass", True)
    assert facts.dkim_domains == ("binhduong.gov.vn",)


def test_spf_alone_and_dkim_alone_align() -> None:
    assert check(mail()).dmarc == "pass"
    facts = check(signed(mail()), "x@evil.com")
    assert (facts.spf, facts.dmarc, facts.aligned) == ("pass", "pass", True)


def test_another_domain_does_not_speak_for_from() -> None:
    facts = check(signed(mail(), b"evil.com"), "x@evil.com")
    assert (facts.spf, facts.dkim, facts.dmarc, facts.aligned) == ("pass", "pass", "fail", False)


def test_a_changed_body_fails() -> None:
    raw = signed(mail()).replace(b"xin chao", b"xin tien")
    facts = check(raw, "x@evil.com")
    assert (facts.dkim, facts.dmarc, facts.aligned) == ("fail", "fail", False)


def test_wrong_client_address_fails_spf() -> None:
    assert check(mail(), ip="198.51.100.1").spf == "fail"


def test_null_sender_is_checked_by_helo() -> None:
    zone = {**ZONE, ("mx.binhduong.gov.vn", "TXT"): [b"v=spf1 ip4:192.0.2.10 -all"]}
    facts = check(mail(), "", zone=zone)
    assert (facts.spf, facts.dmarc) == ("pass", "pass")


def test_a_signature_over_a_part_of_the_body_proves_nothing() -> None:
    raw = signed(mail(), length=True)
    assert b"l=" in raw
    facts = check(raw + b"appended\r\n", "x@evil.com")
    assert (facts.dkim, facts.dkim_domains, facts.aligned) == ("neutral", (), False)


def test_a_signature_that_leaves_out_from_proves_nothing() -> None:
    raw = mail()
    tags = check(signed(raw).replace(b"from :", b"").replace(b"h=from : ", b"h="), "x@evil.com")
    assert not tags.aligned


def test_strict_alignment() -> None:
    zone = {**ZONE, ("_dmarc.binhduong.gov.vn", "TXT"): [b"v=DMARC1; p=reject; adkim=s; aspf=s"]}
    assert check(signed(mail()), "x@binhduong.gov.vn", zone=zone).dmarc == "fail"
    assert check(mail(), zone=zone).dmarc == "pass"


def test_two_dmarc_records_are_none() -> None:
    zone = {**ZONE, ("_dmarc.binhduong.gov.vn", "TXT"): [b"v=DMARC1; p=reject", b"v=DMARC1; p=none"]}
    assert check(mail(), zone=zone).dmarc == "none"


def test_subdomain_policy() -> None:
    lookup = sender._lookup(ZONE, 5)
    assert sender._policy(lookup, "sotttt.binhduong.gov.vn")["p"] == "quarantine"
    assert sender._policy(lookup, "binhduong.gov.vn")["p"] == "reject"
    assert sender._policy(lookup, "gmail.com") is None


@pytest.mark.parametrize(
    "from_",
    ["", "a@x.vn, b@y.vn", '"x@evil.com"@binhduong.gov.vn', "a@binhduong.gov.vn <x@evil.com>", "group: a@x.vn;"],
)
def test_without_one_plain_mailbox_nothing_is_aligned(from_: str) -> None:
    facts = check(signed(mail(from_)), "x@binhduong.gov.vn")
    assert (facts.dmarc, facts.aligned) == ("permerror", False)


def test_two_from_fields_are_not_aligned() -> None:
    assert not check(b"From: a@evil.com\r\n" + mail(), "x@binhduong.gov.vn").aligned


def test_dns_that_does_not_answer_is_temporary() -> None:
    def down(name: str, kind: str) -> list:
        raise sender.LookupFailed(name)

    facts = check(signed(mail()), zone=down)
    assert (facts.spf, facts.dkim, facts.dmarc, facts.aligned) == ("temperror", "temperror", "temperror", False)


def test_a_deadline_for_all_lookups() -> None:
    asked = []

    def slow(name: str, kind: str) -> list:
        asked.append(name)
        return []

    assert check(signed(mail()), zone=slow, seconds=-1).spf == "temperror"
    assert asked == []


def test_homograph_domain_is_compared_in_a_labels() -> None:
    raw = signed(mail("a@g\u043ev.vn"), b"xn--gv-fmc.vn")
    facts = check(raw, "x@evil.com")
    assert facts.aligned and facts.dkim_domains == ("xn--gv-fmc.vn",)
    assert not check(signed(mail("a@g\u043ev.vn"), b"binhduong.gov.vn"), "x@evil.com").aligned


def sealed(raw: bytes, domain: bytes = b"list.vn", result: bytes = b"dmarc=pass header.from=binhduong.gov.vn") -> bytes:
    raw = b"Authentication-Results: list.vn; " + result + b"\r\n" + raw
    lines = dkim.arc_sign(raw, b"s", domain, PEM, b"list.vn", include_headers=[b"from", b"to", b"subject", b"date"])
    return b"".join(lines) + raw


def test_arc_only_from_listed_sealers() -> None:
    pytest.importorskip("authres")  # dkimpy needs it to seal, not to verify
    raw = sealed(mail("a@binhduong.gov.vn"))
    assert check(raw, arc_sealers=["list.vn"]).arc == "pass"
    assert check(raw, arc_sealers=["other.vn"]).arc == "none"
    assert check(raw).arc == "none"
    assert check(raw.replace(b"xin chao", b"xin tien"), arc_sealers=["list.vn"]).arc == "fail"
    assert check(sealed(mail("a@evil.com")), arc_sealers=["list.vn"]).arc == "fail"


@given(st.binary(max_size=300))
def test_any_bytes_give_an_answer(raw: bytes) -> None:
    facts = check(b"DKIM-Signature: " + raw, arc_sealers=["list.vn"])
    assert not facts.aligned or b"binhduong" in raw
