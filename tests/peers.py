"""Real servers from Debian's packages, private and on loopback: Postfix, Dovecot and Cyrus. They need root."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

#: services of a Postfix that only passes mail on, by name: type, private, unprivileged, chroot, wakeup, limit, command
_SERVICES = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def missing(*programs: str) -> str:
    """Why peers cannot run here, or an empty string."""
    absent = [name for name in programs if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    return "" if os.geteuid() == 0 else "needs root"


#: Below 32768, where the kernel takes no ports for outgoing connections: what is free stays free until it is wanted.
#: The buckets of S3 have those from 10111. Two runs at once begin at different places; none is given out twice.
_ports = iter([*range(2100 + os.getpid() * 37 % 7900, 10_000), *range(2100, 10_000)])


def free_port() -> int:
    """A port that nothing listens on. Servers that cannot choose one themselves leave no better way."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free ports")


def wait_port(
    port: int, seconds: float = 240, process: subprocess.Popen[bytes] | None = None, log: Path | None = None
) -> None:
    """Until something listens on the port. process: whose port it is to be; it must live. log: shown when it fails."""
    deadline = time.monotonic() + seconds
    while True:
        ended = process.poll() if process is not None else None
        said = f"nothing listens on port {port}, exit code {ended}\n{tail(log)}"
        assert ended is None, said
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except OSError:
            assert time.monotonic() < deadline, said
            time.sleep(0.02)


def tail(log: Path | None) -> str:
    """The end of a log, for the message of a test that failed."""
    return log.read_text(errors="replace")[-4000:] if log is not None and log.exists() else ""


def end(process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Ask a server to end, and make it end when it does not: how long a peer takes is no business of the tests."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Postfix:
    """A private Postfix that relays everything to one port, or answers locally as `settings` say.

    folder: must be reachable for the postfix user, which pytest's own are not (see `open_folder` in conftest.py).
    smtpd: options of the public smtpd service (`name=value`, separated by blanks); services: lines of master.cf.
    """

    def __init__(
        self, folder: Path, *, relay_port: int, settings: str = "", smtpd: str = "", services: str = ""
    ) -> None:
        self.folder, self.port = folder, free_port()
        self.etc, self.spool, lib = folder / "etc", folder / "spool", folder / "lib"
        for part in (self.etc, self.spool, lib):
            part.mkdir(parents=True)
        shutil.chown(lib, "postfix")
        self.log = folder / "postfix.log"
        (self.etc / "main.cf").write_text(
            f"""compatibility_level = 3.6
queue_directory = {self.spool}
data_directory = {lib}
maillog_file_prefixes = {folder}
maillog_file = {self.log}
myhostname = postfix.localdomain
mydestination =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = permit_mynetworks, reject
relayhost = [127.0.0.1]:{relay_port}
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
smtp_tls_security_level = none
smtpd_tls_security_level = none
disable_dns_lookups = yes
message_size_limit = 52428800
mailbox_size_limit = 0
alias_maps =
alias_database =
biff = no
smtpd_client_connection_count_limit = 0
default_process_limit = 100
default_destination_concurrency_limit = 20
in_flow_delay = 0
{settings}
"""
        )
        options = "".join(f"\n  -o {option}" for option in smtpd.split())
        (self.etc / "master.cf").write_text(
            f"127.0.0.1:{self.port} inet n - n - - smtpd{options}\n{_SERVICES}{services}\n"
        )

    def start(self) -> Postfix:
        done = subprocess.run(["postfix", "-c", str(self.etc), "start"], check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stderr}\n{tail(self.log)}"
        wait_port(self.port, log=self.log)
        return self

    @property
    def pid(self) -> int:
        return int((self.spool / "pid" / "master.pid").read_text())

    def stop(self) -> None:
        subprocess.run(["postfix", "-c", str(self.etc), "stop"], check=False, capture_output=True)


def _tokens(tokens: dict[str, str]) -> ThreadingHTTPServer:
    """Says of an access token whose it is."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            owner = tokens.get(self.path.partition("=")[2])
            answer = f'{{"email": "{owner}"}}'.encode() if owner else b'{"error": "invalid_token"}'
            self.send_response(200 if owner else 401)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


class Dovecot:
    """A private Dovecot with IMAP on loopback, one password for everybody, mail in Maildir below the folder.

    certificate: for STARTTLS, and TLS from the first byte on `tls_port`; tokens: what XOAUTH2 takes, and whose it is.
    """

    def __init__(
        self,
        folder: Path,
        password: str,
        certificate: trustme.LeafCert | None = None,
        tokens: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.port, self.tls_port = folder, free_port(), 0
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        more, self._tokens = "ssl = no\n", None
        if certificate is not None:
            self.tls_port = free_port()
            certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "tls.pem"))
            more = f"ssl = yes\nssl_cert = <{folder}/tls.pem\nssl_key = <{folder}/tls.pem\n"
        if tokens:
            self._tokens = _tokens(tokens)
            (folder / "oauth2.conf").write_text(
                f"tokeninfo_url = http://127.0.0.1:{self._tokens.server_address[1]}/?access_token=\n"
                "username_attribute = email\nforce_introspection = no\n"
            )
            more += (
                "auth_mechanisms = plain login xoauth2\npassdb {\n  driver = oauth2\n  mechanisms = xoauth2\n"
                f"  args = {folder}/oauth2.conf\n}}\n"
            )
        self._config = folder / "dovecot.conf"
        self._config.write_text(
            f"""
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
protocols = imap
{more}auth_failure_delay = 0
disable_plaintext_auth = no
default_internal_user = nobody
default_login_user = nobody
default_internal_group = nogroup
mail_uid = nobody
mail_gid = nogroup
first_valid_uid = 1
mail_location = maildir:{folder}/mail/%u
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}/mail/%u
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    address = 127.0.0.1
    port = {self.port}
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {self.tls_port}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""
        )
        (folder / "mail").mkdir()
        shutil.chown(folder / "mail", "nobody", "nogroup")

    def start(self) -> Dovecot:
        self.process = subprocess.Popen(["dovecot", "-F", "-c", str(self._config)])
        wait_port(self.port, process=self.process, log=self.folder / "dovecot.log")
        return self

    def stop(self) -> None:
        end(self.process)
        if self._tokens is not None:
            self._tokens.shutdown()
            self._tokens.server_close()


#: Where `tests/packages.sh` unpacks Cyrus, whose package and Dovecot's exclude each other.
CYRUS = Path(__file__).resolve().parent.parent / ".venv" / "peers" / "cyrus"


def no_cyrus() -> str:
    """Why Cyrus cannot run here, or an empty string."""
    if not (CYRUS / "usr/lib/cyrus/bin/imapd").exists():
        return "not unpacked by tests/packages.sh: cyrus-imapd"
    libraries = {"LD_LIBRARY_PATH": f"{CYRUS}/usr/lib/{os.uname().machine}-linux-gnu:{CYRUS}/usr/lib/cyrus"}
    for program in ("lib/cyrus/bin/imapd", "lib/cyrus/bin/master", "lib/cyrus/bin/ctl_cyrusdb", "sbin/saslpasswd2"):
        if not (CYRUS / "usr" / program).exists():
            return f"not unpacked by tests/packages.sh: {program} for cyrus-imapd"
        words = ["ldd", f"{CYRUS}/usr/{program}"]
        told = subprocess.run(
            words, env={**os.environ, **libraries}, capture_output=True, text=True, check=False
        ).stdout
        if absent := [line.split()[0] for line in told.splitlines() if "not found" in line]:
            return f"not installed: {', '.join(absent)}, for cyrus-imapd"
    return "" if os.geteuid() == 0 else "needs root"


class Cyrus:
    """A private Cyrus with IMAP on loopback: mail in its own database, and a folder of sent mail that is marked."""

    def __init__(self, folder: Path, password: str, *addresses: str) -> None:
        self.folder, self.port = folder, free_port()
        binaries = CYRUS / "usr/lib/cyrus/bin"
        for part in ("config", "spool"):
            (folder / part).mkdir(parents=True)
        self._imapd, self._services = folder / "imapd.conf", folder / "cyrus.conf"
        self._imapd.write_text(
            f"""\
configdirectory: {folder}/config
partition-default: {folder}/spool
defaultpartition: default
cyrus_user: nobody
cyrus_group: nogroup
admins: cyrus
allowplaintext: yes
sasl_mech_list: PLAIN LOGIN
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {folder}/sasldb2
virtdomains: userid
defaultdomain: localdomain
unixhierarchysep: yes
altnamespace: yes
munge8bit: no
imapidlepoll: 1
autocreate_quota: 0
autocreate_inbox_folders: Sent
autocreate_subscribe_folders: Sent
xlist-sent: Sent
"""
        )
        self._services.write_text(
            f"""\
START {{
  recover cmd="{binaries}/ctl_cyrusdb -C {self._imapd} -r"
}}
SERVICES {{
  imap cmd="{binaries}/imapd -C {self._imapd}" listen="127.0.0.1:{self.port}" proto="tcp4" prefork=0
}}
EVENTS {{
}}
"""
        )
        libraries = f"{CYRUS}/usr/lib/{os.uname().machine}-linux-gnu:{CYRUS}/usr/lib/cyrus"
        self._environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
        for address in addresses:
            local, _, domain = address.partition("@")
            words = ["-p", "-c", "-f", f"{folder}/sasldb2", "-u", domain, local]
            program = [f"{CYRUS}/usr/sbin/saslpasswd2", *words]
            subprocess.run(program, input=password.encode(), env=self._environment, check=True, capture_output=True)
        subprocess.run(["chown", "-R", "nobody:nogroup", str(folder)], check=True)
        folder.chmod(0o755)

    def start(self) -> Cyrus:
        words = ["-C", str(self._imapd), "-M", str(self._services), "-p", f"{self.folder}/pid", "-D"]
        with (self.folder / "master.log").open("wb") as log:
            self.process = subprocess.Popen(
                [f"{CYRUS}/usr/lib/cyrus/bin/master", *words], env=self._environment, stdout=log, stderr=log
            )
        wait_port(self.port, process=self.process, log=self.folder / "master.log")
        return self

    def stop(self) -> None:
        end(self.process)
