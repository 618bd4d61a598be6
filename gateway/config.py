"""YAML files to frozen values, strictly.

YAML 1.2 through ruamel.yaml (so `no` and `22:30` stay text), then pydantic. Unknown keys, doubled keys and bad values
are refused with `file:line:col: path: what is wrong (and what was probably meant)`. Nothing is read twice, nothing is
guessed, and a file that is half written does not load.
"""

from __future__ import annotations

import datetime as dt
import difflib
import ipaddress
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.composer import ComposerError
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from gateway.errors import ConfigError, Failure, Problem
from gateway.hashtree import COSIGNATURE, ML_DSA, BadProof, Verifier


class Settings(BaseModel):
    """Base of every settings value: frozen, and a key it does not know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: object) -> object:
    """`90s`, `5m`, `4h`, `5d` or a plain number of seconds, to seconds."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", value.strip())
        if not match:
            raise ValueError("a duration is a number with a unit, such as 90s, 5m, 4h or 5d")
        return float(match[1]) * _UNITS[match[2]]
    return value


_SIZES = {"": 1, "K": 1 << 10, "KIB": 1 << 10, "M": 1 << 20, "MIB": 1 << 20, "G": 1 << 30, "GIB": 1 << 30}


def _size(value: object) -> object:
    """`25M`, `1GiB` or a plain number of bytes, to bytes."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+)\s*([KMG](?:i?B)?)?", value.strip(), re.IGNORECASE)
        unit = (match[2] or "").upper().replace("KB", "K").replace("MB", "M").replace("GB", "G") if match else ""
        if not match or unit not in _SIZES:
            raise ValueError("a size is a number with a unit, such as 512K, 25M or 1G")
        return int(match[1]) * _SIZES[unit]
    return value


Duration = Annotated[float, BeforeValidator(_duration), Field(ge=0)]
Size = Annotated[int, BeforeValidator(_size), Field(ge=0)]
Port = Annotated[int, Field(ge=0, le=65535)]
Network = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, Field()]


class Listener(Settings):
    """One listening socket.

    kind: `submission` (staff; STARTTLS, port 587), `submissions` (staff; TLS from the first byte, port 465), `relay`
    (other servers, port 25), `filter` (a mail server that asks us as its content filter; trusted peers only).
    """

    kind: Literal["submission", "submissions", "relay", "filter"]
    address: str = "127.0.0.1"
    port: Port
    networks: tuple[Network, ...] = ()  # relay: who may send to any domain; filter: who may connect at all
    xforward_from: tuple[Network, ...] = ()  # who may tell the original client by XFORWARD or XCLIENT
    proxy_from: tuple[Network, ...] = ()  # who sends a PROXY protocol header (v1, v2)
    require_tls: bool = False  # relay: refuse MAIL without STARTTLS
    next_hop: str = ""  # filter: name of the next hop that takes everything back


class Tls(Settings):
    certificate: Path | None = None  # PEM chain
    key: Path | None = None
    minimum: Literal["1.2", "1.3"] = "1.2"


class PasswordCheck(Settings):
    """The existing mail server that knows the passwords of staff."""

    protocol: Literal["imap", "smtp"] = "imap"
    host: str
    port: Port
    tls: Literal["none", "starttls", "implicit"] = "implicit"
    verify: bool = True
    ca: Path | None = None
    timeout: Duration = 10
    cache: Duration = 60  # how long a good password is remembered (salted hash, memory only)
    failures: int = 5  # wrong passwords of one login, or ten times as many of one host, before it is locked out
    lockout: Duration = 900


class NextHop(Settings):
    """Where mail for some domains goes.

    tls: none, may (opportunistic), encrypt (required), verify (required, and the name is checked).
    """

    name: str
    domains: tuple[str, ...] = ()  # `tinh.gov.vn`, `.tinh.gov.vn` (with all below), `*` for everything else
    host: str
    port: Port = 25
    protocol: Literal["smtp", "lmtp"] = "smtp"
    tls: Literal["none", "may", "encrypt", "verify"] = "may"
    ca: Path | None = None
    connections: int = Field(4, ge=1)
    login: str = ""
    password_file: Path | None = None


class Retry(Settings):
    """reliability.md 1.1: 5, 10, 20, 40, 60 min, then hourly, each ±20 %; give up after 5 days."""

    schedule: tuple[Duration, ...] = (300, 600, 1200, 2400, 3600)  # the last one repeats
    jitter: float = Field(0.2, ge=0, le=0.9)
    delay_notices: tuple[Duration, ...] = (4 * 3600, 24 * 3600)
    give_up: Duration = 5 * 86400


class Limits(Settings):
    """Defaults from well-known peers, see reliability.md 3.1."""

    message_size: Size = 50 << 20
    memory_size: Size = 1 << 20  # bodies above this are spilled under a one-time key
    recipients: int = 100
    line_length: Size = 65536  # RFC 5321 says 1000; real senders exceed it
    connections: int = 1000
    connections_per_host: int = 100
    new_connections_per_minute: int = 600  # per host
    messages_per_session: int = 1000
    errors_per_session: int = 20
    unknown_recipients: int = 10
    command_timeout: Duration = 120
    data_timeout: Duration = 300
    session_timeout: Duration = 1800
    minimum_rate: int = 500  # bytes a second during DATA, Postfix smtpd_min_data_rate
    hops: int = 50  # Received fields before it is a loop, Postfix hopcount_limit
    free_disk: Size = 500 << 20  # below this (or twice the message limit) MAIL is answered 452


class Budget(Settings):
    """What inspection may take."""

    seconds: Duration = 20  # for one message, before 250; Outlook gives up after 60
    late: Duration = Field(
        300.0, gt=0
    )  # for what took longer: it goes on while the message waits, under a key of its own
    workers: int = Field(2, ge=1)
    memory: Size = 1 << 30  # address space of one worker
    file_seconds: Duration = 10  # CPU seconds for one file
    seals: Literal["unsigned", "always"] = "unsigned"  # look for seals where no digital signature makes them needless
    ocr: bool = True
    ocr_pages: int = 3
    ocr_seconds: Duration = 8
    container_depth: int = 2
    container_files: int = 500
    container_bytes: Size = 200 << 20
    container_ratio: int = 200


class Clamd(Settings):
    """clamd over a Unix socket or loopback TCP."""

    socket: Path | None = None
    host: str = ""
    port: Port = 3310
    timeout: Duration = 10


class SenderCheck(Settings):
    """SPF, DKIM, DMARC for mail from outside; needs DNS."""

    enabled: bool = False
    resolvers: tuple[str, ...] = ()
    timeout: Duration = 5
    arc_sealers: tuple[str, ...] = ()


class Reports(Settings):
    """What is published and told by the clock of Vietnam (reports.py)."""

    folder: Path | None = None  # default: `reports` in `data`
    publish_day: int = Field(5, ge=1, le=28)  # of the month after; registries need days to tell their paper counts
    hour: int = Field(6, ge=0, le=23)  # of publications, the operator's mail and reminders
    operator: str = ""  # who gets the daily mail; default: `contacts.mail_admin`
    remind: bool = True  # whether agencies are reminded of missing paper counts, late and unread mail
    unread_hours: int = Field(24, ge=1)  # mail unread for longer counts (MB-07)


class Contacts(Settings):
    """Who is named in replies and notices."""

    agency_name: str = ""
    clerk_phone: str = ""
    clerk_email: str = ""
    mail_admin: str = ""
    security_officer: str = ""
    notice_from: str = ""  # header From of notices; envelope sender is always null


class ImapAccount(Settings):
    """One official mailbox that is read. The password is the first line of a file, or a credential of the service
    manager (`LoadCredential=`, found below $CREDENTIALS_DIRECTORY); read anew at each login, so that it may change."""

    address: str  # the official mailbox, as in the directory
    login: str = ""  # default: the address
    password_file: Path | None = None
    credential: str = ""
    sent: str = ""  # name of the folder of sent mail, where the server does not mark it (RFC 6154)
    folders: tuple[str, ...] = ()  # more folders with received mail, named as people see them
    journal: bool = False  # the mailbox holds journal reports or copies of all mail: they are unwrapped
    since: dt.date | None = None  # mail the server received before this day is left alone

    @model_validator(mode="after")
    def _one_password(self) -> ImapAccount:
        if (self.password_file is None) == (not self.credential):
            raise ValueError(f"{self.address}: one of `password_file` and `credential` is needed")
        return self


class ImapServer(Settings):
    """A mail server and the mailboxes on it. auth `xoauth2` takes the access token where the password would be."""

    host: str
    port: Port = 993
    tls: Literal["implicit", "starttls", "none"] = "implicit"
    verify: bool = True
    ca: Path | None = None
    auth: Literal["plain", "login", "xoauth2"] = "plain"
    connections: int = Field(50, ge=1)  # with fewer than there are mailboxes, these take turns and cannot IDLE
    idle: bool = True
    timeout: Duration = 60
    accounts: tuple[ImapAccount, ...]


class Imap(Settings):
    """Mailboxes that are read (imap_poll.py), and what is done with what breaks a rule.

    action: for mail that would be returned, held or refused: `leave` it, `flag` it with `keyword`, or `move` it from
    where it came in to `folder`. Mail in the folder of sent mail is never moved, only flagged. secret: mail with a
    secrecy mark goes to `restricted` wherever it lies, or is flagged; it is never copied out of the mailbox.
    """

    servers: tuple[ImapServer, ...]
    connections: int = Field(200, ge=1)  # over all servers
    poll: Duration = Field(60.0, gt=0)  # how often all folders are looked at; IDLE tells of new mail at once
    audit: Duration = 3600  # how often all UIDs of a folder are held against what was taken
    action: Literal["leave", "flag", "move"] = "flag"
    secret: Literal["flag", "move"] = "move"
    keyword: str = Field("$VBDT-Finding", pattern=r"^[$A-Za-z][A-Za-z0-9_.$-]{0,49}$")
    folder: str = "Thư cần xử lý"
    restricted: str = "Thư hạn chế"
    act_on_history: bool = False  # whether mail that was there before the first connection is flagged or moved too
    memory: Size = 4 << 20  # bytes of messages that one mailbox asks for at a time

    @model_validator(mode="after")
    def _once_each(self) -> Imap:
        addresses = [account.address.lower() for server in self.servers for account in server.accounts]
        for address in addresses:
            if addresses.count(address) > 1:
                raise ValueError(f"mailbox {address} is named twice")
        return self


_LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: What a channel of alerts may fill in (alerts.py), and where.
ALERT_VALUES = ("phone", "email", "text", "id", "case", "kind", "level", "role", "agency", "document", "at", "secret")
_PLACE = re.compile(r"\{([^{}]*)\}")


def _phone(value: object) -> object:
    """A telephone number as people write it. Digits are what counts; `international` gives those."""
    if isinstance(value, str) and value and not international(value):
        raise ValueError("a telephone number looks like 0912 345 678 or +84 912 345 678")
    return value


def international(phone: str) -> str:
    """`0912 345 678` to `84912345678` (E.164 without the plus sign); empty when it is none."""
    if not re.fullmatch(r"\+?[0-9 ().-]+", phone.strip()):
        return ""
    digits = re.sub(r"\D", "", phone)
    if digits.startswith("0") and not phone.strip().startswith("+"):
        digits = digits[2:] if digits.startswith("00") else "84" + digits[1:]
    return digits if 8 <= len(digits) <= 15 else ""


Phone = Annotated[str, BeforeValidator(_phone)]


class AlertChannel(Settings):
    """One way to a person.

    kind: `http` (a request to a service of the agency), `sms` (the same, to a gateway of text messages; only for people
    with a telephone number), `command` (a program on this machine), `mail`. `{phone}` and the other names of
    ALERT_VALUES stand for values in the path and query of `url`, in `headers` (only `{secret}` and `{id}`), in `body`
    and in `argv`; whoever writes to an agency never chooses the host, the port or the program.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    kind: Literal["http", "sms", "command", "mail"]
    url: str = ""
    method: Literal["POST", "GET"] = "POST"
    headers: dict[str, str] = Field(default_factory=dict)
    body: dict[str, str] = Field(default_factory=dict)  # empty: all values for http, `to` and `text` for sms
    encoding: Literal["json", "form"] = "json"
    success: str = ""  # a pattern that the answer must contain, for services that say 200 to everything
    tls: Literal["verify", "none"] = "verify"
    ca: Path | None = None
    secret_file: Path | None = None  # the key of the service: the first line of a file, read anew each time
    credential: str = ""  # or a credential of the service manager, as for mailboxes
    argv: tuple[str, ...] = ()
    timeout: Duration = Field(10.0, gt=0, le=60)

    @model_validator(mode="after")
    def _fits(self) -> AlertChannel:
        where = f"channel {self.name}"
        web = self.kind in ("http", "sms")
        if web != bool(self.url):
            raise ValueError(f"{where}: `url` is {'needed' if web else 'not'} for kind {self.kind}")
        if (self.kind == "command") != bool(self.argv):
            needed = "needed" if self.kind == "command" else "not"
            raise ValueError(f"{where}: `argv` is {needed} for kind {self.kind}")
        if self.secret_file is not None and self.credential:
            raise ValueError(f"{where}: one of `secret_file` and `credential`, not both")
        if web:
            self._web(where)
        for key, text in [("body", one) for one in self.body.values()] + [("argv", one) for one in self.argv]:
            _known_values(where, key, text, ALERT_VALUES if key == "body" else ALERT_VALUES[:-1])
        if self.argv and (not self.argv[0].startswith("/") or _PLACE.search(self.argv[0])):
            raise ValueError(f"{where}: argv begins with the whole path of a program, such as /usr/local/bin/goi-dien")
        try:
            re.compile(self.success)
        except re.error as error:
            raise ValueError(f"{where}: success: not a pattern: {error}") from None
        return self

    def _web(self, where: str) -> None:
        match = re.match(r"(https?)://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?(?=[/?]|$)", self.url)
        if match is None:
            raise ValueError(f"{where}: url begins with https:// and a fixed host, such as https://sms.tinh.gov.vn/gui")
        if match[1] == "http" and self.tls != "none" and match[2].strip("[]") not in _LOOPBACK:
            raise ValueError(f"{where}: url is http://; write https://, or `tls: none` if nobody can listen in between")
        if not self.url.isprintable() or " " in self.url or "#" in self.url:
            raise ValueError(f"{where}: url must not hold blanks or #")
        _known_values(where, "url", self.url, ALERT_VALUES)
        for name, value in self.headers.items():
            if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name) or not value.isprintable():
                raise ValueError(f"{where}: headers: {name!r} is no header of one line")
            _known_values(where, "headers", value, ("secret", "id"))
        if "{secret}" in "".join((self.url, *self.headers.values(), *self.body.values())) and not (
            self.secret_file or self.credential
        ):
            raise ValueError(f"{where}: {{secret}} needs `secret_file` or `credential`")


def _known_values(where: str, key: str, text: str, known: tuple[str, ...]) -> None:
    for name in _PLACE.findall(text):
        if name not in known:
            raise ValueError(f"{where}: {key}: unknown value {{{name}}}; known: {', '.join(known)}")


class UrgentAlerts(Settings):
    """TM-04: the leaders of the receiving agency, as in the directory, and the delegate when nobody acknowledges."""

    channels: tuple[str, ...]
    levels: tuple[Literal["hoa_toc_hen_gio", "hoa_toc", "thuong_khan", "khan"], ...] = ("hoa_toc_hen_gio", "hoa_toc")
    escalate: Duration = 600  # without acknowledgement the delegate is told after this; 0: at once, with the leader


class PersonAlerts(Settings):
    """The security officer, or the administrator."""

    channels: tuple[str, ...]
    phone: Phone = ""
    email: str = Field("", pattern=r"^$|^[^\s@<>\"(),:;\\\[\]-][^\s@<>\"(),:;\\\[\]]{0,63}@[^\s@<>]+$")


class Alerts(Settings):
    """Who is told at once, and how (docs/alerts.md). `quiet` and `per_hour` never delay a hỏa tốc or a secret."""

    channels: tuple[AlertChannel, ...]
    urgent: UrgentAlerts | None = None
    security: PersonAlerts | None = None
    admin: PersonAlerts | None = None
    quiet: str = Field("", pattern=r"^$|^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")  # `22:00-06:00`
    per_hour: int = Field(20, ge=1)  # to one person over one channel; more are told together
    retry: tuple[Duration, ...] = (15, 30, 60, 120, 300, 600, 900)  # the last one repeats
    give_up: Duration = Field(86400.0, gt=0)

    @model_validator(mode="after")
    def _channels_exist(self) -> Alerts:
        names = [one.name for one in self.channels]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"channel {name!r} is named twice")
        for who in ("urgent", "security", "admin"):
            told = getattr(self, who)
            if told and not told.channels:
                raise ValueError(f"{who}: at least one channel is needed; there are {', '.join(names) or 'none yet'}")
            for name in told.channels if told else ():
                if name not in names:
                    raise ValueError(f"{who}: channel {name!r} is none of {', '.join(names)}")
        for who in ("security", "admin"):
            told = getattr(self, who)
            if told and not any(self._reaches(name, told) for name in told.channels):
                raise ValueError(f"{who}: needs `phone` for a channel of kind sms, `email` for kind mail")
        if not self.retry:
            raise ValueError("retry: at least one pause is needed, such as [15s, 1m, 5m]")
        return self

    def channel(self, name: str) -> AlertChannel | None:
        return next((one for one in self.channels if one.name == name), None)

    def _reaches(self, name: str, person: PersonAlerts) -> bool:
        kind = next(one.kind for one in self.channels if one.name == name)
        return bool(person.phone if kind == "sms" else person.email if kind == "mail" else True)


class Secret(Settings):
    """Something that lies in a file: `file`, or a credential of the service manager (`LoadCredential=`, found below
    $CREDENTIALS_DIRECTORY)."""

    file: Path | None = None
    credential: str = ""

    @model_validator(mode="after")
    def _one(self) -> Secret:
        if (self.file is None) == (not self.credential):
            raise ValueError("one of `file` and `credential` is needed")
        return self

    def path(self) -> Path:
        """Where it lies. Raises Failure without a folder of credentials."""
        if self.file is not None:
            return self.file
        folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
        if not folder:
            reason = f"credential {self.credential}: CREDENTIALS_DIRECTORY is not set; start under the service manager"
            raise Failure(reason, reason)
        return Path(folder) / self.credential


class ObjectLock(Settings):
    """For how long an object store refuses to destroy what it took. `compliance`: whoever asks; `governance`: unless
    asked with a special right. The bucket must have been made with object lock."""

    mode: Literal["compliance", "governance"] = "compliance"
    days: int = Field(ge=1)


class S3(Settings):
    """A bucket of an S3-compatible store. credentials: two lines, access key and secret key."""

    endpoint: str = Field(pattern=r"^https?://")
    bucket: str
    region: str = "us-east-1"
    prefix: str = ""  # before each name, `congvan/`
    credentials: Secret
    ca: Path | None = None
    lock: ObjectLock | None = None
    timeout: Duration = Field(10.0, gt=0)  # for one answer


class Encryption(Settings):
    """key: 32 bytes (in hexadecimal or base64) that lie outside this host or come from its service manager. former:
    keys before it, until `congvan archive rewrap` has run."""

    key: Secret
    former: tuple[Path, ...] = ()


class StoreSettings(Settings):
    """Where and how the bytes of messages are kept. What is there already stays as it is, and is read."""

    compress: bool = True
    encryption: Encryption | None = None
    s3: S3 | None = None


class Register(Settings):
    """How an agency's documents are numbered and handed on.

    incoming: `propose` (a person confirms each arrival number, or the document system gives it) or `allocate` (the
    gateway gives the next one when a document arrives). outgoing: whether `congvan register allocate` may give numbers
    (`allocate`) or another system does (`propose`). series: kinds that share a series (`CT: QĐ` numbers directives with
    decisions). symbol: the agency's part of document symbols, `SNV`. drop: folder for the agency's document system.
    """

    incoming: Literal["propose", "allocate"] = "propose"
    outgoing: Literal["propose", "allocate"] = "propose"
    series: dict[str, str] = {}
    symbol: str = Field("", pattern=r"^$|^[^\s/]{1,30}$")
    drop: Path | None = None  # relative to the configuration directory
    drop_as: Literal["edxml", "json"] = "edxml"


class Registers(Settings):
    """Registers of documents: `default` for every agency that has no entry of its own in `agencies`. also: classes that
    are registered besides official documents."""

    also: tuple[Literal["DRAFT", "COMMENT", "CITIZEN_MAIL"], ...] = ()
    default: Register = Register()
    agencies: dict[str, Register] = {}

    def of(self, agency: str) -> Register:
        return self.agencies.get(agency, self.default)

    @model_validator(mode="after")
    def _folders(self) -> Registers:
        if self.default.drop is not None:
            raise ValueError("registers: `drop` is a folder of one agency; set it under `agencies`")
        return self


class Witness(Settings):
    """Somebody outside who keeps our checkpoints: one of `url` (C2SP tlog-witness, countersigns), `folder`, `put` (a
    URL that takes HTTP PUT) and `mail` (an address)."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    url: str = Field("", pattern=r"^(https?://.+)?$")
    keys: tuple[str, ...] = ()  # url: public keys of the witness; only its signatures count
    folder: Path | None = None
    put: str = Field("", pattern=r"^(https?://.+)?$")
    mail: str = ""
    every: Duration | None = None  # default 30s for url, 10m for folder and put, 1d for mail
    timeout: Duration = Field(10, gt=0)

    @model_validator(mode="after")
    def _one_way(self) -> Witness:
        if sum(map(bool, (self.url, self.folder, self.put, self.mail))) != 1:
            raise ValueError(f"witness {self.name}: one of `url`, `folder`, `put` and `mail` is needed")
        if bool(self.keys) != bool(self.url):
            raise ValueError(f"witness {self.name}: `keys` belong to a witness with `url`, and it needs them")
        for key in self.keys:
            try:
                found = Verifier.parse(key)
            except BadProof as error:
                raise ValueError(f"witness {self.name}: {key[:60]!r} is no key of a witness: {error}") from None
            if found.algorithm not in (COSIGNATURE, ML_DSA):
                raise ValueError(f"witness {self.name}: {key[:60]!r} is the key of a log, not of a witness")
        return self

    @property
    def interval(self) -> float:
        """Seconds between two checkpoints that it gets."""
        return self.every if self.every is not None else 30 if self.url else 86_400 if self.mail else 600


class Timestamps(Settings):
    """An authority for time stamps (RFC 3161) over HTTP."""

    url: str = Field(pattern=r"^https?://.+")
    ca: Path  # PEM: the certificates that its own is issued under
    every: Duration = 3600
    timeout: Duration = Field(10, gt=0)


class Gateway(Settings):
    """`gateway.yaml`."""

    hostname: str
    data: Path  # relative to the configuration directory
    database: str = ""  # SQLAlchemy URL; empty: SQLite in `data`
    store: StoreSettings = StoreSettings()
    listeners: tuple[Listener, ...]
    domains: tuple[str, ...] = ()  # recipient domains we answer for; relay refuses others from outside
    tls: Tls = Tls()
    passwords: PasswordCheck | None = None
    next_hops: tuple[NextHop, ...]
    retry: Retry = Retry()
    limits: Limits = Limits()
    budget: Budget = Budget()
    clamd: Clamd | None = None
    imap: Imap | None = None
    # Addresses that take journal reports and copies of all mail (always_bcc), from the hosts in `networks` of a relay
    # listener and nobody else. What comes there is judged and archived, and never refused or delivered.
    journal: tuple[Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")], ...] = ()
    sender_check: SenderCheck = SenderCheck()
    contacts: Contacts = Contacts()
    registers: Registers = Registers()
    witnesses: tuple[Witness, ...] = ()
    timestamps: Timestamps | None = None
    alerts: Alerts | None = None
    reports: Reports = Reports()
    notify_authenticated_senders: bool = True  # full notice by mail besides the SMTP reply

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the database."""
        return self.database or f"sqlite:///{self.data / 'gateway.db'}"

    def hop_for(self, domain: str) -> NextHop | None:
        """The next hop of a recipient domain: an exact entry wins, then the longest `.suffix`, then `*`."""
        best, weight = None, -1
        for hop in self.next_hops:
            for pattern in hop.domains:
                if pattern == domain:
                    return hop
                below = pattern.startswith(".") and (domain.endswith(pattern) or domain == pattern[1:])
                if (below or pattern == "*") and len(pattern) * below > weight:
                    best, weight = hop, len(pattern) * below
        return best

    @model_validator(mode="after")
    def _hops_exist(self) -> Gateway:
        if self.journal and not any(one.kind == "relay" and one.networks for one in self.listeners):
            raise ValueError(
                f"journal {self.journal[0]}: no relay listener has `networks`, the hosts whose journals are believed"
            )
        names = [hop.name for hop in self.next_hops]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"next hop {name!r} is named twice")
        outside = [one.name for one in self.witnesses]
        for name in outside:
            if outside.count(name) > 1 or name == "timestamps":
                raise ValueError(f"witness {name!r}: each witness has a name of its own, and none is `timestamps`")
        for listener in self.listeners:
            if listener.kind == "filter" and listener.next_hop not in names:
                raise ValueError(
                    f"listener on port {listener.port}: next_hop {listener.next_hop!r} is none of {', '.join(names)}"
                )
            if listener.kind == "filter" and not listener.networks:
                raise ValueError(
                    f"listener on port {listener.port}: a filter needs `networks`, the hosts that may connect"
                )
            if listener.kind in ("submission", "submissions") and self.passwords is None:
                raise ValueError(
                    f"listener on port {listener.port}: submission needs `passwords`, the server that checks them"
                )
            if listener.kind in ("submission", "submissions") and not (self.tls.certificate and self.tls.key):
                raise ValueError(f"listener on port {listener.port}: submission needs `tls` with certificate and key")
        return self


Model = TypeVar("Model", bound=BaseModel)


def read(directory: Path) -> Gateway:
    """`gateway.yaml` of a configuration folder, with relative paths taken from that folder. Raises ConfigError."""
    settings = load(Gateway, directory / "gateway.yaml")
    base = directory.resolve()

    def absolute(path: Path | None) -> Path | None:
        return base / path if path is not None else None

    tls, passwords = settings.tls, settings.passwords
    return settings.model_copy(
        update={
            "data": (base / settings.data).resolve(),
            "store": _store_paths(settings.store, absolute),
            "tls": tls.model_copy(update={"certificate": absolute(tls.certificate), "key": absolute(tls.key)}),
            "passwords": passwords and passwords.model_copy(update={"ca": absolute(passwords.ca)}),
            "imap": settings.imap and _imap_paths(settings.imap, absolute),
            "registers": _register_paths(settings.registers, absolute),
            "witnesses": tuple(one.model_copy(update={"folder": absolute(one.folder)}) for one in settings.witnesses),
            "timestamps": settings.timestamps
            and settings.timestamps.model_copy(update={"ca": absolute(settings.timestamps.ca)}),
            "reports": settings.reports.model_copy(update={"folder": absolute(settings.reports.folder)}),
            "alerts": settings.alerts and _alert_paths(settings.alerts, absolute),
            "next_hops": tuple(
                hop.model_copy(update={"ca": absolute(hop.ca), "password_file": absolute(hop.password_file)})
                for hop in settings.next_hops
            ),
        }
    )


def _store_paths(store: StoreSettings, absolute: Callable[[Path | None], Path | None]) -> StoreSettings:
    def secret(one: Secret) -> Secret:
        return one.model_copy(update={"file": absolute(one.file)})

    keys, s3 = store.encryption, store.s3
    if keys is not None:
        keys = keys.model_copy(update={"key": secret(keys.key), "former": tuple(map(absolute, keys.former))})
    if s3 is not None:
        s3 = s3.model_copy(update={"credentials": secret(s3.credentials), "ca": absolute(s3.ca)})
    return store.model_copy(update={"encryption": keys, "s3": s3})


def _register_paths(registers: Registers, absolute: Callable[[Path | None], Path | None]) -> Registers:
    agencies = {key: one.model_copy(update={"drop": absolute(one.drop)}) for key, one in registers.agencies.items()}
    return registers.model_copy(update={"agencies": agencies})


def _imap_paths(imap: Imap, absolute: Callable[[Path | None], Path | None]) -> Imap:
    def account(one: ImapAccount) -> ImapAccount:
        return one.model_copy(update={"password_file": absolute(one.password_file)})

    def server(one: ImapServer) -> ImapServer:
        return one.model_copy(update={"ca": absolute(one.ca), "accounts": tuple(map(account, one.accounts))})

    return imap.model_copy(update={"servers": tuple(map(server, imap.servers))})


def _alert_paths(alerts: Alerts, absolute: Callable[[Path | None], Path | None]) -> Alerts:
    def channel(one: AlertChannel) -> AlertChannel:
        return one.model_copy(update={"ca": absolute(one.ca), "secret_file": absolute(one.secret_file)})

    return alerts.model_copy(update={"channels": tuple(map(channel, alerts.channels))})


#: Settings of 300,000 mailboxes are 30 MB; what is much larger is no configuration.
_LARGEST = 256 << 20


def check_file(path: Path, shown: str) -> None:
    """Raises ConfigError for what is no file that could be read to its end."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a folder; also a pipe or device, which might never end
            raise ConfigError([Problem(shown, 0, 0, "is no file but a folder or device")])
        if status.st_size > _LARGEST:
            raise ConfigError([Problem(shown, 0, 0, f"larger than {_LARGEST >> 20} MB; split it")])
    except FileNotFoundError:
        raise ConfigError([Problem(shown, 0, 0, "file not found")]) from None
    except OSError as error:
        raise ConfigError([Problem(shown, 0, 0, error.strerror or "cannot be read")]) from None


def read_text(path: Path, shown: str, *, table: bool = False) -> str:
    """A file of the configuration as text, with or without byte order mark. Raises ConfigError."""
    check_file(path, shown)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([Problem(shown, 0, 0, error.strerror or "cannot be read")]) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = len(data[data.rfind(b"\n", 0, error.start) + 1 : error.start].decode("utf-8", "replace")) + 1
        cure = "CSV UTF-8" if table else "UTF-8"
        text = f"is not UTF-8 (byte {data[error.start]:#04x}); save it as {cure}"
        raise ConfigError([Problem(shown, line, column, text)]) from None


def load_yaml(path: Path, shown: str | None = None) -> Any:
    """The plain data of a YAML file, with line marks (ruamel's CommentedMap and CommentedSeq). Raises ConfigError."""
    name = shown or str(path)
    text = read_text(path, name)
    try:
        return YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        raise ConfigError([_marked(name, error, _twice(error.problem or ""))]) from None
    except ComposerError as error:
        two = "two documents in one file (`---`); keep one"
        several = (error.context or "").startswith("expected a single document")
        raise ConfigError([_marked(name, error, two if several else f"not YAML: {error.problem}")]) from None
    except MarkedYAMLError as error:
        problem = re.sub(r"\s+", " ", (error.problem or error.context or "not YAML").split("\n")[0])
        if problem.startswith("expected <block end>"):
            problem = "the indentation does not fit the lines above"
        elif "'\\t'" in problem:
            problem = "a tab; indent with blanks"
        raise ConfigError([_marked(name, error, f"not YAML: {problem}")]) from None
    except ReaderError as error:  # its position counts from the beginning
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise ConfigError([Problem(name, line, column, f"not YAML: {error.reason}")]) from None
    except YAMLError as error:
        raise ConfigError([Problem(name, 0, 0, f"not YAML: {str(error).splitlines()[0]}")]) from None
    except RecursionError:
        raise ConfigError([Problem(name, 0, 0, "not YAML: nested too deep")]) from None
    except ValueError as error:  # a date that the calendar does not have; ruamel does not say where
        raise ConfigError([_impossible_date(text, name, str(error))]) from None


def _marked(file: str, error: MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    return Problem(file, mark.line + 1 if mark else 0, mark.column + 1 if mark else 0, text)


def _twice(problem: str) -> str:
    """`found duplicate key "a" with value "1" (original value: "2")`, in the words of somebody who is to mend it."""
    match = re.match(r'found duplicate key "(.*?)" with value "(.*)" \(original value: "(.*)"\)', problem, re.DOTALL)
    if match is None:
        return f"not YAML: {problem.splitlines()[0]}"
    key, second, first = (repr(one if len(one) <= 40 else one[:39] + "…") for one in match.groups())
    return f"key {key} is there twice, as {first} and as {second}; keep one"


def _impossible_date(text: str, file: str, reason: str) -> Problem:
    for number, line in enumerate(text.split("\n"), 1):
        for match in re.finditer(r"(?<![\w-])(\d{4})-(\d{1,2})-(\d{1,2})(?![\d-])", line.partition("#")[0]):
            try:
                dt.date(int(match[1]), int(match[2]), int(match[3]))
            except ValueError:
                return Problem(file, number, match.start() + 1, f"{match[0]!r} is not a date: {reason}")
    return Problem(file, 0, 0, f"not YAML: {reason}")


def build(model: type[Model], data: Any, file: str) -> Model:
    """Validate plain data into `model`; every problem with its line. Raises ConfigError."""
    if data is None:
        raise ConfigError([Problem(file, 0, 0, "the file is empty")])
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = [_problem(model, data, file, one) for one in error.errors()]
        raise ConfigError(list(dict.fromkeys(found))) from None  # of a union each kind complains


def load(model: type[Model], path: Path, shown: str | None = None) -> Model:
    """Read one YAML file into `model`. Raises ConfigError with all problems of the file."""
    return build(model, load_yaml(path, shown), shown or str(path))


#: pydantic's error types in the words of somebody who writes YAML.
_NEEDED = {
    "tuple_type": "a list is needed, such as [a, b]",
    "list_type": "a list is needed, such as [a, b]",
    "dict_type": "keys with values are needed, such as {key: value}",
    "model_type": "keys with values are needed, such as {key: value}",
    "model_attributes_type": "keys with values are needed, such as {key: value}",
    "date_type": "a date is needed, such as 2026-12-31",
    "date_parsing": "a date is needed, such as 2026-12-31",
    "date_from_datetime_parsing": "a date is needed, such as 2026-12-31",
    "string_type": "text is needed; put it in quotes if it looks like a number, a date or true",
    "bool_type": "true or false is needed",
    "bool_parsing": "true or false is needed",
    "int_parsing": "a whole number is needed",
    "int_type": "a whole number is needed",
    "int_from_float": "a whole number is needed",
    "int_parsing_size": "a whole number is needed",
    "float_parsing": "a number is needed",
    "float_type": "a number is needed",
    "finite_number": "a number is needed",
    "path_type": "a path is needed",
    "datetime_type": "a date and time is needed, such as 2026-12-31T08:00",
    "datetime_parsing": "a date and time is needed, such as 2026-12-31T08:00",
    "datetime_from_date_parsing": "a date and time is needed, such as 2026-12-31T08:00",
    "ip_v4_network": "a network is needed, such as 10.0.0.0/8 or 2001:db8::/32",
    "ip_v6_network": "a network is needed, such as 10.0.0.0/8 or 2001:db8::/32",
}
#: pydantic's error types with a limit.
_LIMITS = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "string_too_short": "must not be empty",
    "too_short": "too few values; at least {min_length}",
}
_WEB = "an address of the web is needed, such as https://may-chu.tinh.gov.vn/"
_NAMES = "use letters without accents, digits, `_`, `.` and `-`"
_ADDRESS_WORDS = "an address looks like vanthu@sonoivu.tinh.gov.vn"
#: What a pattern of a field asks for, in words.
_PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$": _NAMES,
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": _NAMES,
    r"^[a-z0-9][a-z0-9-]{0,31}$": "use small letters without accents, digits and `-`, such as tin-nhan",
    r"^[a-z0-9][a-z0-9-]*$": "use small letters without accents, digits and `-`, such as tin-nhan",
    r"^[a-z][a-z0-9_]{1,40}$": "use small letters without accents, digits and `_`, such as tinh_2026",
    r"^X-[A-Za-z0-9-]{1,24}$": "an own rule is named X- and letters, digits or `-`, such as X-TRINHCHIEU",
    r"^https?://": _WEB,
    r"^https?://.+": _WEB,
    r"^(https?://.+)?$": _WEB,
    r"^$|^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$": "hours are written 22:00-06:00",
    r"^[^@\s]+@[^@\s]+$": _ADDRESS_WORDS,
    r"^$|^[^\s@<>\"(),:;\\\[\]-][^\s@<>\"(),:;\\\[\]]{0,63}@[^\s@<>]+$": _ADDRESS_WORDS,
}


def _problem(model: type[BaseModel], data: Any, file: str, error: Any) -> Problem:
    steps = [step for step in error["loc"]]
    line, column = place(data, steps)
    where = ".".join(str(step) for step in steps) or "file"
    kind = error["type"]
    if kind in ("ip_v4_network", "ip_v6_network"):
        where = where.rpartition(".")[0]
    if kind == "extra_forbidden":
        name, known = str(steps[-1]), _known_keys(model, steps[:-1])
        near = difflib.get_close_matches(name, known, 1)
        text = f"unknown key {name!r}" + (
            f", did you mean {near[0]!r}?" if near else f"; known here: {', '.join(known)}" if known else ""
        )
    elif kind == "missing":
        text = f"missing key {steps[-1]!r}"
    elif kind == "literal_error":
        given, allowed = str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"])
        near = difflib.get_close_matches(given, allowed, 1)
        text = f"{where}: {given!r} is not one of {', '.join(allowed)}" + (
            f"; did you mean {near[0]!r}?" if near else ""
        )
    elif kind in _NEEDED:
        given = error.get("input")
        shown = "" if given is None or isinstance(given, (dict, list)) else f" (got {str(given)!r})"
        text = f"{where}: {_NEEDED[kind]}{shown}"
    elif kind in _LIMITS or kind == "string_pattern_mismatch":
        given, limits = error.get("input"), error.get("ctx", {})
        words = _LIMITS[kind].format(**limits) if kind in _LIMITS else _PATTERNS.get(limits["pattern"])
        shown = "" if isinstance(given, (dict, list)) else f" (got {str(given)!r})"
        text = f"{where}: {words or 'does not fit the pattern ' + limits['pattern']}{shown}"
    else:
        message = error["msg"].removeprefix("Value error, ")
        given = error.get("input")
        shown = "" if isinstance(given, (dict, list)) or (kind == "value_error" and not steps) else f" (got {given!r})"
        text = f"{where}: {message[0].lower() + message[1:]}{shown}"
    return Problem(file, line, column, text)


def place(data: Any, steps: list[Any]) -> tuple[int, int]:
    """Line and column, from 1, of the deepest node on the path that the file holds."""
    line = column = 0
    node = data
    marks = getattr(node, "lc", None)
    if marks is not None and marks.line is not None:
        line, column = marks.line + 1, marks.col + 1
    for step in steps:
        marks = getattr(node, "lc", None)
        try:
            if isinstance(node, dict) and step in node:
                at = marks.key(step) if marks is not None else None
                node = node[step]
            elif isinstance(node, list) and isinstance(step, int) and step < len(node):
                at = marks.item(step) if marks is not None else None
                node = node[step]
            else:
                continue  # a union's tag or a missing key: stay where we are
        except (KeyError, AttributeError, TypeError):
            break
        if at is not None:
            line, column = at[0] + 1, at[1] + 1
    return line, column


def _known_keys(model: type[BaseModel], steps: list[Any]) -> list[str]:
    """The keys that are known at a place in the model, for a hint."""
    current: Any = model
    for step in steps:
        if isinstance(step, int):
            continue
        fields = getattr(current, "model_fields", None)
        if fields is None:
            return []
        found = next((f for n, f in fields.items() if n == step or f.alias == step), None)
        if found is None:
            continue
        current = _inner_model(found.annotation)
    fields = getattr(current, "model_fields", {})
    return sorted(f.alias or n for n, f in fields.items())


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        inner = _inner_model(argument)
        if inner is not None:
            return inner
    return None
