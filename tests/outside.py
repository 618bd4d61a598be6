"""Parties outside the gateway, on loopback: the witness of `verifier/`, a web server for PUT, and `openssl ts`."""

from __future__ import annotations

import contextlib
import http.server
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "verifier"))
import congvan_verify as cv
import congvan_witness as cw

from gateway.config import Gateway
from tests.cases import SETTINGS

__all__ = ["cv", "cw"]


def settings(**more) -> Gateway:
    """The settings of the tests with more in them."""
    given = {
        "hostname": SETTINGS.hostname,
        "data": "data",
        "listeners": [{"kind": "relay", "port": 0}],
        "next_hops": [{"name": "hop", "host": "127.0.0.1", "domains": ["*"]}],
        **more,
    }
    return Gateway.model_validate(given)


@contextlib.contextmanager
def running(server: http.server.HTTPServer) -> Iterator[str]:
    """Serve in a thread; gives the URL."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_witness(folder: Path, name: str, *logs: object) -> cw.Witness:
    cw.make_keys(folder, name)
    (folder / "logs").write_text("".join(f"log {log}\n" for log in logs))
    return cw.Witness(folder)


def witness(one: cw.Witness, port: int = 0) -> contextlib.AbstractContextManager[str]:
    server = cw.server(one, "127.0.0.1", port)
    server.RequestHandlerClass.log_message = lambda *words: None
    return running(server)


def server(answer: Callable[[str, str, bytes], tuple[int, str, bytes]]) -> contextlib.AbstractContextManager[str]:
    """A web server: `answer` gets method, path and body, and gives status, content type and body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, kind, data = answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _do

        def log_message(self, *words: object) -> None:
            pass

    return running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))


# ---------------------------------------------------------------------- openssl ts


def openssl(folder: Path, *words: object) -> bytes:
    done = subprocess.run(["openssl", *map(str, words)], cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def make_authority(folder: Path) -> None:
    """A root, an issuing authority below it, and a time stamp authority below that."""
    folder.mkdir()
    authority = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(
        folder, "req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", 9, "-subj", "/CN=Root", *authority
    )
    (folder / "sub.ext").write_text("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n")
    (folder / "tsa.ext").write_text("extendedKeyUsage=critical,timeStamping\nkeyUsage=critical,digitalSignature\n")
    for name, above in (("sub", "ca"), ("tsa", "sub")):
        openssl(folder, "req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN=Authority {name}")
        openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{above}.pem", "-CAkey", f"{above}.key",
            "-CAcreateserial", "-days", 8, "-out", f"{name}.pem", "-extfile", f"{name}.ext",
        )  # fmt: skip
    (folder / "chain.pem").write_text((folder / "ca.pem").read_text() + (folder / "sub.pem").read_text())
    (folder / "serial").write_text("01\n")
    (folder / "tsa.cnf").write_text(
        "[tsa]\ndefault_tsa=t\n[t]\nserial=serial\nsigner_cert=tsa.pem\ncerts=chain.pem\nsigner_key=tsa.key\n"
        "signer_digest=sha256\ndefault_policy=1.2.3.4\ndigests=sha256\ness_cert_id_chain=no\ness_cert_id_alg=sha256\n"
    )


def stamp(folder: Path, query: bytes) -> bytes:
    (folder / "query").write_bytes(query)
    return openssl(folder, "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query")


def authority(folder: Path) -> contextlib.AbstractContextManager[str]:
    """`openssl ts` over HTTP, as RFC 3161 section 3.4 has it."""
    return server(lambda method, path, body: (200, "application/timestamp-reply", stamp(folder, body)))
