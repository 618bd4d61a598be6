"""Handing out: exactly the received bytes in every form, read back by other programs' readers."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import mailbox
import re
import xml.etree.ElementTree as ET
from email.message import EmailMessage
from pathlib import Path
from unittest.mock import patch
from urllib.parse import unquote

import bagit
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from gateway import exports
from gateway.cli import build
from gateway.inspection.findings import FileFacts
from tests.cases import case, close, open_archive

PDF = b"%PDF-1.4\n" + bytes(range(256)) * 20


def letters() -> list[bytes]:
    """Bytes that a careless way out would change."""
    attached = EmailMessage()
    attached["Subject"] = "Công văn"
    attached["From"] = "van.thu@so-tttt.tinh.gov.vn"
    attached.set_content("kèm tệp\n")
    attached.add_attachment(PDF, maintype="application", subtype="pdf", filename="../Công văn: 14\\CT.pdf")
    return [
        attached.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
        b"Subject: x\r\n\r\nFrom here\r\n>From there\r\n>>From far\r\n\r\n\r\n",
        b"Subject: y\r\n\r\n8-bit \xff\xfe and \t tabs   \r\nFrom \r\n",
        b"Subject: no last line end\r\n\r\nFrom x",
        b"Subject: lone\r\n\r\nline\nfeed\r\n",
    ]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("config")
    (folder / "gateway.yaml").write_text(
        "hostname: mail.tinh.gov.vn\ndata: data\nlisteners: [{kind: relay, port: 0}]\n"
        "next_hops: [{name: hop, host: 127.0.0.1}]\n"
    )
    made: dict[str, bytes] = {}

    async def fill() -> None:
        archive = open_archive(folder / "data")
        for n, data in enumerate(letters()):
            files = ()
            if n == 0:
                digest = hashlib.sha256(PDF).hexdigest()
                files = (FileFacts(name="14.pdf", path="14.pdf", sha256=digest, size=len(PDF), type="pdf"),)
            one = case(data, number=n, subject="Trích & <yếu> \x07", state="seen", files=files, rules=("SG-01",))
            await archive.commit(one)
            made[one.received.case] = data
        await close(archive)

    asyncio.run(fill())
    return folder, made


@functools.cache
def program(noun: str):
    """The commands of a noun, put together once and not for each of a hundred calls."""
    return get_command(build(noun))


def congvan(*words: object, stdin: str = ""):
    arguments = [str(one) for one in words]
    with patch("typer.testing._get_command", lambda _: program(arguments[0])):
        return CliRunner().invoke(None, arguments, input=stdin)


def export(config, cases, target, format_, *more, stdin=""):
    folder, _ = config
    words = ["archive", "export", *cases, "-o", target, "--format", format_, *more, "--config", folder]
    done = congvan(*words, stdin=stdin)
    assert done.exit_code == 0, done.output
    return done


def test_files_and_maildir(config, tmp_path):
    _, made = config
    export(config, made, tmp_path / "eml", "eml")
    assert {path.stem: path.read_bytes() for path in (tmp_path / "eml").iterdir()} == made
    export(config, ["-"], tmp_path / "box", "maildir", stdin="\n".join(made))
    box = mailbox.Maildir(tmp_path / "box", create=False)
    assert sorted(map(box.get_bytes, box.keys())) == sorted(made.values())
    assert {message.get_flags() for message in box} == {"S"}


def test_mbox(config, tmp_path):
    """mboxrd: one `>` taken away gives the bytes back; only the message without a last line end is told of."""
    _, made = config
    done = export(config, made, tmp_path / "mbox", "mbox")
    box = mailbox.mbox(tmp_path / "mbox", create=False)
    back = [re.sub(rb"(?m)^>(>*From )", rb"\1", one) for one in map(box.get_bytes, box.keys())]
    assert back == [data if data.endswith(b"\n") else data + b"\n" for data in made.values()]
    assert done.output.count("congvan:") == 1
    told = congvan("archive", "export", *made, "-o", "-", "--format", "mbox", "--config", config[0])
    assert told.stdout_bytes == (tmp_path / "mbox").read_bytes()


def test_a_bag(config, tmp_path):
    folder, made = config
    export(config, made, tmp_path / "bag", "bagit", "--title", "Hồ sơ\n14", "--file-code", "G09.14")
    bag = bagit.Bag(str(tmp_path / "bag"))
    assert bag.validate() and bag.version == "1.0" and bag.info["External-Description"] == "Hồ sơ 14"
    assert {path.stem: path.read_bytes() for path in (tmp_path / "bag" / "data").iterdir()} == made
    oxum = f"{sum(map(len, made.values()))}.{len(made)}"
    assert bag.info["Payload-Oxum"] == oxum
    for name in made:
        proof = congvan("verify-proof", tmp_path / "bag" / "data" / f"{name}.eml", "--proof",
                        tmp_path / "bag" / "proofs" / f"{name}.tlog-proof", "--key",
                        tmp_path / "bag" / "log" / "log.vkey")  # fmt: skip
        assert proof.exit_code == 0, proof.output
    first = next((tmp_path / "bag" / "data").iterdir())
    first.write_bytes(first.read_bytes() + b" ")
    with pytest.raises(bagit.BagValidationError):
        bag.validate()
    again = congvan("archive", "export", *made, "-o", tmp_path / "bag", "--format", "bagit", "--config", folder)
    assert again.exit_code == 2 and "not empty" in again.output


def test_a_submission_package(config, tmp_path):
    _, made = config
    export(config, made, tmp_path / "out", "sip", "--file-code", "G09/14", "--title", "Hồ sơ <14>")
    (package,) = (tmp_path / "out").iterdir()
    root = ET.parse(package / "METS.xml").getroot()
    assert package.name == root.get("OBJID").replace(":", "_")
    listed = set()
    for document in (package / "METS.xml", *package.glob("representations/*/METS.xml")):
        tree = ET.parse(document).getroot()
        ids = [one.get("ID") for one in tree.iter() if one.get("ID")]
        assert len(ids) == len(set(ids))
        pointers = {one.get("FILEID") for one in tree.iter(f"{{{exports._METS}}}fptr")}
        assert pointers <= set(ids)
        for one in tree.iter():
            if one.get("CHECKSUM") is None:
                continue
            holder = one if one.get(f"{{{exports._XLINK}}}href") else one[0]
            path = document.parent / unquote(holder.get(f"{{{exports._XLINK}}}href"))
            assert hashlib.sha256(path.read_bytes()).hexdigest() == one.get("CHECKSUM")
            assert path.stat().st_size == int(one.get("SIZE")) and one.get("CHECKSUMTYPE") == "SHA-256"
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+07:00", one.get("CREATED"))
            listed.add(path)
    there = {path for path in package.rglob("*") if path.is_file()}
    assert there - listed == {package / "METS.xml"}
    sent = {path.stem: path.read_bytes() for path in (package / "representations/rep1/data").iterdir()}
    assert sent == made
    (file,) = [path for path in (package / "representations/rep2/data").rglob("*") if path.is_file()]
    assert file.read_bytes() == PDF and ".." not in file.name
    premis = ET.parse(package / "metadata/preservation/PREMIS.xml").getroot()
    ns = {"p": exports._PREMIS}
    digests = [one.text for one in premis.iterfind(".//p:messageDigest", ns)]
    assert sorted(digests) == sorted(hashlib.sha256(data).hexdigest() for data in (*made.values(), PDF))
    ead = ET.parse(package / "metadata/descriptive/EAD.xml").getroot()
    titles = [one.text for one in ead.iter(f"{{{exports._EAD}}}unittitle")]
    assert titles[0] == "Hồ sơ <14>" and len(titles) == len(made) + 1


def test_the_shape_of_the_metadata(config, tmp_path):
    """Against RELAX NG schemas written for what is used of METS, EAD3 and PREMIS 3."""
    lxml = pytest.importorskip("lxml.etree")
    _, made = config
    export(config, list(made)[:2], tmp_path / "out", "sip")
    (package,) = (tmp_path / "out").iterdir()
    here = Path(__file__).parent / "data" / "package"
    for schema, documents in (
        ("mets.rng", [package / "METS.xml", *package.glob("representations/*/METS.xml")]),
        ("ead.rng", [package / "metadata/descriptive/EAD.xml"]),
        ("premis.rng", [package / "metadata/preservation/PREMIS.xml"]),
    ):
        checker = lxml.RelaxNG(lxml.parse(str(here / schema)))
        for document in documents:
            checker.assertValid(lxml.parse(str(document)))


def test_what_cannot_be_asked_for(config, tmp_path):
    folder, made = config
    case_id = next(iter(made))

    def code(*words):
        return congvan("archive", "export", *words, "--config", folder).exit_code

    assert code(case_id, "-o", tmp_path / "x", "--format", "zip") == 2
    assert code(case_id, "-o", tmp_path / "x", "--format", "mbox", "--as-delivered") == 2
    assert code(*made, "-o", "-") == 2 and code(case_id, "-o", "-", "--format", "bagit") == 2
    assert code(case_id, "NONE", "-o", tmp_path / "x") == 1 and not (tmp_path / "x").exists()
    assert code(case_id, "-o", tmp_path / "no" / "folder" / "x") == 2
    (tmp_path / "file").write_bytes(b"")
    assert code(case_id, "-o", tmp_path / "file", "--format", "maildir") == 2
