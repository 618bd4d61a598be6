"""Passwords of staff, asked of the mail server that knows them, so that nobody needs a second one.

The existing server is asked over IMAP or SMTP in a thread, with its certificate verified. Good answers are remembered
for a minute as salted scrypt hashes in memory; wrong ones are counted, and a login or a host with too many is locked
out for a while. Nothing here writes a password anywhere.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import hashlib
import hmac
import imaplib
import os
import re
import smtplib
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from imapclient import IMAPClient
from imapclient.exceptions import LoginError

from gateway import config
from gateway.message import AuthResult

#: Connections to the password server at a time. Ten mail clients that start at once do not become ten per second.
THREADS = 8
#: After a failure to reach the server it is not asked again for this long: callers would only queue up.
DOWN_SECONDS = 5.0
#: A host from which a login was good lately is not locked out by what other hosts try with the same login.
KNOWN_SECONDS = 30 * 86400.0
#: Wrong passwords of one host, as a multiple of those of one login: many people may sit behind one address.
HOST_FACTOR = 10
#: Entries kept at most; a flood of made-up logins must not fill the memory. The oldest go first.
ENTRIES = 20_000

#: RFC 5530 response codes that say nothing of the password.
_NOT_NOW = {"UNAVAILABLE", "LIMIT", "INUSE", "SERVERBUG", "PRIVACYREQUIRED", "CONTACTADMIN"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(slots=True)
class _Remembered:
    salt: bytes
    digest: bytes
    until: float


@dataclass(slots=True)
class _Failures:
    """Times of wrong passwords within the lock-out time, and until when it is locked."""

    times: list[float] = field(default_factory=list)
    until: float = 0.0


def _digest(password: str, salt: bytes) -> bytes:
    # 1 MiB and about 3 ms: the hash lives a minute, and submission must stay fast.
    return hashlib.scrypt(password.encode(), salt=salt, n=1024, r=8, p=1, dklen=32)


class PasswordChecker:
    """An `Authenticator` for `smtp_in`. clock: monotonic seconds."""

    def __init__(self, settings: config.PasswordCheck, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self._good: dict[str, _Remembered] = {}
        self._failures: dict[tuple[str, str], _Failures] = {}
        self._known: dict[tuple[str, str], float] = {}
        self._locks: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}
        self._down_until = 0.0

    async def check(self, login: str, password: str, host: str) -> AuthResult:
        """Whether the mail server takes this password. host: address of the client, for the lock-out."""
        if not login or not password or len(login) > 255 or len(password) > 1024 or _CONTROL.search(login + password):
            return AuthResult.BAD  # and not passed on: a line end in it would be a command to the server
        name = login.casefold()
        known = self._known.get((name, host), 0.0) > self._clock()
        # One question at a time per login, so that a burst of guesses cannot outrun the count of wrong ones,
        # and a burst of one person's clients asks once. A known host does not wait for strangers.
        async with self._turn((name, host if known else "")):
            # A known host has a count of its own; its good password does not forgive what strangers did.
            counted = ("login", f"{name} {host}" if known else name)
            if self._locked(("host", host)) or self._locked(counted):
                return AuthResult.LOCKED
            loop = asyncio.get_running_loop()
            remembered = self._good.get(name)
            if remembered is not None and remembered.until > self._clock():
                digest = await loop.run_in_executor(self._threads, _digest, f"{login}\0{password}", remembered.salt)
                if hmac.compare_digest(digest, remembered.digest):
                    self._failures.pop(counted, None)
                    return AuthResult.GOOD
            if self._down_until > self._clock():
                return AuthResult.UNAVAILABLE
            result = await loop.run_in_executor(self._threads, self._ask, login, password, host)
            if result is AuthResult.GOOD:
                self._failures.pop(counted, None)
                await self._remember(name, login, password, host)
            elif result is AuthResult.BAD:
                self._count(("host", host), self._settings.failures * HOST_FACTOR)
                self._count(counted, self._settings.failures)
            else:
                self._down_until = self._clock() + DOWN_SECONDS
            return result

    def close(self) -> None:
        """Forget everything; questions under way end by themselves."""
        self._good.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    @contextlib.asynccontextmanager
    async def _turn(self, key: tuple[str, str]):  # type: ignore[no-untyped-def]
        lock, waiting = self._locks.get(key) or (asyncio.Lock(), 0)
        self._locks[key] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[key]
            if waiting == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, waiting - 1)

    def _locked(self, key: tuple[str, str]) -> bool:
        failures = self._failures.get(key)
        return failures is not None and failures.until > self._clock()

    def _count(self, key: tuple[str, str], allowed: int) -> None:
        now = self._clock()
        failures = self._failures.pop(key, None) or _Failures()
        recent = [at for at in failures.times if at > now - self._settings.lockout]
        failures.times = [*recent[-allowed:], now]
        if len(failures.times) >= allowed:
            failures.until = now + self._settings.lockout
            failures.times.clear()
        self._failures[key] = failures
        _trim(self._failures)

    async def _remember(self, name: str, login: str, password: str, host: str) -> None:
        now = self._clock()
        self._known.pop((name, host), None)
        self._known[(name, host)] = now + KNOWN_SECONDS
        _trim(self._known)
        if self._settings.cache:
            salt = os.urandom(16)
            loop = asyncio.get_running_loop()
            digest = await loop.run_in_executor(self._threads, _digest, f"{login}\0{password}", salt)
            self._good.pop(name, None)
            self._good[name] = _Remembered(salt, digest, now + self._settings.cache)
            _trim(self._good)

    # --- in a thread ---

    def _ask(self, login: str, password: str, host: str) -> AuthResult:
        try:
            if self._settings.protocol == "imap":
                return self._ask_imap(login, password, host)
            return self._ask_smtp(login, password)
        except (OSError, EOFError, imaplib.IMAP4.error, smtplib.SMTPException):
            return AuthResult.UNAVAILABLE  # what is unknown is worth another try, never "wrong password"

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._settings.ca) if self._settings.ca else None)
        if not self._settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _ask_imap(self, login: str, password: str, host: str) -> AuthResult:
        settings = self._settings
        implicit = settings.tls == "implicit"
        client = IMAPClient(
            settings.host,
            settings.port,
            ssl=implicit,
            ssl_context=self._tls() if implicit else None,
            timeout=settings.timeout,
        )
        try:
            if settings.tls == "starttls":
                client.starttls(self._tls())
            if client.has_capability("ID"):
                # Dovecot slows down hosts with wrong passwords; it should not mean us. It believes this from
                # hosts in its login_trusted_networks only, and others ignore it (RFC 2971).
                client.id_({"x-originating-ip": host})
            try:
                # PLAIN carries any UTF-8; LOGIN quotes and has no charset (RFC 3501 6.2.3).
                if client.has_capability("AUTH=PLAIN"):
                    client.plain_login(login, password)
                else:
                    client.login(login, password)
            except LoginError as error:
                return _imap_refusal(str(error))
            return AuthResult.GOOD
        finally:
            with contextlib.suppress(Exception):
                client.logout()

    def _ask_smtp(self, login: str, password: str) -> AuthResult:
        settings = self._settings
        # local_hostname: otherwise smtplib asks DNS for our name.
        if settings.tls == "implicit":
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                settings.host,
                settings.port,
                local_hostname="[127.0.0.1]",
                timeout=settings.timeout,
                context=self._tls(),
            )
        else:
            client = smtplib.SMTP(settings.host, settings.port, local_hostname="[127.0.0.1]", timeout=settings.timeout)
        try:
            if settings.tls == "starttls":
                client.starttls(context=self._tls())
            client.ehlo_or_helo_if_needed()
            # smtplib's own `login` tries every mechanism in turn, each a failure on the server, and takes ASCII only.
            secret = base64.b64encode(f"\0{login}\0{password}".encode()).decode("ascii")
            code, _ = client.docmd("AUTH", f"PLAIN {secret}")
            if code == 235:
                return AuthResult.GOOD
            # 535: wrong (RFC 4954 section 6). Everything else (454, 530, 534, 538 …) says nothing of the password.
            return AuthResult.BAD if code == 535 else AuthResult.UNAVAILABLE
        finally:
            with contextlib.suppress(Exception):
                client.quit()


def _imap_refusal(text: str) -> AuthResult:
    """What a NO to AUTHENTICATE or LOGIN means, by its response code (RFC 5530)."""
    code = re.search(r"\[([A-Z]+)", text)
    if code is not None and code[1] in _NOT_NOW:
        return AuthResult.UNAVAILABLE
    if re.search(r"temporar|connection|timed out|EOF|BYE", text, re.IGNORECASE):
        return AuthResult.UNAVAILABLE
    return AuthResult.BAD


def _trim(entries: dict) -> None:  # type: ignore[type-arg]
    while len(entries) > ENTRIES:
        del entries[next(iter(entries))]
