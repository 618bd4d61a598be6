"""What OCR misread, put right where the words are known: names of offices, places and kinds of body, surnames.

Tesseract's Vietnamese model confuses tones on small letters: `TỐNG CỤC`, `KIẾM LÂM`, `Cống thông tin`, `Đỉnh Văn …`. A
phrase whose letters without accents are a known phrase of two syllables or more is that phrase. Numbers, symbols and
free text are never touched, and text that was written by a machine is not given to this module.
"""

from __future__ import annotations

import re

from gateway import vietnamese

_PHRASES = """
ủy ban nhân dân; ủy ban; nhân dân; hội đồng nhân dân; hội đồng; hội đồng thi đua - khen thưởng; thi đua; khen thưởng;
văn phòng chính phủ; văn phòng; thanh tra chính phủ; thanh tra tỉnh; tỉnh ủy; thành ủy; huyện ủy; đảng ủy; đảng bộ;
ban chấp hành trung ương; ban chấp hành; trung ương; ban tổ chức; ban tuyên giáo; ban nội chính; ủy ban kiểm tra; kiểm
tra; mặt trận tổ quốc; mặt trận; tổ quốc; ban thường trực; thường trực; ban thường vụ; thường vụ; ban chỉ đạo; ban chỉ
huy; phòng thủ dân sự; phòng chống thiên tai; chuyển đổi số; cải cách hành chính; ban quản lý; khu công nghiệp; khu
kinh tế; quản lý dự án; đầu tư xây dựng; sở nội vụ; sở tài chính; sở tư pháp; sở y tế; sở xây dựng; sở công thương;
công thương; sở nông nghiệp; nông nghiệp; nông thôn; phát triển; môi trường; tài nguyên; giáo dục; đào tạo; khoa học;
công nghệ; thông tin; truyền thông; văn hóa; thể thao; du lịch; dân tộc; tôn giáo; lao động; thương binh; xã hội; kế
hoạch; đầu tư; giao thông; vận tải; ngoại vụ; bộ nội vụ; bộ tài chính; bộ tư pháp; bộ y tế; bộ công an; bộ quốc phòng;
quốc phòng; bộ ngoại giao; chính phủ; thủ tướng; quốc hội; ngân hàng nhà nước; nhà nước; việt nam; kiểm toán; kho bạc;
bảo hiểm xã hội; bảo hiểm; công an tỉnh; công an; bộ chỉ huy quân sự; quân sự; quân khu; biên phòng; tòa án; tối cao;
viện kiểm sát; kiểm sát; thi hành án dân sự; thi hành án; tổng cục; chi cục; cục thuế; hải quan; kiểm lâm; thủy lợi;
thủy sản; chăn nuôi; thú y; trồng trọt; bảo vệ thực vật; quản lý thị trường; thống kê; dân số; văn thư; lưu trữ; trung
tâm; kiểm soát; bệnh tật; bệnh viện; đa khoa; khu vực; trường đại học; đại học; cao đẳng; học viện; trung học phổ
thông; trung học cơ sở; trung học; phổ thông; tiểu học; mầm non; phòng nội vụ; phòng giáo dục; phòng kinh tế; kinh tế;
hạ tầng; đô thị; tổng công ty; công ty; tập đoàn; điện lực; liên đoàn lao động; hội liên hiệp phụ nữ; hội nông dân;
hội cựu chiến binh; thành phố; thị trấn; thị xã; đặc khu; quốc gia; cổng thông tin điện tử; điện tử; công báo; phát
thanh; truyền hình; lãnh đạo; hành chính; tổng hợp; chủ tịch; phó chủ tịch; giám đốc; phó giám đốc; tổng giám đốc; bộ
trưởng; thứ trưởng; cục trưởng; vụ trưởng; chánh văn phòng; phó chánh; chánh thanh tra; chánh án; viện trưởng; hiệu
trưởng; phó hiệu trưởng; trưởng phòng; phó trưởng; trưởng ban; chủ nhiệm; phó chủ nhiệm; bí thư; phó bí thư; tổng bí
thư; tổng thanh tra; tổng kiểm toán; thống đốc; ủy viên; chi cục trưởng; tổng cục trưởng; chỉ huy trưởng; tổng cục;
pháp chế; tổ chức; tham mưu; đăng tải; phối hợp; thực hiện; báo cáo; các phòng; đơn vị; trực thuộc; các sở; các xã; an
giang; bà rịa; vũng tàu; bạc liêu; bắc giang; bắc kạn; bắc ninh; bến tre; bình dương; bình định; bình phước; bình
thuận; cà mau; cao bằng; cần thơ; đà nẵng; đắk lắk; đắk nông; điện biên; đồng nai; đồng tháp; gia lai; hà giang; hà
nam; hà nội; hà tĩnh; hải dương; hải phòng; hậu giang; hòa bình; hồ chí minh; hưng yên; khánh hòa; kiên giang; kon
tum; lai châu; lạng sơn; lào cai; lâm đồng; long an; nam định; nghệ an; ninh bình; ninh thuận; phú thọ; phú yên; quảng
bình; quảng nam; quảng ngãi; quảng ninh; quảng trị; sóc trăng; sơn la; tây ninh; thái bình; thái nguyên; thanh hóa;
thừa thiên huế; tiền giang; trà vinh; tuyên quang; vĩnh long; vĩnh phúc; yên bái
"""
_SURNAMES = (
    "nguyễn trần lê phạm hoàng huỳnh phan vũ võ đặng bùi đỗ hồ ngô dương lý đào đoàn vương trịnh trương đinh lâm "
    "phùng tô hà cao chu lương lưu tăng quách tạ tống nông bế hứa lò vi triệu giang khuất nghiêm đàm tôn mạc hán "
    "thạch sơn danh lại kiều châu diệp bạch đồng cầm giáp mùa thào giàng sùng"
)
_SPELT = {vietnamese.fold(phrase.strip()): phrase.strip() for phrase in _PHRASES.replace("\n", " ").split(";")}
_LONGEST = max(len(phrase.split()) for phrase in _SPELT.values())
_NAMED = {vietnamese.fold(name): name for name in _SURNAMES.split()}
_WORD = re.compile(r"[^\W\d_]+")


def mended(text: str) -> str:
    """The text with known phrases spelt right, in the case of what stood there; everything else as it was."""
    found = list(_WORD.finditer(text))
    folded = [vietnamese.fold(word[0]) for word in found]
    pieces, at, n = [], 0, 0
    while n < len(found):
        for length in range(min(_LONGEST, len(found) - n), 1, -1):
            if n + length > len(found) or not (known := _SPELT.get(" ".join(folded[n : n + length]))):
                continue
            for word, right in zip(found[n : n + length], known.split(), strict=True):
                pieces += [text[at : word.start()], _like(word[0], right)]
                at = word.end()
            n += length
            break
        else:
            n += 1
    return "".join(pieces) + text[at:]


def name(text: str) -> str:
    """A person's name with its surname spelt right."""
    first, _, rest = text.partition(" ")
    known = _NAMED.get(vietnamese.fold(first))
    return f"{_like(first, known)} {rest}" if known and rest else text


def is_surname(word: str) -> bool:
    return vietnamese.fold(word) in _NAMED


def _like(written: str, right: str) -> str:
    if _tone_moved(written.lower()) == _tone_moved(right):
        return written  # `HOÀ` and `HÒA` are both right
    if written.isupper():
        return right.upper()
    return right.capitalize() if written[:1].isupper() else right


def _tone_moved(word: str) -> str:
    for old, new in (("oà", "òa"), ("oá", "óa"), ("oả", "ỏa"), ("oã", "õa"), ("oạ", "ọa"), ("uỷ", "ủy"), ("uý", "úy")):
        word = word.replace(old, new)
    return word
