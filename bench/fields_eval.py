"""Fields of made official documents of every level and kind: right, wrong and missing, from PDF, Word and scans.

    ./run measure fields_eval [--count 120] [--seed S] [--as pdf,docx,scan200,grey150] [--keep FOLDER] [--show]

Agencies from commune to ministry, bodies of the Party and the front, schools, joint issuers; the 29 kinds of Decree 30
and those outside it; headers of two columns whose cells wrap as their width wants, drawn by a table engine, and by hand
for a part; blank numbers, urgency marks, modes of delivery, annexes, every form of authority to sign. `scan200` is a
colour scan a little turned, `grey150` one without colour, turned up to a degree, with more grain.

Compared after folding of case and blanks (accents count); abstracts without a leading `V/v`, `Về việc`, `Về`; texts of
several words count as right from OCR when 97 % of their letters are. Prints one JSON line a mode, `right/wrong/missing` a
field; with --show each miss.
"""

# ruff: noqa: E501 tables of texts

from __future__ import annotations

import argparse
import difflib
import io
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import text_corpus as corpus
from gateway import vietnamese

FIELDS = ("code", "date", "place", "kind", "abstract", "agency", "signer", "title", "recipients", "urgency", "mode",
          "draft")  # fmt: skip

# -- who issues: superior lines, own lines, symbol, place, heads ----------------------------------------------------

_PROVINCES = ("LÂM ĐỒNG", "QUẢNG TRỊ", "THÁI NGUYÊN", "AN GIANG", "CAO BẰNG", "ĐẮK LẮK", "KHÁNH HÒA", "NGHỆ AN",
              "THANH HOÁ", "VĨNH LONG", "TUYÊN QUANG", "PHÚ THỌ", "CÀ MAU", "GIA LAI", "HƯNG YÊN", "SƠN LA")  # fmt: skip
_CITIES = ("HẢI PHÒNG", "ĐÀ NẴNG", "CẦN THƠ", "HÀ NỘI", "HỒ CHÍ MINH", "HUẾ")
_DISTRICTS = ("HUYỆN KRÔNG BÔNG", "HUYỆN ĐẠI TỪ", "THỊ XÃ NGHĨA LỘ", "QUẬN NINH KIỀU", "HUYỆN YÊN MÔ", "THÀNH PHỐ VINH",
              "HUYỆN MƯỜNG ẢNG", "HUYỆN U MINH THƯỢNG")  # fmt: skip
_COMMUNES = ("XÃ EA KHĂL", "PHƯỜNG BẾN NGHÉ", "XÃ TÂN HƯNG", "THỊ TRẤN PHỐ LU", "XÃ ĐẠ TẺH 2", "PHƯỜNG 14", "XÃ NẬM CẮN",
             "ĐẶC KHU PHÚ QUỐC")  # fmt: skip
_DEPARTMENTS = (
    ("SỞ NÔNG NGHIỆP VÀ MÔI TRƯỜNG", "SNNMT"), ("SỞ GIÁO DỤC VÀ ĐÀO TẠO", "SGDĐT"), ("SỞ KHOA HỌC VÀ CÔNG NGHỆ", "SKHCN"),
    ("SỞ VĂN HÓA, THỂ THAO VÀ DU LỊCH", "SVHTTDL"), ("SỞ XÂY DỰNG", "SXD"), ("SỞ TƯ PHÁP", "STP"), ("SỞ Y TẾ", "SYT"),
    ("SỞ DÂN TỘC VÀ TÔN GIÁO", "SDTTG"), ("SỞ CÔNG THƯƠNG", "SCT"), ("BAN QUẢN LÝ CÁC KHU CÔNG NGHIỆP", "BQLKCN"),
    ("THANH TRA TỈNH", "TTT"), ("SỞ LAO ĐỘNG - THƯƠNG BINH VÀ XÃ HỘI", "SLĐTBXH"),
)  # fmt: skip
_MINISTRIES = (("BỘ NỘI VỤ", "BNV"), ("BỘ KHOA HỌC VÀ CÔNG NGHỆ", "BKHCN"), ("BỘ NÔNG NGHIỆP VÀ MÔI TRƯỜNG", "BNNMT"),
    ("VĂN PHÒNG CHÍNH PHỦ", "VPCP"), ("THANH TRA CHÍNH PHỦ", "TTCP"), ("BỘ QUỐC PHÒNG", "BQP"), ("BỘ Y TẾ", "BYT"),
    ("NGÂN HÀNG NHÀ NƯỚC VIỆT NAM", "NHNN"), ("KIỂM TOÁN NHÀ NƯỚC", "KTNN"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Issuer:
    superior: tuple[str, ...]
    own: tuple[str, ...]  # the lines of its name, as typed
    name: str
    symbol: str
    place: str
    collective: str  # TM. …, empty where the head signs for himself
    head: str
    deputy: str
    under: tuple[str, str]  # TL. whom, and who
    party: bool = False
    units: tuple[str, ...] = ("VP", "TH", "TCHC")


def _cased(name: str) -> str:
    return " ".join(word if re.search(r"\d", word) else word.capitalize() for word in name.split())


def issuers(rng: random.Random) -> Issuer:
    province = rng.choice(_PROVINCES)
    place = _cased(province)
    tinh = f"TỈNH {province}"
    committee = rng.choice(("ỦY BAN NHÂN DÂN", "UỶ BAN NHÂN DÂN"))
    what = rng.randrange(22)
    chief = ("CHỦ TỊCH", "PHÓ CHỦ TỊCH")
    director = ("GIÁM ĐỐC", "PHÓ GIÁM ĐỐC")
    office = ("CHỦ TỊCH", "CHÁNH VĂN PHÒNG")
    if what <= 1:
        return Issuer((), (committee, tinh), f"{committee} {tinh}", "UBND", place, committee, *chief, office,
                      units=("NC", "KGVX", "CN", "NNTN", "TH1"))  # fmt: skip
    if what == 2:
        city = rng.choice(_CITIES)
        return Issuer((), (committee, f"THÀNH PHỐ {city}"), f"{committee} THÀNH PHỐ {city}", "UBND",
                      rng.choice((_cased(city), f"Thành phố {_cased(city)}", f"TP. {_cased(city)}")), committee, *chief,
                      office, units=("ĐT", "KT", "VX"))  # fmt: skip
    if what == 3:
        return Issuer((), ("HỘI ĐỒNG NHÂN DÂN", tinh), f"HỘI ĐỒNG NHÂN DÂN {tinh}", "HĐND", place, "HỘI ĐỒNG NHÂN DÂN",
                      *chief, ("CHỦ TỊCH", "CHÁNH VĂN PHÒNG"))  # fmt: skip
    if what == 4:
        return Issuer((), (f"VĂN PHÒNG {committee}", tinh), f"VĂN PHÒNG {committee} {tinh}", "VP", place, "",
                      "CHÁNH VĂN PHÒNG", "PHÓ CHÁNH VĂN PHÒNG", ("CHÁNH VĂN PHÒNG", "TRƯỞNG PHÒNG"))  # fmt: skip
    if what <= 8:
        name, symbol = rng.choice(_DEPARTMENTS)
        above = rng.choice((f"UBND {tinh}", f"{committee} {tinh}", f"{committee}\n{tinh}"))
        head = ("CHÁNH THANH TRA", "PHÓ CHÁNH THANH TRA") if "THANH TRA" in name else (
            "TRƯỞNG BAN", "PHÓ TRƯỞNG BAN") if name.startswith("BAN") else director  # fmt: skip
        return Issuer(tuple(above.split("\n")), (name,), name, symbol, place, "", *head,
                      (head[0], "CHÁNH VĂN PHÒNG"))  # fmt: skip
    if what == 9:
        district = rng.choice(_DISTRICTS)
        return Issuer((), (committee, district), f"{committee} {district}", "UBND", _cased(district.split(" ", 1)[1]),
                      committee, *chief, office, units=("NV", "TCKH", "VP"))  # fmt: skip
    if what == 10:
        district = rng.choice(_DISTRICTS)
        name, symbol = rng.choice((("PHÒNG NỘI VỤ", "NV"), ("PHÒNG GIÁO DỤC VÀ ĐÀO TẠO", "PGDĐT"),
                                   ("PHÒNG KINH TẾ, HẠ TẦNG VÀ ĐÔ THỊ", "KTHTĐT")))  # fmt: skip
        return Issuer((f"UBND {district}",), (name,), name, symbol, _cased(district.split(" ", 1)[1]), "",
                      "TRƯỞNG PHÒNG", "PHÓ TRƯỞNG PHÒNG", ("TRƯỞNG PHÒNG", "PHÓ TRƯỞNG PHÒNG"))  # fmt: skip
    if what <= 12:
        commune = rng.choice(_COMMUNES)
        return Issuer((), (committee, commune), f"{committee} {commune}", "UBND", _cased(commune.split(" ", 1)[1])
                      if not commune[-1].isdigit() else _cased(commune), committee, *chief,
                      ("CHỦ TỊCH", "CÔNG CHỨC VĂN PHÒNG - THỐNG KÊ"), units=("VHXH", "KT", "VP"))  # fmt: skip
    if what <= 14:
        name, symbol = rng.choice(_MINISTRIES)
        head = {"BỘ": ("BỘ TRƯỞNG", "THỨ TRƯỞNG"), "VĂN": ("BỘ TRƯỞNG, CHỦ NHIỆM", "PHÓ CHỦ NHIỆM"),
                "THANH": ("TỔNG THANH TRA", "PHÓ TỔNG THANH TRA"), "NGÂN": ("THỐNG ĐỐC", "PHÓ THỐNG ĐỐC"),
                "KIỂM": ("TỔNG KIỂM TOÁN NHÀ NƯỚC", "PHÓ TỔNG KIỂM TOÁN NHÀ NƯỚC")}[name.split()[0]]  # fmt: skip
        return Issuer((), (name,), name, symbol, "Hà Nội", "", *head, (head[0].split(",")[0], "VỤ TRƯỞNG VỤ PHÁP CHẾ"),
                      units=("CCHC", "KHTC", "PC", "TCCB"))  # fmt: skip
    if what == 15:
        ministry = rng.choice(_MINISTRIES[:3])[0]
        name, symbol = rng.choice((("CỤC CHUYỂN ĐỔI SỐ QUỐC GIA", "CĐSQG"), ("CỤC VĂN THƯ VÀ LƯU TRỮ NHÀ NƯỚC", "VTLTNN"),
                                   ("CỤC THUẾ", "CT"), ("TỔNG CỤC THI HÀNH ÁN DÂN SỰ", "TCTHADS")))  # fmt: skip
        head = (
            ("TỔNG CỤC TRƯỞNG", "PHÓ TỔNG CỤC TRƯỞNG") if name.startswith("TỔNG") else ("CỤC TRƯỞNG", "PHÓ CỤC TRƯỞNG")
        )
        return Issuer((ministry,), (name,), name, symbol, "Hà Nội", "", *head, (head[0], "CHÁNH VĂN PHÒNG"))
    if what == 16:
        name, symbol, head, deputy = rng.choice((
            ("TRƯỜNG ĐẠI HỌC QUY NHƠN", "ĐHQN", "HIỆU TRƯỞNG", "PHÓ HIỆU TRƯỞNG"),
            ("BỆNH VIỆN ĐA KHOA KHU VỰC", "BVĐK", "GIÁM ĐỐC", "PHÓ GIÁM ĐỐC"),
            ("TRUNG TÂM KIỂM SOÁT BỆNH TẬT", "TTKSBT", "GIÁM ĐỐC", "PHÓ GIÁM ĐỐC"),
            ("CHI CỤC KIỂM LÂM", "CCKL", "CHI CỤC TRƯỞNG", "PHÓ CHI CỤC TRƯỞNG"),
            ("TRƯỜNG TRUNG HỌC PHỔ THÔNG CHUYÊN", "THPTC", "HIỆU TRƯỞNG", "PHÓ HIỆU TRƯỞNG")))  # fmt: skip
        above = rng.choice(("SỞ Y TẾ", "SỞ GIÁO DỤC VÀ ĐÀO TẠO", "BỘ GIÁO DỤC VÀ ĐÀO TẠO"))
        return Issuer(
            (above,), (name,), name, symbol, place, "", head, deputy, (head, "TRƯỞNG PHÒNG TỔ CHỨC - HÀNH CHÍNH")
        )
    if what == 17:
        symbol, own, head, deputy = rng.choice((
            ("CAT", ("BỘ CÔNG AN", f"CÔNG AN {tinh}"), "GIÁM ĐỐC", "PHÓ GIÁM ĐỐC"),
            ("BCH", ("QUÂN KHU 5", f"BỘ CHỈ HUY QUÂN SỰ {tinh}"), "CHỈ HUY TRƯỞNG", "PHÓ CHỈ HUY TRƯỞNG"),
            ("TA", ("TÒA ÁN NHÂN DÂN TỐI CAO", f"TÒA ÁN NHÂN DÂN {tinh}"), "CHÁNH ÁN", "PHÓ CHÁNH ÁN"),
            ("VKS", ("VIỆN KIỂM SÁT NHÂN DÂN TỐI CAO", f"VIỆN KIỂM SÁT NHÂN DÂN {tinh}"), "VIỆN TRƯỞNG",
             "PHÓ VIỆN TRƯỞNG"),
            ("BHXH", ("BẢO HIỂM XÃ HỘI VIỆT NAM", f"BẢO HIỂM XÃ HỘI {tinh}"), "GIÁM ĐỐC", "PHÓ GIÁM ĐỐC")))  # fmt: skip
        return Issuer(own[:1], own[1:], own[1], symbol, place, "", head, deputy, (head, "TRƯỞNG PHÒNG THAM MƯU"))
    if what <= 19:
        symbol, above, own, head, deputy, auth = rng.choice((
            ("TU", (), (f"TỈNH ỦY {province}",), "BÍ THƯ", "PHÓ BÍ THƯ", "BAN THƯỜNG VỤ"),
            ("ĐU", (f"ĐẢNG BỘ {tinh}",), ("ĐẢNG ỦY UBND TỈNH",), "BÍ THƯ", "PHÓ BÍ THƯ", "BAN THƯỜNG VỤ"),
            ("VPTU", (f"TỈNH ỦY {province}",), ("VĂN PHÒNG",), "CHÁNH VĂN PHÒNG", "PHÓ CHÁNH VĂN PHÒNG", ""),
            ("BTCTU", (f"TỈNH ỦY {province}",), ("BAN TỔ CHỨC",), "TRƯỞNG BAN", "PHÓ TRƯỞNG BAN", ""),
            ("TW", (), ("BAN CHẤP HÀNH TRUNG ƯƠNG",), "TỔNG BÍ THƯ", "THƯỜNG TRỰC BAN BÍ THƯ", "BAN BÍ THƯ"),
            ("UBKTTU", (f"TỈNH ỦY {province}",), ("ỦY BAN KIỂM TRA",), "CHỦ NHIỆM", "PHÓ CHỦ NHIỆM", "")))  # fmt: skip
        name = f"VĂN PHÒNG TỈNH ỦY {province}" if own == ("VĂN PHÒNG",) else " ".join(own)
        return Issuer(above, own, name, symbol, "Hà Nội" if symbol == "TW" else place, auth, head, deputy,
                      (auth or head, "CHÁNH VĂN PHÒNG"), party=True)  # fmt: skip
    if what == 20:
        pairs = rng.sample(_DEPARTMENTS[:9], 2)
        name = " - ".join(one[0] for one in pairs)
        return Issuer((f"UBND {tinh}",), (f"{pairs[0][0]} -", pairs[1][0]) if rng.random() < 0.5 else (name,), name,
                      "-".join(one[1] for one in pairs), place, "", *director, ("GIÁM ĐỐC", "CHÁNH VĂN PHÒNG"))  # fmt: skip
    name = rng.choice(("BAN CHỈ ĐẠO CHUYỂN ĐỔI SỐ", "BAN CHỈ HUY PHÒNG THỦ DÂN SỰ", "HỘI ĐỒNG THI ĐUA - KHEN THƯỞNG"))
    symbol = {"BAN CHỈ Đ": "BCĐ", "BAN CHỈ H": "BCH", "HỘI ĐỒNG ": "HĐTĐKT"}[name[:9]]
    lead = ("TRƯỞNG BAN", "PHÓ TRƯỞNG BAN") if name.startswith("BAN") else ("CHỦ TỊCH", "PHÓ CHỦ TỊCH")
    return Issuer((f"UBND {tinh}",), (name,), name, symbol, place, "", *lead, (lead[0], "ỦY VIÊN THƯỜNG TRỰC"))


# -- what it says ---------------------------------------------------------------------------------------------------

#: The 29 kinds of Decree 30, Article 7, and some outside it; with the word that begins their abstract.
_LED = {"QUY CHẾ": "", "QUY ĐỊNH": "", "CHƯƠNG TRÌNH": "", "KẾ HOẠCH": "", "PHƯƠNG ÁN": "", "ĐỀ ÁN": "", "DỰ ÁN": "",
        "BÁO CÁO": "", "BIÊN BẢN": "Về ", "HỢP ĐỒNG": "Về việc ", "HƯỚNG DẪN": "", "CÔNG ĐIỆN": "Về việc ",
        "GIẤY MỜI": "", "THÔNG BÁO": "Về việc "}  # fmt: skip
KINDS = ("NGHỊ QUYẾT", "QUYẾT ĐỊNH", "CHỈ THỊ", "QUY CHẾ", "QUY ĐỊNH", "THÔNG CÁO", "THÔNG BÁO", "HƯỚNG DẪN", "CHƯƠNG TRÌNH",
         "KẾ HOẠCH", "PHƯƠNG ÁN", "ĐỀ ÁN", "DỰ ÁN", "BÁO CÁO", "BIÊN BẢN", "TỜ TRÌNH", "HỢP ĐỒNG", "CÔNG VĂN", "CÔNG ĐIỆN",
         "BẢN GHI NHỚ", "BẢN THỎA THUẬN", "GIẤY ỦY QUYỀN", "GIẤY MỜI", "GIẤY GIỚI THIỆU", "GIẤY NGHỈ PHÉP", "PHIẾU GỬI",
         "PHIẾU CHUYỂN", "PHIẾU BÁO", "THƯ CÔNG")  # fmt: skip
_PARTY_KINDS = {"NGHỊ QUYẾT": "NQ", "QUYẾT ĐỊNH": "QĐ", "CHỈ THỊ": "CT", "THÔNG BÁO": "TB", "HƯỚNG DẪN": "HD",
                "BÁO CÁO": "BC", "KẾ HOẠCH": "KH", "CÔNG VĂN": "CV", "TỜ TRÌNH": "TTr", "QUY CHẾ": "QC",
                "CHƯƠNG TRÌNH": "CTr", "QUY ĐỊNH": "QĐi", "KẾT LUẬN": "KL", "LỜI KÊU GỌI": ""}  # fmt: skip
_ABSTRACTS = (
    "triển khai chiến dịch làm sạch dữ liệu đất đai trên địa bàn",
    "tăng cường quản lý việc dạy thêm, học thêm trong dịp hè; bảo đảm an toàn cho học sinh, phòng, chống đuối nước",
    "thành lập Tổ công tác rà soát, tháo gỡ khó khăn, vướng mắc cho các dự án đầu tư công chậm tiến độ thuộc phạm vi quản "
    "lý của địa phương giai đoạn 2021 - 2025",
    "kết quả thực hiện công tác cải cách hành chính quý III và phương hướng, nhiệm vụ trọng tâm quý IV năm 2024",
    "phê duyệt kết quả lựa chọn nhà thầu Gói thầu số 05: Thi công xây dựng công trình Sửa chữa, nâng cấp hồ chứa nước",
    "tổ chức Hội nghị trực tuyến toàn quốc tổng kết 10 năm thực hiện Nghị quyết số 29-NQ/TW",
    "góp ý dự thảo Nghị định quy định chi tiết một số điều của Luật Lưu trữ",
    "xin ý kiến điều chỉnh chủ trương đầu tư Dự án đường giao thông liên xã",
    "ban hành Quy chế phối hợp giữa các cơ quan chuyên môn trong giải quyết khiếu nại, tố cáo",
    "ứng phó với bão số 3 và mưa lũ sau bão",
    "nghỉ lễ Quốc khánh 02/9 và tổ chức trực cơ quan",
    "giới thiệu mẫu dấu, chữ ký và địa chỉ thư điện tử công vụ mới",
    "công bố công khai dự toán ngân sách năm 2025",
    "thực hiện kiến nghị của cử tri gửi tới trước và sau Kỳ họp thứ 15 của Hội đồng nhân dân",
    "chấn chỉnh kỷ luật, kỷ cương hành chính; nâng cao trách nhiệm người đứng đầu trong việc tiếp nhận, xử lý văn bản trên "
    "Hệ thống quản lý văn bản và điều hành",
    "phối hợp cung cấp hồ sơ, tài liệu phục vụ cuộc thanh tra chuyên ngành",
    "cử cán bộ tham gia lớp bồi dưỡng nghiệp vụ văn thư, lưu trữ",
    "điều động, bổ nhiệm công chức lãnh đạo, quản lý",
    "tiếp nhận, giải quyết thủ tục hành chính không phụ thuộc vào địa giới hành chính",
    "Phát động phong trào thi đua \"Cả nước chung sức xây dựng nông thôn mới\"",
)  # fmt: skip
_BODY = (
    "Thực hiện chỉ đạo của cấp trên tại Công văn số 1523/UBND-NC ngày 14 tháng 3 năm 2024, đề nghị các cơ quan, đơn vị "
    "chủ động rà soát, xây dựng kế hoạch cụ thể và tổ chức thực hiện bảo đảm đúng tiến độ, chất lượng.",
    "Giao các phòng chuyên môn theo dõi, đôn đốc, kiểm tra việc thực hiện; định kỳ trước ngày 20 hằng tháng tổng hợp, báo cáo.",
    "Kinh phí thực hiện được bố trí từ nguồn ngân sách nhà nước theo phân cấp hiện hành và các nguồn hợp pháp khác.",
    "Trong quá trình thực hiện, nếu có khó khăn, vướng mắc, kịp thời phản ánh để được hướng dẫn, giải quyết theo quy định.",
    "Các nội dung khác không đề cập tại văn bản này tiếp tục thực hiện theo Quyết định số 45/2022/QĐ-UBND ngày 05/12/2022.",
    "Người đứng đầu cơ quan, đơn vị chịu trách nhiệm nếu để xảy ra chậm trễ, ảnh hưởng đến quyền lợi của người dân.",
    "Công tác tuyên truyền cần được thực hiện thường xuyên, bằng nhiều hình thức phù hợp với từng nhóm đối tượng.",
)  # fmt: skip
_RECIPIENTS = (
    ("Như trên", ""), ("Như Điều 3", ""), ("Bộ Nội vụ", "để b/c"), ("Văn phòng Chính phủ", "để báo cáo"),
    ("TT. Tỉnh ủy, TT. HĐND tỉnh", "b/c"), ("Chủ tịch, các PCT UBND tỉnh", ""), ("Ủy ban MTTQ Việt Nam tỉnh", ""),
    ("Các sở, ban, ngành", "để t/h"), ("UBND các xã, phường", "để thực hiện"), ("Đảng ủy", "để b/c"),
    ("Giám đốc và các Phó Giám đốc Sở", ""), ("Cổng Thông tin điện tử tỉnh", "để đăng tải"), ("Công an tỉnh", "để p/h"),
    ("Các phòng, đơn vị thuộc và trực thuộc", ""), ("Báo và Đài Phát thanh - Truyền hình", "để đưa tin"),
    ("Sở Tài chính", "để phối hợp"), ("Kho bạc Nhà nước khu vực", ""), ("Lãnh đạo Văn phòng", "để biết"),
)  # fmt: skip
_FAMILY = ("Nguyễn", "Trịnh", "Lương", "Đoàn", "Quách", "Phan", "Huỳnh", "Võ", "Nông", "Vi", "Y", "Triệu", "Đinh", "Lò")
_MIDDLE = ("Thị Kim", "Văn", "Quang", "Hữu", "Xuân", "Bá", "Thu", "Đình", "Hoàng", "", "Ngọc Bảo", "Công")
_GIVEN = (
    "Thịnh",
    "Hường",
    "Ước",
    "Ánh",
    "Duệ",
    "Khoa",
    "Lệ",
    "Nghĩa",
    "Oanh",
    "Phượng",
    "Quý",
    "Sỹ",
    "Trí",
    "Vỹ",
    "Êban",
)
_RANKS = ("", "", "", "", "", "TS. ", "ThS. ", "PGS.TS. ", "Đại tá ", "Thiếu tướng ", "BS.CKII. ", "Ts. ")
_MARKS = {"": "none", "HỎA TỐC": "hoa_toc", "HOẢ TỐC": "hoa_toc", "THƯỢNG KHẨN": "thuong_khan", "KHẨN": "khan",
          "HỎA TỐC HẸN GIỜ": "hoa_toc_hen_gio"}  # fmt: skip
_MODES = {"": "", "Gửi: Văn bản điện tử.": "electronic_only", "Gửi bản điện tử.": "electronic_only",
          "- Gửi bản giấy và điện tử.": "electronic_and_paper", "Gửi văn bản giấy.": "paper"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Made:
    """A document to be drawn, and what must be read from it."""

    truth: dict[str, Any]
    left: tuple[str, ...]  # paragraphs of the left cell of each row of the header
    rows: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    title: tuple[str, ...]
    before: tuple[str, ...]  # paragraphs under the header, left (mark, Kính gửi)
    body: tuple[str, ...]
    foot_left: tuple[str, ...]
    foot_right: tuple[str, ...]
    address: str
    annex: tuple[str, ...]


def made(rng: random.Random, number: int) -> Made:
    who = issuers(rng)
    kind = rng.choice(sorted(_PARTY_KINDS)) if who.party else KINDS[number % len(KINDS)]
    if who.party and kind == "LỜI KÊU GỌI":
        kind = "BÁO CÁO"
    if rng.random() < 0.25:
        kind = "CÔNG VĂN"
    letter = kind == "CÔNG VĂN"
    count = rng.choice((rng.randrange(1, 10), rng.randrange(10, 100), rng.randrange(100, 10_000)))
    shown = f"{count:02d}" + ("a" if rng.random() < 0.03 and not who.party else "")
    blank = rng.random() < 0.06
    short = (
        _PARTY_KINDS.get(kind, "") if who.party else {"THƯ CÔNG": "TC"}.get(kind, corpus.document.KINDS.get(kind, ""))
    )
    if who.party:
        symbol = f"{short}/{who.symbol}"
        code = f"{count:02d}-{symbol}"
        line = rng.choice((f"Số {shown} -{symbol}", f"Số {shown}-{symbol}", f"Số: {shown}-{symbol}"))
        if blank:
            line = f"Số        -{symbol}"
    else:
        symbol = f"{who.symbol}-{rng.choice(who.units)}" if letter else f"{short}-{who.symbol}"
        if kind == "THƯ CÔNG":
            symbol = f"{who.symbol}-TC"
        gap = rng.choice(("", "", "", " ", "    ", "        "))
        line = f"Số:{rng.choice((' ', '', '  '))}{shown}{gap}/{symbol}"
        if blank:
            line = rng.choice((f"Số:       /{symbol}", f"Số: ……/{symbol}", f"Số: ..... /{symbol}"))
        code = f"{shown}/{symbol}"
    day = (rng.randrange(1, 29), rng.randrange(1, 13), rng.randrange(2014, 2027))
    d = f"{day[0]:02d}" if day[0] < 10 or rng.random() < 0.5 else str(day[0])
    m = f"{day[1]:02d}" if day[1] < 3 or rng.random() < 0.5 else str(day[1])
    gaps = rng.choice((("ngày", "tháng", "năm"),) * 4 + (("ngày ", "tháng ", "năm"), ("ngày  ", "tháng  ", "năm ")))
    dated = f"{who.place}, {gaps[0]} {d} {gaps[1]} {m} {gaps[2]} {day[2]}"
    if blank:
        dated = f"{who.place}, ngày      tháng {m if rng.random() < 0.5 else '    '} năm {day[2]}"
    about = rng.choice(_ABSTRACTS)
    right = ("ĐẢNG CỘNG SẢN VIỆT NAM",) if who.party else (
        rng.choice(("CỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM", "CỘNG HOÀ XÃ HỘI CHỦ NGHĨA VIỆT NAM")),
        rng.choice(("Độc lập - Tự do - Hạnh phúc", "Độc lập – Tự do – Hạnh phúc")))  # fmt: skip
    agency = (*who.superior, *who.own, *(("*",) if who.party else ()))
    under: tuple[str, ...] = ()
    mark = rng.choice(("",) * 6 + tuple(_MARKS))
    at_number = rng.random() < 0.7
    if letter:
        under = (rng.choice(("V/v ", "V/v: ", "Về việc ")) + about[:1].lower() + about[1:],)
    rows = [(agency, right)]
    rows.append(((line,), (dated,))) if rng.random() < 0.8 else rows.__setitem__(0, ((*agency, line), (*right, dated)))
    last = rows[-1]
    rows[-1] = ((*last[0], *under, *((mark,) if mark and at_number else ())), last[1])
    lead = _LED.get(kind, "Về việc ")
    abstract = lead + about if lead else about[:1].upper() + about[1:]
    title = () if letter else (kind, abstract)
    if letter:
        abstract = about
    before = () if at_number or not mark else (mark,)
    greets = (
        letter or kind in ("TỜ TRÌNH", "GIẤY MỜI", "PHIẾU GỬI", "PHIẾU CHUYỂN") or (who.party and rng.random() < 0.3)
    )
    if greets:
        before += (f"Kính gửi: {rng.choice(('Ủy ban nhân dân tỉnh', 'Các cơ quan, đơn vị trực thuộc', 'Sở Nội vụ'))}",)
    body: list[str] = []
    if kind in ("QUYẾT ĐỊNH", "NGHỊ QUYẾT"):
        body += [f"{who.head} {who.name}" if kind == "QUYẾT ĐỊNH" else who.name,
                 "Căn cứ Luật Tổ chức chính quyền địa phương ngày 16 tháng 6 năm 2025;",
                 "Căn cứ Nghị định số 30/2020/NĐ-CP ngày 05 tháng 3 năm 2020 của Chính phủ về công tác văn thư;",
                 "QUYẾT ĐỊNH:" if kind == "QUYẾT ĐỊNH" else "QUYẾT NGHỊ:"]  # fmt: skip
        body += [f"Điều {n}. {text}" for n, text in enumerate(rng.sample(_BODY, 3), 1)]
    else:
        if not greets and rng.random() < 0.6:
            body.append("Căn cứ Kế hoạch số 112/KH-UBND ngày 20 tháng 01 năm 2024 của Ủy ban nhân dân tỉnh;")
        body += [(f"{n}. " if rng.random() < 0.7 else "") + text for n, text in enumerate(rng.sample(_BODY, 4), 1)]
    if rng.random() < 0.25:
        body += rng.sample(_BODY, 5)
    # the foot
    dotted = "/" if who.party else "."
    form = rng.randrange(6)
    if form == 0 and who.collective:
        block, title_of = (
            [f"T{dotted}M{dotted if not who.party else ''} {who.collective}".replace("T.M.", "TM."), who.head],
            who.head,
        )
    elif form <= 2:
        block = [f"TM. {who.collective}"] if who.collective and not who.party else (
            [f"T/M {who.collective}"] if who.collective else [])  # fmt: skip
        block, title_of = [*block, f"K/T {who.head}" if who.party and not block else f"KT. {who.head}"
                           if not who.party else who.deputy, who.deputy], who.deputy  # fmt: skip
        if who.party and len(block) > 1 and block[-1] == block[-2]:
            block.pop()
    elif form == 3:
        block, title_of = [f"T/L {who.under[0]}" if who.party else f"TL. {who.under[0]}", who.under[1]], who.under[1]
    elif form == 4 and not who.party:
        block, title_of = [f"Q. {who.head}"], who.head
    else:
        block, title_of = [who.head], who.head
    signer = " ".join(filter(None, (rng.choice(_FAMILY), rng.choice(_MIDDLE), rng.choice(_GIVEN))))
    block += ["\n\n\n", rng.choice(_RANKS) + signer if rng.random() < 0.4 else signer]
    named = rng.sample(_RECIPIENTS[2:], rng.randrange(2, 7))
    first = _RECIPIENTS[0] if greets else _RECIPIENTS[1] if kind == "QUYẾT ĐỊNH" else None
    entries = (
        ([first] if first else [])
        + named
        + [(rng.choice(("Lưu: VT, VP", "Lưu VT", "Lưu: VT, TH (05b)", "Lưu: VT")), "")]
    )
    foot = [rng.choice(("Nơi nhận:", "Nơi nhận:", "Nơi nhận"))]
    for n, (name, purpose) in enumerate(entries):
        end = "." if n == len(entries) - 1 else ";"
        foot.append(
            f"{rng.choice(('-', '-', '- '))} {name}{f' ({purpose})' if purpose else ''}{end}".replace("  ", " ")
        )
    mode = rng.choice(("",) * 4 + tuple(_MODES))
    foot += [mode] if mode else []
    address = rng.choice(
        ("", "", "", f"Địa chỉ: Số 12 đường Trần Phú, {who.place}; ĐT: 0203.3835.xxx; Email: van.thu@tinh.gov.vn")
    )
    annex: tuple[str, ...] = ()
    if rng.random() < 0.25:
        annex = (rng.choice(("Phụ lục", "PHỤ LỤC I", "Phụ lục 01")), "DANH MỤC NHIỆM VỤ",
                 f"(Kèm theo {kind.capitalize()} số {'' if blank else shown}/{symbol} ngày {d}/{m}/{day[2]} của {who.name})",
                 "1. Nhiệm vụ thứ nhất, hoàn thành trong tháng 6.", "2. Nhiệm vụ thứ hai, hoàn thành trong tháng 9.")  # fmt: skip
    truth = {
        "code": None if blank else code, "date": None if blank else f"{day[2]}-{day[1]:02d}-{day[0]:02d}", "place": who.place,
        "kind": "CV" if letter else None if kind == "THƯ CÔNG" else short or corpus.document.KINDS.get(kind),
        "abstract": abstract, "agency": who.name, "signer": signer, "title": title_of,
        "recipients": tuple(entries), "urgency": _MARKS[mark], "mode": _MODES[mode], "draft": blank,
    }  # fmt: skip
    if kind == "THƯ CÔNG":
        truth["kind"] = "ThC"
    return Made(truth, (), tuple(rows), title, before, tuple(body), tuple(foot), tuple(block), address, annex)


# -- drawing ---------------------------------------------------------------------------------------------------------

_TYPEFACES = {
    "Times": (
        "/usr/share/fonts/truetype/liberation2/LiberationSerif-{}.ttf",
        ("Regular", "Bold", "Italic", "BoldItalic"),
    ),
    "Noto": ("/usr/share/fonts/truetype/noto/NotoSerif-{}.ttf", ("Regular", "Bold", "Italic", "BoldItalic")),
    "Arial": (
        "/usr/share/fonts/truetype/liberation2/LiberationSans-{}.ttf",
        ("Regular", "Bold", "Italic", "BoldItalic"),
    ),
}


def as_pdf(made: Made, rng: random.Random) -> bytes:
    """Drawn by a table engine that wraps cells, in one of three typefaces."""
    from reportlab.lib.enums import TA_CENTER, TA_JUSTIFY, TA_LEFT
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont
    from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

    names = [name for name, (path, _) in _TYPEFACES.items() if Path(path.format("Regular")).is_file()]
    face = rng.choice(["Times", "Times", *names]) if "Times" in names else rng.choice(names)
    for style in _TYPEFACES[face][1]:
        if f"{face}-{style}" not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(TTFont(f"{face}-{style}", _TYPEFACES[face][0].format(style)))
    size = rng.choice((12, 13, 13, 14))
    if face == "Noto":
        size -= 2

    def par(text: str, style: str = "Regular", align: int = TA_LEFT, points: float = size, after: float = 0) -> Any:
        shown = text.replace("&", "&amp;").replace("<", "&lt;")
        shown = re.sub(r" {2,}", lambda found: "\u00a0" * len(found[0]), shown).replace("\n", "<br/>")
        look = ParagraphStyle("x", fontName=f"{face}-{style}", fontSize=points, leading=points * 1.2, alignment=align,
                              spaceAfter=after)  # fmt: skip
        return Paragraph(shown, look)

    width = 595 - 85 - 42
    share = rng.choice((0.38, 0.42, 0.45))
    table = []
    for n, (left, right) in enumerate(made.rows):
        cells = []
        for k, column in enumerate((left, right)):
            shown = []
            for line in column:
                top = n == 0 and not re.match("Số|V/v|Về", line)
                italic = re.search(r", ngày", line)
                small = line.startswith(("V/v", "Về việc"))
                style = (
                    "Bold" if (top and k == 1) or (top and line == left[-1]) or (line.isupper() and n) else "Regular"
                )
                shown.append(
                    par(line, "Italic" if italic else style, TA_CENTER, size - (1 if k else 0) - (1 if small else 0))
                )
            cells.append(shown)
        table.append(cells)
    flow: list[Any] = [Table(table, [width * share, width * (1 - share)], style=TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 2), ("RIGHTPADDING", (0, 0), (-1, -1), 2)])), Spacer(1, 10)]  # fmt: skip
    for line in made.before:
        if line.startswith("Kính") and made.title:
            continue
        flow.append(
            par(line, "Bold" if line.isupper() else "Regular", TA_LEFT if line.isupper() else TA_CENTER, after=8)
        )
    for n, line in enumerate(made.title):
        flow.append(par(line, "Bold", TA_CENTER, size + (1 if not n else 0), 2 if not n else 8))
    for line in made.before:
        if line.startswith("Kính") and made.title:
            flow.append(par(line, "Regular", TA_CENTER, after=8))
    for line in made.body:
        capitals = line.upper() == line
        flow.append(par(line, "Bold" if capitals else "Regular", TA_CENTER if capitals else TA_JUSTIFY, after=5))
    flow.append(Spacer(1, 8))
    left = [par(line, "BoldItalic" if n == 0 else "Regular", TA_LEFT, 11) for n, line in enumerate(made.foot_left)]
    right = [par(line, "Bold", TA_CENTER) for line in made.foot_right]
    flow.append(
        Table([[left, right]], [width * 0.5, width * 0.5], style=TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP")]))
    )
    if made.address:
        flow += [Spacer(1, 14), par(made.address, "Italic", TA_CENTER, 9)]
    if made.annex:
        flow.append(PageBreak())
        for n, line in enumerate(made.annex):
            flow.append(
                par(
                    line,
                    "Bold" if n < 2 else "Italic" if n == 2 else "Regular",
                    TA_CENTER if n < 3 else TA_LEFT,
                    after=5,
                )
            )
    out = io.BytesIO()
    page_number = rng.random() < 0.5

    def later(sheet: Any, _: Any) -> None:
        if page_number:
            sheet.setFont(f"{face}-Regular", 12)
            sheet.drawCentredString(297, 810, str(sheet.getPageNumber()))

    SimpleDocTemplate(out, pagesize=(595, 842), leftMargin=85, rightMargin=42, topMargin=50, bottomMargin=50).build(
        flow, onLaterPages=later)  # fmt: skip
    return out.getvalue()


def as_docx(made: Made, rng: random.Random) -> bytes:
    """As Word keeps it: a table without borders, or columns by tabs; runs split where somebody edited."""
    space = corpus._W

    def par(text: str, bold: bool = False, italic: bool = False) -> str:
        runs = re.findall(r"\S+\s*|\s+", text) if rng.random() < 0.3 else [text]
        look = f'<w:rPr>{"<w:b/>" if bold else ""}{"<w:i/>" if italic else ""}<w:sz w:val="26"/></w:rPr>'
        made = []
        for run in runs:
            pieces = run.split("\n")
            inner = "<w:br/>".join(f'<w:t xml:space="preserve">{corpus._escaped(piece)}</w:t>' for piece in pieces)
            made.append(f"<w:r>{look}{inner}</w:r>")
        return f'<w:p><w:pPr><w:jc w:val="center"/></w:pPr>{"".join(made)}</w:p>'

    def cell(lines: tuple[str, ...]) -> str:
        return f'<w:tc><w:tcPr><w:tcW w:w="4500"/></w:tcPr>{"".join(par(line) for line in lines) or par("")}</w:tc>'

    pieces = ["<w:tbl><w:tblPr/>"]
    for left, right in made.rows:
        pieces.append(f"<w:tr>{cell(left)}{cell(right)}</w:tr>")
    pieces.append("</w:tbl>")
    greeting = [line for line in made.before if line.startswith("Kính")]
    pieces += [par(line, True) for line in made.before if not line.startswith("Kính")]
    pieces += [par(line, True) for line in made.title] + [par(line) for line in greeting]
    pieces += [par(line) for line in made.body]
    pieces.append(f"<w:tbl><w:tr>{cell(made.foot_left)}{cell(made.foot_right)}</w:tr></w:tbl>")
    pieces += [par(made.address, italic=True)] if made.address else []
    if made.annex:
        pieces.append('<w:p><w:r><w:br w:type="page"/></w:r></w:p>')
        pieces += [par(line, n < 2) for n, line in enumerate(made.annex)]
    body = f"<w:document {space}><w:body>{''.join(pieces)}<w:sectPr/></w:body></w:document>"
    kinds = ('<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" '
             'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" '
             'ContentType="application/xml"/></Types>')  # fmt: skip
    return corpus.zipped({"[Content_Types].xml": kinds, "word/document.xml": body})


def as_scan(data: bytes, rng: random.Random, dpi: int, *, grey: bool) -> bytes:
    """Pages as a scanner gives them."""
    import cv2
    import numpy as np

    from gateway.inspection import pages
    from gateway.inspection.annotate import pdf_of

    noise = np.random.default_rng(rng.randrange(1 << 32))
    images = []
    with pages.open_pages(data, "pdf") as opened:
        for n in range(1, opened.count + 1):
            image = opened.image(n, dpi).astype(np.float32)
            height, width = image.shape[:2]
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-1, 1) * (1.0 if grey else 0.5), 1.0)
            image = cv2.warpAffine(image, turn, (width, height), borderValue=(255, 255, 255))
            image = cv2.GaussianBlur(image, (0, 0), 0.55 if grey else 0.7)
            image += noise.normal(0, 8 if grey else 5, (*image.shape[:2], 1)).astype(np.float32)
            image = np.clip(image * 0.95 + 6, 0, 255).astype(np.uint8)
            if grey:
                image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
            images.append(image)
    return pdf_of(images, dpi)


# -- comparing -------------------------------------------------------------------------------------------------------


def _plain(value: Any) -> str:
    text = vietnamese.nfc(str(value or "")).lower().replace("–", "-").replace("“", '"').replace("”", '"')
    return re.sub(r"\s+", " ", text).strip(" .;:,*")


def _bare(value: Any) -> str:
    return re.sub(r"^(?:v/v|về việc|về)\s*:?\s*", "", _plain(value))


def _spelt(text: str) -> str:
    """hoà and hòa, uỷ and ủy are one: two ways of writing that people mix."""
    for old, new in (("oà", "òa"), ("oá", "óa"), ("oả", "ỏa"), ("uỷ", "ủy"), ("uý", "úy")):
        text = text.replace(old, new)
    return text


def verdict(name: str, wanted: Any, got: Any, ocr: bool) -> str:
    """`right`, `wrong` or `missing`; `right` for nothing where nothing stands."""
    if name in ("urgency", "mode", "draft"):
        return "right" if got == wanted else "missing" if got in ("", "none", False) else "wrong"
    if name == "recipients":
        want = [(_plain(a), _plain(b)) for a, b in wanted]
        have = [(_plain(a), _plain(b)) for a, b in got]
        if want == have:
            return "right"
        if not have:
            return "missing"
        close = difflib.SequenceMatcher(None, str(want), str(have), autojunk=False).ratio() >= 0.97 and len(
            want
        ) == len(have)
        return "right" if ocr and close else "wrong"
    if not got:
        return "right" if not wanted else "missing"
    if not wanted:
        return "wrong"
    if name in ("code", "date", "kind"):
        return "right" if got == wanted else "wrong"
    a, b = (
        (_spelt(_bare(wanted)), _spelt(_bare(got)))
        if name == "abstract"
        else (_spelt(_plain(wanted)), _spelt(_plain(got)))
    )
    if name == "title":
        a, b = (re.sub(r"^(?:q\.|quyền) ", "", one) for one in (a, b))
    if a == b:
        return "right"
    return (
        "right"
        if ocr and name in ("abstract", "agency") and difflib.SequenceMatcher(None, a, b).ratio() >= 0.97
        else "wrong"
    )


def values(found: Any, urgency: str) -> dict[str, Any]:
    def of(name: str) -> str | None:
        field = getattr(found, name, None)
        return field.value if field else None

    return {"code": of("code"), "date": of("date"), "place": of("place"), "kind": of("kind"), "abstract": of("abstract"),
            "agency": of("issuing_agency"), "signer": of("signer"), "title": of("signer_title"),
            "recipients": tuple((r.name, r.purpose) for r in found.recipients) if found else (), "urgency": urgency,
            "mode": found.mode_line if found else "", "draft": bool(found and found.draft)}  # fmt: skip


def documents(count: int, seed: int) -> Iterator[tuple[int, Made]]:
    for n in range(count):
        yield n, made(random.Random(f"{seed}/{n}"), n)


def main() -> int:
    from gateway.commands.inspect import urgency_of
    from gateway.config import Budget
    from gateway.inspection import examine

    parser = argparse.ArgumentParser(prog="fields_eval", description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--from", dest="start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--as", dest="modes", default="pdf,docx")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    settings = examine.Settings(budget=Budget(seconds=110, file_seconds=110, ocr_seconds=60, ocr_pages=20))
    for mode in given.modes.split(","):
        counts: dict[str, Counter[str]] = {name: Counter() for name in FIELDS}
        spent = 0.0
        for n, one in documents(given.count, given.seed):
            if n < given.start:
                continue
            rng = random.Random(f"{given.seed}/{n}/{mode}")
            data = as_docx(one, rng) if mode == "docx" else as_pdf(one, random.Random(f"{given.seed}/{n}/pdf"))
            if mode.startswith(("scan", "grey")):
                data = as_scan(data, rng, int(mode[-3:]), grey=mode.startswith("grey"))
            name = f"{n:03d}.docx" if mode == "docx" else f"{n:03d}.pdf"
            if given.keep:
                given.keep.mkdir(parents=True, exist_ok=True)
                (given.keep / f"{mode}-{name}").write_bytes(data)
            started = time.process_time()
            facts = examine.examine_file(data, "vb" + Path(name).suffix, settings)
            spent += time.process_time() - started
            got = values(facts.files[0].document, urgency_of(list(facts.findings)))
            for field in FIELDS:
                said = verdict(field, one.truth[field], got[field], mode[:4] in ("scan", "grey"))
                counts[field][said] += 1
                if said != "right" and given.show:
                    print(json.dumps({"mode": mode, "n": n, "field": field, "is": said, "wanted": one.truth[field],
                                      "got": got[field]}, ensure_ascii=False))  # fmt: skip
        total = given.count - given.start
        print(json.dumps({"as": mode, "seed": given.seed, "documents": total, **{name: f"{c['right']}/{c['wrong']}/{c['missing']}"
            for name, c in counts.items()}, "cpu_seconds_each": round(spent / total, 3)}))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
