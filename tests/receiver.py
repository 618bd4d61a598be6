"""A service that takes alerts over HTTP, as a gateway of text messages does: for the tests and a measurement."""

from __future__ import annotations

import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: str
    at: float = field(default_factory=time.time)

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


class Receiver:
    """`answers`: statuses to give first, one each, before 200; `text`: the body of every answer. Ended by `close`."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.answers: list[int] = []
        self.text = "ok"
        self.headers: dict[str, str] = {}
        self.gate = threading.Event()  # cleared: an answer waits
        self.gate.set()
        self.arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(size).decode()
                parts = urlsplit(self.path)
                request = Request(self.command, parts.path, parse_qs(parts.query), dict(self.headers), body)
                with receiver.arrived:
                    receiver.requests.append(request)
                    status = receiver.answers.pop(0) if receiver.answers else 200
                    receiver.arrived.notify_all()
                receiver.gate.wait(240)
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                data = receiver.text.encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _serve

            def log_message(self, *_: Any) -> None:
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    return  # the gateway was killed

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def wait(self, count: int, seconds: float = 240) -> list[Request]:
        """Until `count` requests have come; fails with what came when they have not."""
        with self.arrived:
            ok = self.arrived.wait_for(lambda: len(self.requests) >= count, seconds)
        assert ok, f"{len(self.requests)} of {count} requests: {self.requests}"
        return self.requests

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
