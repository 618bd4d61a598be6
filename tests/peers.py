"""Real servers from Debian's packages, private and on loopback: Postfix and Dovecot. They need root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

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


def free_port() -> int:
    """A port that nothing listens on now. Servers that cannot choose one themselves leave no better way."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_port(port: int, seconds: float = 90) -> None:
    """Until something listens on the port."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on port {port}"
            time.sleep(0.02)


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
        assert done.returncode == 0, f"{done.stderr}\n{self.log.read_text() if self.log.exists() else ''}"
        wait_port(self.port)
        return self

    @property
    def pid(self) -> int:
        return int((self.spool / "pid" / "master.pid").read_text())

    def stop(self) -> None:
        subprocess.run(["postfix", "-c", str(self.etc), "stop"], check=False, capture_output=True)


class Dovecot:
    """A private Dovecot with IMAP on loopback, one password for everybody, mail in Maildir below the folder."""

    def __init__(self, folder: Path, password: str) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        self._config = folder / "dovecot.conf"
        self._config.write_text(
            f"""
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
protocols = imap
ssl = no
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
    port = 0
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
        wait_port(self.port)
        return self

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
