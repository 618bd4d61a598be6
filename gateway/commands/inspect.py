"""`congvan inspect FILE…`: the facts about files, for a person or a machine.

Works without a gateway: no configuration means default budgets and no trusted roots, and says so.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

from gateway import config as configuration
from gateway.errors import ConfigError
from gateway.inspection.findings import FileFacts, Finding, Inspection, Signature, Status
from gateway.inspection.run import Inspector

app = typer.Typer()

_LEVELS = {"mat": "MẬT", "toi_mat": "TỐI MẬT", "tuyet_mat": "TUYỆT MẬT"}
_URGENCY = {"khan": "KHẨN", "thuong_khan": "THƯỢNG KHẨN", "hoa_toc": "HỎA TỐC", "hoa_toc_hen_gio": "HỎA TỐC HẸN GIỜ"}
_GRADES = {"strong": "chắc chắn", "weak": "cần người xem"}
_SEALS = {"PRESENT": "có", "UNDECIDABLE": "không kết luận được", "ABSENT": "không có", "NOT_CHECKED": "chưa kiểm tra"}
#: Values of findings in words.
_WORDS = {
    "encrypted": "có mật khẩu, không xem được bên trong", "unknown_container": "tệp hỏng hoặc dạng tệp lạ",
    "unreadable_scan": "bản quét không đọc được", "garbage_text": "lớp chữ không đọc được",
    "no_extractor": "dạng tệp không có bộ đọc", "too_large": "quá lớn", "too_many": "quá nhiều tệp bên trong",
    "too_deep": "lồng quá sâu", "ratio": "tỷ lệ nén bất thường", "damaged": "bị lỗi", "smime": "thư mã hóa S/MIME",
    "pgp": "mã hóa PGP", "timeout": "quá thời gian",
    "type_mismatch": "đuôi tệp không đúng nội dung", "double_extension": "hai đuôi tệp", "path": "có đường dẫn",
    "rtl_override": "có ký tự đảo chiều chữ", "homoglyph": "có chữ của bộ chữ khác", "nul": "có ký tự rỗng",
    "conflict": "thư ghi hai tên khác nhau",
    "macro": "macro", "javascript": "mã JavaScript", "launch": "lệnh chạy chương trình", "embedded_file": "tệp nhúng",
    "openaction": "tự chạy khi mở", "richmedia": "nội dung đa phương tiện", "xfa": "biểu mẫu XFA",
    "executable": "tệp thực thi", "script": "mã lệnh", "polyglot": "một tệp đọc được thành hai loại",
    "external_link": "liên kết tới tệp bên ngoài", "ole_object": "đối tượng OLE",
    "shadow": "nội dung ẩn có thể bị tráo sau khi ký", "red_box": "khung đỏ không đọc được: cần người xem",
    "pasted": "ảnh con dấu được dán vào trang", "removed": "chữ ký số đã bị gỡ bỏ",
    "tcvn3": "TCVN3 (ABC)", "vni": "VNI", "viscii": "VISCII", "viqr": "VIQR", "mojibake": "UTF-8 bị giải mã sai",
    "undeclared": "không khai báo", "font": "phông cũ",
    "internal": "lưu hành nội bộ", "return_after_reading": "xem xong trả lại", "draft": "dự thảo",
}  # fmt: skip
_CHECKS = {
    "text": "đọc nội dung", "ocr": "đọc bản quét", "frames": "tìm khung dấu", "seal": "tìm con dấu",
    "pages": "mở trang", "signature": "kiểm tra chữ ký số", "secrecy": "tìm dấu chỉ độ mật", "malware": "quét mã độc",
    "containers": "mở tệp nén", "mime": "đọc cấu trúc thư", "document": "đọc thể thức",
}  # fmt: skip
_RUNS = {"failed": "không làm được", "timed_out": "quá thời gian", "skipped": "bỏ qua"}
_FINDINGS = {
    "seal": "hình con dấu", "signature": "chữ ký số",
    "active": "nội dung có thể chạy", "uninspectable": "không đọc được", "filename": "tên tệp", "charset": "bảng mã",
    "ambiguous": "cấu trúc mập mờ", "malware": "mã độc", "frame": "khung dấu", "circulation": "phạm vi lưu hành",
    "mime": "cấu trúc thư",
}  # fmt: skip


#: A file that no mail could bring (the largest limit of servers in use is 50 MB) is still read up to this many bytes.
LARGEST = 200 << 20


@app.command("inspect")
def inspect(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Tệp / files: PDF, Office, ZIP, RAR, PNG, EML …")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Mỗi tệp một dòng JSON / one JSON object a line")] = False,
    config: Annotated[Path | None, typer.Option("--config", help="Thư mục cấu hình / configuration folder")] = None,
    annotate: Annotated[
        Path | None,
        typer.Option("--annotate", help="Vẽ những gì đã thấy lên trang: .pdf hoặc .png / draw what was seen"),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, help="Thời gian tối đa cho một tệp / most seconds for one file")
    ] = 120,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Số tiến trình song song; 0: số nhân / processes; 0: one a core")
    ] = 0,
) -> None:
    """Những gì cổng thấy trong tệp: chữ ký số, con dấu, độ mật, độ khẩn, số ký hiệu … / the facts about files.

    Files are read in confined worker processes, several at a time, and told in the order given. Exit code 0: every file
    was read; 1: a file or a check could not be; 2: usage, or a file that is not there.
    """
    if annotate is not None and (len(files) != 1 or annotate.suffix.lower() not in (".pdf", ".png")):
        print(
            "congvan: --annotate cần đúng một tệp và tên .pdf hoặc .png / one FILE, and a name ending in .pdf or .png",
            file=sys.stderr,
        )
        raise typer.Exit(2)
    budget, trust = _settings(config)
    if trust is None and not as_json:
        print("Không có gốc tin cậy (--config): chữ ký số chỉ được xét về toàn vẹn, không xét tin cậy.\n"
              "No trusted roots: signatures cannot be VALID.\n", file=sys.stderr)  # fmt: skip
    # A person waits for this answer and no mail server does: time enough for every page of a scan.
    budget = budget.model_copy(
        update={
            "seconds": seconds, "file_seconds": seconds, "ocr_seconds": max(seconds / 2, 1.0),
            "ocr_pages": max(budget.ocr_pages, 20),
            "seals": "always",
        }
    )  # fmt: skip
    settings = {"budget": budget.model_dump(mode="json"), "trust": str(trust.resolve()) if trust else ""}
    count = min(workers or len(os.sched_getaffinity(0)), len(files))
    code = asyncio.run(_all(files, settings, seconds, count, as_json, annotate))
    raise typer.Exit(code)


async def _all(
    files: list[Path], settings: dict[str, Any], seconds: float, workers: int, as_json: bool, annotate: Path | None
) -> int:
    """Inspect the files in a pool and print them in their order, each as soon as it and those before it are done."""
    inspector = Inspector(settings, workers=workers, seconds=seconds, log=structlog.get_logger())
    running = asyncio.create_task(inspector.run())
    gate = asyncio.Semaphore(workers)  # no more files in memory than are being read
    code = 0

    async def one(path: Path) -> tuple[bytes, Inspection] | str:
        async with gate:
            try:
                data = await asyncio.to_thread(_read, path)
            except OSError as error:
                return error.strerror or str(error)
            facts = await inspector.file(data, path.name)
            return data if annotate else b"", facts

    jobs = [asyncio.create_task(one(path)) for path in files]
    try:
        for path, job in zip(files, jobs, strict=True):
            await asyncio.wait({job, running}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()  # no worker could be started
            result = await job
            if isinstance(result, str):
                print(f"congvan: {path}: {result}", file=sys.stderr)
                code = 2
                continue
            data, facts = result
            if not facts.files:  # no worker could read it: told as a file of which nothing is known
                facts = facts.model_copy(update={"files": (_unread(path),)})
            code = code or int(bool(facts.failed))
            print(json.dumps(as_dict(str(path), facts), ensure_ascii=False) if as_json else as_text(str(path), facts))
            sys.stdout.flush()
            if annotate is not None and not await _annotate(inspector, data, facts, annotate):
                print(f"congvan: {path}: không có trang để vẽ / no pages to draw on", file=sys.stderr)
                code = code or 1
    finally:
        for task in (*jobs, running):
            task.cancel()
        await asyncio.gather(*jobs, running, return_exceptions=True)
        await inspector.stop()
    return code


def _read(path: Path) -> bytes:
    """The bytes of a file. OSError when it cannot be read, or is larger than what is looked at."""
    size = path.stat().st_size
    if size > LARGEST:
        raise OSError(
            errno.EFBIG, f"{size} byte, quá {LARGEST >> 20} MiB: không xem / larger than {LARGEST >> 20} MiB, not read"
        )
    return path.read_bytes()


def _unread(path: Path) -> FileFacts:
    data = path.read_bytes()
    return FileFacts(
        name=path.name, path=path.name, sha256=hashlib.sha256(data).hexdigest(), size=len(data), type="unknown"
    )


def _settings(config: Path | None) -> tuple[configuration.Budget, Path | None]:
    """Budget and folder of trusted roots of an installation; without one the defaults and None."""
    if config is None:
        return configuration.Budget(), None
    gateway_file = config / "gateway.yaml"
    budget = configuration.Budget()
    if gateway_file.exists():
        try:
            budget = configuration.load(configuration.Gateway, gateway_file).budget
        except ConfigError as error:
            print(f"congvan: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
    trust = config / "trust"
    return budget, trust if trust.is_dir() else None


def as_dict(name: str, facts: Inspection) -> dict[str, Any]:
    """What `--json` prints for one file; stable keys (design.md section 6)."""
    first = facts.files[0]
    members = [_file_dict(file.path, file, facts.findings) for file in facts.files[1:]]
    return {
        **_file_dict(name, first, facts.findings, whole=True),
        "files": members or [{"file": path} for path in first.files],
        "failed": [
            {"check": run.check, "file": run.about, "status": run.status.value, "reason": run.reason}
            for run in facts.runs
            if run.status in (Status.FAILED, Status.TIMED_OUT) or (run.status is Status.SKIPPED and run.reason)
        ],
    }


def _file_dict(name: str, file: FileFacts, findings: tuple[Finding, ...], *, whole: bool = False) -> dict[str, Any]:
    """whole: marks of everything inside count for the file (a container is as secret as what it holds)."""
    mine = [
        f for f in findings if f.about == file.path or (whole and (not f.about or f.about.startswith(file.path + "/")))
    ]
    found = file.document
    return {
        "file": name,
        "type": file.type,
        "sha256": file.sha256,
        "size": file.size,
        "encrypted": file.encrypted,
        "damaged": file.damaged,
        "pages": file.pages,
        "text_layer": file.text_layer or None,
        "scan": file.scan,
        "signatures": [
            {
                "state": s.state.value,
                "signer": s.signer,
                "organisation": s.organisation,
                "kind": s.kind,
                "issuer": s.issuer,
                "trust": s.trust or None,
                "subject": s.subject,
                "valid_from": s.valid_from or None,
                "valid_to": s.valid_to or None,
                "signed_at": s.signed_at,
                "time_source": s.time_source or None,
                "timestamped": s.timestamped,
                "covers_whole_file": s.covers_whole_file,
                "algorithm": s.algorithm,
                "conditions": [c.model_dump() for c in s.conditions],
                "notes": list(s.notes),
                "reason": s.reason,
                "reason_vi": s.reason_vi,
            }
            for s in file.signatures
        ],
        "signature_removed": file.signature_removed,
        "seals": [{"page": s.page, "box": list(s.box), "score": s.score, "pasted": s.pasted} for s in file.seals],
        "seal_state": file.seal_state.value,
        "handwritten_signature": file.handwritten_signature,
        "secrecy": secrecy_of(mine),
        "urgency": urgency_of(mine),
        "circulation": sorted({f.value for f in mine if f.kind == "circulation"}),
        "document": None
        if found is None
        else {
            "code": _value(found.code),
            "date": _value(found.date),
            "place": _value(found.place),
            "abstract": _value(found.abstract),
            "signer": _value(found.signer),
            "signer_title": _value(found.signer_title),
            "kind": _value(found.kind),
            "issuing_agency": _value(found.issuing_agency),
            "recipients": [r.model_dump() for r in found.recipients],
            "mode_line": found.mode_line or None,
            "draft": found.draft,
            "internal": found.internal,
            "recall": found.recall,
            "components": found.components,
            "annexes_named": list(found.annexes_named),
            "cites": list(found.cites),
            "confidence": {
                key: field.confidence
                for key in ("code", "date", "abstract", "signer")
                if (field := getattr(found, key))
            },
        },
        "findings": [
            {"kind": f.kind, "value": f.value, "where": f.where, "evidence": f.evidence}
            for f in mine
            if f.kind not in ("secrecy", "urgency", "circulation")
        ],
    }


def _value(field: Any) -> str | None:
    return field.value if field else None


def secrecy_of(findings: list[Finding]) -> dict[str, str | list[str]]:
    """Highest level, best grade, and the places. A companion mark without a level counts as the lowest level."""
    marks = [f for f in findings if f.kind == "secrecy"]
    if not marks:
        return {"level": "none", "strength": "none", "where": []}
    strong = [f for f in marks if f.grade == "strong"]
    order = ["mat", "toi_mat", "tuyet_mat"]
    levels = [f.value for f in (strong or marks) if f.value in order]
    level = max(levels, key=order.index) if levels else "mat" if strong else "none"
    where = list(dict.fromkeys(": ".join(filter(None, (f.about, f.where))) for f in (strong or marks)))
    return {"level": level, "strength": "strong" if strong else "weak", "where": where}


def urgency_of(findings: list[Finding]) -> str:
    order = list(_URGENCY)
    values = [f.value for f in findings if f.kind == "urgency" and f.value in order and f.grade != "weak"]
    values = values or [f.value for f in findings if f.kind == "urgency" and f.value in order]
    return max(values, key=order.index) if values else "none"


def as_text(name: str, facts: Inspection) -> str:
    """The table for a person, in Vietnamese."""
    lines: list[str] = []
    for n, file in enumerate(facts.files):
        shown = name if n == 0 else file.path
        mine = [f for f in facts.findings if f.about == file.path or (n == 0 and not f.about)]
        lines += [shown, "─" * min(len(shown), 78)]
        size = f"{file.size:,}".replace(",", ".")
        kind = f"{file.type}, {size} byte" + (f", {file.pages} trang" if file.pages else "")
        extra = [
            text
            for text, true in (
                ("có mật khẩu", file.encrypted), ("bị hỏng", file.damaged), ("bản quét", file.scan),
                ("không có lớp chữ", file.text_layer == "none"), ("lớp chữ không đọc được",
                file.text_layer == "garbage"),
            )
            if true
        ]  # fmt: skip
        rows = [("Loại tệp", ", ".join([kind, *extra])), ("SHA-256", file.sha256)]
        for number, s in enumerate(file.signatures, 1):
            rows += _signature_rows(s, number if len(file.signatures) > 1 else 0)
        if not file.signatures and file.type == "pdf":
            unknown = "không rõ (tệp có mật khẩu)" if file.encrypted else "không rõ (tệp bị hỏng)" * file.damaged
            rows.append(("Chữ ký số", "đã bị gỡ bỏ" if file.signature_removed else unknown or "không có"))
        if file.type in ("pdf", "jpg", "png", "tiff"):
            places = "; ".join(
                f"trang {s.page} ({s.box[0]:.2f}, {s.box[1]:.2f}) điểm {s.score:.2f}" for s in file.seals
            )
            rows.append(("Hình con dấu", _SEALS[file.seal_state.value] + (f": {places}" if places else "")))
            if file.seals and file.handwritten_signature is not None:
                rows.append(("Chữ ký tay", "có" if file.handwritten_signature else "không thấy"))
        secret = secrecy_of(mine)
        if n == 0 and len(facts.files) > 1:  # a container is as secret as what it holds
            inside = [f for f in facts.findings if f.about.startswith(file.path + "/")]
            if (within := secrecy_of(inside))["strength"] != "none":
                level = _LEVELS.get(str(within["level"]), "có dấu hiệu")
                rows.append(("Độ mật bên trong", f"{level} ({_GRADES[str(within['strength'])]})"))
        if secret["strength"] != "none":
            level = _LEVELS.get(str(secret["level"]), "có dấu hiệu")
            rows.append(("Độ mật", f"{level} ({_GRADES[str(secret['strength'])]}) – {', '.join(secret['where'])}"))
        if (urgency := urgency_of(mine)) != "none":
            rows.append(("Độ khẩn", _URGENCY[urgency]))
        if file.document:
            d = file.document
            for label, field in (
                ("Số, ký hiệu", d.code), ("Ngày văn bản", d.date), ("Loại", d.kind), ("Trích yếu", d.abstract),
                ("Cơ quan ban hành", d.issuing_agency), ("Chức vụ người ký", d.signer_title), ("Người ký", d.signer),
            ):  # fmt: skip
                if field:
                    rows.append((label, field.value))
            if d.draft:
                rows.append(("Tình trạng", "bản dự thảo"))
            if d.recipients:
                rows.append(
                    (
                        "Nơi nhận",
                        "; ".join(r.name + (f" ({r.purpose})" if r.purpose else "") for r in d.recipients[:12]),
                    )
                )
        for f in mine:
            if f.kind not in ("secrecy", "urgency"):
                rows.append(
                    (
                        _FINDINGS.get(f.kind, f.kind).capitalize(),
                        " – ".join(filter(None, (_WORDS.get(f.value, f.value), f.where, f.evidence))),
                    )
                )
        width = 21 if file.signatures else 18
        lines += [f"  {label:<{width}} {value}" for label, value in rows]
        lines.append("")
    for run in facts.runs:
        if run.status is not Status.OK and (run.status is not Status.SKIPPED or run.reason):
            check, status = _CHECKS.get(run.check, run.check), _RUNS.get(run.status.value, run.status.value)
            lines.append(f"  ! {run.about}: {check}: {status} – {run.reason}")
    return "\n".join(lines)


def _signature_rows(s: Signature, number: int) -> list[tuple[str, str]]:
    """The report on a signature (Circular 15/2025/TT-BKHCN), an item a row."""
    from gateway.inspection.signature import report_vi  # with it comes the cryptography, which most files do not need

    rows: list[tuple[str, str]] = []
    for line in report_vi(s).split("\n"):
        label, _, value = line.partition(": ")
        rows.append((f"Chữ ký số {number}" if number else "Chữ ký số", value) if not rows else (f"  {label}", value))
    return rows


async def _annotate(inspector: Inspector, data: bytes, facts: Inspection, target: Path) -> bool:
    """Draw what was seen on the pages; where nothing was, page 1 as it is. Further pages of a PNG stand beside it as
    NAME-PAGE.png. False when there are no pages to show. The file is opened in a worker only."""
    file = facts.files[0]
    marks = [
        (int(found[1]), f"{finding.kind} {finding.value}")
        for finding in facts.findings
        if finding.about == file.path
        and finding.kind in ("secrecy", "urgency", "circulation")
        and (found := re.search(r"trang (\d+)", finding.where))
    ]
    pictures = await inspector.draw(data, file, target.suffix.lower()[1:], marks)
    for number, (page, picture) in enumerate(pictures):
        path = target if not number else target.with_name(f"{target.stem}-{page}{target.suffix}")
        path.write_bytes(picture)
    return bool(pictures)
