"""Who sent it: SPF, DKIM, DMARC and ARC behind our own From parser.

The libraries do the cryptography (dkimpy) and the SPF language (pyspf); which domain the From field names, and whether
a result belongs to it, is decided here (RFC 7489), because readers of From disagree and the disagreement is the attack.
No DNS of its own: every lookup goes through the resolver that is handed in, so tests need no network.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import dkim
import dns.exception
import dns.nameserver
import dns.resolver
import idna
import spf
from publicsuffixlist import PublicSuffixList

from gateway import mime
from gateway.inspection.findings import SenderFacts

#: (name, type) -> records: TXT as bytes, A, AAAA and PTR as text, MX as (preference, name). No such name: empty list.
#: Raises LookupFailed when the answer cannot be had now.
Lookup = Callable[[str, str], list[Any]]
Resolver = Lookup | Mapping[tuple[str, str], list[Any]]

MAX_SIGNATURES = 6  # DKIM signatures that are checked; real mail has one to three
MIN_KEY = 1024  # bits of an RSA key, RFC 8301 section 3.2


class LookupFailed(Exception):
    """The name server did not answer, or not in time: worth another try."""


class Dns:
    """Lookups with dnspython, cached. seconds: for one lookup; `servers` empty: those of the host."""

    def __init__(self, servers: Iterable[str] = (), seconds: float = 5) -> None:
        servers = list(servers)
        self._resolver = dns.resolver.Resolver(configure=not servers)
        if servers:
            self._resolver.nameservers = [_server(one) for one in servers]
        self._resolver.cache = dns.resolver.LRUCache(2000)
        self._seconds = seconds

    def __call__(self, name: str, kind: str) -> list[Any]:
        try:
            answer = self._resolver.resolve(name, kind, lifetime=self._seconds, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError, UnicodeError) as error:
            raise LookupFailed(f"{kind} {name}: {type(error).__name__}") from error
        if kind == "TXT":
            return [b"".join(row.strings) for row in answer]
        if kind == "MX":
            return [(row.preference, str(row.exchange).rstrip(".")) for row in answer]
        if kind == "PTR":
            return [str(row.target).rstrip(".") for row in answer]
        return [row.address for row in answer]


def _server(text: str) -> str | dns.nameserver.Nameserver:
    """A name server: an address, or `address:port` (`[::1]:5353`) for one that does not listen on 53."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or (":" in host and not host.endswith("]")):
        return text
    return dns.nameserver.Do53Nameserver(host.strip("[]"), int(port))


def _lookup(resolver: Resolver, seconds: float) -> Lookup:
    """One spelling for both kinds of resolver, with a deadline for all lookups of one message."""
    deadline = time.monotonic() + seconds

    def ask(name: str, kind: str) -> list[Any]:
        if time.monotonic() > deadline:
            raise LookupFailed("out of time")
        key = name.rstrip(".").lower()
        if isinstance(resolver, Mapping):
            return list(resolver.get((key, kind), ()))
        return resolver(key, kind)

    return ask


# --- domains -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def ascii_domain(domain: str) -> str:
    """The domain in A-labels and lower case without a final dot, or empty when it is no domain (RFC 5891)."""
    domain = domain.strip().rstrip(".").lower()
    if domain.isascii():
        return domain if re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", domain) else ""
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return ""


def organisational(domain: str) -> str:
    """The organisational domain of an A-label domain by the public suffix list (RFC 7489 section 3.2)."""
    return _suffixes().privatesuffix(domain) or domain


def aligned(domain: str, from_domain: str, strict: bool = False) -> bool:
    """Whether an authenticated domain speaks for the From domain (RFC 7489 section 3.1). Both in A-labels."""
    if not domain or not from_domain:
        return False
    if strict or domain == from_domain:
        return domain == from_domain
    return organisational(domain) == organisational(from_domain)


# --- SPF ---------------------------------------------------------------------------------------------------------


class _Spf(spf.query):  # type: ignore[misc]
    """pyspf with our lookups instead of its module-wide ones. CNAMEs are followed by the resolver."""

    def __init__(self, lookup: Lookup, **rest: Any) -> None:
        super().__init__(**rest)
        self._ask = lookup

    def dns(self, name: str, qtype: str, cnames: Any = None, ignore_void: bool = False) -> list[Any]:
        name = str(name).rstrip(".").lower()
        if not name or any(not 0 < len(label) < 64 for label in name.split(".")):
            return []
        key = (name, qtype)
        if key not in self.cache:
            try:
                found = self._ask(name, qtype)
            except LookupFailed as error:
                raise spf.TempError(f"DNS {error}") from error
            self.cache[key] = [(row,) for row in found] if qtype in ("TXT", "SPF") else found
        rows = self.cache[key]
        if not rows and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError(f"Void lookup limit of {spf.MAX_VOID_LOOKUPS} exceeded")
        return list(rows)


_SPF_RESULTS = frozenset(("pass", "fail", "softfail", "neutral", "none", "temperror", "permerror"))


def _check_spf(lookup: Lookup, ip: str, helo: str, mail_from: str) -> tuple[str, str]:
    """(result, domain it speaks for in A-labels). The null sender is checked as postmaster@HELO (RFC 7208 2.4)."""
    helo = ascii_domain(helo)
    domain = ascii_domain(mail_from.rpartition("@")[2]) if mail_from else helo
    if not domain:
        return "none", ""
    local = mail_from.rpartition("@")[0] if mail_from else "postmaster"
    try:
        query = _Spf(lookup, i=ip, s=f"{local}@{domain}", h=helo or "unknown", timeout=5, querytime=20)
        result = query.check()[0]
    except Exception:  # pyspf raises what it likes on records it cannot read
        return "permerror", domain
    return (result if result in _SPF_RESULTS else "permerror"), domain


# --- DKIM --------------------------------------------------------------------------------------------------------


def _txt(lookup: Lookup, failed: list[str]) -> Callable[..., bytes | None]:
    """A key lookup as dkimpy wants it."""

    def get(name: bytes | str, timeout: float = 5) -> bytes | None:
        text = name.decode("ascii", "replace") if isinstance(name, bytes) else name
        try:
            rows = lookup(text, "TXT")
        except LookupFailed as error:
            failed.append(str(error))
            return None
        return rows[0] if len(rows) == 1 else next((row for row in rows if b"p=" in row), None)

    return get


def _check_dkim(lookup: Lookup, raw: bytes) -> tuple[str, tuple[str, ...]]:
    """(result, domains of good signatures in A-labels).

    A signature counts only if it covers From and the whole body: one with `l=` lets anybody append (RFC 6376 8.2), so
    it is as good as none; rsa-sha1 is not verified (RFC 8301).
    """
    good: list[str] = []
    worst = "none"
    for index in range(MAX_SIGNATURES):
        failed: list[str] = []
        try:
            check = dkim.DKIM(raw, minkey=MIN_KEY, timeout=5)
            prepared = check.verify_headerprep(index)
            if not prepared:
                break
            tags, covered, _ = prepared
            worst = "fail" if worst == "none" else worst
            if b"from" not in covered or b"l" in tags or tags[b"a"].lower() == b"rsa-sha1":
                worst = "neutral" if worst == "fail" else worst
                continue
            proved = check.verify(index, dnsfunc=_txt(lookup, failed))
        except dkim.ValidationError:  # a hash that does not match, an expired signature, a tag out of its range
            worst = "fail"
            continue
        except (dkim.DKIMException, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            worst = "permerror" if worst in ("none", "fail") else worst
            continue
        domain = ascii_domain(tags[b"d"].decode("utf-8", "replace"))
        if proved and domain:
            good.append(domain)
        elif failed:
            worst = "temperror"
    return ("pass" if good else worst), tuple(dict.fromkeys(good))


# --- DMARC -------------------------------------------------------------------------------------------------------


def _policy(lookup: Lookup, from_domain: str) -> dict[str, str] | None:
    """Tags of the DMARC record that governs a domain, `p` already the one for it (RFC 7489 section 6.6.3); None: no
    record, or more than one."""
    organisation = organisational(from_domain)
    for domain in dict.fromkeys((from_domain, organisation)):
        records = []
        for row in lookup(f"_dmarc.{domain}", "TXT"):
            text = row.decode("utf-8", "replace") if isinstance(row, bytes) else str(row)
            if re.match(r"\s*v\s*=\s*DMARC1\s*(;|\Z)", text):
                records.append(text)
        if not records:
            continue
        if len(records) > 1:
            return None
        tags: dict[str, str] = {}
        for piece in records[0].split(";"):
            name, sign, value = piece.partition("=")
            if sign:
                tags.setdefault(name.strip().lower(), value.strip().lower())
        if domain != from_domain and "sp" in tags:
            tags["p"] = tags["sp"]
        if tags.get("p") not in ("none", "quarantine", "reject"):
            if "rua" not in tags:
                return None
            tags["p"] = "none"
        return tags
    return None


# --- ARC ---------------------------------------------------------------------------------------------------------


def _check_arc(lookup: Lookup, raw: bytes, sealers: frozenset[str], from_domain: str) -> str:
    """`pass`: a listed sealer closed a good chain and saw DMARC pass for this From domain; `fail`: a broken chain or a
    sealer that saw something else; `none`: no chain, or the sealer is not one we listed (RFC 8617 section 7)."""
    if not sealers or b"arc-seal" not in raw[: 256 * 1024].lower():
        return "none"
    try:
        verdict, sets, _ = dkim.ARC(raw, minkey=MIN_KEY, timeout=5).verify(dnsfunc=_txt(lookup, []))
    except (dkim.DKIMException, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return "fail"
    if verdict == dkim.CV_None or not sets:
        return "none"
    if verdict != dkim.CV_Pass:
        return "fail"
    newest = sets[0]
    names = {ascii_domain(newest[key].decode("ascii", "replace")) for key in ("as-domain", "ams-domain")}
    if not names <= sealers:
        return "none"
    results = newest["aar-value"].decode("utf-8", "replace").lower()
    seen = re.search(r";\s*dmarc\s*=\s*pass\b([^;]*)", results)
    named = re.search(r"header\.from\s*=\s*([^\s;]+)", seen[1]) if seen else None
    return "pass" if named and ascii_domain(named[1]) == from_domain else "fail"


# --- all together ------------------------------------------------------------------------------------------------


def authenticate(
    raw: bytes,
    ip: str,
    helo: str,
    mail_from: str,
    resolver: Resolver,
    authserv_id: str = "",
    *,
    arc_sealers: Iterable[str] = (),
    seconds: float = 5,
) -> SenderFacts:
    """SPF, DKIM, DMARC and ARC of one message as it was received.

    ip, helo, mail_from: of the SMTP client that brought it (`mail_from` empty for the null sender). seconds: for all
    lookups together. authserv_id: our own; an ARC set that carries it was not made by another and is not believed.
    Never raises: what cannot be looked up is `temperror`, what cannot be read `permerror`. `aligned` and DMARC need a
    From field with exactly one mailbox.
    """
    raw = raw if type(raw) is bytes else bytes(raw)
    lookup = _lookup(resolver, seconds)
    from_domain = _from_domain(raw)
    spf_result, spf_domain = _check_spf(lookup, ip, helo, mail_from)
    dkim_result, dkim_domains = _check_dkim(lookup, raw)
    sealers = frozenset(ascii_domain(name) for name in arc_sealers) - {ascii_domain(authserv_id)}
    proved = bool(from_domain) and (
        (spf_result == "pass" and aligned(spf_domain, from_domain))
        or any(aligned(domain, from_domain) for domain in dkim_domains)
    )
    dmarc = "permerror"
    if from_domain:
        try:
            tags = _policy(lookup, from_domain)
        except LookupFailed:
            dmarc = "temperror"
        else:
            if tags is None:
                dmarc = "none"
            else:
                by_spf = spf_result == "pass" and aligned(spf_domain, from_domain, tags.get("aspf") == "s")
                by_dkim = any(aligned(domain, from_domain, tags.get("adkim") == "s") for domain in dkim_domains)
                dmarc = "pass" if by_spf or by_dkim else "fail"
                proved = by_spf or by_dkim
                if dmarc == "fail" and "temperror" in (spf_result, dkim_result):
                    dmarc = "temperror"
    return SenderFacts(
        spf=spf_result,
        dkim=dkim_result,
        dkim_domains=dkim_domains,
        dmarc=dmarc,
        arc=_check_arc(lookup, raw, sealers, from_domain),
        aligned=proved,
    )


def _from_domain(raw: bytes) -> str:
    """The domain of the one From mailbox in A-labels; empty when From is missing, doubled or not one plain mailbox."""
    values = [value for name, value in mime.header_fields(raw) if name == "from"]
    if len(values) != 1:
        return ""
    box = mime.single_mailbox(values[0])
    return ascii_domain(box.address.rpartition("@")[2]) if box else ""
