"""Vietnamese administrative documents made at run time: PDF, scan, DOCX, signed PDF, encrypted ZIP.

The page follows the layout of Decree 30/2020, annex I (rules.md 2.1): national motto at the right, agency at the left,
number and date under them, marks of secrecy and urgency under the number, kind and abstract in the centre, signer block
at the right and recipients at the left of the last page. What is signed here is signed as agencies do it: one
incremental update for the person, one for the organisation, each with its own time-stamp.

Needs the packages of the extra `demo`: reportlab, pillow, font-source-serif-pro.
"""

from __future__ import annotations

import binascii
import datetime as dt
import importlib.util
import io
import math
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from gateway.demo.pki import Authority, Pki

if TYPE_CHECKING:
    from PIL.Image import Image

MOTTO = ("CỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM", "Độc lập - Tự do - Hạnh phúc")
#: Stands where a name stands. No person is meant.
SIGNER = "Người Ký Mẫu"

BODY = (
    "Thực hiện chương trình công tác năm, cơ quan thông báo để các đơn vị trực thuộc biết và phối hợp thực hiện các "
    "nội dung sau đây.",
    "1. Thủ trưởng các đơn vị phân công công chức đầu mối, bảo đảm việc tiếp nhận và xử lý văn bản điện tử được thực "
    "hiện đúng thời hạn theo quy định về công tác văn thư.",
    "2. Văn phòng theo dõi, đôn đốc và tổng hợp tình hình thực hiện, báo cáo lãnh đạo cơ quan trước ngày cuối cùng "
    "của mỗi quý.",
    "3. Trong quá trình thực hiện nếu có vướng mắc, đề nghị các đơn vị phản ánh kịp thời bằng văn bản để được hướng "
    "dẫn.",
)


@dataclass(frozen=True, slots=True)
class Paper:
    """What is written on a document. `kind` empty makes a công văn, whose abstract (`V/v …`) stands under the number.

    date None leaves day and month blank, code with blanks before the slash leaves the number blank: a draft.
    """

    agency: str
    code: str
    date: dt.date | None
    abstract: str
    kind: str = ""
    parent: str = ""
    place: str = "Tỉnh Demo"
    to: tuple[str, ...] = ()
    body: tuple[str, ...] = BODY
    recipients: tuple[str, ...] = ("Như trên", "Lưu: VT")
    title: tuple[str, ...] = ("GIÁM ĐỐC",)
    signer: str = SIGNER
    secrecy: str = ""
    urgency: str = ""
    draft: bool = False

    @property
    def place_and_date(self) -> str:
        if self.date is None:
            return f"{self.place}, ngày      tháng      năm"
        day, month = f"{self.date.day:02d}", f"{self.date.month:02d}" if self.date.month < 3 else str(self.date.month)
        return f"{self.place}, ngày {day} tháng {month} năm {self.date.year}"


@cache
def fonts() -> dict[str, Path]:
    """TrueType files of a serif face with every Vietnamese letter. Its italics lack most of them and are not used."""
    spec = importlib.util.find_spec("font_source_serif_pro")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("package font-source-serif-pro is missing: install congvan-gateway[demo]")
    folder = Path(spec.origin).parent / "files"
    return {
        "regular": folder / "SourceSerifPro-Regular.ttf",
        "bold": folder / "SourceSerifPro-Bold.ttf",
    }


@cache
def _registered() -> bool:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    for style, path in fonts().items():
        pdfmetrics.registerFont(TTFont(f"vn-{style}", str(path)))
    return True


def pdf(paper: Paper, *, pages: int = 1, noise: int = 0, seed: int = 1) -> bytes:
    """A born-digital PDF (A4, text layer, embedded subset fonts).

    pages: at least so many, filled with more body. noise: bytes of an incompressible picture that is put on page one,
    for files of a wanted size. Equal arguments give equal bytes.
    """
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.utils import simpleSplit
    from reportlab.pdfgen.canvas import Canvas

    _registered()
    out = io.BytesIO()
    width, height = A4
    left, right = 85.0, width - 57.0  # margins 30 mm and 20 mm, as the decree has them
    page = Canvas(out, pagesize=A4, invariant=1, pageCompression=1)
    page.setTitle(paper.code or paper.abstract)

    def centred(x: float, y: float, text: str, style: str, size: float) -> None:
        page.setFont(f"vn-{style}", size)
        page.drawCentredString(x, y, text)

    def block(x: float, y: float, text: str, style: str, size: float, room: float) -> float:
        for line in simpleSplit(text, f"vn-{style}", size, room):
            centred(x, y, line, style, size)
            y -= size * 1.2
        return y

    agency_x, motto_x = left + 95, right - 115
    y = height - 62
    if paper.parent:
        y = block(agency_x, y, paper.parent, "regular", 11, 200)
    y = block(agency_x, y, paper.agency, "bold", 11, 200)
    page.line(agency_x - 30, y + 7, agency_x + 30, y + 7)
    number_y = min(y - 10, height - 99)  # below the line under the motto, when the agency has but one line
    centred(motto_x, height - 62, MOTTO[0], "bold", 10.5)
    centred(motto_x, height - 77, MOTTO[1], "bold", 12)
    page.line(motto_x - 70, height - 82, motto_x + 70, height - 82)
    centred(agency_x, number_y, f"Số: {paper.code}", "regular", 12)
    centred(motto_x, number_y, paper.place_and_date, "regular", 12)
    y = number_y - 18
    if not paper.kind:
        y = block(agency_x, y, f"V/v {paper.abstract}", "regular", 11, 190)
    for mark, double in ((paper.secrecy, True), (paper.urgency, False)):
        if mark:  # secrecy marks have a double border, urgency marks a single one
            y -= 12
            page.setStrokeColorRGB(0.85, 0.05, 0.1)
            page.setFillColorRGB(0.85, 0.05, 0.1)
            wide = 12 + page.stringWidth(mark, "vn-bold", 13)
            page.setLineWidth(1.2)
            page.rect(agency_x - wide / 2, y - 6, wide, 22)
            if double:
                page.setLineWidth(0.6)
                page.rect(agency_x - wide / 2 + 2, y - 4, wide - 4, 18)
            centred(agency_x, y, mark, "bold", 13)
            page.setStrokeColorRGB(0, 0, 0)
            page.setFillColorRGB(0, 0, 0)
            page.setLineWidth(1)
            y -= 18
    y -= 16
    middle = (left + right) / 2
    if paper.draft:
        centred(left + 60, height - 40, "DỰ THẢO", "bold", 13)
    if paper.kind:
        centred(middle, y, paper.kind, "bold", 14)
        y = block(middle, y - 18, paper.abstract, "bold", 13, 330)
    if paper.to:
        y -= 6
        page.setFont("vn-regular", 13)
        page.drawString(left + 60, y, "Kính gửi: " + (paper.to[0] if len(paper.to) == 1 else ""))
        for one in paper.to if len(paper.to) > 1 else ():
            y -= 16
            page.drawString(left + 120, y, f"- {one};")
        y -= 12
    if noise:
        _noise(page, left, 30, noise, seed)
    page.setFont("vn-regular", 13)
    number = 1
    body = list(paper.body)
    while body:
        text = body.pop(0)
        y -= 8
        for line in simpleSplit("      " + text, "vn-regular", 13, right - left):
            if y < 200:
                page.showPage()
                number += 1
                page.setFont("vn-regular", 13)
                centred(middle, height - 40, str(number), "regular", 12)
                page.setFont("vn-regular", 13)
                y = height - 70
            page.drawString(left, y, line)
            y -= 17
        if not body and number < pages:
            body = list(paper.body)
    y = min(y - 14, 320)
    sign_x = right - 105
    for line in paper.title:
        centred(sign_x, y, line, "bold", 13)
        y -= 16
    centred(sign_x, y - 74, paper.signer, "bold", 13)
    y += 16 * len(paper.title)
    page.setFont("vn-bold", 11)
    page.drawString(left, y, "Nơi nhận:")
    page.setFont("vn-regular", 10)
    for number_in_list, one in enumerate(paper.recipients, 1):
        y -= 13
        page.drawString(left, y, f"- {one}{'.' if number_in_list == len(paper.recipients) else ';'}")
    page.save()
    return out.getvalue()


def signature_box(paper: Paper) -> tuple[int, int, int, int]:
    """Where the person's signature belongs on the last page of `pdf(paper)`, in points."""
    top = 320 - 16 * len(paper.title)
    return (335, top - 66, 520, top + 6)


def _noise(page: object, x: float, y: float, size: int, seed: int) -> None:
    from PIL import Image
    from reportlab.lib.utils import ImageReader

    side = max(8, math.isqrt(size))
    picture = Image.frombytes("L", (side, side), random.Random(seed).randbytes(side * side))
    page.drawImage(ImageReader(picture), x, y, 40, 40)  # type: ignore[attr-defined]


def seal_picture(text: str, pixels: int = 420, seed: int = 1, colour: tuple[int, int, int] = (205, 25, 35)) -> Image:
    """A round red seal on transparent ground: two rings, the name along the ring, a star; ink of uneven strength."""
    from PIL import Image, ImageDraw, ImageFont

    rng = random.Random(seed)
    picture = Image.new("RGBA", (pixels, pixels), (255, 255, 255, 0))
    draw = ImageDraw.Draw(picture)
    middle, ink = pixels / 2, (*colour, 225)
    for radius, line in ((0.49, 0.016), (0.45, 0.006), (0.27, 0.006)):
        box = [middle - radius * pixels, middle - radius * pixels, middle + radius * pixels, middle + radius * pixels]
        draw.ellipse(box, outline=ink, width=max(1, int(line * pixels)))
    points = []
    for corner in range(10):
        reach = pixels * (0.2 if corner % 2 == 0 else 0.08)
        angle = math.pi * corner / 5 - math.pi / 2
        points.append((middle + reach * math.cos(angle), middle + reach * math.sin(angle)))
    draw.polygon(points, fill=ink)
    font = ImageFont.truetype(str(fonts()["bold"]), int(pixels * 0.085))
    letters = f"{text.upper()} • "[: max(12, len(text) + 3)]
    for place, letter in enumerate(letters):
        angle = 2 * math.pi * place / len(letters) - math.pi
        tile = Image.new("RGBA", (int(pixels * 0.14),) * 2, (255, 255, 255, 0))
        side = tile.width
        ImageDraw.Draw(tile).text((side / 2, side / 2), letter, font=font, fill=ink, anchor="mm")
        tile = tile.rotate(-math.degrees(angle) - 90, resample=Image.Resampling.BICUBIC)
        spot = (middle + 0.36 * pixels * math.cos(angle), middle + 0.36 * pixels * math.sin(angle))
        picture.alpha_composite(tile, (int(spot[0] - side / 2), int(spot[1] - side / 2)))
    grain = Image.frombytes("L", (60, 60), bytes(rng.randrange(150, 256) for _ in range(3600))).resize((pixels, pixels))
    alpha = picture.getchannel("A")
    from PIL import ImageChops

    picture.putalpha(ImageChops.multiply(alpha, grain))
    return picture.rotate(rng.uniform(-15, 15), resample=Image.Resampling.BICUBIC)


def signature_picture(pixels: int = 360, seed: int = 1, colour: tuple[int, int, int] = (25, 45, 160)) -> Image:
    """A scribble in blue ink on transparent ground."""
    from PIL import Image, ImageDraw

    rng = random.Random(seed)
    picture = Image.new("RGBA", (pixels, pixels // 2), (255, 255, 255, 0))
    draw = ImageDraw.Draw(picture)
    a, b, shift = rng.uniform(2.5, 3.5), rng.uniform(5, 8), rng.uniform(0, 3)
    points = []
    for step in range(240):
        t = step / 239
        x = pixels * (0.08 + 0.84 * t + 0.06 * math.sin(b * 4 * t + shift))
        y = pixels * (0.25 + 0.16 * math.sin(a * 6 * t + shift) * (1 - 0.5 * t) + 0.05 * math.cos(b * 6 * t))
        points.append((x, y))
    draw.line(points, fill=(*colour, 235), width=max(2, pixels // 90), joint="curve")
    return picture


def scan(
    paper: Paper, *, seal: str = "", handwritten: bool = True, dpi: int = 150, mode: str = "RGB", seed: int = 1
) -> bytes:
    """The paper printed, sealed in red, signed in blue and scanned: a PDF of pictures without text.

    seal: name along the ring of the seal, empty for none. mode: `RGB`, `L` (grey) or `1` (black and white).
    """
    import pypdfium2
    from PIL import Image, ImageFilter

    rng = random.Random(seed)
    pages = []
    document = pypdfium2.PdfDocument(pdf(paper))
    try:
        for number in range(len(document)):
            image = document[number].render(scale=dpi / 72).to_pil().convert("RGB")
            if number == len(document) - 1:
                box, scale = signature_box(paper), dpi / 72
                x, y = box[0] * scale, image.height - box[3] * scale
                if handwritten:
                    ink = signature_picture(int(150 * scale), seed)
                    image.paste(ink, (int(x + 20 * scale), int(y)), ink)
                if seal:  # 36 mm across, over the left third of the signature
                    stamp = seal_picture(seal, int(36 / 25.4 * dpi), seed)
                    image.paste(stamp, (int(x - 35 * scale), int(y - 15 * scale)), stamp)
            image = image.rotate(rng.uniform(-0.6, 0.6), fillcolor=(250, 250, 248), resample=Image.Resampling.BICUBIC)
            image = image.filter(ImageFilter.GaussianBlur(0.4))
            speckle = Image.effect_noise(image.size, 12).convert("RGB")
            pages.append(Image.blend(image, speckle, 0.04).convert(mode))
    finally:
        document.close()
    return pictures_pdf(pages, dpi)


def pictures_pdf(pages: Iterable[Image], dpi: int) -> bytes:
    """A PDF of page-size pictures."""
    first, *rest = pages
    out = io.BytesIO()
    quality = {} if first.mode == "1" else {"quality": 80}
    first.save(out, "PDF", save_all=True, append_images=rest, resolution=dpi, **quality)
    return out.getvalue()


def image_file(data: bytes, dpi: int = 150, format: str = "JPEG") -> bytes:
    """The first page of a PDF as a picture file."""
    import pypdfium2

    document = pypdfium2.PdfDocument(data)
    try:
        out = io.BytesIO()
        document[0].render(scale=dpi / 72).to_pil().convert("RGB").save(out, format, quality=85, dpi=(dpi, dpi))
        return out.getvalue()
    finally:
        document.close()


def sign(
    data: bytes,
    signer: Authority,
    pki: Pki,
    *,
    field: str = "Signature1",
    at: dt.datetime | None = None,
    timestamp: bool = True,
    box: tuple[int, int, int, int] | None = None,
    picture: Image | None = None,
    page: int = 0,
    subfilter: str = "adbe.pkcs7.detached",
    digest: str = "sha256",
    certify: int = 0,
    pss: bool = False,
) -> bytes:
    """One more signature, in its own incremental update, by default PKCS #1 v1.5 as the government's tools sign.

    at: signing time, claimed and time-stamped (default: when the PKI was made). box: points on page `page`, None makes
    the signature invisible. certify: DocMDP permission of a certification, 1 to 3, or 0 for an approval signature.
    """
    from asn1crypto import keys, x509
    from pyhanko.pdf_utils.images import PdfImage
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
    from pyhanko.sign import fields, signers
    from pyhanko.sign.fields import SigSeedSubFilter
    from pyhanko.stamp import StaticStampStyle
    from pyhanko_certvalidator.registry import SimpleCertificateStore

    signed_at = at or pki.made_at
    registry = SimpleCertificateStore()
    registry.register_multiple([x509.Certificate.load(one.der) for one in signer.chain])
    cms_signer = signers.SimpleSigner(
        signing_cert=x509.Certificate.load(signer.der),
        signing_key=keys.PrivateKeyInfo.load(_private(signer)),
        cert_registry=registry,
        prefer_pss=pss,
    )
    stamper = _stamper(pki, signed_at) if timestamp else None
    writer = IncrementalPdfFileWriter(io.BytesIO(data), strict=False)
    if b"/Encrypt" in data:
        writer.encrypt(b"")  # a file that opens without a password
    spec = fields.SigFieldSpec(field, on_page=page, box=box)
    style = None
    if box is not None:
        background = PdfImage(picture, writer=writer) if picture is not None else None
        style = StaticStampStyle(border_width=0, background=background, background_opacity=1.0)
    meta = signers.PdfSignatureMetadata(
        field_name=field,
        md_algorithm=digest,
        subfilter=SigSeedSubFilter.PADES
        if subfilter == "ETSI.CAdES.detached"
        else SigSeedSubFilter.ADOBE_PKCS7_DETACHED,
        certify=certify > 0,
        docmdp_permissions=fields.MDPPerm(certify or 2),
    )

    class DatedSigner(signers.PdfSigner):
        """The clock of the signing session is the caller's."""

        def init_signing_session(self, *arguments: Any, **named: Any) -> Any:
            session = super().init_signing_session(*arguments, **named)
            session.system_time = signed_at
            return session

    pdf_signer = DatedSigner(meta, cms_signer, timestamper=stamper, new_field_spec=spec, stamp_style=style)
    return bytes(pdf_signer.sign_pdf(writer).getvalue())


def timestamp_document(data: bytes, pki: Pki, at: dt.datetime | None = None) -> bytes:
    """A document time-stamp (ETSI EN 319 142-1) in an update of its own."""
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
    from pyhanko.sign.signers import PdfTimeStamper

    writer = IncrementalPdfFileWriter(io.BytesIO(data), strict=False)
    return bytes(PdfTimeStamper(_stamper(pki, at or pki.made_at)).timestamp_pdf(writer, "sha256").getvalue())


def _stamper(pki: Pki, at: dt.datetime) -> Any:
    from asn1crypto import keys, x509
    from pyhanko.sign.timestamps import DummyTimeStamper
    from pyhanko_certvalidator.registry import SimpleCertificateStore

    chain = SimpleCertificateStore()
    chain.register_multiple([x509.Certificate.load(one.der) for one in pki.tsa.chain])
    key = keys.PrivateKeyInfo.load(_private(pki.tsa))
    return DummyTimeStamper(x509.Certificate.load(pki.tsa.der), key, chain, fixed_dt=at)


def _private(signer: Authority) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return signer.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def signed_pdf(paper: Paper, pki: Pki, organisation: Authority | None = None, at: dt.datetime | None = None) -> bytes:
    """The document as an agency sends it: signed by its leader and then, with the seal, by the organisation."""
    data = pdf(paper)
    box = signature_box(paper)
    last = _pages(data) - 1
    data = sign(data, pki.leader, pki, field="NguoiKy", at=at, box=box, picture=signature_picture(), page=last)
    seal = (box[0] - 40, box[1] - 16, box[0] + 62, box[1] + 86)
    organisation = organisation or pki.department
    picture = seal_picture(paper.agency)
    return sign(data, organisation, pki, field="ConDauCoQuan", at=at, box=seal, picture=picture, page=last)


def _pages(data: bytes) -> int:
    import pypdfium2

    document = pypdfium2.PdfDocument(data)
    try:
        return len(document)
    finally:
        document.close()


def docx(paper: Paper, *, header: str = "", watermark: str = "", textbox: str = "") -> bytes:
    """The paper as a Word document (ECMA-376), with optional text in the header, a watermark and a text box."""
    space = (
        'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
        'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships" '
        'xmlns:v="urn:schemas-microsoft-com:vml"'
    )

    def paragraph(text: str, bold: bool = False, align: str = "left") -> str:
        weight = "<w:b/>" if bold else ""
        return (
            f'<w:p><w:pPr><w:jc w:val="{align}"/></w:pPr><w:r><w:rPr>{weight}<w:rFonts w:ascii="Times New Roman" '
            f'w:hAnsi="Times New Roman"/><w:sz w:val="26"/></w:rPr><w:t xml:space="preserve">{escape(text)}</w:t></w:r>'
            "</w:p>"
        )

    head_left = [line for line in (paper.parent, paper.agency) if line]
    number = [f"Số: {paper.code}", *([] if paper.kind else [f"V/v {paper.abstract}"])]
    marks = [line for line in (paper.secrecy, paper.urgency) if line]

    def cell(lines: list[str], align: str = "center") -> str:
        rows = "".join(paragraph(line, align=align) for line in lines) or paragraph("")
        return f'<w:tc><w:tcPr><w:tcW w:w="4800" w:type="dxa"/></w:tcPr>{rows}</w:tc>'

    def table(left: list[str], right: list[str], align: str = "center") -> str:
        grid = '<w:tblGrid><w:gridCol w:w="4800"/><w:gridCol w:w="4800"/></w:tblGrid>'
        width = '<w:tblPr><w:tblW w:w="0" w:type="auto"/></w:tblPr>'
        return f"<w:tbl>{width}{grid}<w:tr>{cell(left, align)}{cell(right)}</w:tr></w:tbl>"

    parts = [paragraph("DỰ THẢO", True)] if paper.draft else []
    parts.append(table(head_left + number + marks, [*MOTTO, paper.place_and_date]))
    if paper.kind:
        parts += [paragraph(paper.kind, True, "center"), paragraph(paper.abstract, True, "center")]
    if paper.to:
        parts.append(paragraph("Kính gửi: " + "; ".join(paper.to)))
    parts += [paragraph(text, align="both") for text in paper.body]
    if textbox:
        parts.append(
            '<w:p><w:r><w:pict><v:shape style="width:200pt;height:40pt"><v:textbox><w:txbxContent>'
            f"{paragraph(textbox, True)}</w:txbxContent></v:textbox></v:shape></w:pict></w:r></w:p>"
        )
    recipients = ["Nơi nhận:", *(f"- {one};" for one in paper.recipients)]
    parts.append(table(recipients, [*paper.title, "", "", paper.signer], "left"))
    section = '<w:headerReference w:type="default" r:id="rId1"/>' if header or watermark else ""
    body = f'{"".join(parts)}<w:sectPr>{section}<w:pgSz w:w="11906" w:h="16838"/></w:sectPr>'
    declaration = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml"
    files = {
        "[Content_Types].xml": f'{declaration}<Types xmlns="{package}/content-types"><Default Extension="rels" '
        f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" '
        f'ContentType="application/xml"/><Override PartName="/word/document.xml" '
        f'ContentType="{main}.document.main+xml"/>'
        f'<Override PartName="/word/header1.xml" ContentType="{main}.header+xml"/></Types>',
        "_rels/.rels": f'{declaration}<Relationships xmlns="{package}/relationships"><Relationship Id="rId1" '
        f'Type="{office}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/_rels/document.xml.rels": f'{declaration}<Relationships xmlns="{package}/relationships"><Relationship '
        f'Id="rId1" Type="{office}/header" Target="header1.xml"/></Relationships>',
        "word/document.xml": f"{declaration}<w:document {space}><w:body>{body}</w:body></w:document>",
        "word/header1.xml": f"{declaration}<w:hdr {space}>{paragraph(header) if header else '<w:p/>'}"
        + (
            '<w:p><w:r><w:pict><v:shape type="#_x0000_t136" style="width:400pt;height:100pt">'
            f'<v:textpath string="{escape(watermark, {chr(34): "&quot;"})}"/></v:shape></w:pict></w:r></w:p>'
            if watermark
            else ""
        )
        + "</w:hdr>",
    }
    return plain_zip({name: text.encode() for name, text in files.items()})


def plain_zip(files: dict[str, bytes]) -> bytes:
    """A ZIP file; equal contents give equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def encrypted_zip(files: dict[str, bytes], password: bytes) -> bytes:
    """A ZIP file under the traditional encryption of PKWARE's APPNOTE 6.1, which every tool can open.

    The standard library reads it but does not write it. Weak, but enough to show a file that cannot be inspected.
    """
    table = [_crc_row(byte) for byte in range(256)]

    def scramble(plain: bytes) -> bytes:
        keys = [0x12345678, 0x23456789, 0x34567890]

        def update(byte: int) -> None:
            keys[0] = keys[0] >> 8 ^ table[(keys[0] ^ byte) & 0xFF]
            keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
            keys[2] = keys[2] >> 8 ^ table[(keys[2] ^ keys[1] >> 24) & 0xFF]

        for byte in password:
            update(byte)
        out = bytearray()
        for byte in plain:
            mask = keys[2] | 2
            out.append(byte ^ (mask * (mask ^ 1) >> 8 & 0xFF))
            update(byte)
        return bytes(out)

    body, directory = bytearray(), bytearray()
    for name, data in files.items():
        crc = binascii.crc32(data)
        engine = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = engine.compress(data) + engine.flush()
        sealed = scramble(os.urandom(11) + bytes([crc >> 24]) + packed)
        path = name.encode()
        common = struct.pack("<HHHHHIIIHH", 20, 0x801, 8, 0, 0x5C21, crc, len(sealed), len(data), len(path), 0)
        directory += (
            b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + path
        )
        body += b"PK\x03\x04" + common + path + sealed
    end = struct.pack("<HHHHIIH", 0, 0, len(files), len(files), len(directory), len(body), 0)
    return bytes(body + directory + b"PK\x05\x06" + end)


def _crc_row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
    return value
