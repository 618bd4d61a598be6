"""`congvan demo`: the whole product on one machine, with mail in it.

Sets up a folder with configuration, certificates and directory of a fictitious province, a mail server that stands for
the existing one (it knows the passwords and takes the mail that is delivered), and the gateway in front of it. Sends
the sample messages through real SMTP connections, prints what became of each, and stays up.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import ipaddress
import json
import os
import secrets
import shutil
import smtplib
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.message import VIETNAM

app = typer.Typer()

#: The configuration that lies in the checkout.
_SHIPPED = Path(__file__).resolve().parents[2] / "config"
#: Ports above 1024 that people can remember; another one is taken where one is busy.
SUBMISSION, SUBMISSIONS, RELAY = 10587, 10465, 10025


_STATES = {
    "delivered": "đã giao / delivered",
    "held": "tạm giữ / held",
    "refused": "từ chối, có lưu / refused, archived",
    "returned": "trả lại / returned",
    "queued": "đang chờ giao / queued",
    "failed": "không giao được / failed",
}


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Thư mục của bản demo / where it lives")] = Path("demo-data"),
    once: Annotated[bool, typer.Option("--once", help="Gửi, in kết quả rồi kết thúc / end after the table")] = False,
) -> None:
    """Dựng cổng trên máy này, gửi thư mẫu, cho xem kết quả / bring it up, send sample mail, show what became of it."""
    missing = _missing()
    if missing:
        print(f"Bản demo cần gói {missing}: ./run demo tự cài / the demonstration needs {missing}", file=sys.stderr)
        raise typer.Exit(2)
    if not (_SHIPPED / "citations.yaml").is_file():
        print("Bản demo chạy từ mã nguồn: ./run demo / the demonstration runs from a checkout", file=sys.stderr)
        raise typer.Exit(2)
    code = asyncio.run(_demo(folder.resolve(), once))
    raise typer.Exit(code)


def _missing() -> str:
    for module in ("reportlab", "PIL"):
        try:
            __import__(module)
        except ImportError:
            return module
    return ""


@dataclass(frozen=True, slots=True)
class _Row:
    title: str
    expected: str
    answer: str
    case: str


class _MailServer:
    """The existing mail server of the demonstration: knows the passwords, keeps delivered mail as files."""

    def __init__(self, folder: Path, accounts: dict[str, str]) -> None:
        self._folder = folder
        self._accounts = accounts

    async def start(self) -> int:
        """Listen on a port of the system's choice, and return it."""
        from aiosmtpd.smtp import SMTP, AuthResult

        def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
            login, password = data.login.decode("utf-8", "replace"), data.password.decode("utf-8", "replace")
            good = secrets.compare_digest(self._accounts.get(login, secrets.token_hex()).encode(), password.encode())
            return AuthResult(success=good)

        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SMTP(
                self, hostname="thu-hien-co", authenticator=authenticate, auth_require_tls=False, enable_SMTPUTF8=True
            ),
            "127.0.0.1",
            0,
        )
        return self._server.sockets[0].getsockname()[1]

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        for recipient in envelope.rcpt_tos:
            box = self._folder / recipient.lower().replace("/", "_")
            box.mkdir(parents=True, exist_ok=True)
            name = hashlib.sha256(envelope.content).hexdigest()[:16]
            (box / f"{name}.eml").write_bytes(envelope.content)
        return "250 OK"

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()


async def _demo(folder: Path, once: bool) -> int:
    from gateway import daemon, log
    from gateway.demo import pki, samples
    from gateway.errors import ConfigError

    now = dt.datetime.now(VIETNAM)
    if folder.exists():
        if not (folder / ".congvan-demo").exists():
            print(f"{folder}: đã có và không phải của demo / exists and is not a demonstration", file=sys.stderr)
            return 2
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / ".congvan-demo").touch()
    print("Tạo chứng thư và văn bản mẫu / making certificates and sample documents …", flush=True)
    keys = await asyncio.to_thread(pki.Pki.create, now)
    messages = await asyncio.to_thread(samples.samples, now, keys)
    password = secrets.token_urlsafe(9)
    accounts = {
        address: password
        for address in {m.mail_from for m in messages if m.login}
        | {samples.PROVINCE, samples.DEPARTMENT, samples.DISTRICT, samples.COMMUNE, samples.OFFICIAL}
    }
    server = _MailServer(folder / "mailboxes", accounts)
    port = await server.start()
    config = _configuration(folder, keys, port)
    with (folder / "gateway.log").open("w", encoding="utf-8") as stream:
        log.configure(stream)
        outcome: list[bool] = []

        async def ready(running: daemon.Daemon) -> None:
            try:
                rows = await asyncio.to_thread(_send, running.ports, messages, password)
                outcome.append(await _tell(running, rows, once, folder, config, password))
            finally:
                if once or not outcome:
                    running.stop()

        try:
            await daemon.Daemon(config).run(ready)
        except ConfigError as error:
            print(error, file=sys.stderr)
            return 2
        finally:
            await server.close()
    return 0 if outcome == [True] else 1


def _configuration(folder: Path, keys: Any, port: int) -> Path:
    from gateway.demo import samples

    config = folder / "config"
    for part in ("profiles", "lists", "citations.yaml", "templates"):
        source = _SHIPPED / part
        if source.is_dir():
            shutil.copytree(source, config / part)
        elif source.exists():
            config.mkdir(exist_ok=True)
            shutil.copy(source, config / part)
    (config / "directory").mkdir(parents=True, exist_ok=True)
    for name, text in samples.demo_directory().items():
        (config / "directory" / name).write_text(text, encoding="utf-8")
    keys.write_trust(config / "trust")
    (config / "tls.pem").write_bytes(_server_certificate())
    (config / "tls.pem").chmod(0o600)
    ports = [_free(wanted) for wanted in (SUBMISSION, SUBMISSIONS, RELAY)]
    (config / "policy.yaml").write_text("profile: national_2026\n", encoding="utf-8")
    (config / "gateway.yaml").write_text(
        f"""\
# Bản demo: mọi thứ trên máy này / everything on this machine
hostname: cong.{samples.DOMAIN}
data: ../data
domains: [{samples.DOMAIN}]
tls: {{certificate: tls.pem, key: tls.pem}}
passwords: {{protocol: smtp, host: 127.0.0.1, port: {port}, tls: none}}
listeners:
  - {{kind: submission, port: {ports[0]}}}
  - {{kind: submissions, port: {ports[1]}}}
  - {{kind: relay, port: {ports[2]}}}
next_hops:
  - {{name: existing, host: 127.0.0.1, port: {port}, tls: none, domains: ["*"]}}
contacts:
  agency_name: Ủy ban nhân dân tỉnh Demo
  clerk_email: vanthu@{samples.DOMAIN}
  notice_from: cong-thu@{samples.DOMAIN}
alerts:
  channels: [{{name: thu, kind: mail}}]
  urgent: {{channels: [thu]}}
registers:
  default: {{incoming: allocate, outgoing: allocate}}
""",
        encoding="utf-8",
    )
    return config


def _server_certificate() -> bytes:
    """A self-signed certificate for localhost with its key, PEM; a mail client asks once whether to accept it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def _free(wanted: int) -> int:
    """`wanted`, or a port that the system chooses where it is busy."""
    import socket

    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


def _send(ports: dict[str, int], messages: list[Any], password: str) -> list[_Row]:
    """Each message through a connection of its own, as its sender's client would; what was answered."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the demonstration's certificate is its own
    rows = []
    for sample in messages:
        print(f"  gửi / sending: {sample.title_vi}", flush=True)
        kind = "submission" if sample.login else "relay"
        try:
            with smtplib.SMTP("127.0.0.1", ports[kind], local_hostname="may-tram", timeout=60) as client:
                if sample.login:
                    client.starttls(context=context)
                    client.login(sample.login, password)
                else:
                    client.ehlo()
                answer = _transaction(client, sample)
        except (OSError, smtplib.SMTPException) as error:
            answer = f"--- {error}"
        words = answer.replace("(", " ").replace(")", " ").split()
        case = next((word for word in words if len(word) == 16 and word.isalnum() and word.isupper()), "")
        rows.append(_Row(sample.title_vi, sample.expected, answer, case))
    return rows


def _transaction(client: smtplib.SMTP, sample: Any) -> str:
    """The last answer of one message's dialogue."""
    code, text = client.mail(sample.mail_from)
    for recipient in sample.rcpts:
        if code == 250:
            code, text = client.rcpt(recipient)
    if code in (250, 251):
        code, text = client.data(sample.raw)
    return f"{code} {text.decode('utf-8', 'replace')}"


async def _settled(running: Any, cases: list[str]) -> None:
    """Until nothing is on its way any more; a minute at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            for case in cases:
                while (found := await running.archive.row(case)) and "queued" in _where(found):
                    await asyncio.sleep(0.1)


def _where(found: dict[str, Any]) -> set[str]:
    return {one["state"] for one in found["recipients"]}


async def _state(running: Any, row: _Row) -> tuple[str, str, list[str]]:
    """Verdict, where the message is now, and the reasons."""
    found = await running.archive.row(row.case) if row.case else None
    if found is None:
        if "VBDT POLICY" in row.answer:
            return "block-secret", "không lưu / not kept", []
        return "return", "từ chối tại RCPT / refused at RCPT", []
    where = ", ".join(sorted(_STATES.get(state, state) for state in _where(found)))
    findings = json.loads(found["record"])["verdict"]["findings"]
    return found["verdict"], where, [f"{one['rule']}: {one['vi']}" for one in findings]


async def _tell(running: Any, rows: list[_Row], once: bool, folder: Path, config: Path, password: str) -> bool:
    """The table, what to do next, and whether all went as it should."""
    from rich.console import Console
    from rich.table import Table

    from gateway.demo import samples

    await _settled(running, [row.case for row in rows if row.case])
    table = Table(title="Kết quả / what became of each", show_lines=True)
    for heading in ("Thư / message", "Kết luận / verdict", "Nơi đến / where it is", "Trả lời SMTP / SMTP answer"):
        table.add_column(heading, overflow="fold")
    fine = True
    for row in rows:
        verdict, where, reasons = await _state(running, row)
        good = verdict == row.expected or {verdict, row.expected} <= {"deliver", "deliver-warn"}
        fine &= good
        shown = verdict if good else f"{verdict} (mong đợi / expected: {row.expected})"
        table.add_row(row.title, "\n".join([shown, *reasons]), where, row.answer)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    ports = running.ports
    base, shown = os.path.relpath(folder), os.path.relpath(config)
    starttls, implicit = ports.get("submission"), ports.get("submissions")
    client = f"""
Nối phần mềm thư / point a mail client at it: SMTP 127.0.0.1:{starttls} (STARTTLS) hoặc {implicit} (TLS)
  tài khoản / login: {samples.DEPARTMENT}    mật khẩu / password: {password}"""
    console.print(
        f"""
Thư đã giao nằm ở / delivered mail: {base}/mailboxes/ĐỊA-CHỈ/*.eml{"" if once else client}
Xem tiếp{"" if once else ", ở cửa sổ khác"} / go on{"" if once else ", in another terminal"}:
  ./run archive search --config {shown} 15/TB-SNV
  ./run held list --config {shown}
  ./run queue list --config {shown}
  ./run alerts list --config {shown}
  ./run register list --config {shown}
  ./run stats --config {shown}
  ./run archive verify --config {shown}
""",
        markup=False,
        highlight=False,
    )
    if not once:
        console.print("Cổng đang chạy; Ctrl-C để dừng / running; Ctrl-C ends it.", markup=False)
    return fine
