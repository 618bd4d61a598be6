"""What is wrong with a configuration, in Vietnamese: one table for every message, keyed by its English text.

Mistakes are found in many places (our own checks, pydantic, YAML, CSV, the system), each with one English sentence.
Here each sentence has its Vietnamese one, with `{names}` for the values in it; what stands before it (`rules.FM-01: `,
`channel sms: `) and after it (`, did you mean 'x'?`, ` (got 'x')`) is taken off first and put back. A test reads the
sources and fails when a sentence has no line here.
"""

from __future__ import annotations

import re
from functools import lru_cache

#: English → Vietnamese. More exact sentences come first.
SENTENCES = {
    # files
    "file not found": "không có tệp này; tạo tệp hoặc sửa đường dẫn",
    "file not found; {stem}.yaml or {other}.csv is needed": "không có tệp này; cần {stem}.yaml hoặc {other}.csv",
    "no such folder; --config names it": "không có thư mục này; chỉ ra bằng --config",
    "is not UTF-8 (byte {byte}); save it as UTF-8": "không phải UTF-8 (byte {byte}); lưu lại với bộ mã UTF-8",
    "is not UTF-8 (byte {byte}); save it as CSV UTF-8": "không phải UTF-8 (byte {byte}); lưu lại dạng CSV UTF-8",
    "is no file but a folder or device": "không phải tệp thường mà là thư mục hoặc thiết bị",
    "larger than {size} MB; split it": "lớn hơn {size} MB; chia thành nhiều tệp",
    "the file is empty": "tệp rỗng",
    "cannot be read": "không đọc được",
    "{path} {reason}; the account of the service must own it": "{path} {reason}; tài khoản chạy dịch vụ phải là chủ",
    "Permission denied": "không có quyền; cấp quyền cho tài khoản chạy congvan",
    "No such file or directory": "không có tệp hoặc thư mục này",
    "Is a directory": "là thư mục, không phải tệp",
    "Not a directory": "không phải thư mục",
    "Too many levels of symbolic links": "liên kết tượng trưng vòng tròn",
    "File name too long": "tên tệp quá dài",
    "No space left on device": "đĩa đã đầy",
    "Read-only file system": "hệ thống tệp chỉ cho đọc",
    "Input/output error": "lỗi đọc ghi đĩa",
    "Address already in use": "địa chỉ và cổng này đã có chương trình khác dùng",
    "Cannot assign requested address": "máy này không có địa chỉ đó",
    # YAML
    "not YAML: {reason}": "không đúng cú pháp YAML: {reason}",
    "key {key} is there twice, as {first} and as {second}; keep one": "khóa {key} có hai lần, là {first} và {second};"
    " giữ lại một",
    "the indentation does not fit the lines above": "thụt đầu dòng không khớp các dòng trên",
    "a tab; indent with blanks": "ký tự tab; thụt đầu dòng bằng dấu cách",
    "nested too deep": "lồng quá nhiều lớp",
    "two documents in one file (`---`); keep one": "một tệp có hai văn bản YAML (`---`); giữ lại một",
    "mapping values are not allowed here": "dấu hai chấm không được ở đây; đặt giá trị có “: ” trong dấu nháy",
    "found unexpected end of stream": "hết tệp giữa chừng; còn thiếu dấu nháy hoặc ngoặc đóng",
    "could not find expected ':'": "thiếu dấu “:” sau khóa",
    "expected the node content, but found {mark}": "thiếu giá trị, gặp {mark}",
    "expected ',' or '{close}', but got {mark}": "thiếu “,” hoặc “{close}”, gặp {mark}",
    "found undefined alias {name}": "không có nhãn {name}; `*` đầu giá trị phải đặt trong dấu nháy",
    "found duplicate anchor {name}": "nhãn {name} có hai lần",
    "found character {mark} that cannot start any token": "ký tự {mark} không được bắt đầu một giá trị; đặt trong nháy",
    "could not determine a constructor for the tag {tag}": "không biết loại {tag}; bỏ dấu `!` hoặc đặt trong dấu nháy",
    "found unknown escape character {mark}": "trong dấu nháy kép không có \\{mark}; dùng nháy đơn",
    "special characters are not allowed": "có ký tự điều khiển không được phép",
    "{value} is not a date: {reason}": "{value} không có trong lịch",
    # values
    "unknown key {name}; known here: {names}": "không có khóa {name}; ở đây có: {names}",
    "unknown key {name}": "không có khóa {name}",
    "missing key {name}": "thiếu khóa {name}",
    "{value} is not one of {values}": "{value} không phải một trong: {values}",
    "a list is needed, such as [a, b]": "cần một danh sách, ví dụ [a, b]",
    "keys with values are needed, such as {example}": "cần các khóa có giá trị, ví dụ {example}",
    "a date is needed, such as 2026-12-31": "cần một ngày, ví dụ 2026-12-31",
    "a date and time is needed, such as 2026-12-31T08:00": "cần ngày và giờ, ví dụ 2026-12-31T08:00",
    "text is needed; put it in quotes if it looks like a number, a date or true": "cần một chuỗi chữ; đặt trong dấu"
    " nháy nếu giống số, ngày hoặc true",
    "true or false is needed": "cần true hoặc false",
    "a whole number is needed": "cần một số nguyên",
    "a number is needed": "cần một số",
    "a path is needed": "cần một đường dẫn",
    "a network is needed, such as 10.0.0.0/8 or 2001:db8::/32": "cần một mạng, ví dụ 10.0.0.0/8 hoặc 2001:db8::/32",
    "must be at least {limit}": "phải từ {limit} trở lên",
    "must be greater than {limit}": "phải lớn hơn {limit}",
    "must be at most {limit}": "không được quá {limit}",
    "must be less than {limit}": "phải nhỏ hơn {limit}",
    "must not be empty": "không được để trống",
    "too few values; at least {limit}": "quá ít giá trị; cần ít nhất {limit}",
    "does not fit the pattern {pattern}": "không đúng mẫu {pattern}",
    "use letters without accents, digits, `_`, `.` and `-`": "chỉ dùng chữ không dấu, chữ số, `_`, `.` và `-`",
    "use small letters without accents, digits and `_`, such as tinh_2026": "chỉ dùng chữ thường không dấu, chữ số và"
    " `_`, ví dụ tinh_2026",
    "use small letters without accents, digits and `-`, such as tin-nhan": "chỉ dùng chữ thường không dấu, chữ số và"
    " `-`, ví dụ tin-nhan",
    "an own rule is named X- and letters, digits or `-`, such as X-TRINHCHIEU": "quy tắc riêng mang tên X- và chữ không"
    " dấu, chữ số hoặc `-`, ví dụ X-TRINHCHIEU",
    "an address of the web is needed, such as https://may-chu.tinh.gov.vn/": "cần một địa chỉ web, ví dụ"
    " https://may-chu.tinh.gov.vn/",
    "hours are written 22:00-06:00": "giờ viết là 22:00-06:00",
    "a duration is a number with a unit, such as 90s, 5m, 4h or 5d": "khoảng thời gian là số kèm đơn vị, ví dụ 90s, 5m,"
    " 4h hoặc 5d",
    "a size is a number with a unit, such as 512K, 25M or 1G": "dung lượng là số kèm đơn vị, ví dụ 512K, 25M hoặc 1G",
    "a telephone number looks like 0912 345 678 or +84 912 345 678": "số điện thoại viết là 0912 345 678 hoặc"
    " +84 912 345 678",
    "a domain looks like sonoivu.tinh.gov.vn": "tên miền có dạng sonoivu.tinh.gov.vn",
    "an address looks like vanthu@sonoivu.tinh.gov.vn": "địa chỉ có dạng vanthu@sonoivu.tinh.gov.vn",
    "an organ id looks like 000.00.01.H09 or H09.02.03": "mã định danh có dạng 000.00.01.H09 hoặc H09.02.03",
    "one of {values}": "phải là một trong: {values}",
    # policy
    "unknown rule {name}": "không có quy tắc {name}",
    "unknown profile {name}": "không có bộ quy định {name}",
    "unknown agency {name}": "không có cơ quan {name}",
    "unknown citation {name}": "không có căn cứ {name} trong citations.yaml",
    "profile {name} is there twice": "bộ quy định {name} có hai lần",
    "no profile found; at least one is needed": "không có bộ quy định nào; cần ít nhất một",
    "this rule protects secrets or against malware and cannot be switched": "quy tắc này bảo vệ bí mật hoặc chống mã"
    " độc, không đổi được",
    "own rule {name} is there twice": "quy tắc riêng {name} có hai lần",
    "unknown placeholder {name}; known here: {names}": "không có chỗ điền {name}; ở đây có: {names}",
    "not a text with placeholders: {reason}": "dấu ngoặc nhọn không thành cặp: {reason}",
    "observe needs `to`, the last day of observing": "observe cần `to`, ngày cuối cùng theo dõi",
    "`to` {to} is before `from` {start}": "`to` {to} trước `from` {start}",
    "an own rule may deliver-warn, hold or return": "quy tắc riêng chỉ được deliver-warn, hold hoặc return",
    "a mode is needed: off, observe, warn or enforce; or keys such as {example}": "cần một chế độ: off, observe, warn"
    " hoặc enforce; hoặc các khóa, ví dụ {example}",
    "it gives a value that is neither true nor false": "kết quả không phải đúng hoặc sai",
    "there is no {name} here": "ở đây không có {name}; docs/rules.md liệt kê các dữ kiện dùng được",
    "not a condition: {reason}": "điều kiện không đúng: {reason}",
    "Undefined variable or function: {name}. {rest}": "không có dữ kiện hay hàm {name}; docs/rules.md liệt kê các dữ"
    " kiện dùng được",
    "Failed to parse expression {text}: {rest}": "viết sai cú pháp: {text}",
    "No such overload: {rest}": "phép toán không dùng được cho hai giá trị khác loại (số với chữ, danh sách với chữ …)",
    "needs `kind` or `pattern`": "cần `kind` hoặc `pattern`",
    "not a pattern: {reason}": "biểu thức mẫu không đúng: {reason}",
    "missing ), unterminated subpattern at position {at}": "thiếu dấu `)`, tính từ ký tự {at}",
    "unbalanced parenthesis at position {at}": "thừa dấu `)`, ở ký tự {at}",
    "unterminated character set at position {at}": "thiếu dấu `]`, tính từ ký tự {at}",
    "nothing to repeat at position {at}": "trước dấu lặp không có gì, ở ký tự {at}",
    "multiple repeat at position {at}": "hai dấu lặp liền nhau, ở ký tự {at}",
    "bad escape {mark} at position {at}": "không có {mark}, ở ký tự {at}",
    # directory
    "unknown column {name}": "không có cột {name}",
    "column {name} is there twice": "cột {name} có hai lần",
    "{found} cells, but the header has {columns} columns": "{found} ô, nhưng dòng đầu có {columns} cột",
    "not CSV: {reason}": "không đúng cú pháp CSV: {reason}",
    "unexpected end of data": "còn thiếu dấu nháy kép đóng",
    "',' expected after '\"'": "sau dấu nháy kép đóng phải là dấu phẩy; dấu nháy trong ô phải viết hai lần",
    "';' expected after '\"'": "sau dấu nháy kép đóng phải là dấu chấm phẩy; dấu nháy trong ô phải viết hai lần",
    "field larger than field limit ({limit})": "một ô dài quá {limit} ký tự",
    "line contains NUL": "có ký tự rỗng (NUL)",
    "{count} more mistakes in this file": "còn {count} lỗi nữa trong tệp này",
    "{value} is not a domain; write example.com or example.*": "{value} không phải tên miền; viết example.com hoặc"
    " example.*",
    "agency {name} is there twice for the same days": "cơ quan {name} có hai lần cho cùng những ngày",
    "domain {name} belongs to agency {owner} already": "tên miền {name} đã thuộc cơ quan {owner}",
    "agency {name} is its own ancestor: {names}": "cơ quan {name} là cấp trên của chính mình: {names}",
    "agency {name} is its own successor: {names}": "cơ quan {name} kế thừa chính mình: {names}",
    "mailbox {name} is there twice": "hộp thư {name} có hai lần",
    "{name} is a free mailbox, not an official one; put it into `private`": "{name} là hộp thư miễn phí, không phải hộp"
    " thư công vụ; ghi vào `private`",
    "{name} is in free.txt too; an official domain is not a free one": "{name} cũng có trong free.txt; tên miền công vụ"
    " không phải tên miền miễn phí",
    "revoked_on {revoked} is before issued_on {issued}": "revoked_on {revoked} trước issued_on {issued}",
    "valid_to {to} is before valid_from {start}": "valid_to {to} trước valid_from {start}",
    "a successor needs valid_to, the last day of this agency": "có successor thì cần valid_to, ngày cuối của cơ"
    " quan này",
    "class {name} is there twice": "loại {name} có hai lần",
    # gateway.yaml
    "one of `password_file` and `credential` is needed": "cần một trong hai: `password_file` hoặc `credential`",
    "one of `file` and `credential` is needed": "cần một trong hai: `file` hoặc `credential`",
    "one of `secret_file` and `credential`, not both": "chỉ một trong hai: `secret_file` hoặc `credential`",
    "mailbox {name} is named twice": "hộp thư {name} có hai lần",
    "`{key}` is needed for kind {kind}": "loại {kind} cần `{key}`",
    "`{key}` is not for kind {kind}": "loại {kind} không có `{key}`",
    "argv begins with the whole path of a program, such as /usr/local/bin/goi-dien": "argv bắt đầu bằng đường dẫn đầy"
    " đủ của chương trình, ví dụ /usr/local/bin/goi-dien",
    "url begins with https:// and a fixed host, such as https://sms.tinh.gov.vn/gui": "url bắt đầu bằng https:// và máy"
    " chủ cố định, ví dụ https://sms.tinh.gov.vn/gui",
    "url is http://; write https://, or `tls: none` if nobody can listen in between": "url là http://; viết https://,"
    " hoặc `tls: none` nếu không ai nghe lén được",
    "url must not hold blanks or #": "url không được có dấu cách hoặc #",
    "{name} is no header of one line": "{name} không phải một dòng đầu thư",
    "{secret} needs `secret_file` or `credential`": "{secret} cần `secret_file` hoặc `credential`",
    "unknown value {name}; known: {names}": "không có giá trị {name}; có: {names}",
    "channel {name} is named twice": "kênh {name} có hai lần",
    "at least one channel is needed; there are {names}": "cần ít nhất một kênh; đang có {names}",
    "channel {name} is none of {names}": "kênh {name} không có trong {names}",
    "needs `phone` for a channel of kind sms, `email` for kind mail": "cần `phone` cho kênh sms, `email` cho kênh mail",
    "at least one pause is needed, such as [15s, 1m, 5m]": "cần ít nhất một khoảng chờ, ví dụ [15s, 1m, 5m]",
    "`drop` is a folder of one agency; set it under `agencies`": "`drop` là thư mục của một cơ quan; ghi dưới"
    " `agencies`",
    "one of `url`, `folder`, `put` and `mail` is needed": "cần một trong: `url`, `folder`, `put`, `mail`",
    "`keys` belong to a witness with `url`, and it needs them": "`keys` đi cùng `url`, và `url` cần có `keys`",
    "{key} is the key of a log, not of a witness": "{key} là khóa của nhật ký, không phải của bên làm chứng",
    "{key} is no key of a witness: {reason}": "{key} không phải khóa của bên làm chứng: {reason}",
    "no relay listener has `networks`, the hosts whose journals are believed": "không cổng relay nào có `networks`, các"
    " máy được tin khi gửi nhật ký thư",
    "next hop {name} is named twice": "chặng tiếp {name} có hai lần",
    "each witness has a name of its own, and none is `timestamps`": "mỗi bên làm chứng có tên riêng, không tên nào là"
    " `timestamps`",
    "next_hop {name} is none of {names}": "next_hop {name} không có trong {names}",
    "a filter needs `networks`, the hosts that may connect": "filter cần `networks`, các máy được kết nối",
    "submission needs `passwords`, the server that checks them": "submission cần `passwords`, máy chủ kiểm tra mật"
    " khẩu",
    "submission needs `tls` with certificate and key": "submission cần `tls` có certificate và key",
    "certificate and key cannot be used together: {reason}": "chứng thư và khóa không dùng chung được: {reason}",
    "{name} has no next hop; add it to the `domains` of one, or use '*'": "{name} chưa có chặng tiếp; thêm vào"
    " `domains` của một chặng, hoặc dùng '*'",
    "{path} is not a program that may be run": "{path} không phải chương trình chạy được",
    "{path} is not there": "không có {path}",
    "archive key {path}: {reason}; without it no message can be written or read": "khóa lưu trữ {path}: {reason}; thiếu"
    " khóa thì không ghi, không đọc được thư",
    "archive key {path}: 32 bytes are needed, as they are, in hexadecimal or base64 (openssl rand -hex 32)": "khóa lưu"
    " trữ {path}: cần 32 byte, để nguyên, dạng hex hoặc base64 (openssl rand -hex 32)",
    "no `alerts:` yet; see docs/alerts.md": "chưa có `alerts:`; xem docs/alerts.md",
    "no archive in {folder} yet; start `congvan serve` once, or mend `data`": "chưa có kho lưu trữ trong {folder}; chạy"
    " `congvan serve` một lần, hoặc sửa `data`",
    # policy test files
    "expected {wanted}, got {given} ({reasons})": "mong {wanted}, được {given} ({reasons})",
    "expected {wanted}, got {given}": "mong {wanted}, được {given}",
    "{name} is missing": "thiếu {name}",
    "{name} was not expected": "thừa {name}",
    "not run: messages cannot be read here": "chưa chạy: ở đây không đọc được thư",
    # templates
    "no such template; known: {names}": "không có mẫu này; có: {names}",
    "goes into the SMTP session, ASCII only": "đi vào phiên SMTP, chỉ dùng ASCII không dấu",
    # trust
    "{name} is named here but the file does not exist": "{name} được nêu ở đây nhưng không có tệp",
    "no trusted root: every signature will be reported as UNTRUSTED_CHAIN": "chưa có gốc tin cậy: mọi chữ ký đều là"
    " UNTRUSTED_CHAIN",
    "is no certificate file and is left aside": "không phải tệp chứng thư, được bỏ qua",
    "refused: not in {manifest}; its sha256 is {digest}": "không nhận: không có trong {manifest}; sha256 là {digest}",
    "refused: its sha256 is {digest}, {manifest} says otherwise": "không nhận: sha256 là {digest}, {manifest} ghi khác",
    "refused: cannot be read as a certificate ({reason})": "không nhận: không đọc được như chứng thư ({reason})",
    "refused: not a root (its issuer is another); try intermediates/": "không nhận: không phải gốc (do nơi khác cấp);"
    " đặt vào intermediates/",
    "cannot be read as a revocation list": "không đọc được như danh sách thu hồi",
}

#: What stands before a sentence, where it is more than a key or a name.
_HEADS = {
    "agency {name}": "cơ quan {name}",
    "channel {name}": "kênh {name}",
    "witness {name}": "bên làm chứng {name}",
    "listener on port {port}": "cổng nghe {port}",
    "listener {kind} on {place}": "cổng nghe {kind} tại {place}",
    "journal {name}": "nhật ký thư {name}",
    "rule {name}": "quy tắc {name}",
    "file": "tệp",
}

_PLACE = re.compile(r"\\\{(\w+)\\\}")
_AFTER = r"(?:[,;] did you mean (?P<near_>'[^']*')\?)?(?: \(got (?P<given_>.*)\))?"


def _pattern(english: str, after: str = "") -> re.Pattern[str]:
    return re.compile(_PLACE.sub(r"(?P<\1>.+?)", re.escape(english)) + after, re.DOTALL)


@lru_cache(maxsize=1)
def _table() -> list[tuple[re.Pattern[str], str]]:
    return [(_pattern(english, _AFTER), vietnamese) for english, vietnamese in SENTENCES.items()]


@lru_cache(maxsize=1)
def _heads() -> list[tuple[re.Pattern[str], str]]:
    return [(_pattern(english), vietnamese) for english, vietnamese in _HEADS.items()]


def _fill(vietnamese: str, values: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda place: values.get(place[1], place[0]), vietnamese)


def vietnamese(text: str) -> str:
    """The Vietnamese of one message, with the same values; empty when the table does not know it."""
    head, colon, rest = text.partition(": ")
    if colon and (said := _head(head)) and (told := vietnamese(rest)):
        return f"{said}: {told}"
    for pattern, said in _table():
        if found := pattern.fullmatch(text):
            values = {name: value for name, value in found.groupdict().items() if value is not None}
            if "reason" in values:
                values["reason"] = vietnamese(values["reason"]) or values["reason"]
            near = f", có phải {values['near_']}?" if "near_" in values else ""
            given = f" (đang là {values['given_']})" if "given_" in values else ""
            return _fill(said, values) + near + given
    return f"{head}: {told}" if colon and (told := vietnamese(rest)) else ""


def _head(head: str) -> str:
    """A key, as it is, or one of the beginnings known; empty when it is neither."""
    for pattern, said in _heads():
        if found := pattern.fullmatch(head):
            return _fill(said, found.groupdict())
    return head if re.fullmatch(r"[\w.$\[\]-]+", head) else ""
