"""All checks together: every carrier, nothing skipped silently, nothing escapes; and `congvan inspect`."""

from __future__ import annotations

import base64
import gzip
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench import text_corpus as corpus
from gateway.config import Budget, Clamd
from gateway.inspection import examine, malware, secrecy, text
from gateway.inspection.findings import Inspection, Status
from tests import signed_files as files
from tests.data.inspection import ole
from tests.harness import PATIENCE

QUICK = examine.Settings(budget=Budget(ocr=False, **PATIENCE))


def file(data: bytes, name: str) -> Inspection:
    return examine.examine_file(data, name, QUICK)


def values(found: Inspection, kind: str) -> set[str]:
    return {f.value for f in found.findings if f.kind == kind}


MARKS = ["MẬT", "M Ậ T", "TỐI MẬT - HỎA TỐC", "Mức độ mật : TỐI MẬT", "T U Y Ệ T   M Ậ T"]


@pytest.mark.parametrize("mark", MARKS)
def test_every_carrier(mark: str) -> None:
    for carrier, (name, data) in corpus.carriers(mark).items():
        settings = QUICK
        found = (
            examine.examine_message(data, settings)
            if name.endswith(".eml")
            else examine.examine_file(data, name, settings)
        )
        graded = {(f.value, f.grade) for f in found.findings if f.kind == "secrecy"}
        assert (corpus.STRONG_LINES[mark], "strong") in graded, carrier
        assert all(f.evidence == "" for f in found.findings if f.kind == "secrecy")


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.doc", ole.doc("Kính gửi", header="TỐI MẬT")), ("a.xls", ole.xls([["Số 1"], ["TỐI MẬT"]])), ("a.ppt",
        ole.ppt(["a", "TỐI MẬT"])),
     ("a.msg", ole.msg("x", "Kính gửi\nTỐI MẬT\nabc", {})), ("b.msg", ole.msg("x", "y",
     {"a.docx": corpus.docx("TỐI MẬT")})),
     ("winmail.dat", ole.tnef("a.docx", corpus.docx("TỐI MẬT"), "x")), ("a.txt.gz",
     gzip.compress("TỐI MẬT\n".encode()))],
)  # fmt: skip
def test_old_and_odd_carriers(name: str, data: bytes) -> None:
    found = file(data, name)
    assert ("toi_mat", "strong") in {(f.value, f.grade) for f in found.findings if f.kind == "secrecy"}, found


@pytest.mark.parametrize("subject", corpus.STRONG_SUBJECTS)
def test_subjects_and_names(subject: str) -> None:
    level = corpus.STRONG_SUBJECTS[subject]
    name = subject.replace(":", " -")
    for data in (corpus.eml(subject), corpus.eml(files={f"{name}.txt": b"x"}),
    corpus.eml(files={"a.zip": corpus.zipped({f"{name}.txt": b"x"})}),
                 corpus.eml(files={"kem.eml": corpus.eml(subject)})):  # fmt: skip
        assert level in values(examine.examine_message(data, QUICK), "secrecy")


def test_marks_in_header_fields() -> None:
    for field in ("Keywords", "Comments", "X-Classification"):
        raw = corpus.eml().replace(
            b"MIME-Version", f"{field}: =?utf-8?B?VOG7kEkgTeG6rFQ=?=\r\nMIME-Version".encode(), 1
        )
        assert values(examine.examine_message(raw, QUICK), "secrecy") == {"toi_mat"}


def test_ordinary_mail_is_clean() -> None:
    for paper in corpus.papers(5):
        raw = corpus.eml(
            "Báo cáo tháng 5",
            paper.text,
            files={"bao cao.pdf": corpus.pdf(corpus.laid_out(paper)), "bang.xlsx": corpus.xlsx([["a", "b"]])},
        )
        found = examine.examine_message(raw, QUICK)
        assert not [
            f
            for f in found.findings
            if f.kind in ("secrecy", "urgency", "uninspectable", "active", "ambiguous", "charset")
        ], found.findings
        assert not found.failed
        assert (
            found.files[0].document
            and found.files[0].document.code
            and found.files[0].document.code.value == paper.code
        )
        assert "bao cao.pdf" in found.texts


def test_secrecy_runs_before_any_file_is_opened() -> None:
    raw = corpus.eml("[MẬT] x", files={"a.pdf": corpus.pdf("x")})
    runs = [run.check for run in examine.examine_message(raw, QUICK).runs]
    assert runs.index("secrecy") < min(n for n, check in enumerate(runs) if check not in ("mime", "secrecy"))


def test_facts_of_nested_files() -> None:
    data = corpus.zipped({"trong/b.zip": corpus.zipped({"c.docx": corpus.docx("x")}), "d.pdf": corpus.pdf("x")})
    found = file(data, "a.zip")
    assert [(f.path, f.type, f.depth) for f in found.files] == [
        ("a.zip", "zip", 0), ("a.zip/trong/b.zip", "zip", 1), ("a.zip/trong/b.zip/c.docx", "docx", 2),
        ("a.zip/d.pdf", "pdf", 1),
    ]  # fmt: skip
    assert found.files[0].files == ("a.zip/trong/b.zip", "a.zip/d.pdf")


def test_depth_limit() -> None:
    data = corpus.zipped({"x.txt": "x"})
    for n in range(4):
        data = corpus.zipped({f"{n}.zip": data})
    assert values(file(data, "a.zip"), "uninspectable") == {"too_deep"}


def test_message_nested_a_thousand_times() -> None:
    raw = b"From: a@b.vn\r\nSubject: x\r\n\r\nx"
    for _ in range(1000):
        raw = b"From: a@b.vn\r\nSubject: x\r\nContent-Type: message/rfc822\r\n\r\n" + raw
    found = examine.examine_message(raw, QUICK)
    assert values(found, "uninspectable") & {"too_deep"}


@pytest.mark.parametrize(
    ("name", "data", "kind", "value"),
    [
        ("a.exe", b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0", "active", "executable"),
        ("hoa don.pdf", b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0", "active", "executable"),
        ("hoa don.pdf", b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0", "filename", "type_mismatch"),
        ("a.js", b"WScript.CreateObject('x')", "active", "script"),
        ("a.docm", corpus.zipped({"[Content_Types].xml": "<T/>", "word/document.xml": "<d/>",
        "word/vbaProject.bin": "x"}), "active", "macro"),
        ("a.pdf", b"%PDF-1.4\n" + corpus.zipped({"a": "x"}), "active", "polyglot"),
        ("b.zip", corpus.zipped({"trong/a.vbs": "x=1"}), "active", "script"),
        ("a.pdf.exe", b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0", "filename", "double_extension"),
        ("a.bin", bytes(range(256)) * 20, "uninspectable", "unknown_container"),
        ("a.p7m", bytes.fromhex("3080060a") + b"", "uninspectable", "unknown_container"),
        ("a.p7m", bytes.fromhex("3080 0609 2a864886f70d010703 a080"), "uninspectable", "smime"),
        ("a.asc", b"-----BEGIN PGP MESSAGE-----\n\nx\n-----END PGP MESSAGE-----\n", "uninspectable", "pgp"),
        ("a.docx", ole.compound({"EncryptionInfo": bytes(5000), "EncryptedPackage": bytes(5000)}), "uninspectable",
        "encrypted"),
        ("a.doc", ole.doc("x", encrypted=True), "uninspectable", "encrypted"),
    ],
)  # fmt: skip
def test_findings_about_files(name: str, data: bytes, kind: str, value: str) -> None:
    assert value in values(file(data, name), kind)


def test_encrypted_mail() -> None:
    """reliability.md M4."""
    smime = corpus.eml().replace(
        b"text/plain; charset=utf-8", b'application/pkcs7-mime; smime-type=enveloped-data; name="smime.p7m"'
    )
    assert "smime" in values(examine.examine_message(smime, QUICK), "uninspectable")
    inline = corpus.eml(body="-----BEGIN PGP MESSAGE-----\n\nhQEMA\n-----END PGP MESSAGE-----\n")
    assert "pgp" in values(examine.examine_message(inline, QUICK), "uninspectable")
    multipart = (b'From: a@b.vn\r\nContent-Type: multipart/encrypted; boundary=x; '
        b'protocol="application/pgp-encrypted"\r\n\r\n--x\r\n'
                 b"Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n--x\r\nContent-Type: "
                 b"application/octet-stream\r\n\r\n"
                 b"-----BEGIN PGP MESSAGE-----\r\nx\r\n-----END PGP MESSAGE-----\r\n--x--\r\n")  # fmt: skip
    assert "pgp" in values(examine.examine_message(multipart, QUICK), "uninspectable")


class TestCms:
    @staticmethod
    def signed(content: bytes, *, apart: bool, pem: bool = False) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

        own = files.pki().department
        builder = pkcs7.PKCS7SignatureBuilder().set_data(content).add_signer(own.certificate, own.key, hashes.SHA256())
        options = [pkcs7.PKCS7Options.Binary] + [pkcs7.PKCS7Options.DetachedSignature] * apart
        return builder.sign(Encoding.PEM if pem else Encoding.DER, options)

    @staticmethod
    def states(found: Inspection) -> list[str]:
        return [signature.state.value for file in found.files for signature in file.signatures]

    @pytest.mark.parametrize("name", ["a.docx.p7s", "a.p7s"])
    def test_beside_its_file(self, name: str) -> None:
        document = corpus.docx("Kính gửi")
        apart = self.signed(document, apart=True)
        mail = corpus.eml(files={"a.docx": document, name: apart})
        assert self.states(examine.examine_message(mail, QUICK)) == ["UNTRUSTED_CHAIN"]
        zipped = corpus.zipped({"trong/a.docx": document, f"trong/{name}": apart})
        assert self.states(file(zipped, "a.zip")) == ["UNTRUSTED_CHAIN"]
        other = corpus.eml(files={"a.docx": corpus.docx("khác"), name: apart})
        assert self.states(examine.examine_message(other, QUICK)) == ["TAMPERED"]

    def test_alone_it_is_not_checked(self) -> None:
        found = file(self.signed(b"x", apart=True), "a.pdf.p7s")
        (one,) = found.files[0].signatures
        assert (one.state.value, one.signer) == ("ERROR", "SỞ NỘI VỤ TỈNH DEMO") and "not checked" in one.reason

    @pytest.mark.parametrize("pem", [False, True])
    def test_opaque_content_is_opened(self, pem: bool) -> None:
        found = file(self.signed(corpus.docx("TỐI MẬT"), apart=False, pem=pem), "a.p7m")
        assert self.states(found) == ["UNTRUSTED_CHAIN"] and values(found, "secrecy") == {"toi_mat"}
        assert [f.type for f in found.files] == ["p7s", "docx"]

    def test_opaque_mail(self) -> None:
        inside = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        inside += base64.encodebytes("Kính gửi\nTỐI MẬT\nabc".encode())
        mail = corpus.eml(files={"smime.p7m": self.signed(inside, apart=False)})
        assert values(examine.examine_message(mail, QUICK), "secrecy") == {"toi_mat"}

    @pytest.mark.parametrize(("change", "state"), [(b"", "UNTRUSTED_CHAIN"), (b"!", "TAMPERED")])
    def test_multipart_signed(self, change: bytes, state: str) -> None:
        entity = b"Content-Type: text/plain\r\n\r\nKinh gui"
        signature = base64.encodebytes(self.signed(entity, apart=True)).replace(b"\n", b"\r\n")
        mail = b'From: a@b.vn\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary="=s"; '
        mail += b'protocol="application/pkcs7-signature"\r\n\r\n--=s\r\n' + entity + change + b"\r\n--=s\r\n"
        mail += (
            b'Content-Type: application/pkcs7-signature; name="smime.p7s"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        )
        mail += signature + b"--=s--\r\n"
        assert self.states(examine.examine_message(mail, QUICK)) == [state]
        assert self.states(file(mail, "a.eml")) == [state], "the same as a file"
        assert self.states(file(corpus.zipped({"thư.eml": mail}), "a.zip")) == [state]


class TestGuards:
    def test_a_broken_check_is_told_and_the_others_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(text, "extract", lambda *_: 1 / 0)
        found = file(corpus.docx("MẬT"), "[TỐI MẬT] a.docx")
        assert [(r.check, r.status, r.reason) for r in found.failed] == [("text", Status.FAILED, "ZeroDivisionError")]
        assert "toi_mat" in values(found, "secrecy") and values(found, "uninspectable")

    def test_a_broken_secrecy_check_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(secrecy, "marks", lambda *_: 1 / 0)
        assert {r.check for r in examine.examine_message(corpus.eml(), QUICK).failed} == {"secrecy"}

    def test_a_check_that_never_ends_is_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def forever(*_: object) -> None:
            while True:
                try:
                    time.sleep(0.01)
                except Exception:
                    continue

        monkeypatch.setattr(text, "extract", forever)
        found = examine.examine_file(
            corpus.docx("x"), "a.docx", examine.Settings(budget=Budget(ocr=False, file_seconds=0.2))
        )
        assert [(r.check, r.status) for r in found.failed] == [("text", Status.TIMED_OUT)]

    def test_no_time_left(self) -> None:
        found = examine.examine_message(
            corpus.eml(files={"a.pdf": corpus.pdf("x")}), QUICK, deadline=time.monotonic() - 1
        )
        assert {r.status for r in found.runs} == {Status.TIMED_OUT}

    def test_memory_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr(text, "extract", full)
        assert file(corpus.docx("x"), "a.docx").failed[0].reason == "out of memory"


def test_broken_files_end_as_facts() -> None:
    rng = random.Random(9)
    for name, data in corpus.mutation_seeds().items():
        for _ in range(6):
            found = file(corpus.mutated(data, rng), name)
            assert found.files and isinstance(found.model_dump_json(), str)


def test_answer_survives_the_way_through_json() -> None:
    found = file(corpus.zipped({"a.pdf": corpus.pdf("Số: 1/BC-SNV"), "b.docx": corpus.docx("MẬT")}), "a.zip")
    assert Inspection.model_validate_json(found.model_dump_json(exclude_defaults=True)) == found


def test_light_mail_loads_no_heavy_library() -> None:
    script = (
        "import sys; from bench import text_corpus; data = text_corpus.eml('Họp', 'Kính gửi'); from "
        "gateway.inspection import examine; "
        "examine.examine_message(data, examine.Settings()); "
        "print([m for m in ('numpy', 'cv2', 'pypdfium2', 'pyhanko', 'olefile', 'tesserocr') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    )
    assert done.stdout.strip() == "[]"


# -- clamd -------------------------------------------------------------------------------------------------------


class Clam:
    """Speaks clamd's INSTREAM on loopback. answer: bytes, or None to say nothing."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer, self.received = answer, b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rb") as stream:
            assert stream.read(10) == b"zINSTREAM\0"
            while size := struct.unpack("!I", stream.read(4))[0]:
                self.received += stream.read(size)
            if self.answer is None:
                stream.read(1)  # until the other side gives up
            else:
                connection.sendall(self.answer)


@pytest.mark.parametrize(
    ("answer", "status", "names"),
    [(b"stream: OK\0", Status.OK, []), (b"stream: Win.Test.EICAR_HDB-1 FOUND\0", Status.OK, ["Win.Test.EICAR_HDB-1"]),
     (b"INSTREAM size limit exceeded. ERROR\0", Status.FAILED, []), (b"", Status.FAILED, [])],
)  # fmt: skip
def test_clamd(answer: bytes, status: Status, names: list[str]) -> None:
    clam = Clam(answer)
    findings, run = malware.scan([b"abc", b"d" * 300_000], Clamd(host="127.0.0.1", port=clam.port), "a.pdf")
    assert run.status == status and [f.evidence for f in findings] == names
    clam.thread.join(5)
    assert clam.received == b"abc" + b"d" * 300_000


def test_clamd_silent_or_absent() -> None:
    clam = Clam(None)
    _, run = malware.scan([b"abc"], Clamd(host="127.0.0.1", port=clam.port, timeout=0.3))
    assert run.status == Status.TIMED_OUT
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    _, run = malware.scan([b"abc"], Clamd(host="127.0.0.1", port=port))
    assert run.status == Status.FAILED and "not reachable" in run.reason


# -- the command -------------------------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", "inspect", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)


def test_inspect_json(tmp_path: Path) -> None:
    paper = next(corpus.papers(1))
    (tmp_path / "a.pdf").write_bytes(corpus.pdf(corpus.laid_out(paper)))
    (tmp_path / "b.zip").write_bytes(corpus.zipped({"c.txt": "Số: 1\nTỐI MẬT\nHỎA TỐC\nx"}))
    done = run(str(tmp_path / "a.pdf"), str(tmp_path / "b.zip"), "--json")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    wanted = {"file", "type", "sha256", "encrypted", "pages", "signatures", "seals", "handwritten_signature",
        "secrecy", "urgency", "document", "files", "failed"}  # fmt: skip
    assert wanted <= set(first) and wanted <= set(second)
    assert (first["type"], first["document"]["code"], first["document"]["date"]) == ("pdf", paper.code, paper.date)
    assert first["secrecy"] == {"level": "none", "strength": "none", "where": []} and first["urgency"] == "none"
    assert (second["secrecy"]["level"], second["secrecy"]["strength"], second["urgency"]) == (
        "toi_mat",
        "strong",
        "hoa_toc",
    )
    assert [f["file"] for f in second["files"]] == ["b.zip/c.txt"]


def test_inspect_for_a_person(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(corpus.docx("UBND TỈNH\nSố: 5/KH-UBND\nMẬT"))
    done = run(str(tmp_path / "a.docx"))
    assert done.returncode == 0 and "MẬT (chắc chắn)" in done.stdout and "Không có gốc tin cậy" in done.stderr


def test_inspect_annotates(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(corpus.pdf("Kính gửi"))
    assert run(str(tmp_path / "a.pdf"), "--annotate", str(tmp_path / "o.pdf")).returncode == 0
    assert (tmp_path / "o.pdf").read_bytes().startswith(b"%PDF-")
    assert run(str(tmp_path / "a.pdf"), "--annotate", str(tmp_path / "o.gif")).returncode == 2
    (tmp_path / "b.txt").write_text("x")
    done = run(str(tmp_path / "b.txt"), "--annotate", str(tmp_path / "p.png"))
    assert done.returncode == 1 and "không có trang để vẽ" in done.stderr and not (tmp_path / "p.png").exists()


def test_inspect_missing_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    done = run(str(tmp_path / "nothing.pdf"), str(tmp_path / "a.txt"), "--json")
    assert done.returncode == 2 and "nothing.pdf: No such file" in done.stderr
    assert json.loads(done.stdout)["type"] == "txt", "the other files are told all the same"


def test_inspect_keeps_the_order_of_its_files(tmp_path: Path) -> None:
    paths = []
    for n in range(6):
        paths.append(str(tmp_path / f"{n}.docx"))
        Path(paths[-1]).write_bytes(corpus.docx("Kính gửi\n" * (1 + 3000 * (n % 2))))
    done = run(*paths, "--json", "--workers", "2")
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == paths


def test_inspect_a_file_beyond_its_limit(tmp_path: Path) -> None:
    with (tmp_path / "lon.bin").open("wb") as sparse:
        sparse.truncate((200 << 20) + 1)
    done = run(str(tmp_path / "lon.bin"))
    assert done.returncode == 2 and "quá 200 MiB" in done.stderr and "Traceback" not in done.stderr
