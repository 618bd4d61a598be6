"""The fields of a Vietnamese administrative document: number, kind, date, abstract, agency, signer, recipients.

The form is that of Decree 30/2020 (rules.md 2.1): the agency stands top left with the number under it, national title
and place-date top right, kind and abstract below, signer bottom right, `Nơi nhận` bottom left. The header is read from
page 1 only; every number elsewhere is a citation. Each field says where it was read and how sure that is.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from gateway import vietnamese
from gateway.inspection import spelling
from gateway.inspection.findings import Document, DocumentField, NamedRecipient, Signature
from gateway.inspection.segments import Segment

#: Decree 30/2020 Article 7, with the abbreviations of its Annex III, and the kinds outside it. Name: abbreviation.
KINDS = {
    "NGHỊ QUYẾT": "NQ", "QUYẾT ĐỊNH": "QĐ", "CHỈ THỊ": "CT", "QUY CHẾ": "QC", "QUY ĐỊNH": "QyĐ", "THÔNG CÁO": "TC",
    "THÔNG BÁO": "TB", "HƯỚNG DẪN": "HD", "CHƯƠNG TRÌNH": "CTr", "KẾ HOẠCH": "KH", "PHƯƠNG ÁN": "PA", "ĐỀ ÁN": "ĐA",
    "DỰ ÁN": "DA", "BÁO CÁO": "BC", "BIÊN BẢN": "BB", "TỜ TRÌNH": "TTr", "HỢP ĐỒNG": "HĐ", "CÔNG VĂN": "CV",
    "CÔNG ĐIỆN": "CĐ", "BẢN GHI NHỚ": "BGN", "BẢN THỎA THUẬN": "BTT", "GIẤY ỦY QUYỀN": "GUQ", "GIẤY MỜI": "GM",
    "GIẤY GIỚI THIỆU": "GGT", "GIẤY NGHỈ PHÉP": "GNP", "PHIẾU GỬI": "PG", "PHIẾU CHUYỂN": "PC", "PHIẾU BÁO": "PB",
    "THƯ CÔNG": "ThC", "BẢN SAO Y": "SY", "SAO Y": "SY", "TRÍCH SAO": "TrS", "SAO LỤC": "SL", "LUẬT": "L",
    "PHÁP LỆNH": "PL",
    "LỆNH": "L", "NGHỊ ĐỊNH": "NĐ", "THÔNG TƯ": "TT", "THÔNG TƯ LIÊN TỊCH": "TTLT", "NGHỊ QUYẾT LIÊN TỊCH": "NQLT",
    "VĂN BẢN HỢP NHẤT": "VBHN", "PHIẾU TRÌNH": "PTr", "GIẤY PHÉP": "GP",
    "KẾT LUẬN": "KL", "KẾT LUẬN THANH TRA": "KL", "GIẤY CHỨNG NHẬN": "GCN", "GIẤY XÁC NHẬN": "GXN",
}  # fmt: skip
_KIND_OF = {vietnamese.fold(name): (name, short) for name, short in KINDS.items()}
_SHORTS = {short for short in KINDS.values() if short not in ("CV", "ThC")}
_BY_FOLDED_SHORT: dict[str, set[str]] = {}
for _short in _SHORTS:
    _BY_FOLDED_SHORT.setdefault(vietnamese.fold(_short), set()).add(_short)

#: Characters of a line that are looked at: a paragraph of Word is one line, and its fields stand at its beginning.
LONGEST = 1000

UP = "A-ZĐƠƯÂÊÔĂÁÀẢÃẠẤẦẨẪẬẮẰẲẴẶÉÈẺẼẸẾỀỂỄỆÍÌỈĨỊÓÒỎÕỌỐỒỔỖỘỚỜỞỠỢÚÙỦŨỤỨỪỬỮỰÝỲỶỸỴ"
LOW = UP[3:].lower() + "a-z"
_GROUP = rf"(?:[{UP}][{UP}a-zđơưâêôăyỹ0-9&]{{0,14}})"
_SYMBOL = rf"(?P<symbol>{_GROUP}(?:\s?[-–.]\s?{_GROUP}){{0,3}})"
_YEAR = r"(?:(?P<year>(?:19|20)\d\d)\s?/\s?)?"
#: A number and symbol in running text. `12/QL1A` and `3/B` are roads and houses: there the symbol needs a hyphen or QH.
_STATE = re.compile(rf"(?<![\w/.\-])(?P<number>\d{{1,6}}[a-zA-Z]?)\s{{0,2}}/\s?{_YEAR}{_SYMBOL}(?![\w/])")
#: On a `Số:` line the number may be stamped into a gap: up to 20 blanks before the slash (59 of 59 real documents).
_OWN = re.compile(rf"(?<![\w/.\-])(?P<number>\d{{1,6}}[a-zA-Z]?)\s{{0,20}}/\s{{0,3}}{_YEAR}{_SYMBOL}(?![\w/])")
_PARTY = re.compile(
    rf"(?<![\w/.\-])(?P<number>\d{{1,6}})\s?[-–]\s?(?P<kind>[{UP}][{UP}a-z]{{0,4}})\s?/\s?(?P<org>{_GROUP}(?:[-.]{_GROUP}){{0,2}})(?![\w/])"
)
_NUMBER_LINE = re.compile(r"^[\W_]*(?:Luật\s+)?(?:Số|SỐ|Sô|Só|Sỏ|So|Sốế)\s*(?:hiệu)?\s*[:.;,]?\s*(?P<rest>.{0,70})")
_PARENT_NUMBER = re.compile(r"^[\W_]*số\s*:?\s*\d{1,6}\s*/")
_BLANK_NUMBER = re.compile(rf"^[\W_]*(?:Số|SỐ)\s*:?\s*[.…_\s]*/\s?{_YEAR}{_SYMBOL}")
_BLANK_PARTY = re.compile(rf"^[\W_]*(?:Số|SỐ)\s*:?[\s.…_]*[-–]\s?(?P<kind>[{UP}][{UP}a-z]{{0,4}})\s?/\s?{_GROUP}")
_GLUED = re.compile(rf"(?<=[{UP}])(?=(?!Tr\b|rS\b)[{UP}][{LOW}]+(?: [{UP}][\w.]*){{0,4}},\s*\**\s*ngày)")
#: Where the columns of a header were glued: the right one begins with the national title, the motto, or the Party.
_RIGHT_COLUMN = re.compile(
    r"(?<=\S)[ ]+(?=C\wNG\s+H\w{1,2}\s*X\w\s+H\wI\b|ĐẢNG CỘNG SẢN VIỆT NAM|Độc lập\s*[-–—]\s*Tự do)"
)
_EMPHASIS = re.compile(r"\*{1,2}|(?<!\w)_{1,2}(?=\w)|(?<=\w)_{1,2}(?!\w)")

_DATE = re.compile(r"ngày\s*(?P<d>\d{1,2})\s*tháng\s*(?P<m>\d{1,2})\s*năm\s*(?P<y>(?:19|20)\d\d)", re.IGNORECASE)
_PLACE = re.compile(
    rf"(?P<place>(?:(?:[{UP}][\w.]*|phố|tỉnh|huyện|xã|quận|[-–])\s+){{0,7}}[{UP}][\w.]*(?:\s\d{{1,2}})?)\s*[,.;]?\s*$"
)
_BLANK_DATE = re.compile(r"ngày[\s.…_]*(?:\d{1,2})?[\s.…_]*tháng[\s.…_]*(?:\d{1,2})?[\s.…_]*năm", re.IGNORECASE)

_NATIONAL = re.compile("cong hoa xa hoi chu nghia|dang cong san viet nam")
_MOTTO = re.compile(r"doc lap\W+tu do\W+hanh phuc")
_ABSTRACT = re.compile(
    r"^\W*(?:[Vv]\s?/\s?[Vv]|V\s?[/Il1J]?\s?[vVwWyY]|Về việc)(?!\w)\s*[:.]?\s*(?P<rest>.*)", re.DOTALL
)
_END_OF_ABSTRACT = re.compile(
    r"^\W*(?:căn cứ|thực hiện|kính gửi|xét đề nghị|theo đề nghị|để |nhằm |sau khi |ngày \d|trên cơ sở|(?:ủy|uỷ) "
    r"ban nhân dân .{0,40}(?:ban hành|thông báo|báo cáo)"
    r"|điều 1|i\.|1\.|phần|chương|quyết định:?$|quyết nghị|kính thưa|hôm nay|\d{1,2}[.)]\s|[a-dđ]\)\s)"
    # who decides, in capitals: in small letters an abstract may go on with it (`của` / `Hội đồng nhân dân tỉnh`)
    r"|^\W*(?-i:HỘI ĐỒNG|CHỦ TỊCH|BỘ TRƯỞNG|GIÁM ĐỐC|THỦ TƯỚNG|CHÍNH PHỦ|QUỐC HỘI|BAN THƯỜNG VỤ|TRƯỞNG BAN|CHÁNH |"
    r"CỤC TRƯỞNG|HIỆU TRƯỞNG)",
    re.IGNORECASE,
)
_STAMP_NOISE = re.compile(
    r"^\W*(?:ĐẾN|CÔNG VĂN ĐẾN|Số\s*:\s*[\d.]+\.?|Ngày\s*:?\s*[\d./-]+|Chuyển\s*:.*|Giờ\s*:.*)\s*", re.IGNORECASE
)

_AGENCY_HEAD = re.compile(
    r"(?:uy ban|ubnd|hoi dong|hdnd|so |bo |van phong|ban |cuc |chi cuc|vu |tong cuc|trung tam|vien |truong |benh "
    r"vien|cong an|"
    r"toa an|vien kiem sat|thanh tra|chi nhanh|kho bac|bao hiem|cong ty|tong cong ty|tap doan|quoc hoi|chinh phu|"
    r"thu tuong|"
    r"chu tich nuoc|uy ban thuong vu|phong |dang uy|tinh uy|thanh uy|huyen uy|doan |lien doan|hoi |mat tran|ngan "
    r"hang|dai |bao |quan khu|bo chi huy|bo tu lenh|tinh doan|dang bo|ban chap hanh|ubmttq|don vi|hat kiem lam|"
    r"trang trai|quy |to cong tac|thue |hai quan|hoc vien|tap chi|cum |khoi |tieu doan|su doan|bo cong an)"
)
_GOES_ON = re.compile(
    r"^(?:tinh|thanh pho|huyen|quan|thi xa|xa|phuong|thi tran|tp|nhan dan|va |cua |truc thuoc|viet nam|dac khu|nha "
    r"nuoc|thuong vu)\b"
)

#: Pairs of words that a line break parted, whose second looks like the beginning of another body.
_HALVES = re.compile(
    r"\b(?:moi truong|thi truong|xa hoi|quoc hoi|co so|van phong|quoc phong|du phong|chi cuc|tong cuc|benh vien|"
    r"hoc vien|cong doan|lien doan|uy ban|quan doi|dao tao|tinh bao|canh bao|thong bao|bien phong|hai phong)$"
)

_AUTHORITY = re.compile(
    r"^\W*(?P<auth>TM|T/M|T\.M|Q|KT|K/T|K\.T|K|TL|T/L|T\.L|TUQ|T/UQ)\s*[.,:]\s*(?P<title>["
    + UP
    + r"].*)|^\W*(?:TM|KT|TL|TUQ|T/M|K/T|T/L|T/UQ)\s+(?P<bare>["
    + UP
    + r"]{2}.*)"
)
_TITLE = re.compile(
    r"^\W*(?:quyen |pho )*(?:chu tich|bo truong|thu truong|giam doc|pho giam doc|chanh van phong|cuc truong|vu "
    r"truong|thu tuong|"
    r"hieu truong|truong (?:ban|phong|khoa|tram|doan|cong an|phong gd)|tong giam doc|tong cuc truong|vien truong|"
    r"chanh an|chanh thanh tra|"
    r"bi thu|tong bi thu|truong ban|ke toan truong|truong thon|to truong|doi truong|chi cuc truong|tu lenh|chinh uy|"
    r"tong kiem toan|thong doc|chu nhiem|chi huy truong|hat truong|truong dai dien|giam thi|thuong truc|uy vien|"
    r"tong thanh tra|tong bien tap|vien pho|pho vien|chu toa|chu tri|thu ky|truong thue|tham phan|kiem sat vien|"
    r"chanh van|pho tong|dai dien|truong hai quan|doi pho|pho truong|cong chuc)\b.{0,80}$"
)
_NAME = re.compile(
    rf"^\W*(?:(?:Đại tướng|Thượng tướng|Trung tướng|Thiếu tướng|Đại tá|Thượng tá|Trung tá|Thiếu tá|GS|PGS|TSKH|T[Ss]|"
    rf"Th[Ss]|Luật sư|Bác sĩ|Thẩm phán|Kiểm sát viên|BS|BSCK\s?I+|CKII?|KS|LS|DS|NGƯT|NGND|Ông|Bà|CN|CVCC)[.,]?\s*)*"
    rf"(?P<name>(?:[{UP}][{LOW}]+|[YAHK][’']?)(?:[\s’'-]+[{UP}][{LOW}]*){{1,5}}|[{UP}]{{1,}}(?:\s+[{UP}]{{1,}}){{1,5}})\W*$"
)
#: Words that no name has; with their accents, since Tình, Tính, Lưu, Trang and Sở are told apart by them.
_NOT_NAME = re.compile(
    r"\b(?:nơi nhận|đã ký|ký bởi|ngày|tháng|phụ lục|tỉnh|[uủ][yỷ] ban|sở|văn phòng|chủ tịch|giám đốc|bộ trưởng|"
    r"kính gửi|như trên|như điều|cộng h(?:òa|oà)|độc lập|việt nam|ban|hội đồng|thời gian|cơ quan|email|trang \d|"
    r"quyết định|trưởng phòng|hồ sơ|thành phố|huyện|địa chỉ|điện thoại)\b",
    re.IGNORECASE,
)
_RECIPIENTS = re.compile(r"^[\W_]*Nơi\s*nhận\s*[:.;]?\s*$|^[\W_]*Nơi\s*nhận\s*[:.;]\s*(?P<rest>.*)$")
_PURPOSE = re.compile(r"\(\s*(?P<purpose>(?:đ[ểêế]|thay|báo cáo|b/c|p/h|t/h|qua)[^()]{0,80})\)\s*$", re.IGNORECASE)
_ADDRESSEE = re.compile(r"^\W*Kính\s*gửi\s*[:.]?\s*(?P<rest>.*)")
_FORM = r"(?:văn\s*bản\s*|bản\s*)?(?:giấy|điện\s*tử)"
_MODE = re.compile(
    rf"(?im)^[^\w\n]*+(?:chỉ\s+)?gửi\s*:?\s*(?P<mode>{_FORM}(?:\s*(?:và|,|\+|kèm(?:\s*theo)?)\s*(?:gửi\s*)?{_FORM})?)(?!\w)"
)
_DRAFT = re.compile(
    r"^\W*(?:BẢN\s+)?DỰ\s*THẢO(?:\s*(?:LẦN\s*(?:THỨ\s*)?\w+|\d+|\(.*\)|NGÀY.*))?\W*$|"
    r"^\W*\(?\s*Dự\s*thảo(?:\s*lần\s*(?:thứ\s*)?\w+)?\s*\)?\W*$"
)
_DRAFT_NAME = re.compile(r"(?:^|[\W_])(?:du[\s_-]*thao|dt)(?:[\W_]|$)")
_ANNEX = re.compile(
    r"\bph[ụù]\s*l[ụu]c\s+(?:số\s*)?(?P<n>[IVXLC]{1,6}|\d{1,2}|[A-H])\b(?P<more>(?:\s*(?:,|và|;)\s*(?:[IVXLC]{1,6}|"
    r"\d{1,2}|[A-H])\b){0,12})",
    re.IGNORECASE,
)
_INTERNAL = re.compile(
    r"^[^\w\n]*+(?:TÀI LIỆU |VĂN BẢN )?(?:CHỈ )?LƯU HÀNH NỘI BỘ\W*$|^[^\w\n]*+(?:TÀI LIỆU|VĂN BẢN) NỘI BỘ\W*$|"
    r"lưu hành nội bộ",
    re.MULTILINE,
)
_RECALL = re.compile(
    r"thu hồi\s+(?:văn bản|công văn|quyết định|thông báo|báo cáo|tờ trình|kế hoạch|giấy mời|chỉ thị)", re.IGNORECASE
)
_CELL = re.compile(r"\t+|\s{3,}|[|│┃]")


def fields(segments: Iterable[Segment], signatures: Sequence[Signature] = (), name: str = "") -> Document:
    """Reads the fields from the segments of one file. Never raises; what is not found stays empty.

    name: the file name, used for a number only where the text has none (confidence 0.4).
    """
    pages, subject, ocr, apart = _pages(segments)
    first = pages[0] if pages else []
    everything = [line for page in pages for line in page]
    source, sure = ("ocr", 0.85) if ocr else ("text", 0.98)
    header = _header(first)

    number_at, code, kind, blank = _own_number(header, ocr)
    found = 0
    title_at, title = _kind(header, number_at)
    date, place, blank_date = _date(header)
    agency = _agency(header, number_at)
    if ocr and agency:
        agency = spelling.mended(agency)
    abstract = _abstract(first, header, title_at, title, apart)
    if code and title and kind:
        kind = _agreed(kind, title)
        code = _mended(code, kind)
    elif code and title and ocr:
        code = _misread(code, KINDS[title])
    if title and not kind:
        kind = KINDS[title]
    if title is None and ((code and not kind) or (abstract and number_at >= 0 and _is_letter(header))):
        kind = "CV"  # an official letter has no kind in its symbol; `TTr-VP` is then the inspectorate
    code_field = DocumentField(value=code, source=source, confidence=sure) if code else None
    if code is None and not blank and (guess := _from_subject(subject)):
        code_field = DocumentField(value=guess, source="subject", confidence=0.7)
    if code_field is None and (guess := _from_name(name)):
        code_field = DocumentField(value=guess, source="file name", confidence=0.4)

    signer, signer_title = _signer(pages, signatures, ocr)
    recipients = _recipients(everything, ocr)
    folded_header = [vietnamese.fold(line) for line in header]
    found += any(_NATIONAL.search(line) or _MOTTO.search(line) for line in folded_header)
    found += agency is not None
    found += date is not None and place is not None
    found += title is not None or abstract is not None
    found += signer_title is not None
    found += bool(recipients)
    text = "\n".join(everything)
    draft = any(_DRAFT.match(cell) for line in header for cell in _cells(line))
    draft = draft or ((blank or (blank_date and date is None)) and code is None and not signatures and found >= 2)
    draft = draft or bool(_DRAFT_NAME.search(vietnamese.fold(name)) and "du" in vietnamese.fold(name) and not code)
    modes = [vietnamese.fold(m["mode"]) for m in _MODE.finditer(text)]
    mode: Literal["", "electronic_only", "electronic_and_paper", "paper"] = ""
    if modes:
        paper, electronic = "giay" in modes[-1], "dien" in modes[-1]
        mode = "electronic_and_paper" if paper and electronic else "electronic_only" if electronic else "paper"

    def field(value: str | None, confidence: float = sure) -> DocumentField | None:
        return DocumentField(value=value, source=source, confidence=round(confidence, 2)) if value else None

    return Document(
        code=code_field,
        kind=field(kind, sure if code else sure - 0.1),
        date=field(date, sure if place else sure - 0.3),
        place=field(place),
        abstract=field(abstract, sure - 0.05),
        issuing_agency=field(agency, sure - 0.1),
        signer=signer
        if signer is None or ocr is False or signer.source != "text"
        else signer.model_copy(update={"source": source}),
        signer_title=signer_title,
        recipients=recipients,
        mode_line=mode,
        draft=draft,
        components=int(found),
        annexes_named=_annexes(text),
        cites=_cites(text, code),
        internal=bool(_INTERNAL.search("\n".join(header[:40]))),
        recall=bool(abstract and _RECALL.search(abstract)),
    )


def _pages(segments: Iterable[Segment]) -> tuple[list[list[str]], str, bool, frozenset[int]]:
    """Lines of each page, the subject, whether page 1 comes from OCR, and which lines of page 1 stand below a gap."""
    by_page: dict[int, list[str]] = {}
    read_by_ocr: dict[int, list[str]] = {}
    subject = ""
    for segment in segments:
        if segment.zone == "subject":
            subject = segment.text
        elif segment.zone == "ocr":
            read_by_ocr.setdefault(segment.page or 1, []).extend(_lines(segment.text))
        elif segment.zone in ("body", "html", "cell") or (
            segment.zone == "textbox" and segment.where.startswith("hộp văn bản (word/document")
        ):
            by_page.setdefault(segment.page or 1, []).extend(_lines(segment.text))
    ocr = False
    for page, lines in read_by_ocr.items():
        if sum(map(len, by_page.get(page, ()))) < 400:  # a stamp or a watermark beside the picture of the page
            by_page[page] = lines + by_page.get(page, [])
            ocr = ocr or page == 1
    pages, apart = [], frozenset[int]()
    for page in sorted(by_page):
        lines = [line for line in by_page[page] if line]
        if not pages:
            kept = [n for n, line in enumerate(by_page[page]) if line]
            apart = frozenset(at for at, n in enumerate(kept) if n and not by_page[page][n - 1])
        pages.append(lines)
    return pages, subject, ocr, apart


def _lines(text: str) -> list[str]:
    """The lines, cleaned; those without a letter are empty."""
    charset = vietnamese.charset_of(text[:20_000])
    if charset:  # before anything is cleaned: see `vietnamese`
        text = "\n".join(_reread(line, charset) for line in re.split(r"\r\n|\r|\n", text))
    text = re.sub("Đ{2,}", "Đ", vietnamese.clean(text))  # OCR reads the bar of Đ twice; no abbreviation has it doubled
    lines = (line[:LONGEST] for line in text.split("\n"))
    return [_EMPHASIS.sub("", line).strip(" \r#>") if line.strip(" \t\r*_#>|") else "" for line in lines]


def _reread(line: str, charset: str) -> str:
    return next((view.text for view in vietnamese.legacy_views(line) if view.charset == charset), line)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in _CELL.split(line) if cell.strip()]


def _header(lines: list[str]) -> list[str]:
    """The header zone: up to the first `Căn cứ`, `Kính gửi` or article, at most 45 lines."""
    for n, line in enumerate(lines[:60]):
        if n > 3 and re.match(r"[\W_]*(?:Căn cứ|Kính gửi|Điều 1\b|CĂN CỨ)", line):
            return [_parted(one) for one in lines[: min(n + 1, 45)]]
    return [_parted(one) for one in lines[:45]]


def _parted(line: str) -> str:
    return _RIGHT_COLUMN.sub("\t", _GLUED.sub("\t", line))


def _own_number(header: list[str], ocr: bool = False) -> tuple[int, str | None, str, bool]:
    """(line, code, kind abbreviation, whether the number is left blank). Line is -1 when there is none.

    From OCR only a number that stands right behind the word counts: what a pen wrote is read as signs and stray
    digits, and no number is better than a wrong one.
    """
    blank_at = -1
    for n, line in enumerate(header):
        for start in _starts(line):
            cell = line[start:]
            cell = _whole_symbol(cell, header[n + 1 : n + 2])
            if not (found := _NUMBER_LINE.match(cell)) or _PARENT_NUMBER.match(cell):
                continue
            rest = re.sub(r"\s+", " ", re.sub(r"[.…_]{2,}", " ", found["rest"].replace("\t", "   ")))
            rest = re.sub(r"(?<=\d)\s(?=\d{1,3}\s?/)", "", rest) if ":" in cell[:12] else rest
            own = _OWN.match(rest.lstrip(" :.-"))
            if own and not (ocr and own["number"][-1] not in "0123456789abcd"):  # `4l`: a digit misread
                return n, _code(own), _kind_of_symbol(own["symbol"]), False
            if party := _PARTY.match(rest.lstrip(" :.-")):
                return n, f"{int(party['number']):02d}-{party['kind']}/{party['org']}", party["kind"], False
            own = _OWN.search(rest) if not ocr else None
            if own and own.start() < 14 and ":" in cell[:12]:
                return n, _code(own), _kind_of_symbol(own["symbol"]), False
            spaced = cell.replace("\t", " ")
            if blank_at < 0 and (_BLANK_NUMBER.match(spaced) or _BLANK_PARTY.match(spaced)):
                blank_at = n
    if blank_at >= 0:
        return blank_at, None, "", True
    titled = any(_NATIONAL.search(vietnamese.fold(line)) for line in header[:8])
    for n, line in enumerate(header[:10] if titled else []):  # a number without the word
        for cell in _cells(line):
            if (own := _STATE.fullmatch(cell.strip(" .;"))) and "-" in own["symbol"]:
                return n, _code(own), _kind_of_symbol(own["symbol"]), False
    return -1, None, "", False


def _whole_symbol(cell: str, below: Sequence[str]) -> str:
    """A number and symbol that its column was too narrow for: `Số: 45/HD-SNV-` / `STC`, `Số: 4964` / `/SNV-TH`."""
    head, *others = _CELL.split(cell, maxsplit=1)
    rest = next(iter(_cells(below[0])), "") if below else ""
    if (head.rstrip().endswith("-") and "/" in head and re.fullmatch(_GROUP, rest)) or (
        re.fullmatch(r"[^\w]*S\w\s*:?\s*\d{1,6}[a-z]?\s*", head) and rest.startswith("/")
    ):
        return "\t".join([head.rstrip() + rest, *others])
    return cell


def _starts(line: str) -> list[int]:
    """Where cells begin in a line."""
    starts = [0]
    starts += [found.end() for found in _CELL.finditer(line)]
    return starts


def _code(found: re.Match[str]) -> str:
    number = found["number"]
    if number.isdigit() and len(number) == 1:
        number = "0" + number  # Decree 30, Annex I: numbers below ten are written with a zero
    symbol = re.sub(r"\s+", "", found["symbol"]).replace("–", "-").strip("-.")
    return f"{number}/{found['year']}/{symbol}" if found["year"] else f"{number}/{symbol}"


def _kind_of_symbol(symbol: str) -> str:
    group = re.split(r"[-–.]", symbol.replace(" ", ""))[0]
    if re.fullmatch(r"QH\d{1,2}", group):
        return "L"
    return group if group in _SHORTS else ""


def _agreed(kind: str, title: str) -> str:
    """The kind when symbol and printed name agree but for accents; else the symbol's."""
    printed = KINDS[title]
    return printed if vietnamese.fold(printed) == vietnamese.fold(kind) else kind


def _mended(code: str, kind: str) -> str:
    """`12/QD-UBND`, as OCR reads it under the printed name QUYẾT ĐỊNH, is `12/QĐ-UBND`."""
    head, _, rest = code.rpartition("/")
    group, dash, org = rest.partition("-")
    return f"{head}/{kind}{dash}{org}" if dash and vietnamese.fold(group) == vietnamese.fold(kind) else code


def _misread(code: str, printed: str) -> str:
    """`31/TIr-STC` under the printed name TỜ TRÌNH: a group that is no kind, and nearly the printed one, is it."""
    head, _, rest = code.rpartition("/")
    group, dash, org = rest.partition("-")
    near = difflib.SequenceMatcher(None, group, printed).ratio() >= 0.6
    return f"{head}/{printed}{dash}{org}" if dash and near and group not in _SHORTS else code


def _kind(header: list[str], number_at: int) -> tuple[int, str | None]:
    for n, line in enumerate(header):
        for cell in _cells(line):
            bare = re.sub(r"^.*?(?:năm \d{4})", "", cell).strip(" .:*_-")
            if not bare or len(bare) > 60 or bare.upper() != bare:
                continue
            folded = vietnamese.fold(bare)
            if folded in _KIND_OF:
                return n, _KIND_OF[folded][0]
            for name in ("CÔNG ĐIỆN", "THÔNG TƯ LIÊN TỊCH", "NGHỊ QUYẾT LIÊN TỊCH"):
                if folded.startswith(vietnamese.fold(name) + " "):
                    return n, name
    for n, line in enumerate(header[: max(number_at, 0) + 12]):
        # `BÁO CÁO TÌNH HÌNH …`, `KẾ HOẠCH TRIỂN KHAI …`: kind and abstract in one line of capitals
        for cell in _cells(line):
            if cell.upper() == cell and n > number_at >= 0:
                words = vietnamese.fold(cell).split()
                if len(words) > 3 and " ".join(words[:2]) in _KIND_OF:
                    return n, _KIND_OF[" ".join(words[:2])][0]
    return -1, None


def _date(header: list[str]) -> tuple[str | None, str | None, bool]:
    """(ISO date, place, whether a blank date line was seen). The issue date is the first that has a place."""
    blank, unset = False, None
    fallback: tuple[str | None, str | None, bool] | None = None
    for n, line in enumerate(header):
        flat = re.sub(r"\s+", " ", line.replace("\t", "   "))
        found = _DATE.search(flat)
        if not found and n + 1 < len(header) and re.search(r"ngày[\s\d]*(?:tháng[\s\d]*(?:năm\s*)?)?$", flat):
            flat = f"{flat} {(_cells(header[n + 1]) or [''])[-1]}"  # the right column goes on below
            found = _DATE.search(flat)
        if not found:
            if _BLANK_DATE.search(flat) and re.search(r",\s*ngày", flat) and not re.match(r"\W*\(", flat):
                blank = True
                before = _CELL.split(line[: line.find("ngày")].rstrip(" ,\t"))[-1]
                found = _PLACE.search(before)
                unset = unset or (_place_name(found["place"]) if found else None)
            continue
        try:
            value = dt.date(int(found["y"]), int(found["m"]), int(found["d"])).isoformat()
        except ValueError:
            continue
        before = line[: line.find("ngày")] if "ngày" in line else flat[: found.start()]
        cells = _CELL.split(before)
        place = _PLACE.search(cells[-1].strip()) if cells[-1].strip() else None
        if place is None and len(cells) > 1 and cells[-2].strip():
            place = _PLACE.search(cells[-2].strip())
        if (
            place is not None
            and re.search(r",\s*$|,\s*\t*$", before.rstrip() or " ")
            and not re.match(r"\W*(?:Căn cứ|\(|Luật|Nghị)", line)
        ):
            name = _place_name(place["place"])
            return value, name, False
        alone = re.search(r"(?:^|[,.]|\s{2})\s*\W?ngày", line.replace("\t", "   ")[: found.start() + 8])
        if fallback is None and alone and not re.search(r"(?i)căn cứ|kèm theo|luật|nghị định", flat):
            fallback = (value, None, False)
    return fallback or (None, unset, blank)


def _place_name(place: str) -> str:
    words = place.split()
    while words and (
        re.search(r"[\d/]", words[0])
        or (len(words) > 1 and words[0].isupper() and len(words[0]) > 2 and words[0] not in ("TP.", "TPHCM"))
    ):
        words.pop(0)  # rest of a symbol that stood before it
    return " ".join(words) or place


_OFFICE = re.compile(r"(?:chu tich|(?:tong )?giam doc|bo truong|cuc truong|hieu truong|chanh an|vien truong) ")


def _agency(header: list[str], number_at: int) -> str | None:
    """The left column above the number, in capitals: the last body named there issues, those above are superior."""
    rows: list[str] = []
    limit = number_at
    if number_at < 0:  # then the kind ends the header, or who decides: `CHỦ TỊCH ỦY BAN NHÂN DÂN TỈNH`
        folds = [vietnamese.fold(line).strip() for line in header[:8]]
        ends = (n for n, line in enumerate(folds) if n and (line in _KIND_OF or _OFFICE.match(line)))
        limit = next(ends, len(folds))
    for line in header[: max(limit, 1) if number_at >= 0 else limit]:
        for cell in _cells(line)[:1] if "\t" in line else _cells(line):
            folded = vietnamese.fold(cell)
            if rows and re.fullmatch(r"[-–]", cell):
                rows[-1] += " -"
            if _NATIONAL.search(folded) or _MOTTO.search(folded) or not re.search(r"\w\w", cell):
                continue
            if (
                cell.startswith("/")  # the rest of a symbol
                or re.search(r"\d", re.sub(r"(?<=[^\W\d] )\d{1,3}$", "", cell))
                or cell.upper() != cell
                or len(cell) > 110
                or folded in _KIND_OF
            ):
                continue
            if _DRAFT.match(cell) or re.fullmatch(
                r"\W*(?:mat|toi mat|tuyet mat|khan|thuong khan|hoa toc.*)\W*", folded
            ):
                continue
            if rows and rows[-1].endswith("-"):
                rows[-1] = f"{rows[-1]} {cell.strip(' -–_*.:')}"  # joint issuers: `SỞ NỘI VỤ -` / `SỞ TÀI CHÍNH`
                continue
            if folded == "nam" and not (rows and rows[-1].endswith("VIỆT")):
                continue  # the last word of the national title, on a line of its own
            joint = re.search(r"\s[-–]\W*$", cell)
            rows.append(cell.strip(" -–_*.:") + (" -" if joint else ""))
    if not rows:
        return None
    start = 0
    for n, row in enumerate(rows):
        folded = vietnamese.fold(row) + " "
        if n and len(folded.split()) == 1:
            continue  # `… VÀ MÔI` / `TRƯỜNG`: the rest of a name
        if _AGENCY_HEAD.match(folded) and not (n and _GOES_ON.match(folded)):
            previous = vietnamese.fold(rows[n - 1]) if n else ""
            if n and _HALVES.search(f"{previous} {folded.split()[0]}"):
                continue  # `… VÀ MÔI` / `TRƯỜNG - SỞ …`
            if n and re.search(r"(?: va| cua| -|,|khoi| ban)$", previous):
                continue  # `VĂN PHÒNG HĐND VÀ` / `UBND TỈNH …`
            start = n
    if not any(_AGENCY_HEAD.match(vietnamese.fold(row) + " ") for row in rows):
        return None if number_at < 0 else " ".join(rows)[:200]
    name = " ".join(rows[start:]).strip(" -")
    if start and vietnamese.fold(name) in ("van phong", "thanh tra"):
        name = f"{name} {rows[start - 1]}"  # the office of the body above it
    return name[:200]


def _abstract(
    first: list[str], header: list[str], title_at: int, title: str | None, apart: frozenset[int]
) -> str | None:
    """apart: the lines of page 1 with a gap above them; an abstract does not reach over one."""
    if title is not None and title != "CÔNG VĂN":
        pieces: list[str] = []
        glued = header[title_at]
        if vietnamese.fold(glued.strip(" .:*")) not in _KIND_OF and glued.upper() == glued and "\t" not in glued:
            rest = glued.split(None, len(title.split()))
            if len(rest) > len(title.split()):
                pieces.append(rest[-1])
        after = header[title_at + 1 :] or first[title_at + 1 : title_at + 2]
        for n, line in enumerate(after[:12], title_at + 1):
            cells = _cells(line)
            if not cells:
                continue
            text = _STAMP_NOISE.sub("", cells[-1] if len(cells) == 1 else " ".join(cells)).strip(" *_")
            if re.fullmatch(r"[-–—_=.*\s]*", text):
                if pieces:
                    break
                continue
            if (_END_OF_ABSTRACT.match(text) and (pieces or not _NOTHING_CITED.match(text))) or (
                pieces and _begins_body(text, pieces, n in apart, after[n - title_at :])
            ):
                break
            if pieces and (pieces[-1].endswith(".") or (pieces[-1].endswith(";") and text[:1].isupper())):
                break
            pieces.append(text)
            if len(" ".join(pieces)) > 500:
                break
        if pieces:
            return re.sub(r"\s+", " ", " ".join(pieces)).strip(" .")[:500]
    for n, line in enumerate(header):
        for k, cell in enumerate(_cells(line)):
            if not (found := _ABSTRACT.match(cell)):
                continue
            pieces = [found["rest"]]
            for at, following in enumerate(first[n + 1 : n + 8], n + 1):
                cells = _cells(_parted(following))
                if not cells or _END_OF_ABSTRACT.match(cells[0]):
                    break
                if re.match(r"[-–—_=*\s]*$", cells[0]) or (_DATE.search(following) and len(cells) == 1):
                    break
                folded = vietnamese.fold(cells[min(k, len(cells) - 1)])
                if (
                    _NATIONAL.search(folded)
                    or _MOTTO.search(folded)
                    or (_capitals(cells[0]) and not re.search(r"[\d/]", cells[0]))
                ):
                    break
                if re.match(r".{2,40},\s*ngày\b", cells[0]) or (at in apart and cells[0][:1].isupper()):
                    break
                pieces.append(cells[0])
            return re.sub(r"\s+", " ", " ".join(pieces)).strip(" .")[:500] or None
    return None


def _capitals(text: str) -> bool:
    return text.upper() == text and text.lower() != text


#: An abstract may itself begin `Thực hiện …`; what names a document, or ends as a sentence, is the text below it.
_NOTHING_CITED = re.compile(
    r"(?i)(?:thực hiện|để|nhằm) (?!.*\b(?:công văn|kế hoạch|quyết định|chỉ thị|nghị quyết|thông tư|văn bản|giấy mời|"
    r"thông báo|luật|nghị định) (?:số|của|ngày)).*[^.,:;]$"
)
_UNFINISHED = re.compile(
    r"(?:,|:|-|\(|\b(?:và|của|tại|cho|về|trong|theo|với|từ|đến|là|thuộc|do|giữa|các|những|số|ngày|cùng|trên|hoặc|"
    r"lĩnh vực|dự án|gói thầu|công trình|hội nghị))\s*$",
    re.IGNORECASE,
)


def _begins_body(text: str, pieces: list[str], apart: bool, following: Sequence[str]) -> bool:
    """Whether a line below an abstract is no part of it: body text, or the body that decides, in capitals."""
    if text[:1] in '([“"' or not (text[:1].isupper() or text[:1] in "-–+•"):
        return False
    if _capitals(text) and len(text.split()) > 1:
        return not _capitals(pieces[-1])
    if _UNFINISHED.search(pieces[-1]):
        return False
    if apart or text[:1] in "-–+•":
        return True
    # No abstract ends as a sentence: read on to where this one ends.
    sentence = text
    for line in following[:6]:
        if sentence.endswith((".", ";", ":")) or not _cells(line) or _END_OF_ABSTRACT.match(line):
            break
        sentence = f"{sentence} {line}"
    return len(sentence) > 60 and sentence.endswith((".", ";", ":"))


def _is_letter(header: list[str]) -> bool:
    return any(_ABSTRACT.match(cell) for line in header for cell in _cells(line))


def _from_subject(subject: str) -> str | None:
    text = vietnamese.clean(subject)
    for pattern in (_STATE, _PARTY):
        found = pattern.search(text)
        if found and pattern is _STATE and ("-" in found["symbol"] or re.match(r"QH\d", found["symbol"])):
            return _code(found)
        if found and pattern is _PARTY:
            return f"{found['number']}-{found['kind']}/{found['org']}"
    return None


def _from_name(name: str) -> str | None:
    """`14-CT-UBND.pdf`, `2437_QĐ_UBND.signed.pdf`: a proposal only. Unaccented kinds that mean two things stay out."""
    stem = re.sub(
        r"(?:\.(?:signed|pdf|docx?|xlsx?))+$", "", vietnamese.clean(name).rsplit("/", 1)[-1], flags=re.IGNORECASE
    )
    found = re.match(
        rf"(?P<n>\d{{1,5}}[a-z]?)[-_. ](?P<kind>[{UP}][{UP}a-z]{{0,4}})[-_. ]"
        rf"(?P<org>[{UP}]{{2,10}}(?:[-_.][{UP}]{{2,10}})?)(?![{LOW}])",
        stem,
    )
    if not found:
        return None
    shorts = {found["kind"]} & _SHORTS or _BY_FOLDED_SHORT.get(vietnamese.fold(found["kind"]), set())
    if len(shorts) != 1:
        return None
    return f"{found['n'].zfill(2)}/{next(iter(shorts))}-{found['org'].replace('_', '-')}"


def _signer(
    pages: list[list[str]], signatures: Sequence[Signature], ocr: bool = False
) -> tuple[DocumentField | None, DocumentField | None]:
    """Title and name at the foot. The signer's own title is the last line before the name."""
    best: tuple[str | None, str | None] = (None, None)
    for page in [pages[0], *pages[1:]] if pages else []:
        found = _signature_block(page)
        if found != (None, None) and (best[1] is None or found[1] is not None):
            best = found
            if found[1] is not None and len(pages) > 3:
                break  # annexes after the signed page repeat no signer
    title, name = best
    if ocr and title:
        title = spelling.mended(title)
    if ocr and name:
        words = name.split()
        known = spelling.is_surname(words[0]) and all(len(word) > 1 and word.isalpha() for word in words)
        if not known and not all(map(vietnamese.is_syllable, words)):
            name = None  # a signature read as letters
        else:
            name = spelling.name(name)
    person = next((s.signer for s in signatures if s.kind == "person" and s.signer), "")
    signer = DocumentField(value=name, source="text", confidence=0.93) if name else None
    if signer is None and person:
        signer = DocumentField(value=person, source="signature", confidence=0.9)
    elif signer and person and vietnamese.fold(person) == vietnamese.fold(name or ""):
        signer = DocumentField(value=name or "", source="text", confidence=1.0)
    return signer, DocumentField(value=title, source="text", confidence=0.93) if title else None


def _signature_block(lines: list[str]) -> tuple[str | None, str | None]:
    start = next((n for n in range(len(lines) - 1, -1, -1) if _is_authority(lines[n])), None)
    if start is None:
        # A head signs with the bare title; look in the lower half, below the articles.
        for n in range(len(lines) - 1, max(len(lines) // 3 if len(lines) > 20 else 0, len(lines) - 40) - 1, -1):
            if _is_title(_cells(lines[n])[-1] if _cells(lines[n]) else ""):
                start = n
                break
    if start is None:
        return None, None
    while start > 0 and _is_authority(lines[start - 1]):
        start -= 1
    title: str | None = None
    title_at, bare = -2, False  # its last line; whether that is the office itself, not `TL. …`
    for n in range(start, min(start + 26, len(lines))):
        cells = _cells(lines[n])
        if not cells:
            continue
        right = cells[-1]
        authority = _AUTHORITY.match(right)
        if authority:
            title, title_at = (authority["title"] or authority["bare"] or "").strip(" .*_:"), n
            bare = False
            continue
        if _is_title(right) and not (bare and title_at == n - 1 and (title or "").endswith(("-", ",", " VÀ"))):
            title, title_at, bare = right.strip(" .*_:"), n, True
            continue
        if (right.startswith(("-", "•", "+", "*")) and len(cells) == 1) or (
            _RECIPIENTS.match(cells[0]) and len(cells) == 1
        ):
            if title_at == n - 1:
                title_at = n  # the left column between two lines of the right one
            continue
        name = _NAME.match(right)
        capitals = _capitals(right)
        if title_at == n - 1 and capitals and not (name and spelling.is_surname(right.split()[0])):
            # `PHÓ TỔNG KIỂM TOÁN NHÀ` / `NƯỚC`; `TL. CHỦ TỊCH` / any office at all
            title, title_at, bare = (f"{title} {right}" if bare else right).strip(" .*_:"), n, True
            continue
        if name and not _NOT_NAME.search(right) and n > start:
            words = name["name"].split()
            if right.upper() == right and not title:
                continue
            shown = " ".join(words) if not name["name"].isupper() else " ".join(w.capitalize() for w in words)
            if 2 <= len(words) <= 6:
                return title, shown
    return title, None


def _is_authority(line: str) -> bool:
    cells = _cells(line)
    return bool(cells and _AUTHORITY.match(cells[-1]) and len(cells[-1]) < 100)


def _is_title(text: str) -> bool:
    return bool(text) and text.upper() == text and bool(_TITLE.match(vietnamese.fold(text)))


def _recipients(lines: list[str], ocr: bool = False) -> tuple[NamedRecipient, ...]:
    found: list[NamedRecipient] = []
    if ocr:  # dashes are read as other strokes
        lines = [re.sub(r"^[~=—_•«»]\s*(?=\w)", "- ", line) for line in lines]
    start = None
    for n, line in enumerate(lines):
        cells = _cells(line)
        if cells and (match := _RECIPIENTS.match(cells[0])):
            start = (n, match["rest"] or "")
    if start is None and ocr:  # the heading is small, slanted and bold: what stands above `- Lưu: VT` is the list
        last = next((n for n in range(len(lines) - 1, -1, -1) if re.match(r"-\s*Lưu\b", lines[n])), 0)
        top = last
        while top and last - top < 40 and not _AUTHORITY.match((_cells(lines[top]) or [""])[-1]):
            top -= 1
        first = next((n for n in range(top, last) if re.match(r"-\s*\w", lines[n])), 0)
        if first:
            start = (first - 1, "")
    if start is None:
        return ()
    entries = [entry for part in re.split(r";\s*[-–•+]?", start[1]) if (entry := part.strip(" -–"))]
    since = 0
    below = [cells[0] for line in lines[start[0] + 1 : start[0] + 45] if (cells := _cells(line))]
    # Word shows the dashes of a list without writing them: then each line that ends in `;` is an entry.
    dashed = any(re.match(r"[-–•+]\s*\S", left) for left in below[:6])
    for left in below:
        if re.match(r"[-–•+]\s*\S|[-–•]$", left):
            entries.append(left.lstrip("-–•+ "))
            since = 0
        elif not dashed and len(left) < 120 and not _capitals(left) and left[:1].isupper() and (
            left.endswith((";", "./.")) or re.match(r"Lưu\b", left)
        ):  # fmt: skip
            entries.append(left)
            since = 0
        elif entries and len(left) < 60 and left[:1].islower() and since < 3 and not _MODE.match(left):
            entries[-1] += " " + left  # the entry goes on
            since += 1
        else:
            since += 1
            if since > 10 or (entries and re.match(r"\W*(?:Phụ lục|PHỤ LỤC|DANH MỤC)", left)):
                break
        if entries and re.match(r"lưu\b", entries[-1], re.IGNORECASE) and since:
            break
    for entry in entries:
        entry = re.sub(r"\s+", " ", entry).strip(" ;.,")
        if not entry or _MODE.match(entry):
            continue
        if ocr:
            entry = spelling.mended(re.sub(r"(?<=\()\s*đ[êế](?= )", "để", entry))
        purpose = _PURPOSE.search(entry)
        name = entry[: purpose.start()].strip(" ;.,") if purpose else entry
        found.append(NamedRecipient(name=name[:200], purpose=purpose["purpose"].strip() if purpose else ""))
        if len(found) >= 100:
            break
    return tuple(found)


def _annexes(text: str) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for found in _ANNEX.finditer(text):
        for number in [found["n"], *re.findall(r"[IVXLC]{1,6}|\d{1,2}|\b[A-H]\b", found["more"])]:
            names[f"Phụ lục {number.upper()}"] = None
        if len(names) >= 50:
            break
    return tuple(names)


def _cites(text: str, own: str | None) -> tuple[str, ...]:
    codes: dict[str, None] = {}
    flat = _GLUED.sub(" ", text[:400_000])
    for found in _STATE.finditer(flat):
        if "-" in found["symbol"] or "–" in found["symbol"] or re.match(r"QH\d", found["symbol"]):
            codes[_code(found)] = None
        if len(codes) >= 200:
            break
    for found in _PARTY.finditer(flat):
        codes[f"{found['number']}-{found['kind']}/{found['org']}"] = None
    codes.pop(own or "", None)
    return tuple(codes)[:200]


def is_document(document: Document) -> bool:
    """Whether the fields say that this is an administrative document at all."""
    return (document.code is not None and document.code.source in ("text", "ocr")) or document.components >= 2
