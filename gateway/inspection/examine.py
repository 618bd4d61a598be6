"""All checks on one message or file, one after the other, none able to stop the others.

Secrecy comes first: over what is cheap (subject, header, body, names), then over each text as it is read. Each check
that breaks or runs out of time leaves a `CheckRun` that says so, and the next one runs. Nothing here decides; nothing
raises for what is in the bytes. Heavy libraries are imported when a file needs them, so that a plain text mail costs
less than a millisecond.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import io
import re
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gateway import mime, vietnamese
from gateway.config import Budget, Clamd
from gateway.inspection import cards, containers, document, markup, secrecy, text
from gateway.inspection.findings import CheckRun, FileFacts, Finding, Inspection, SealState, Signature, Status
from gateway.inspection.segments import Segment

#: Extracted text kept per file for the search index, in characters.
KEPT_TEXT = 100_000
#: Pictures smaller than this on a side are logos and smileys, not pages.
SMALLEST_PAGE = 500

PAGED = frozenset({"pdf", "jpg", "png", "tiff", "gif", "bmp", "webp"})
#: Pictures in texts that are read as pages, of one message.
PASTED = 4
#: How deep files may lie in files that are no containers (a PDF in a PDF, a signature of a signature).
DEEPEST = 8
#: Types that hold text which nothing here reads.
UNREADABLE = frozenset({"uu", "pgp", "age", "one", "pst", "xps", "epub", "vsd", "vsdx", "djvu", "mdb", "unknown", "ole",
    "jp2", "psd",
                        "heic", "emf", "wmf", "wdp", "svm", "sqlite", "dwg", "shp", "dicom",
                        "p7m"})  # fmt: skip
_PICTURES = frozenset({"wdp", "svm", "emf", "wmf", "heic", "jp2", "psd"})

Result = TypeVar("Result")
Beside = Callable[[str], bytes | None]

_ENTITY = re.compile(rb"(?:content-[a-z-]+|mime-version)[ \t]*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Settings:
    """What examining needs to know of the installation. trust: folder of roots; clamd: only where sockets are open."""

    budget: Budget = field(default_factory=Budget)
    trust: Path | None = None
    clamd: Clamd | None = None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Settings:
        """From the plain data that the daemon hands its workers. The scanner is asked by the daemon, not here."""
        return cls(
            budget=Budget.model_validate(data.get("budget") or {}),
            trust=Path(data["trust"]) if data.get("trust") else None,
        )


def warm(settings: Settings) -> None:
    """Import and start what most messages need, before the first one and before the worker gives up its rights."""
    import pypdfium2  # noqa: F401

    with contextlib.suppress(Exception):
        from gateway.inspection import pages, signature  # noqa: F401

        _trust(settings)
    if settings.budget.ocr:
        with contextlib.suppress(Exception):
            from gateway.inspection import ocr

            ocr.engine()
    for name in (
        "pypdf",
        "olefile",
        "rarfile",
        "libarchive",
        "python_calamine",
        "tnefparse",
        "gateway.inspection.seal",
        "gateway.inspection.frames",
    ):
        with contextlib.suppress(Exception):
            __import__(name)


_stores: dict[Path | None, Any] = {}


def _trust(settings: Settings) -> Any:
    if settings.trust not in _stores:
        from gateway.inspection.trust import TrustStore

        _stores[settings.trust] = TrustStore.load(settings.trust or Path("/nonexistent"))
    return _stores[settings.trust]


def examine_message(raw: bytes | memoryview, settings: Settings, deadline: float | None = None) -> Inspection:
    """The facts about a message. deadline: `time.monotonic()` by which to answer; default: the budget from now."""
    return _Examiner(settings, deadline).message(raw)


def examine_file(data: bytes, name: str, settings: Settings, deadline: float | None = None) -> Inspection:
    """The facts about one file and, for a container, its members."""
    return _Examiner(settings, deadline).single(data, name)


def signature_boxes(data: bytes, settings: Settings) -> tuple[tuple[int, tuple[float, float, float, float]], ...]:
    """Where the signatures of a PDF are shown: (page, box in page fractions)."""
    from gateway.inspection import signature

    return signature.check(data, _trust(settings), dt.datetime.now(dt.UTC)).boxes


class _OutOfTime(BaseException):
    """Raised by the alarm into whatever runs. Not an Exception: readers that catch everything must not catch this."""


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Stops Python code after some seconds. Code inside C libraries stops at its next return to Python.

    Only in the main thread, where signals arrive; elsewhere the caller's own limits hold.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Examiner:
    def __init__(self, settings: Settings, deadline: float | None) -> None:
        self.settings = settings
        self.budget = settings.budget
        self.deadline = time.monotonic() + settings.budget.seconds if deadline is None else deadline
        self.files: list[FileFacts] = []
        self.findings: list[Finding] = []
        self.runs: list[CheckRun] = []
        self.texts: dict[str, str] = {}
        self.spent = containers.Spent()
        self.pasted = 0  # pictures in texts that were read as pages
        #: what a signature inside a nested message was made over, by the signature's path
        self.signed_parts: dict[str, bytes] = {}

    # -- guards --

    def check(
        self, name: str, about: str, work: Callable[[], Result], default: Result, seconds: float | None = None
    ) -> Result:
        """Run one check. What it raises becomes a failed run and the default."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            self.ran(name, Status.TIMED_OUT, about, "no time left for this check")
            return default
        if seconds is not None:
            left = min(left, seconds)
        started = time.monotonic()
        try:
            if seconds is None:
                result = work()
            else:
                with _alarm(left):
                    result = work()
        except _OutOfTime:
            self.ran(name, Status.TIMED_OUT, about, f"stopped after {left:.1f} s", started)
            return default
        except MemoryError:
            self.ran(name, Status.FAILED, about, "out of memory", started)
            return default
        except ImportError as error:
            self.ran(name, Status.FAILED, about, f"not installed: {error.name or error}", started)
            return default
        except RecursionError:
            self.ran(name, Status.FAILED, about, "nested too deep", started)
            return default
        except Exception as error:
            # Messages of third-party errors may quote the file; ours (PageError) never do.
            told = str(error) if type(error).__module__.startswith("gateway.") else type(error).__name__
            self.ran(name, Status.FAILED, about, told, started)
            return default
        self.ran(name, Status.OK, about, "", started)
        return result

    def ran(self, name: str, status: Status, about: str = "", reason: str = "", started: float | None = None) -> None:
        ms = int((time.monotonic() - started) * 1000) if started is not None else 0
        self.runs.append(CheckRun(check=name, status=status, about=about, reason=reason[:300], ms=ms))

    def marks(self, segments: list[Segment], about: str) -> None:
        if segments:
            self.findings += self.check(
                "secrecy", about, lambda: secrecy.marks(segments, about), [], self.budget.file_seconds
            )

    def answer(self, **facts: Any) -> Inspection:
        findings = tuple(dict.fromkeys(self.findings))
        return Inspection(files=tuple(self.files), findings=findings, runs=tuple(self.runs), texts=self.texts, **facts)

    # -- messages --

    def message(self, raw: bytes | memoryview) -> Inspection:
        data = raw if type(raw) is bytes else bytes(raw)
        message = self.check("mime", "", lambda: mime.parse(data), None)
        if message is None:
            return self.answer()
        # Before anything is decoded or opened: what a person reads first.
        segments = [*subjects(message, "tiêu đề"), *header_segments(message), *part_segments(message)]
        attached = [part.filename for part in message.attachments if part.filename]
        self.marks(segments, "subject")
        bodies: list[Segment] = []
        for part in message.body_parts:
            bodies += self.check(
                "text", "body", lambda part=part: body_segments(part, data), [], self.budget.file_seconds
            )  # type: ignore[misc]
        bodies += [
            Segment("ngoài các phần của thư", vietnamese.decode(data[start:end][:100_000]))
            for start, end in message.outside
        ]
        self.marks(bodies, "body")
        for segment in bodies:
            self.charset(segment.text, "body")
        self.marks([Segment("tên tệp", name, None, "filename") for name in attached], "")
        for number, part in enumerate(message.attachments, 1):
            shown = part.filename or _nameless(part, number)
            inline = (
                bool(part.content_id) and part.disposition != "attachment" and part.content_type.startswith("image/")
            )
            content = self.check("mime", shown, lambda part=part: part.decode(data), None)  # type: ignore[misc]
            if content is None:
                continue
            self.file(
                bytes(content), shown, shown, part.content_type, 0, inline, named=True, charset=part.charset,
                beside=lambda signed, part=part: _signed_part(message, part, signed, data),
            )  # fmt: skip
        for part in message.body_parts:
            for name, content in self.check("mime", "body", lambda part=part: body_files(part, data), []):  # type: ignore[misc]
                self.file(content, name, name, "", 1, True)
        facts = self.check("mime", "headers", message.facts, None)
        self.findings[:0] = message.findings
        if facts is None:
            return self.answer()
        if facts.body_text:
            self.texts[""] = facts.body_text
        return self.answer(message=facts)

    def single(self, data: bytes, name: str) -> Inspection:
        self.file(data, name, name, "", 0, False)
        return self.answer()

    # -- files --

    def file(
        self,
        data: bytes,
        name: str,
        path: str,
        declared: str,
        depth: int,
        inline: bool,
        *,
        named: bool = False,
        beside: Beside | None = None,
        charset: str = "",
    ) -> None:
        """One file and everything inside it. Facts are added in the order of the outermost first.

        beside: gives what a detached signature of this name was made over, or None.
        """
        place = len(self.files)
        kind = containers.sniff(data, name)
        facts: dict[str, Any] = {
            "name": name, "path": path, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "type": kind,
            "declared_type": declared, "inline": inline, "depth": depth,
        }  # fmt: skip
        self.files.append(FileFacts(**facts))
        if not named:
            self.marks([Segment("tên tệp", name, None, "filename")], path)
        self.name_findings(name, kind, path)
        if kind in containers.EXECUTABLE:
            self.found("active", "executable", path)
        elif kind in containers.SCRIPT:
            self.found(
                "active", "executable" if kind in ("lnk", "iso", "vhd", "chm") else "script", path, evidence=kind
            )
        for other in containers.foreign_signatures(data, kind):
            self.found("active", "polyglot", path, evidence=other)
        members: list[tuple[str, bytes, str, bool]] = []
        if kind in ("eml", "mht"):
            members = self.nested(data, path, depth, facts)
        elif kind in containers.CONTAINERS:
            members = self.expanded(data, name, kind, path, depth, facts)
        elif kind in text.READERS or kind in PAGED:
            if data.startswith(b"PK"):
                self.unlisted(data, kind, path)
            members = self.read(data, name, kind, path, facts, charset)
        elif kind in ("p7s", "p7m"):
            members = self.cms(data, kind, path, facts, beside)
        elif kind in UNREADABLE and not (kind in _PICTURES and (inline or len(data) < 20_000)):
            value = (
                "pgp"
                if kind in ("pgp", "age")
                else "unknown_container"
                if kind in ("unknown", "ole", "uu")
                else "no_extractor"
            )
            facts["encrypted"] = kind in ("pgp", "age")
            self.found("uninspectable", value, path)
        self.files[place] = FileFacts(**facts)
        for member, content, declared_type, is_inline in members:
            below = f"{path}/{member}"
            if self.too_deep(content, member, depth + 1):
                self.found("uninspectable", "too_deep", below)
                self.files.append(
                    FileFacts(name=member, path=below, sha256=hashlib.sha256(content).hexdigest(), size=len(content),
                              type=containers.sniff(content, member), depth=depth + 1)
                )  # fmt: skip
                continue
            self.file(
                content, member.rsplit("/", 1)[-1] or member, below, declared_type, depth + 1, is_inline,
                beside=lambda signed: signed_by_name(signed, ((one, body) for one, body, *_ in members)),
            )  # fmt: skip

    def too_deep(self, data: bytes, name: str, depth: int) -> bool:
        """Containers lie as deep as the budget says, other files as DEEPEST."""
        if depth <= min(self.budget.container_depth, DEEPEST):
            return False  # whatever it is: its type is found out once, when it is read
        return depth > (
            self.budget.container_depth if containers.sniff(data, name) in containers.CONTAINERS else DEEPEST
        )

    def found(self, kind: str, value: str, about: str, where: str = "", evidence: str = "") -> None:
        self.findings.append(Finding(kind=kind, value=value, about=about, where=where, evidence=evidence))

    def name_findings(self, name: str, kind: str, path: str) -> None:
        for value in mime.clean_filename(name.rsplit("/", 1)[-1])[1]:
            self.found("filename", value, path)
        extension = name.rsplit(".", 1)[-1].lower() if "." in name else ""
        if extension in _EXTENSIONS and kind not in _EXTENSIONS[extension] and kind not in ("unknown", "empty"):
            self.found("filename", "type_mismatch", path, evidence=f"{extension} ≠ {kind}")

    def charset(self, content: str, about: str) -> None:
        name = vietnamese.charset_of(content[:40_000])
        if name:
            self.found("charset", name, about)

    def expanded(
        self, data: bytes, name: str, kind: str, path: str, depth: int, facts: dict[str, Any]
    ) -> list[tuple[str, bytes, str, bool]]:
        empty = containers.Expansion()
        expansion = self.check(
            "containers",
            path,
            lambda: containers.expand(data, name, kind, self.budget, self.spent),
            empty,
            self.budget.file_seconds,
        )
        if expansion is empty:
            self.found("uninspectable", "unknown_container", path)
        elif expansion.reason:
            self.runs[-1] = self.runs[-1].model_copy(update={"reason": expansion.reason[:300]})
        facts["encrypted"], facts["damaged"] = expansion.encrypted, expansion.damaged
        facts["files"] = tuple(
            f"{path}/{member}" for member in (expansion.names or [m.name for m in expansion.members])
        )[:2000]
        self.findings += [finding.model_copy(update={"about": path}) for finding in expansion.findings]
        self.marks(_names(expansion.names + expansion.words), path)
        if expansion.subject:
            self.marks([Segment("tiêu đề thư đính kèm", expansion.subject, None, "subject")], path)
        return [(m.name, m.data, m.declared_type, m.inline) for m in expansion.members]

    def unlisted(self, data: bytes, kind: str, path: str) -> None:
        """Office files are archives too: one whose directory is not all of it can be read in two ways."""
        with contextlib.suppress(Exception):  # a broken one is told of by its reader
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                told = containers.unlisted(data, archive)
            if told:
                self.found("ambiguous", told, path)

    def nested(self, data: bytes, path: str, depth: int, facts: dict[str, Any]) -> list[tuple[str, bytes, str, bool]]:
        """A message inside: its subject and bodies are read like ours, its attachments are members."""
        message = self.check("mime", path, lambda: mime.parse(data), None)
        if message is None:
            self.found("uninspectable", "unknown_container", path)
            return []
        segments = [*subjects(message, "tiêu đề thư đính kèm"), *header_segments(message), *part_segments(message)]
        for part in message.body_parts:
            segments += self.check(
                "text", path, lambda part=part: body_segments(part, data), [], self.budget.file_seconds
            )  # type: ignore[misc]
        self.marks(segments, path)
        self.texts[path] = "\n".join(segment.text for segment in segments)[:KEPT_TEXT]
        members = []
        for number, part in enumerate(message.attachments, 1):
            self.spent.files += 1
            if self.spent.files > self.budget.container_files:
                self.found("uninspectable", "too_many", path)
                break
            content = self.check("mime", path, lambda part=part: part.decode(data), b"")  # type: ignore[misc]
            shown = part.filename or _nameless(part, number)
            if part.content_type.endswith("pkcs7-signature"):
                over = self.check("mime", path, lambda p=part, n=shown: _signed_part(message, p, n, data), None)  # type: ignore[misc]
                if over is not None:
                    self.signed_parts[f"{path}/{shown}"] = over
            members.append((shown, bytes(content), part.content_type, bool(part.content_id)))
        for part in message.body_parts:
            inside = self.check("mime", path, lambda part=part: body_files(part, data), [])  # type: ignore[misc]
            members += [(name, content, "", True) for name, content in inside]
        self.findings += [finding.model_copy(update={"about": path}) for finding in message.findings]
        facts["files"] = tuple(f"{path}/{name}" for name, *_ in members)
        return members

    def read(
        self, data: bytes, name: str, kind: str, path: str, facts: dict[str, Any], charset: str = ""
    ) -> list[tuple[str, bytes, str, bool]]:
        content = text.Text()
        if kind in text.READERS:
            failed = text.Text(damaged=True)
            content = self.check(
                "text", path, lambda: text.extract(data, kind, self.budget, charset), failed, self.budget.file_seconds
            )
            if content is failed:
                self.found("uninspectable", "unknown_container", path)
            elif content.reason:
                self.runs[-1] = self.runs[-1].model_copy(update={"reason": content.reason[:300]})
        self.marks([*content.segments, *content.unsure], path)
        self.findings += [finding.model_copy(update={"about": path}) for finding in content.findings]
        facts.update(
            encrypted=content.encrypted,
            damaged=content.damaged,
            pages=content.pages,
            fonts=content.fonts,
            text_layer=content.layer,
        )
        whole = content.plain
        if whole:
            self.texts[path] = whole[:KEPT_TEXT]
            self.charset("\n".join(s.text for s in content.segments if s.zone != "property"), path)
            for font in content.fonts[:1]:
                self.found("charset", "font", path, evidence=font)
        signatures: tuple[Signature, ...] = ()
        boxes: tuple[Any, ...] = ()
        if kind == "pdf":
            signatures, boxes = self.signatures(data, path, facts)
        segments = list(content.segments)
        if kind in PAGED and not content.encrypted:
            segments += self.pictures(data, kind, path, facts, content, boxes)
        if segments and kind not in ("ics", "vcf", "svg", "json"):
            fields = self.check(
                "document", path, lambda: document.fields(segments, signatures, name), None, self.budget.file_seconds
            )
            if fields is not None and document.is_document(fields):
                facts["document"] = fields
        return [
            *((entry, body, "", False) for entry, body in content.embedded),
            *((entry, body, "", True) for entry, body in content.pictures),
        ]

    def signatures(
        self, data: bytes, path: str, facts: dict[str, Any]
    ) -> tuple[tuple[Signature, ...], tuple[Any, ...]]:
        if b"/ByteRange" not in data and b"/Sig" not in data and b"/ObjStm" not in data:
            return (), ()  # no signature dictionary can be in it

        def work() -> Any:
            from gateway.inspection import signature

            return signature.check(data, _trust(self.settings), dt.datetime.now(dt.UTC))

        found = self.check("signature", path, work, None, self.budget.file_seconds)
        if found is None:
            return (), ()
        facts["signatures"], facts["signature_removed"] = found.signatures, found.removed
        self.findings += [finding.model_copy(update={"about": path}) for finding in found.findings]
        return found.signatures, found.boxes

    def cms(
        self, data: bytes, kind: str, path: str, facts: dict[str, Any], beside: Beside | None
    ) -> list[tuple[str, bytes, str, bool]]:
        """Cryptographic Message Syntax (RFC 5652): what is signed may lie inside (opaque) or beside it (detached)."""
        if kind == "p7m":
            facts["encrypted"] = True
            self.found("uninspectable", "smime", path)
            return []

        def work() -> tuple[Signature, bytes | None]:
            from gateway.inspection import cms, signature

            der = data
            if data.lstrip().startswith(b"-----BEGIN"):
                der = base64.b64decode(b"".join(data.split(b"-----")[2].split()))
            inside = cms.parse(der).content
            signed = self.signed_parts.get(path) if inside is None else None
            if signed is None and beside is not None and inside is None:
                signed = beside(path.rsplit("/", 1)[-1])
            return signature.check_detached(der, signed, _trust(self.settings), dt.datetime.now(dt.UTC)), inside

        found = self.check("signature", path, work, None, self.budget.file_seconds)
        if found is None:
            self.found("uninspectable", "unknown_container", path)
            return []
        facts["signatures"] = (found[0],)
        inside = found[1]
        if not inside:
            return []
        # An S/MIME message (RFC 8551): what was signed is a MIME entity with a header of its own.
        return [("noi-dung.eml" if _ENTITY.match(inside) else "noi-dung", inside, "", False)]

    def pictures(
        self, data: bytes, kind: str, path: str, facts: dict[str, Any], content: text.Text, boxes: tuple[Any, ...]
    ) -> list[Segment]:
        """What is to be seen on the pages: scanned text, frames of marks, seals."""
        if kind != "pdf" and len(data) < 8_000:
            return []

        def open_it() -> Any:
            from gateway.inspection import pages

            try:
                return pages.open_pages(data, kind)
            except pages.PageError as error:
                if error.value == "too_large":
                    self.found("uninspectable", "too_large", path)
                raise

        opened = self.check("pages", path, open_it, None, self.budget.file_seconds)
        if opened is None:
            if not content.damaged:  # else told already
                self.found("uninspectable", "unreadable_scan", path)
            return []
        try:
            if kind != "pdf":
                facts["pages"] = opened.count
                width, height = opened.size_mm(1)
                if min(width, height) < SMALLEST_PAGE * 25.4 / 300:  # a logo, a portrait
                    return []
            if kind != "pdf" and facts["inline"]:
                self.glance(opened, path)
                return []
            if _moving(data, kind):
                self.found("uninspectable", "no_extractor", path)  # of a moving picture only the first is read
            return self.seen(opened, kind, path, facts, content, boxes)
        finally:
            with contextlib.suppress(Exception):
                opened.close()

    def glance(self, opened: Any, path: str) -> None:
        """A picture in a text is no document of its own, but one that looks like a page may be a scan with a mark."""
        if not self.check("pages", path, lambda: _like_paper(opened), True, self.budget.file_seconds):
            return
        self.pasted += 1
        if self.pasted > PASTED:
            self.found("uninspectable", "unreadable_scan", path)
            return
        if self.can_read(path):
            end = time.monotonic() + self.budget.ocr_seconds
            found = self.recognised(path, end, lambda ocr, seconds: ocr.head(opened, seconds))
            found += self.recognised(path, end, lambda ocr, seconds: ocr.read(opened, [1], seconds))
            self.marks(found, path)
        # A red box round something is usual in pictures of a screen; only what is read in it counts here.
        framed = self.framed(opened, path)
        self.findings += [one for one in framed if one.kind == "secrecy" and one.value in secrecy.LEVELS]

    def framed(self, opened: Any, path: str) -> list[Finding]:
        """Marks in frames on the pages."""

        def work() -> list[Finding]:
            from gateway.inspection import frames

            return frames.marks(opened)

        found = self.check("frames", path, work, [], self.budget.file_seconds)
        return [one.model_copy(update={"about": path}) for one in found]

    def seen(
        self, opened: Any, kind: str, path: str, facts: dict[str, Any], content: text.Text, boxes: tuple[Any, ...]
    ) -> list[Segment]:
        scan = (
            kind != "pdf"
            or content.layer in ("none", "garbage")
            or bool(self.check("pages", path, lambda: opened.is_scan(1), False))
        )
        facts["scan"] = scan
        needed = kind != "pdf" or content.layer != "full"
        stamped = not needed and _blank_header(content.segments)
        reading = (needed or stamped) and self.can_read(path)
        segments: list[Segment] = []
        end = time.monotonic() + self.budget.ocr_seconds
        left = self.budget.ocr_seconds
        if reading:  # what carries marks, number and date comes before everything else
            segments = self.recognised(path, end, lambda ocr, seconds: ocr.head(opened, seconds))
            left = end - time.monotonic()  # what frames and seals take is not taken from reading
            self.marks(segments, path)
        if scan:
            self.findings += self.framed(opened, path)

        if kind == "pdf" and facts.get("signatures"):

            def under() -> list[Finding]:
                from gateway.inspection import covered

                return covered.covered(opened)

            self.findings += [
                f.model_copy(update={"about": path})
                for f in self.check("signature", path, under, [], self.budget.file_seconds)
            ]

        def seals() -> Any:
            from gateway.inspection import seal

            return seal.look(opened, boxes)

        # Half of the time of an ordinary signed document would go into the picture of a seal that proves nothing
        # beside its signatures (SG-02 asks for it only where there are none).
        signed = any(one.kind != "timestamp" for one in facts.get("signatures", ()))
        if signed and not scan and self.budget.seals == "unsigned":
            self.ran("seal", Status.SKIPPED, path, "the document is digitally signed")
            looked = None
        else:
            looked = self.check("seal", path, seals, None, self.budget.file_seconds)
        if looked is not None:
            facts.update(seals=looked.seals, seal_state=looked.state, handwritten_signature=looked.handwritten)
            facts["scan"] = facts["scan"] or looked.scan
            self.findings += [finding.model_copy(update={"about": path}) for finding in looked.findings]
        else:
            facts["seal_state"] = SealState.NOT_CHECKED
        if not needed:
            self.unlettered(opened, path, content, scan)
        if reading and needed:
            sealed = max(facts.get("seals", ()), key=lambda one: one.score, default=None)
            signed_page = sealed.page if sealed else next((page for page, _ in boxes), None)
            end = time.monotonic() + left
            rest = self.recognised(
                path,
                end,
                lambda ocr, seconds: ocr.read(
                    opened, ocr.order(opened.count, self.budget.ocr_pages, signed_page), seconds
                ),
            )
            self.marks(rest, path)
            segments += rest
        facts["ocr_pages"] = len({segment.page for segment in segments})
        if needed:
            if segments:
                self.texts[path] = (self.texts.get(path, "") + "\n" + "\n".join(s.text for s in segments))[:KEPT_TEXT]
            if not any(len(segment.text) > 40 for segment in segments):
                self.found("uninspectable", "garbage_text" if content.layer == "garbage" else "unreadable_scan", path)
        return segments

    def unlettered(self, opened: Any, path: str, content: text.Text, scan: bool) -> None:
        """What is to be seen and no text layer says, in a file that has one: scanned pages among typed ones, scans over
        a text of their own, letters as drawings, and stamps put on as pictures. Looked at for marks alone."""
        found = self.check("pages", path, lambda: (_unread(opened, content), _stamps(opened)), None)
        if found is None or not (found[0] or found[1]) or not self.can_read(path):
            return
        pages, stamps = found
        end = time.monotonic() + self.budget.ocr_seconds
        segments: list[Segment] = []
        for number, crop in stamps:
            segments += self.recognised(
                path, end,
                lambda ocr, seconds, n=number, c=crop: [
                    Segment(f"trang {n} (hình)", ocr.recognise(c, seconds, block=True), n, "ocr")
                ],
            )  # fmt: skip
        if 1 in pages:
            segments += self.recognised(path, end, lambda ocr, seconds: ocr.head(opened, seconds))
        if pages:
            few = pages[: self.budget.ocr_pages]
            segments += self.recognised(path, end, lambda ocr, seconds: ocr.read(opened, few, seconds))
        self.marks(segments, path)
        if not scan:
            self.findings += self.framed(opened, path)

    def can_read(self, path: str) -> bool:
        """Whether OCR is there and wanted; why not is a fact."""
        if not self.budget.ocr:
            self.ran("ocr", Status.SKIPPED, path, "switched off in the configuration")
            return False
        started = time.monotonic()
        try:
            from gateway.inspection import ocr

            ocr.engine()
        except Exception as error:
            self.ran("ocr", Status.SKIPPED, path, str(error)[:200], started)
            return False
        return True

    def recognised(self, path: str, end: float, work: Callable[[Any, float], list[Segment]]) -> list[Segment]:
        """One piece of reading, with what is left of the time for OCR."""
        from gateway.inspection import ocr

        seconds = min(end, self.deadline - 1) - time.monotonic()
        if seconds < 0.5:
            # Without the head of page 1 a scan is not inspected; further pages are read as time allows.
            status = Status.SKIPPED if any(run.check == "ocr" for run in self.runs) else Status.TIMED_OUT
            self.ran("ocr", status, path, "no time left to read more pages")
            return []
        return self.check("ocr", path, lambda: work(ocr, seconds), [], seconds + 2)


def _names(paths: list[str]) -> list[Segment]:
    """Names of files and of the folders they lie in."""
    pieces = dict.fromkeys(piece for path in paths for piece in re.split(r"[/\\\n]", path) if piece)
    return [Segment("tên tệp", piece, None, "filename") for piece in pieces]


def signed_by_name(name: str, files: Iterable[tuple[str, bytes]]) -> bytes | None:
    """The file that `x.pdf.p7s` (or `x.p7s`) beside it was made over: `x.pdf`, or the only other file of that stem."""
    stem = name.rsplit(".", 1)[0]
    others = [(one.rsplit("/", 1)[-1], data) for one, data in files if not one.lower().endswith((".p7s", ".p7m"))]
    exact = [data for one, data in others if one == stem]
    alike = exact or [data for one, data in others if one.rsplit(".", 1)[0] == stem]
    return bytes(alike[0]) if len(alike) == 1 else None


def _signed_part(message: mime.Message, signature: mime.Part, name: str, data: bytes) -> bytes | None:
    """What a signature part was made over: its sibling in multipart/signed (RFC 1847), header and all, with the line
    ends of mail; else the attached file of its name."""
    parent = signature.path.rpartition(".")[0]
    around = next((part for part in message.parts if part.multipart and part.path == parent), None)
    if around is not None and around.content_type == "multipart/signed":
        first = next((part for part in message.parts if part.path == f"{parent}.1".lstrip(".")), None)
        if first is None:
            return None
        content = data[first.header_start : first.end]
        return content if b"\r\n" in content else content.replace(b"\n", b"\r\n")
    files = ((part.filename, part.decode(data)) for part in message.attachments if part.filename)
    return signed_by_name(name, files)


def _moving(data: bytes, kind: str) -> bool:
    """A picture of several: a GIF of more than one image, an APNG, a WebP with frames."""
    if kind == "gif" and len(data) > 13:
        at, images = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0), 0
        while at + 10 < len(data) and data[at] in (0x21, 0x2C) and images < 2:
            if data[at] == 0x2C:
                images += 1
                at += 11 + (3 << ((data[at + 9] & 7) + 1) if data[at + 9] & 0x80 else 0)
            else:
                at += 2
            while at < len(data) and data[at]:  # blocks of up to 255 bytes
                at += 1 + data[at]
            at += 1
        return images > 1
    return (kind == "png" and b"acTL" in data[:4096]) or (kind == "webp" and b"ANIM" in data[:4096])


def _like_paper(opened: Any) -> bool:
    """Whether a picture is mostly as light as paper: photographs are not."""
    small = opened.image(1, 24)
    return bool((small.min(axis=2) > 170).mean() > 0.5)


#: Pages of a typed file that are looked at for what no text layer says, and stamps of one file.
_LOOKED_AT, _STAMPS = 30, 6


def _unread(opened: Any, content: text.Text) -> list[int]:
    """Pages that show something and have no text layer, or one under or over a picture of the whole page."""
    letters: dict[int, int] = {}
    for one in content.segments:
        if one.page is not None and one.zone == "body":
            letters[one.page] = letters.get(one.page, 0) + sum(map(str.isalpha, one.text[:2000]))
    found = []
    for n in range(1, min(opened.count, text.MAX_PAGES) + 1):
        bare = letters.get(n, 0) < 20
        if (bare and _inked(opened, n)) or (not bare and n <= _LOOKED_AT and opened.is_pictured(n)):
            found.append(n)
            if len(found) >= 10:
                break
    return found


def _inked(opened: Any, n: int) -> bool:
    with contextlib.suppress(Exception):  # a page that cannot be shown is told of elsewhere
        return bool((opened.image(n, 24).min(axis=2) < 160).mean() > 0.003)
    return False


def _stamps(opened: Any) -> list[tuple[int, Any]]:
    """Pictures of the shape of a mark (2.5 to 5 times as wide as high; rules.md 3.1) on the first pages, in grey."""
    found: list[tuple[int, Any]] = []
    for n in range(1, min(opened.count, 2) + 1):
        width, height = opened.size_mm(n)
        for picture in opened.pictures(n):
            left, top, right, bottom = (min(max(value, 0.0), 1.0) for value in picture.box)
            across, down = (right - left) * width, (bottom - top) * height
            if len(found) < _STAMPS and down >= 3 and 15 <= across <= 110 and 2.2 <= across / down <= 7:
                image = opened.image(n, 200)
                rows, columns = image.shape[:2]
                crop = image[int(top * rows) : int(bottom * rows), int(left * columns) : int(right * columns)]
                found.append((n, crop.min(axis=2).copy()))
    return found


def _blank_header(segments: list[Segment]) -> bool:
    """A text layer whose number or date was left blank: on real documents they are put on as pictures."""
    first = "\n".join(segment.text for segment in segments if segment.page == 1 and segment.zone == "body")[:3000]
    return bool(
        re.search(r"(?m)^[^\w\n]*+Số\s*:?[\s.…_]*/", first)
        or re.search(r"ngày[\s.…_]{2,}tháng|tháng[\s.…_]{2,}năm", first[:1500])
    )


_EXTENSIONS: dict[str, tuple[str, ...]] = {
    "pdf": ("pdf",), "docx": ("docx",), "docm": ("docx",), "xlsx": ("xlsx",), "xlsm": ("xlsx",), "pptx": ("pptx",),
    "doc": ("doc", "docx", "rtf", "html", "mht", "xml", "txt"), "xls": ("xls", "xlsx", "html", "xml", "csv", "txt"),
    "ppt": ("ppt", "pptx"),
    "zip": ("zip", "jar", "docx", "xlsx", "pptx"), "rar": ("rar",), "7z": ("7z",), "gz": ("gz",), "tgz": ("gz",),
    "tar": ("tar",),
    "jpg": ("jpg",), "jpeg": ("jpg",), "png": ("png",), "gif": ("gif",), "tif": ("tiff",), "tiff": ("tiff",),
    "bmp": ("bmp",),
    "rtf": ("rtf",), "odt": ("odt",), "ods": ("ods",),
    "txt": ("txt", "csv", "html", "eml", "xml", "json", "js", "ps1", "bat", "sh", "vbs", "ics", "pgp", "url", "rtf",
    "p7s", "crt"),
}  # fmt: skip


def _nameless(part: Any, number: int) -> str:
    if part.content_type == "message/rfc822":
        return f"thu-{part.path or number}.eml"
    extension = {"text/calendar": ".ics", "application/pdf": ".pdf", "image/png": ".png", "image/jpeg": ".jpg",
        "text/html": ".html",
                 "application/ms-tnef": ".dat", "application/pkcs7-signature": ".p7s",
                 "application/pkcs7-mime": ".p7m"}  # fmt: skip
    return f"phan-{part.path or number}{extension.get(part.content_type, '')}"


# Fields whose values are letters of the sender or his program, not of the transport. All others of X- are looked at
# only where they hold a letter that a mark needs.
_FIELDS = ("comments", "keywords", "sensitivity", "importance", "content-description", "thread-topic", "x-priority",
    "organization", "resent-subject", "summary")  # fmt: skip
#: Fields of persons: a name may be `Mật`, so only a mark that is more than a name counts.
_PERSONS = ("from", "sender", "reply-to", "to", "cc")
_MORE_THAN_A_NAME = re.compile(r"[\[(【]|t(?:ối|uyệt)\s*mật", re.IGNORECASE)
_MAY_MARK = re.compile("=\\?|[^\x00-\x7f]|mat|MAT|Mat")


def header_segments(message: mime.Message) -> list[Segment]:
    """Values of header fields that may carry a mark."""
    segments = []
    for name, value in message.fields:
        if (name.startswith("x-") or name in _FIELDS) and _MAY_MARK.search(value):
            decoded = mime.decode_words(value[:4000])[0].strip()
            segments.append(Segment(f"trường {name}", decoded, None, "header_field"))
        elif name in _PERSONS and _MAY_MARK.search(value):
            names = (box.name for box in mime.mailboxes(value)[:100])
            told = filter(_MORE_THAN_A_NAME.search, names)
            segments += [Segment(f"trường {name}", one, None, "header_field") for one in told]
        if len(segments) >= 200:
            break
    return segments


def part_segments(message: mime.Message) -> list[Segment]:
    """Subjects and descriptions that stand in the headers of parts: some programs show them beside the file."""
    found = []
    for part in message.parts:
        if part.path and part.header_start < part.start:
            head = message.raw[part.header_start : part.start]
            if b"ubject" in head or b"escription" in head or b"UBJECT" in head or b"ESCRIPTION" in head:
                for name, value in mime.header_fields(head):
                    if name in ("subject", "content-description"):
                        shown = mime.decode_words(value[:4000])[0].strip()
                        found.append(Segment(f"phần {part.path}", shown, None, "subject"))
    return found[:200]


def subjects(message: mime.Message, where: str) -> list[Segment]:
    """All Subject fields, decoded: where there are two, different readers show different ones."""
    return [Segment(where, mime.decode_words(value)[0], None, "subject") for value in message.all("subject")[:20]]


def body_segments(part: mime.Part, data: bytes) -> list[Segment]:
    """The texts that programs may show for a body, in every reading of its letters."""
    source = part.text(data)
    raw = part.decode(data)
    if part.content_type == "text/rtf":
        return text.extract(raw, "rtf").segments
    found: list[Segment] = []
    for reading in (source, *(one for one in vietnamese.readings(raw, part.charset) if one != source)):
        if part.content_type == "text/html":
            found += markup.segments(reading, "nội dung thư")
        else:
            found.append(Segment("nội dung thư", reading, None, "body"))
        if part.content_type in _CARDS:
            found += cards.read(reading)[0]
    return found


_CARDS = frozenset(("text/calendar", "text/x-vcalendar", "text/vcard", "text/x-vcard", "text/directory"))


def body_files(part: mime.Part, data: bytes) -> list[tuple[str, bytes]]:
    """Files that stand in a body itself: in a calendar, in the addresses of a page."""
    if part.content_type == "text/html":
        return markup.files(part.text(data))
    return cards.read(part.text(data))[1] if part.content_type in _CARDS else []
