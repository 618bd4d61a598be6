"""Inspection without workers, for tests and measurements that start many times: what a message is made of, and the
marks of secrecy in its text."""

from __future__ import annotations

from typing import Any


class Facts:
    async def message(self, body: Any) -> Any:
        from gateway import mime
        from gateway.inspection import secrecy
        from gateway.inspection.findings import Inspection
        from gateway.inspection.segments import Segment

        facts = mime.parse(body.read()).facts()
        found = secrecy.marks([Segment("nội dung thư", facts.body_text)])
        return Inspection(message=facts, findings=tuple(found))
