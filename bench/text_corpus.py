"""Ordinary and marked documents made at run time, and what the text checks say about them.

    python -m bench.text_corpus negatives [FOLDER …] [--count 500]   alarms on ordinary texts in every encoding: none
    python -m bench.text_corpus marks                                every strong form in every carrier: all found
    python -m bench.text_corpus fields [--count 100] [--scan]        number and date from text layers, or from scans
    python -m bench.text_corpus mutations [--count 10000]            broken files: time, memory, and how each ended
    python -m bench.text_corpus speed                                CPU time of a 200 KB PDF and of a 4 KB mail

A folder holds `*.txt` in UTF-8 that carry no mark. Prints one JSON object a line; exit code 1 when a promise is broken.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import random
import resource
import sys
import tarfile
import time
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway import vietnamese
from gateway.inspection import containers, document, examine, secrecy, text
from gateway.inspection.segments import Segment

# -- encodings -----------------------------------------------------------------------------------------------------

_TO_TCVN3 = {letter: chr(byte) for byte, letter in vietnamese._TCVN3.items()}
_TO_VISCII = {letter: chr(byte) for byte, letter in vietnamese._VISCII.items()}
_TO_VNI: dict[str, str] = {}
for _pair, _letter in vietnamese._VNI.items():
    if _letter not in _TO_VNI or (_letter.isupper() and _pair.isupper()):
        _TO_VNI[_letter] = _pair


def to_tcvn3(source: str) -> str:
    """As typed with a .VnTime font and read as Latin-1: accented capitals do not exist and are typed small."""
    return "".join(_TO_TCVN3.get(c) or _TO_TCVN3.get(c.lower()) or c for c in source)


def to_tcvn3_capitals(source: str) -> str:
    """As typed with a .VnTimeH font: small letters that are shown as capitals."""
    return to_tcvn3(source.lower())


def to_vni(source: str) -> str:
    return "".join(_TO_VNI.get(c, c) for c in source)


def to_viscii(source: str) -> str:
    return "".join(_TO_VISCII.get(c, c) for c in source)


def to_mojibake(source: str) -> str:
    """UTF-8 read as windows-1252, with its five undefined bytes passed through."""
    return "".join(
        chr(b) if b in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else bytes([b]).decode("cp1252") for b in source.encode("utf-8")
    )


ENCODINGS: dict[str, Callable[[str], str]] = {
    "nfc": lambda s: s,
    "nfd": lambda s: unicodedata.normalize("NFD", s),
    "tcvn3": to_tcvn3,
    "tcvn3-h": to_tcvn3_capitals,
    "vni": to_vni,
    "viscii": to_viscii,
    "mojibake": to_mojibake,
    "mojibake-nfd": lambda s: to_mojibake(unicodedata.normalize("NFD", s)),
    "upper": str.upper,
    "upper-tcvn3": lambda s: to_tcvn3(s.upper()),
    "upper-vni": lambda s: to_vni(s.upper()),
    "upper-mojibake": lambda s: to_mojibake(s.upper()),
}

# -- marks ---------------------------------------------------------------------------------------------------------

#: The strong forms of rules.md 3.1 as they stand in running text, with the level that must come out.
STRONG_LINES: dict[str, str] = {
    "TUYỆT MẬT": "tuyet_mat",
    "TỐI MẬT": "toi_mat",
    "MẬT": "mat",
    "[MẬT]": "mat",
    "| TỐI MẬT |": "toi_mat",
    "M Ậ T": "mat",
    "T U Y Ệ T   M Ậ T": "tuyet_mat",
    "T.Ố.I M.Ậ.T": "toi_mat",
    "MẬT (C)": "mat",
    "TUYỆT MẬT (A)": "tuyet_mat",
    "MẬT\nBản số: 03": "mat",
    "TỐI MẬT - HỎA TỐC": "toi_mat",
    "HOẢ TỐC\nMẬT": "mat",
    "Độ mật: Mật": "mat",
    "Mức độ mật : TỐI MẬT": "toi_mat",
    "độ mật: tuyệt mật": "tuyet_mat",
    "Độ mật\nMật": "mat",
    "CHỈ NGƯỜI CÓ TÊN MỚI ĐƯỢC BÓC BÌ": "unknown",
    "Thời hạn bảo vệ bí mật nhà nước: 10 năm": "unknown",
    "TÀI LIỆU THU HỒI\nTUYỆT MẬT": "tuyet_mat",
}
#: Isolated cells of a header whose columns were glued.
STRONG_CELLS: dict[str, str] = {
    "Số: 12/BC-UBND      MẬT      Hà Nội, ngày 03 tháng 4 năm 2024": "mat",
    "Số: 7/KH-SNV\tTUYỆT MẬT\tVinh, ngày 12 tháng 5 năm 2024": "tuyet_mat",
}
STRONG_SUBJECTS: dict[str, str] = {
    "[MẬT] Báo cáo quý I": "mat",
    "(Tối mật) Kế hoạch": "toi_mat",
    "MẬT - Báo cáo tình hình": "mat",
    "TUYỆT MẬT: phương án": "tuyet_mat",
    "RE: FW: [Mật] Báo cáo": "mat",
    "Trả lời: TỐI MẬT - họp": "toi_mat",
    "TUYỆT MẬT": "tuyet_mat",
}
#: Disguises that stay strong.
DISGUISES: dict[str, Callable[[str], str]] = {
    "zero-width": lambda s: s.replace("M", "M\u200b").replace("T", "\u2060T"),
    "soft hyphen": lambda s: s.replace("Ậ", "\u00adẬ"),
    "no-break spaces": lambda s: "\n".join(f"\u00a0{line}\u00a0" for line in s.split("\n")),
    "full width": lambda s: "".join(chr(ord(c) + 0xFEE0) if "A" <= c <= "Z" else c for c in s),
    "cyrillic": lambda s: s.replace("M", "М").replace("T", "Т").replace("H", "Н"),
    "greek": lambda s: s.replace("M", "Μ").replace("T", "Τ"),
    "cp1258": lambda s: (
        s.replace("Ậ", "Â\u0323").replace("ậ", "â\u0323").replace("ệ", "ê\u0323").replace("Ệ", "Ê\u0323")
    ),
}
WEAK_LINES = ("Mật", "Tối mật", "TÀI LIỆU MẬT", "VĂN BẢN MẬT", "HỒ SƠ MẬT", "TUYET MAT", "TOI MAT", "[MAT]",
              "LUẬT BẢO VỆ BÍ\nMẬT\nNHÀ NƯỚC", "GIẢI MẬT\nTừ: 01/02/2024", "MẬT\nGIẢI MẬT\nTừ: 01/02/2024",
              "TÀI LIỆU THU HỒI")  # fmt: skip
BENIGN = (
    "bí mật nhà nước", "bí mật kinh doanh", "bí mật đời tư", "bảo mật", "cơ mật", "mật khẩu", "mật mã", "mật độ",
    "mật thiết",
    "mật vụ", "mật danh", "mật ngữ", "mật thư", "mật ong", "thân mật", "giải mật", "trừ văn bản mật",
    "(trừ các văn bản mật)",
    "trừ văn bản, thông tin mật", "các văn bản mật, tối mật, tuyệt mật", "danh mục bí mật nhà nước",
    "Pháp lệnh bảo vệ bí mật nhà nước", "Luật bảo vệ bí mật nhà nước", "độ mật của tài liệu", "dấu chỉ độ mật",
    "Độ mật: Thường",
    "Độ mật: Không", "Độ mật: Bình thường", "công tác bảo vệ bí mật", "TUYỆT ĐỐI BÍ MẬT",
    "Tuyệt đối không gửi qua thư miễn phí",
    "MẶT TRẬN TỔ QUỐC", "Toi mat dien thoai", "mat khau", "mat bang", "MẬT KHẨU", "MẬT ĐỘ DÂN SỐ", "BẢO MẬT", "BÍ MẬT",
    "khẩn trương", "khẩn cấp", "KHẨN CẤP", "KHẨN TRƯƠNG", "Khẩn trương", "văn bản hỏa tốc, văn bản khẩn",
    "khẩn thiết", "khẩn hoang",
)  # fmt: skip

# -- ordinary documents --------------------------------------------------------------------------------------------

_PLACES = ("Hà Nội", "Hà Tĩnh", "Cần Thơ", "Đà Nẵng", "Thành phố Hồ Chí Minh", "Bình Định", "Lào Cai", "Thừa Thiên Huế",
           "Bà Rịa - Vũng Tàu", "Đắk Lắk", "Quảng Ninh", "Kiên Giang", "TP. Vinh", "Nghệ An", "Sóc Trăng")  # fmt: skip
_OFFICES = (("SỞ NỘI VỤ", "SNV"), ("SỞ TÀI CHÍNH", "STC"), ("SỞ GIÁO DỤC VÀ ĐÀO TẠO", "SGDĐT"), ("SỞ Y TẾ", "SYT"),
            ("SỞ TÀI NGUYÊN VÀ MÔI TRƯỜNG", "STNMT"), ("VĂN PHÒNG", "VP"), ("THANH TRA TỈNH", "TTr"), ("BAN DÂN TỘC",
            "BDT"))  # fmt: skip
_KINDS = (
    "QUYẾT ĐỊNH",
    "BÁO CÁO",
    "KẾ HOẠCH",
    "THÔNG BÁO",
    "TỜ TRÌNH",
    "CHỈ THỊ",
    "GIẤY MỜI",
    "CÔNG VĂN",
    "CHƯƠNG TRÌNH",
    "HƯỚNG DẪN",
)
_SUBJECTS = ("triển khai chuyển đổi số trong cơ quan nhà nước", "kiện toàn Ban Chỉ đạo cải cách hành chính",
             "bảo đảm an toàn, bảo mật thông tin trên môi trường mạng", "công tác phòng chống lụt bão năm nay",
             "tổng kết công tác văn thư, lưu trữ", "rà soát mật độ xây dựng tại các khu dân cư",
             "tuyên truyền Luật Bảo vệ bí mật nhà nước", "thu phí, lệ phí tại bộ phận một cửa",
             "quản lý tài khoản và mật khẩu thư điện tử công vụ", "khẩn trương khắc phục hậu quả mưa lũ")  # fmt: skip
_SENTENCES = (
    "Các đơn vị chủ động phối hợp, khẩn trương hoàn thành nhiệm vụ được giao trước ngày 25 hằng tháng.",
    "Việc trao đổi văn bản điện tử thực hiện theo quy định, trừ văn bản mật và văn bản có quy định riêng.",
    "Cán bộ, công chức tự bảo quản mật khẩu hộp thư, không cho người khác sử dụng tài khoản của mình.",
    "Văn phòng theo dõi, đôn đốc và tổng hợp kết quả báo cáo lãnh đạo.",
    "Mật độ dân cư tại khu vực ven biển tăng nhanh, gây áp lực lên hạ tầng kỹ thuật.",
    "Đề nghị Ủy ban Mặt trận Tổ quốc các cấp giám sát việc thực hiện.",
    "Bảo đảm an toàn, an ninh, bảo mật thông tin trong quá trình vận hành hệ thống.",
    "Trường hợp khẩn cấp, báo cáo ngay qua điện thoại rồi gửi văn bản sau.",
    "Kinh phí thực hiện bố trí trong dự toán ngân sách được giao đầu năm.",
    "Hồ sơ thuộc danh mục bí mật nhà nước được quản lý theo chế độ riêng, không gửi qua mạng.",
    "Các hộ nuôi ong lấy mật được hỗ trợ vay vốn ưu đãi theo chương trình khuyến nông.",
    "Tuyệt đối không để xảy ra tình trạng tồn đọng hồ sơ của người dân và doanh nghiệp.",
    "Xác định độ mật của tài liệu là trách nhiệm của người soạn thảo, trình người có thẩm quyền quyết định.",
    "Thời gian tổ chức từ 7 giờ 30 phút, tại hội trường cơ quan; đề nghị đến dự đúng giờ.",
    "Giữ mối liên hệ mật thiết với nhân dân, lắng nghe ý kiến đóng góp từ cơ sở.",
)  # fmt: skip
_FAMILY = ("Nguyễn", "Trần", "Lê", "Phạm", "Hoàng", "Vũ", "Đặng", "Bùi", "Đỗ", "Hồ")
_MIDDLE = ("Văn", "Thị", "Đức", "Minh", "Thanh", "Quốc", "Hữu", "Ngọc")
_GIVEN = ("An", "Bình", "Cường", "Dũng", "Giang", "Hạnh", "Khánh", "Lan", "Phúc", "Sơn", "Thủy", "Yến")


@dataclass(frozen=True, slots=True)
class Paper:
    """A made document and what must be read from it. lines of the header: (left, right)."""

    code: str
    date: str
    kind: str
    agency: str
    signer: str
    header: tuple[tuple[str, str], ...]
    body: tuple[str, ...]
    foot: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        rows = [f"{left}\t{right}".strip("\t") for left, right in self.header]
        return "\n".join([*rows, *self.body, *[f"{left}\t{right}" for left, right in self.foot]])


def papers(count: int, seed: int = 1) -> Iterator[Paper]:
    """Ordinary official documents of our own wording: no mark in any of them, though the words are there."""
    rng = random.Random(seed)
    for n in range(count):
        place = rng.choice(_PLACES)
        office, short = rng.choice(_OFFICES)
        kind = _KINDS[n % len(_KINDS)]
        about = rng.choice(_SUBJECTS)
        number = rng.choice((rng.randrange(1, 99), rng.randrange(100, 9999)))
        day = (rng.randrange(1, 29), rng.randrange(1, 13), rng.randrange(2012, 2026))
        abbreviation = document.KINDS[kind]
        symbol = f"{short}-VP" if kind == "CÔNG VĂN" else f"{abbreviation}-{short}"
        code = f"{number:02d}/{symbol}"
        gap = rng.choice(("", "", " ", "      "))
        padded = f"{day[0]:02d}" if rng.random() < 0.7 else str(day[0])
        signer = f"{rng.choice(_FAMILY)} {rng.choice(_MIDDLE)} {rng.choice(_GIVEN)}"
        header = [
            (f"UBND TỈNH {place.upper()}", rng.choice(("CỘNG HÒA", "CỘNG HOÀ")) + " XÃ HỘI CHỦ NGHĨA VIỆT NAM"),
            (office, rng.choice(("Độc lập - Tự do - Hạnh phúc", "Độc lập – Tự do – Hạnh phúc"))),
            (f"Số: {number:02d}{gap}/{symbol}", f"{place}, ngày {padded} tháng {day[1]:02d} năm {day[2]}"),
        ]
        if kind == "CÔNG VĂN":
            header.append((f"V/v {about}", ""))
            body = ["Kính gửi: Ủy ban nhân dân các huyện, thành phố"]
        else:
            body = [
                kind,
                f"Về việc {about}",
                "Căn cứ Nghị định số 30/2020/NĐ-CP ngày 05 tháng 3 năm 2020 của Chính phủ;",
            ]
        for paragraph in range(rng.randrange(4, 14)):
            body.append(f"{paragraph + 1}. " + " ".join(rng.sample(_SENTENCES, rng.randrange(2, 5))))
        foot = [
            ("Nơi nhận:", rng.choice(("KT. GIÁM ĐỐC", "GIÁM ĐỐC"))),
            ("- Như trên;", "PHÓ GIÁM ĐỐC" if n % 2 else ""),
            ("- UBND tỉnh (để b/c);", ""),
            ("- Lưu: VT, VP.", signer),
        ]
        agency = f"VĂN PHÒNG UBND TỈNH {place.upper()}" if office == "VĂN PHÒNG" else office
        date = f"{day[2]:04d}-{day[1]:02d}-{day[0]:02d}"
        yield Paper(code, date, abbreviation, agency, signer, tuple(header), tuple(body), tuple(foot))


# -- files ---------------------------------------------------------------------------------------------------------

_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" xmlns:v="urn:schemas-microsoft-com:vml"'


def _escaped(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _paragraphs(content: str, split: bool = False) -> str:
    """Word paragraphs; split: each letter a run of its own, as editing leaves it."""
    made = []
    for line in content.split("\n"):
        runs = list(line) if split else [line]
        made.append(
            "<w:p>" + "".join(f'<w:r><w:t xml:space="preserve">{_escaped(r)}</w:t></w:r>' for r in runs) + "</w:p>"
        )
    return "".join(made)


def zipped(members: dict[str, bytes | str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def docx(
    body: str = "", *, header: str = "", box: str = "", watermark: str = "", split: bool = False, **parts: str
) -> bytes:
    members: dict[str, bytes | str] = {"[Content_Types].xml": "<Types/>"}
    inner = _paragraphs(body, split)
    if box:
        content = f"<w:txbxContent>{_paragraphs(box, split)}</w:txbxContent>"
        inner += f"<w:p><w:r><w:pict><v:shape><v:textbox>{content}</v:textbox></v:shape></w:pict></w:r></w:p>"
    members["word/document.xml"] = f"<w:document {_W}><w:body>{inner}</w:body></w:document>"
    top = _paragraphs(header, split) if header else ""
    if watermark:
        top += f'<w:p><w:r><w:pict><v:shape><v:textpath string="{_escaped(watermark)}"/></v:shape></w:pict></w:r></w:p>'
    if top:
        members["word/header1.xml"] = f"<w:hdr {_W}>{top}</w:hdr>"
    members.update({name.replace("__", "/") + ".xml": content for name, content in parts.items()})
    return zipped(members)


def xlsx(rows: list[list[str]], header: str = "") -> bytes:
    strings = [cell for row in rows for cell in row]
    shared = "".join(f"<si><t>{_escaped(cell)}</t></si>" for cell in strings)
    number, lines = 0, []
    for row in rows:
        cells = []
        for _ in row:
            cells.append(f'<c t="s"><v>{number}</v></c>')
            number += 1
        lines.append(f"<row>{''.join(cells)}</row>")
    margin = f"<headerFooter><oddHeader>&amp;C&amp;12{_escaped(header)}</oddHeader></headerFooter>" if header else ""
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "xl/workbook.xml": '<workbook><sheets><sheet name="Trang 1"/></sheets></workbook>',
            "xl/sharedStrings.xml": f"<sst>{shared}</sst>",
            "xl/worksheets/sheet1.xml": f"<worksheet><sheetData>{''.join(lines)}</sheetData>{margin}</worksheet>",
        }
    )


def pptx(slides: list[str]) -> bytes:
    space = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" xmlns:p="x"'
    members: dict[str, bytes | str] = {"[Content_Types].xml": "<Types/>"}
    for n, slide in enumerate(slides, 1):
        lines = "".join(f"<a:p><a:r><a:t>{_escaped(line)}</a:t></a:r></a:p>" for line in slide.split("\n"))
        members[f"ppt/slides/slide{n}.xml"] = f"<p:sld {space}><p:txBody>{lines}</p:txBody></p:sld>"
    return zipped(members)


def odt(body: str, header: str = "") -> bytes:
    space = 'xmlns:office="o" xmlns:text="t" xmlns:style="s"'
    lines = "".join(f"<text:p>{_escaped(line)}</text:p>" for line in body.split("\n"))
    members: dict[str, bytes | str] = {
        "mimetype": "application/vnd.oasis.opendocument.text",
        "content.xml": f"<office:document-content "
        f"{space}><office:body><office:text>{lines}</office:text></office:body></office:document-content>",
        "META-INF/manifest.xml": "<m/>",
    }
    if header:
        members["styles.xml"] = (
            f"<office:document-styles "
            f"{space}><style:header><text:p>{_escaped(header)}</text:p></style:header></office:document-styles>"
        )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def _rtf_coded(content: str) -> str:
    out = []
    for c in content:
        if c == "\n":
            out.append("\\par ")
        elif ord(c) > 127:
            out.append(f"\\u{ord(c) if ord(c) < 32768 else ord(c) - 65536}?")
        else:
            out.append("\\" + c if c in "\\{}" else c)
    return "".join(out)


def rtf(body: str, header: str = "") -> bytes:
    coded = _rtf_coded
    top = f"{{\\header {coded(header)}\\par}}" if header else ""
    return f"{{\\rtf1\\ansi\\ansicpg1252{{\\fonttbl{{\\f0 Times New Roman;}}}}{top}\\f0 {coded(body)}}}".encode("ascii")


FONTS = ("/usr/share/fonts/truetype/dejavu/DejaVuSerif.ttf",
    "/usr/share/fonts/truetype/liberation2/LiberationSerif-Regular.ttf",
         "/usr/share/fonts/truetype/noto/NotoSerif-Regular.ttf",
         "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")  # fmt: skip


def font() -> Path:
    """A font of the system with Vietnamese letters. Raises FileNotFoundError."""
    for name in FONTS:
        if Path(name).is_file():
            return Path(name)
    raise FileNotFoundError("no font with Vietnamese letters: install fonts-dejavu")


def pdf(pages: list[list[tuple[float, float, str]]] | str, *, size: float = 12) -> bytes:
    """A PDF of texts at places (x, y from the top, in points), or of plain lines."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont
    from reportlab.pdfgen import canvas

    if isinstance(pages, str):
        lines = pages.split("\n")
        pages = [
            [(60, 60 + 16 * k, line) for k, line in enumerate(lines[n : n + 45])]
            for n in range(0, max(len(lines), 1), 45)
        ]
    if "Serif" not in pdfmetrics.getRegisteredFontNames():
        pdfmetrics.registerFont(TTFont("Serif", str(font())))
    out = io.BytesIO()
    sheet = canvas.Canvas(out, pagesize=(595, 842))
    for page in pages:
        sheet.setFont("Serif", size)
        for x, y, line in page:
            sheet.drawString(x, 842 - y, line)
        sheet.showPage()
    sheet.save()
    return out.getvalue()


def laid_out(paper: Paper) -> list[list[tuple[float, float, str]]]:
    """A paper as a typist lays it out: two columns above and below, wrapped text between."""
    page: list[tuple[float, float, str]] = []
    y = 60.0
    for left, right in paper.header:
        page += [(50, y, left)] if left else []
        page += [(290, y, right)] if right else []
        y += 18
    pages = [page]
    for line in paper.body:
        words = line.split()
        row = ""
        for word in [*words, ""]:
            if word and len(row) + len(word) < 78:
                row = f"{row} {word}".strip()
                continue
            pages[-1].append((60 if len(row) > 30 else 240, y, row))
            row, y = word, y + 16
            if y > 760:
                pages.append([])
                y = 60
    if y > 640:
        pages.append([])
        y = 60
    for left, right in paper.foot:
        y += 18
        pages[-1] += [(50, y, left)] if left else []
        pages[-1] += [(340, y, right)] if right else []
    return pages


def eml(subject: str = "x", body: str = "x", *, html: bool = False, files: dict[str, bytes] | None = None) -> bytes:
    """A mail with encoded subject, quoted in UTF-8 base64, and attachments."""

    def word(value: str) -> str:
        return f"=?utf-8?B?{base64.b64encode(value.encode()).decode()}?="

    def part(kind: str, data: bytes, extra: str = "") -> str:
        return f"Content-Type: {kind}\r\n{extra}Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(
            data
        ).decode().replace("\n", "\r\n")

    top = ("From: van.thu@so.tinh.gov.vn\r\nTo: van.thu@tinh.gov.vn\r\nDate: Mon, 06 May 2024 08:00:00 +0700\r\n"
           f"Message-ID: <1@so.tinh.gov.vn>\r\nSubject: {word(subject)}\r\nMIME-Version: 1.0\r\n")  # fmt: skip
    text_part = part(f"text/{'html' if html else 'plain'}; charset=utf-8", body.encode())
    if not files:
        return (top + text_part).encode()
    pieces = [text_part]
    for name, data in files.items():
        if name.endswith(".eml"):
            pieces.append(
                f'Content-Type: message/rfc822\r\nContent-Disposition: attachment; filename="{name}"\r\n\r\n'
                + data.decode()
            )
        else:
            pieces.append(
                part("application/octet-stream", data, f'Content-Disposition: attachment; filename="{word(name)}"\r\n')
            )
    joined = "".join(f"--limit\r\n{piece}\r\n" for piece in pieces)
    return (top + 'Content-Type: multipart/mixed; boundary="limit"\r\n\r\n' + joined + "--limit--\r\n").encode()


def carriers(mark: str) -> dict[str, tuple[str, bytes]]:
    """The same mark in every place of rules.md 3.1: carrier → (file name, bytes)."""
    context = f"ỦY BAN NHÂN DÂN\nSố: 05/KH-UBND\n{mark}\nKính gửi: các đơn vị"
    return {
        "body": ("m.eml", eml(body=context)),
        "html": (
            "m.eml",
            eml(body="<p>" + context.replace("\n", "</p><p>").replace("MẬT", "M<b>Ậ</b>T") + "</p>", html=True),
        ),
        "html table": (
            "m.eml",
            eml(body="<table><tr><td>" + context.replace("\n", "</td></tr><tr><td>") + "</td></tr></table>", html=True),
        ),
        "txt": ("a.txt", context.encode()),
        "pdf": ("a.pdf", pdf(context)),
        "docx body": ("a.docx", docx(context)),
        "docx split runs": ("a.docx", docx(context, split=True)),
        "docx header": ("a.docx", docx("Kính gửi", header=mark)),
        "docx text box": ("a.docx", docx("Kính gửi", box=mark)),
        "docx watermark": ("a.docx", docx("Kính gửi", watermark=mark) if "\n" not in mark else docx(context)),
        "docx footnote": (
            "a.docx",
            docx("Kính gửi", word__footnotes=f"<w:footnotes {_W}>{_paragraphs(mark)}</w:footnotes>"),
        ),
        "docx comment": (
            "a.docx",
            docx("Kính gửi", word__comments=f"<w:comments {_W}>{_paragraphs(mark)}</w:comments>"),
        ),
        "xlsx cell": ("a.xlsx", xlsx([[line] for line in context.split("\n")])),
        "xlsx header": ("a.xlsx", xlsx([["x"]], header=mark)),
        "pptx": ("a.pptx", pptx(["Kính gửi", context])),
        "odt": ("a.odt", odt(context)),
        "odt header": ("a.odt", odt("Kính gửi", header=mark.replace("\n", " ")))
        if "\n" not in mark
        else ("a.odt", odt(context)),
        "rtf": ("a.rtf", rtf(context)),
        "rtf header": ("a.rtf", rtf("Kính gửi", header=mark)),
        "attached pdf": ("m.eml", eml(files={"a.pdf": pdf(context)})),
        "zip member": ("a.zip", zipped({"thu muc/a.docx": docx(context)})),
        "zip in zip": ("a.zip", zipped({"b.zip": zipped({"a.txt": context.encode()})})),
        "nested message": ("m.eml", eml(files={"kem.eml": eml(body=context)})),
        "nested message's file": ("m.eml", eml(files={"kem.eml": eml(files={"a.docx": docx(context)})})),
        "html hidden": (
            "m.eml",
            eml(body=f"<p>Kính gửi</p><div style='display:none'>{mark.replace(chr(10), '<br>')}</div>", html=True),
        ),
        "html white on white": (
            "m.eml",
            eml(body=f"<p>x</p><p style='color:#fff;font-size:1px'>{mark.replace(chr(10), '<br>')}</p>", html=True),
        ),
        "html lower case shown as capitals": (
            "m.eml",
            eml(body=f"<p style='text-transform: uppercase'>{mark.lower().replace(chr(10), '<br>')}</p>", html=True),
        ),
        "html class shown as capitals": (
            "a.html",
            (
                "<html><head><style>.d { font-weight: bold; text-transform: uppercase }</style></head><body>"
                f"<p class='d'>{mark.lower().replace(chr(10), '<br>')}</p></body></html>"
            ).encode(),
        ),
        "docx WordArt": ("a.docx", docx("Kính gửi", word__document=_word_art(mark))),
        "docx drawing box": ("a.docx", docx("Kính gửi", word__document=_drawn_box(mark))),
        "docx table cell": ("a.docx", docx("Kính gửi", word__document=_table(mark))),
        "pptx notes": (
            "a.pptx",
            _with_part(
                pptx(["Kính gửi"]),
                "ppt/notesSlides/notesSlide1.xml",
                f'<p:notes xmlns:a="a" xmlns:p="p">{_drawing_paragraphs(mark)}</p:notes>',
            ),
        ),
        "pptx master": (
            "a.pptx",
            _with_part(
                pptx(["Kính gửi"]),
                "ppt/slideMasters/slideMaster1.xml",
                f'<p:sldMaster xmlns:a="a" xmlns:p="p">{_drawing_paragraphs(mark)}</p:sldMaster>',
            ),
        ),
        "xlsx comment": (
            "a.xlsx",
            _with_part(
                xlsx([["x"]]),
                "xl/comments1.xml",
                f"<comments><commentList><comment><text><t>{_escaped(mark)}</t></text></comment></commentList></comments>",
            ),
        ),
        "xlsx drawing box": (
            "a.xlsx",
            _with_part(
                xlsx([["x"]]),
                "xl/drawings/drawing1.xml",
                f'<xdr:wsDr xmlns:xdr="x" xmlns:a="a">{_drawing_paragraphs(mark)}</xdr:wsDr>',
            ),
        ),
        "rtf text box": (
            "a.rtf",
            rtf("Kính gửi").replace(
                b"\\f0 ", b"\\f0 {\\shp{\\*\\shpinst{\\shptxt " + _rtf_coded(mark).encode() + b"\\par}}}", 1
            ),
        ),
        "rtf small letters shown as capitals": (
            "a.rtf",
            b"{\\rtf1\\ansi{\\fonttbl{\\f0 Arial;}}\\f0\\caps " + _rtf_coded(mark.lower()).encode() + b"\\par}",
        ),
        "tcvn3 text": ("a.txt", to_tcvn3(context).encode("latin-1", "replace")),
        "tcvn3 capitals font": ("a.txt", to_tcvn3_capitals(context).encode("latin-1", "replace")),
        "vni text": ("a.txt", to_vni(context).encode("latin-1", "replace")),
        "viscii text": ("a.txt", to_viscii(context).encode("latin-1", "replace")),
        "tcvn3 docx": ("a.docx", docx(to_tcvn3(context))),
        "vni docx": ("a.docx", docx(to_vni(context))),
        "tcvn3 html": ("m.eml", eml(body="<p>" + to_tcvn3(context).replace("\n", "</p><p>") + "</p>", html=True)),
        "vni xlsx": ("a.xlsx", xlsx([[to_vni(line)] for line in context.split("\n")])),
        "pdf annotation": ("a.pdf", _pdf_with(mark, "annotation")),
        "pdf stamp": ("a.pdf", _pdf_with(mark, "stamp")),
        "pdf form field": ("a.pdf", _pdf_with(mark, "form")),
        "pdf attached file": ("a.pdf", _pdf_with(mark, "file")),
        "pdf metadata": ("a.pdf", _pdf_with(mark, "annotation" if "\n" in mark else "metadata")),
        "docx properties": (
            "a.docx",
            docx(
                context if "\n" in mark else "Kính gửi",
                docProps__core=f"<c xmlns:dc='d'><dc:subject>{_escaped(mark)}</dc:subject></c>",
            ),
        ),
        "7z or tar": ("a.tar", _tar(docx(context))),
        "gz": ("a.txt.gz", gzip.compress(context.encode())),
    }


def _drawing_paragraphs(content: str) -> str:
    return "".join(f"<a:p><a:r><a:t>{_escaped(line)}</a:t></a:r></a:p>" for line in content.split("\n"))


def _word_art(mark: str) -> str:
    """WordArt of Word 97 to 2007: the text is an attribute, line breaks are &#xA;."""
    shown = _escaped(mark).replace("\n", "&#xA;")
    shape = f'<w:pict><v:shape><v:textpath string="{shown}"/></v:shape></w:pict>'
    return f"<w:document {_W}><w:body><w:p><w:r>{shape}</w:r></w:p></w:body></w:document>"


def _drawn_box(mark: str) -> str:
    """A text box of Word 2010 and later, with the copy for older programs beside it."""
    inner = f"<w:txbxContent>{_paragraphs(mark)}</w:txbxContent>"
    return (
        f'<w:document {_W} xmlns:mc="m" xmlns:wps="s"><w:body><w:p><w:r><mc:AlternateContent><mc:Choice Requires="wps">'
        f"<w:drawing><wps:wsp><wps:txbx>{inner}</wps:txbx></wps:wsp></w:drawing></mc:Choice></mc:AlternateContent></w:r>"
        f"</w:p>{_paragraphs('Kính gửi')}</w:body></w:document>"
    )


def _table(mark: str) -> str:
    cells = "".join(f"<w:tc>{_paragraphs(cell)}</w:tc>" for cell in ("Số: 05/KH-UBND", mark, "Vinh, ngày 5"))
    return f"<w:document {_W}><w:body><w:tbl><w:tr>{cells}</w:tr></w:tbl></w:body></w:document>"


def _with_part(package: bytes, name: str, content: str) -> bytes:
    out = io.BytesIO(package)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(name, content)
    return out.getvalue()


def _tar(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("thư mục/a.docx")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _pdf_with(mark: str, what: str) -> bytes:
    """A PDF with the mark where no page content is."""
    from pypdf import PdfReader, PdfWriter
    from pypdf.annotations import FreeText
    from pypdf.generic import ArrayObject, DictionaryObject, FloatObject, NameObject, TextStringObject

    writer = PdfWriter()
    writer.append(PdfReader(io.BytesIO(pdf("Kính gửi: các đơn vị"))))
    name, string = NameObject, TextStringObject
    if what == "annotation":
        writer.add_annotation(0, FreeText(text=mark, rect=(50, 550, 200, 650)))
    elif what == "metadata":
        writer.add_metadata({"/Keywords": mark})
    elif what == "file":
        writer.add_attachment("kem.docx", docx(f"Kính gửi\n{mark}"))
    else:
        box = ArrayObject([FloatObject(n) for n in (50, 550, 200, 650)])
        entries = {name("/Type"): name("/Annot"), name("/Rect"): box}
        if what == "stamp":
            entries |= {name("/Subtype"): name("/Stamp"), name("/Contents"): string(mark)}
        else:
            entries |= {name("/Subtype"): name("/Widget"), name("/FT"): name("/Tx"), name("/T"): string("o1")}
            entries |= {name("/V"): string(mark), name("/DA"): string("/Helv 12 Tf")}
        reference = writer._add_object(DictionaryObject(entries))
        writer.pages[0][name("/Annots")] = ArrayObject([reference])
        if what == "form":
            writer.root_object[name("/AcroForm")] = DictionaryObject({name("/Fields"): ArrayObject([reference])})
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


# -- runs ----------------------------------------------------------------------------------------------------------


def alarms(content: str, page: int | None = None) -> list[tuple[str, str, str]]:
    return [
        (f.kind, f.value, f.grade)
        for f in secrecy.marks([Segment("x", content, page)])
        if f.kind == "secrecy" or (f.kind == "urgency")
    ]


def negatives(folders: list[Path], count: int) -> bool:
    texts = [
        (str(path), path.read_text(encoding="utf-8")) for folder in folders for path in sorted(folder.glob("*.txt"))
    ]
    texts += [(f"made {n}", paper.text) for n, paper in enumerate(papers(count))]
    texts += [(f"phrase {phrase}", phrase) for phrase in BENIGN]
    bad, started = [], time.process_time()
    for name, content in texts:
        for encoding, encode in ENCODINGS.items():
            if name.startswith("phrase") and (encoding.startswith("upper") or encoding == "tcvn3-h"):
                continue  # `TUYỆT ĐỐI BÍ MẬT` stays harmless, but a lone `KHẨN CẤP` has no other case to test
            for page in (None, 1):
                if found := alarms(encode(content), page):
                    bad.append({"text": name, "encoding": encoding, "page": page, "found": found})
    for one in bad[:50]:
        print(json.dumps(one, ensure_ascii=False))
    seconds = round(time.process_time() - started, 1)
    print(json.dumps({"texts": len(texts), "encodings": len(ENCODINGS), "alarms": len(bad), "cpu_seconds": seconds}))
    return not bad


def level_of(name: str, data: bytes) -> set[tuple[str, str]]:
    settings = examine.Settings()
    found = (
        examine.examine_message(data, settings) if name.endswith(".eml") else examine.examine_file(data, name, settings)
    )
    return {(f.value, f.grade) for f in found.findings if f.kind == "secrecy"}


def marks() -> bool:
    total = missed = 0
    for mark, level in STRONG_LINES.items():
        for carrier, (name, data) in carriers(mark).items():
            total += 1
            if (level, "strong") not in level_of(name, data):
                missed += 1
                print(
                    json.dumps(
                        {"mark": mark, "carrier": carrier, "found": sorted(level_of(name, data))}, ensure_ascii=False
                    )
                )
    for subject, level in STRONG_SUBJECTS.items():
        for name, data in (("subject", eml(subject)), ("file name",
        eml(files={f"{subject.replace(':', ' -')}.pdf": pdf("x")})),
                           ("zip member name",
                           eml(files={"a.zip": zipped({f"{subject.replace(':', ' -')}.txt": b"x"})})),
                           ("nested subject", eml(files={"kem.eml": eml(subject)}))):  # fmt: skip
            total += 1
            if not any(value == level for value, _ in level_of("m.eml", data)):
                missed += 1
                print(
                    json.dumps(
                        {"subject": subject, "carrier": name, "found": sorted(level_of("m.eml", data))},
                        ensure_ascii=False,
                    )
                )
    print(json.dumps({"cases": total, "missed": missed}))
    return not missed


def scanned(data: bytes, dpi: int = 200, seed: int = 0) -> bytes:
    """A PDF as a scanner would give it: pictures of the pages, a little turned, grainy, JPEG."""
    import cv2
    import numpy as np

    from gateway.inspection import pages
    from gateway.inspection.annotate import pdf_of

    rng = np.random.default_rng(seed)
    images = []
    with pages.open_pages(data, "pdf") as opened:
        for n in range(1, opened.count + 1):
            image = opened.image(n, dpi).astype(np.float32)
            height, width = image.shape[:2]
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.uniform(-0.6, 0.6)), 1.0)
            image = cv2.warpAffine(image, turn, (width, height), borderValue=(255, 255, 255))
            image = cv2.GaussianBlur(image, (0, 0), 0.6) + rng.normal(0, 6, image.shape).astype(np.float32)
            images.append(np.clip(image * 0.96 + 4, 0, 255).astype(np.uint8))
    return pdf_of(images, dpi)


def fields(count: int, scan: bool) -> bool:
    right = {"code": 0, "date": 0, "kind": 0, "agency": 0, "signer": 0}
    from gateway.config import Budget

    settings = examine.Settings(budget=Budget(seconds=60, ocr_seconds=40))
    seconds = 0.0
    for n, paper in enumerate(papers(count, seed=7)):
        data = pdf(laid_out(paper), size=11)
        if scan:
            data = scanned(data, seed=n)
        started = time.process_time()
        found = examine.examine_file(data, "a.pdf", settings).files[0].document
        seconds += time.process_time() - started
        values = {
            "code": (found.code.value if found and found.code else None, paper.code),
            "date": (found.date.value if found and found.date else None, paper.date),
            "kind": (found.kind.value if found and found.kind else None, paper.kind),
            "agency": (found.issuing_agency.value if found and found.issuing_agency else None, paper.agency),
            "signer": (found.signer.value if found and found.signer else None, paper.signer),
        }
        for key, (got, wanted) in values.items():
            right[key] += got == wanted
            if got != wanted:
                print(json.dumps({"paper": n, "field": key, "got": got, "wanted": wanted}, ensure_ascii=False))
    print(
        json.dumps(
            {
                "papers": count,
                "scan": scan,
                **{k: v / count for k, v in right.items()},
                "cpu_seconds_each": round(seconds / count, 3),
            }
        )
    )
    return right["code"] >= (0.95 if scan else 0.98) * count and right["date"] >= (0.92 if scan else 0.98) * count


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few hurts: bytes changed, pieces cut, doubled, moved, or numbers blown up."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 8)):
        if not out:
            break
        at = rng.randrange(len(out))
        kind = rng.randrange(6)
        if kind == 0:
            out[at] = rng.randrange(256)
        elif kind == 1:
            del out[at : at + rng.randrange(1, max(2, len(out) // 4))]
        elif kind == 2:
            piece = out[at : at + rng.randrange(1, 400)]
            out[at:at] = piece * rng.randrange(1, 20)
        elif kind == 3:
            out[at : at + 4] = b"\xff\xff\xff\x7f"
        elif kind == 4:
            other = rng.randrange(len(out))
            out[at : at + 8], out[other : other + 8] = out[other : other + 8], out[at : at + 8]
        else:
            for _ in range(50):
                out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def mutation_seeds() -> dict[str, bytes]:
    paper = next(papers(1))
    plain = paper.text
    made = {
        "a.pdf": pdf(laid_out(paper)), "a.docx": docx(plain, header="x", box="y"), "a.xlsx": xlsx([plain.split("\n")]),
        "a.pptx": pptx([plain]), "a.odt": odt(plain), "a.rtf": rtf(plain), "a.zip": zipped({"a.txt": plain,
        "b/c.docx": docx(plain)}),
        "m.eml": eml(body=plain, files={"a.docx": docx(plain)}),
    }  # fmt: skip
    folder = Path(__file__).parent.parent / "tests" / "data" / "inspection"
    made |= {
        path.name: path.read_bytes()
        for path in folder.glob("*")
        if path.suffix in (".rar", ".7z", ".doc", ".xls", ".ppt", ".msg", ".dat")
    }
    return made


def mutations(count: int) -> bool:
    from gateway.config import Budget

    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    rng = random.Random(5)
    settings = examine.Settings(budget=Budget(ocr=False))
    seeds = list(mutation_seeds().items())
    slowest, ends = (0.0, ""), {"facts": 0, "failed": 0}
    for n in range(count):
        name, data = seeds[n % len(seeds)]
        broken = mutated(data, rng)
        started = time.process_time()
        found = examine.examine_file(broken, name, settings)
        spent = time.process_time() - started
        slowest = max(slowest, (spent, f"{name} #{n}"))
        ends["failed" if found.failed else "facts"] += 1
        for run in found.failed:
            print(
                json.dumps({"n": n, "file": name, "check": run.check, "status": run.status.value, "reason": run.reason})
            )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        json.dumps(
            {"files": count, **ends, "slowest_s": round(slowest[0], 2), "slowest": slowest[1], "peak_mib": memory}
        )
    )
    return slowest[0] < 10 and memory < 1024


def _with_picture(data: bytes, size: int) -> bytes:
    """The PDF with so many bytes more in a stream, as a letterhead or a seal in a signature box brings them."""
    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import NameObject, StreamObject

    writer, out, stream = PdfWriter(), io.BytesIO(), StreamObject()
    writer.append(PdfReader(io.BytesIO(data)))
    stream.set_data(random.Random(1).randbytes(size))
    writer.root_object[NameObject("/PieceInfo")] = writer._add_object(stream)
    writer.write(out)
    return out.getvalue()


def speed() -> bool:
    from gateway.inspection import secrecy as checks

    paper = next(papers(1, seed=3))
    data = _with_picture(pdf([page for _ in range(3) for page in laid_out(paper)][:3]), 165_000)
    mail = eml("Báo cáo tháng", "\r\n".join(_SENTENCES * 2)[:2600])

    def best(work: Callable[[], object], times: int) -> float:
        work()
        spans = []
        for _ in range(times):
            started = time.process_time()
            work()
            spans.append(time.process_time() - started)
        return round(sorted(spans)[len(spans) // 2] * 1000, 2)

    settings = examine.Settings()
    result = {
        "pdf_bytes": len(data),
        "pdf_text_and_marks_ms": best(lambda: checks.marks(text.extract(data, "pdf").segments), 20),
        "mail_bytes": len(mail),
        "mail_ms": best(lambda: examine.examine_message(mail, settings), 200),
        "sniff_ms": best(lambda: containers.sniff(data), 200),
    }
    print(json.dumps(result))
    return result["pdf_text_and_marks_ms"] < 20 and result["mail_ms"] < 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.text_corpus", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("negatives", "marks", "fields", "mutations", "speed"))
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--scan", action="store_true")
    given = parser.parse_args()
    if given.what == "negatives":
        return not negatives(given.folders, given.count or 500)
    if given.what == "marks":
        return not marks()
    if given.what == "fields":
        return not fields(given.count or 100, given.scan)
    if given.what == "mutations":
        return not mutations(given.count or 10_000)
    return not speed()


if __name__ == "__main__":
    sys.exit(main())
