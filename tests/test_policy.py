"""The judge against golden tables, and its properties over random facts."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import directory, policy, trials
from gateway.inspection import findings as shape
from gateway.message import VIETNAM, Address, Envelope, NullSender, Origin, Recipient
from gateway.rules import _listed, _told_start, fill

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data" / "policy"
GOLDEN = sorted((DATA / "golden").glob("*.yaml"))


def _lay_out(base: Path) -> Path:
    """A configuration: the shipped policy with the tables' own directory."""
    shutil.copytree(ROOT / "config", base, dirs_exist_ok=True)
    shutil.rmtree(base / "directory")
    shutil.copytree(DATA / "directory", base / "directory")
    return base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _lay_out(tmp_path_factory.mktemp("policy") / "config")


@pytest.fixture(scope="session")
def agencies(base: Path) -> directory.Directory:
    return directory.load(base / "directory")


@pytest.fixture(scope="session")
def rules(base: Path) -> policy.Policy:
    return policy.load(base)


TRIALS = [(path, trial, line) for path in GOLDEN for trial, line in trials.load(path)]


def _golden() -> list[object]:
    return [pytest.param(path, trial, id=f"{path.stem}:{line}:{trial.name}") for path, trial, line in TRIALS]


@pytest.mark.parametrize(("path", "trial"), _golden())
def test_golden(path: Path, trial: trials.Trial, rules: policy.Policy, agencies: directory.Directory) -> None:
    verdict = policy.judge(rules, agencies, trials.situation(trial, agencies))
    assert trials.differences(trial.expect, verdict) == ()
    for finding in verdict.findings:
        assert finding.vi and finding.en, finding
        assert "…" not in finding.vi.replace("“Kính gửi: Ông/Bà/Công ty …”", ""), finding.vi
        assert finding.legal_basis, f"{finding.rule} cites nothing under {verdict.profile}"


def test_no_profile_cites_only_what_came_after_it(rules: policy.Policy) -> None:
    """A letter of 2014 is not judged by a decree of 2020; what holds today is cited beside the directive."""
    for profile in rules.profiles.values():
        if profile.id == "national_2026" or profile.from_ is None:
            continue
        for name, rule in profile.rules.items():
            cited = [rules.citations[key] for key in rule.basis]
            assert not cited or any(c.from_ is None or c.from_ <= profile.from_ for c in cited), (profile.id, name)


def test_every_golden_table_is_found() -> None:
    assert {path.stem for path in GOLDEN} >= {
        "binh_duong_2014", "bnv_2012", "ha_tinh_2014", "tien_giang_2009", "national_2026",
    }  # fmt: skip


def _now() -> dt.datetime:
    return dt.datetime(2026, 11, 20, 9, tzinfo=dt.timezone(dt.timedelta(hours=7)))


# -- texts as people read them ---------------------------------------------------------------------------------------

PLACEHOLDER = re.compile(r"\{(\w+)\}")
TEXTS = [
    pytest.param(part, id=f"{rule.id} {name or 'text'} {language}")
    for rule in policy.CATALOGUE.values()
    for name, one in rule.texts.items()
    for language in ("vi", "en", "cure_vi", "cure_en")
    if (part := getattr(one, language))
]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_read_well_with_and_without_their_facts(text: str) -> None:
    names = PLACEHOLDER.findall(text)
    optional = {name for part in re.findall(r"\[\[(.*?)\]\]", text) for name in PLACEHOLDER.findall(part)}
    full = fill(text, dict.fromkeys(names, "\u25a0"))
    bare = fill(text, {name: "\u25a0" for name in names if name not in optional})
    for shown in (full, bare):
        assert "[[" not in shown and "]]" not in shown and "{" not in shown and "\u2026" not in shown.replace("…”", "")
        assert not re.search(r"  |^ | $| [.,;:](?:\s|$)|\( | \)", shown), shown
        assert not re.search(r"[\w.,;:)]\u25a0|\u25a0[\w(]", shown), shown  # a blank before and after a value
        assert shown[0] == shown[0].upper() and shown.rstrip("”")[-1] in ".…", shown


def test_what_is_said_twice_is_told_once(rules: policy.Policy, agencies: directory.Directory) -> None:
    facts = tuple(shape.Finding(kind="charset", value="tcvn3", about=one) for one in ("body", "", "body"))
    inspected = shape.Inspection(
        message=shape.MessageFacts(from_=(shape.Mailbox(address=CLERK),)), findings=facts + facts[:1]
    )
    found = policy.Situation(
        _now(), "out", SUBMISSION, Envelope(_address(CLERK), _recipients("vanthu@hochiminhcity.gov.vn")), inspected
    )
    assert [one.rule for one in policy.judge(rules, agencies, found).findings] == ["CS-01"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("Thời gian: 08 giờ 00, ngày 15/6/2014.", "2014-06-15T08:00"),
        ("họp lúc 14h30 chiều thứ Hai, ngày 5 tháng 6 năm 2014", "2014-06-05T14:30"),
        ("lúc 2 giờ 30 phút chiều ngày 05.06.2014", "2014-06-05T14:30"),
        ("ngày 15/06/2014, vào lúc 8h", "2014-06-15T08:00"),
        ("Công văn ngày 15/6/2014 về việc 3 nội dung", ""),
        ("25 giờ ngày 15/6/2014", ""),
        ("8 giờ ngày 31/2/2014", ""),
    ],
)
def test_the_start_of_a_meeting_in_the_text(body: str, expected: str) -> None:
    start = _told_start(body)
    assert (start.strftime("%Y-%m-%dT%H:%M") if start else "") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1. to-trinh.pdf - 1,5 MB", [("to-trinh.pdf", "1,5", "MB")]),
        ("- Phụ lục 1.xlsx (20 KB)\n2) b.zip | 3 MB", [("Phụ lục 1.xlsx", "20", "KB"), ("b.zip", "3", "MB")]),
        ("Tài liệu: a b.docx, 12 KB; c.pdf: 5kb", [("a b.docx", "12", "KB"), ("c.pdf", "5", "kb")]),
        ("xem tệp a.pdf trang 3", []),
        (".pdf 3 MB", []),
        ("x" * 60_000, []),
    ],
)
def test_lists_of_files(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert _listed(text) == expected


# -- the envelope alone ----------------------------------------------------------------------------------------------


def _address(text: str) -> Address:
    local, _, domain = text.rpartition("@")
    return Address(local, domain)


def _recipients(*addresses: str) -> tuple[Recipient, ...]:
    return tuple(Recipient(_address(one)) for one in addresses)


STAFF = "chuyenvien@sxd.hochiminhcity.gov.vn"
CLERK = "vanthu@sxd.hochiminhcity.gov.vn"
SUBMISSION = Origin("submission", "127.0.0.1", login=CLERK)
RELAY = Origin("relay", "192.0.2.1")


def _screen(rules: policy.Policy, agencies: directory.Directory, origin: Origin, to: str) -> list[str]:
    found = policy.screen(rules, agencies, origin, _address(CLERK), _recipients(to)[0], _now())
    return [f"{one.rule} {one.disposition.text} {' '.join(one.recipients)}" for one in found]


def test_screen_refuses_staff_at_a_free_mailbox(rules: policy.Policy, agencies: directory.Directory) -> None:
    private = "chuyenvien.sxd@gmail.com"
    assert _screen(rules, agencies, SUBMISSION, private) == [f"MB-01 return {private}"]
    assert _screen(rules, agencies, SUBMISSION, private.upper()) == [f"MB-01 return {private}"]
    assert _screen(rules, agencies, SUBMISSION, "ai.do@gmail.com") == []  # may be a citizen: the content tells
    assert _screen(rules, agencies, SUBMISSION, STAFF) == []
    assert _screen(rules, agencies, RELAY, private) == []  # nobody unproved gets an answer that names staff


def test_screen_is_silent_for_bounces(rules: policy.Policy, agencies: directory.Directory) -> None:
    to = _recipients("chuyenvien.sxd@gmail.com")[0]
    assert policy.screen(rules, agencies, SUBMISSION, NullSender(), to, _now()) == ()


@pytest.mark.parametrize(
    ("origin", "sender", "to", "expected"),
    [
        (SUBMISSION, CLERK, [STAFF], "internal"),
        (SUBMISSION, CLERK, ["vanthu@hochiminhcity.gov.vn"], "out"),
        (SUBMISSION, CLERK, [STAFF, "a@example.com"], "out"),
        (RELAY, "a@example.com", [STAFF], "in"),
        (RELAY, CLERK, ["vanthu@hochiminhcity.gov.vn"], "in"),
        (RELAY, CLERK, ["a@example.com"], "out"),
        (RELAY, CLERK, [STAFF], "internal"),
        (RELAY, "a@example.com", ["b@example.com"], "in"),
        (RELAY, "", [STAFF], "in"),
        (Origin("imap", ""), CLERK, ["vanthu@hochiminhcity.gov.vn"], "in"),
        (SUBMISSION, CLERK, [], "out"),
    ],
)
def test_direction(agencies: directory.Directory, origin: Origin, sender: str, to: list[str], expected: str) -> None:
    reverse = _address(sender) if sender else NullSender()
    assert policy.direction(agencies, origin, reverse, _recipients(*to), _now()) == expected


# -- modes, dates and whom a switch binds ----------------------------------------------------------------------------

DOCX = """
trials:
  - name: x
    at: %s
    direction: out
    authenticated: true
    from: vanthu@baubang.hochiminhcity.gov.vn
    to: [vanthu@hochiminhcity.gov.vn]
    files: [{name: cv.docx, code: 7/UBND-VP, kind: CV, date: 2026-11-20, abstract: V/v phối hợp, seal: PRESENT}]
    expect: {verdict: return}
"""


def _with(base: Path, tmp_path: Path, text: str) -> policy.Policy:
    path = tmp_path / "policy.yaml"
    path.write_text(f"profile: national_2026\n{text}", "utf-8")
    return policy.load(base, path)


@pytest.mark.parametrize(
    ("switch", "at", "expected"),
    [
        ("FM-01: enforce", "2026-11-20T09:00", "return FM-01"),
        ("FM-01: warn", "2026-11-20T09:00", "deliver-warn FM-01~"),
        ("FM-01: off", "2026-11-20T09:00", "deliver "),
        ("FM-01: {mode: observe, to: 2026-11-20}", "2026-11-20T23:59", "deliver FM-01?"),
        ("FM-01: {mode: observe, to: 2026-11-19}", "2026-11-20T00:00", "return FM-01"),
        ("FM-01: {mode: enforce, from: 2026-11-21}", "2026-11-20T23:59", "deliver-warn FM-01~"),
        ("FM-01: {mode: enforce, from: 2026-11-20}", "2026-11-20T00:00", "return FM-01"),
        ("FM-01: {action: hold}", "2026-11-20T09:00", "hold FM-01"),
        ("FM-01: {action: deliver-warn}", "2026-11-20T09:00", "deliver-warn FM-01"),
        ("FM-01: {mode: warn, levels: [commune]}", "2026-11-20T09:00", "deliver-warn FM-01~"),
        ("FM-01: {mode: warn, levels: [province]}", "2026-11-20T09:00", "return FM-01"),
        ("FM-01: {mode: warn, agencies: [hcm-xa]}", "2026-11-20T09:00", "deliver-warn FM-01~"),
        ("FM-01: {mode: warn, except_agencies: [hcm-xa]}", "2026-11-20T09:00", "return FM-01"),
        ("FM-01: {mode: warn, profiles: [bnv_2012]}", "2026-11-20T09:00", "return FM-01"),
        ("FM-01: [{mode: warn}, {mode: off, agencies: [hcm-xa], to: 2026-11-20}]", "2026-11-20T09:00", "deliver "),
        (
            "FM-01: [{mode: warn}, {mode: off, agencies: [hcm-xa], to: 2026-11-19}]",
            "2026-11-20T09:00",
            "deliver-warn FM-01~",
        ),
        ("FM-09: warn", "2026-11-20T09:00", "return FM-01"),
    ],
)
def test_switches(
    base: Path, tmp_path: Path, agencies: directory.Directory, switch: str, at: str, expected: str
) -> None:
    judged_by = _with(base, tmp_path, f"rules:\n  {switch}\n")
    path = tmp_path / "trial.yaml"
    path.write_text(DOCX % at, "utf-8")
    verdict = policy.judge(judged_by, agencies, trials.situation(trials.load(path)[0][0], agencies))
    found = " ".join(trials.short(one) for one in verdict.findings if one.rule != "TM-03")
    verdict_text = max(
        (o.disposition for o in verdict.findings if o.rule != "TM-03"), default=policy.Disposition.DELIVER
    )
    assert f"{verdict_text.text} {found}" == expected


def test_texts_and_citations_of_an_installation(base: Path, tmp_path: Path, agencies: directory.Directory) -> None:
    judged_by = _with(
        base,
        tmp_path,
        'rules:\n  FM-01: {basis: [bd-1c], texts: {vi: "Chỉ nhận PDF: {file} là {type}.", cure_vi: "Gọi số 1022."}}\n',
    )
    path = tmp_path / "trial.yaml"
    path.write_text(DOCX % "2026-11-20T09:00", "utf-8")
    verdict = policy.judge(judged_by, agencies, trials.situation(trials.load(path)[0][0], agencies))
    finding = verdict.findings[0]
    assert finding.vi == "Chỉ nhận PDF: cv.docx là docx." and finding.cure_vi == "Gọi số 1022."
    assert "mục 1.c" in finding.legal_basis and finding.en.startswith("cv.docx (recognised as docx)")


OWN = """own_rules:
  - id: X-PPT
    when: files.exists(f, f.type == 'pptx') && recipients.exists(r, r.level == 'province')
    action: return
    vi: Không gửi tệp trình chiếu tới UBND.
    en: No presentations to the committee.
"""


def _mail(files: str, to: str = "vanthu@hochiminhcity.gov.vn") -> str:
    return (
        "trials:\n  - {name: x, at: 2026-11-20T09:00, direction: out, authenticated: true, "
        f"from: {CLERK}, to: [{to}], subject: Trao đổi, files: {files}, expect: {{verdict: deliver}}}}\n"
    )


@pytest.mark.parametrize(
    ("rule", "files", "expected"),
    [
        (OWN, "[{name: a.pptx}]", ("return", ["X-PPT"])),
        (OWN, "[{name: a.xlsx}]", ("deliver", [])),
        (OWN.replace("action: return", "action: return\n    to: 2026-11-19"), "[{name: a.pptx}]", ("deliver-warn", ["X-PPT"])),  # noqa: E501
        (OWN.replace("action: return", "action: return\n    mode: observe\n    to: 2026-11-20"), "[{name: a.pptx}]", ("deliver", ["X-PPT"])),  # noqa: E501
        (OWN.replace("action: return", "action: return\n    agencies: [hcm-xa]"), "[{name: a.pptx}]", ("deliver", [])),
        # an index that the example facts do not have fails only now: then a person is told, nothing is let off silently
        (OWN.replace("when: ", "when: size == 0 || files[5].size > 0 && "), "[{name: a.pptx}]", ("deliver-warn", ["X-PPT"])),  # noqa: E501
    ],
)  # fmt: skip
def test_own_rules(
    base: Path, tmp_path: Path, agencies: directory.Directory, rule: str, files: str, expected: tuple[str, list[str]]
) -> None:
    judged_by = _with(base, tmp_path, rule)
    path = tmp_path / "trial.yaml"
    path.write_text(_mail(files), "utf-8")
    verdict = policy.judge(judged_by, agencies, trials.situation(trials.load(path)[0][0], agencies))
    assert (verdict.disposition.text, [one.rule for one in verdict.findings]) == expected


@pytest.mark.parametrize(
    ("sender", "at", "expected"),
    [
        ("vanthu@sxd.hochiminhcity.gov.vn", "2027-01-31T09:00", "deliver FM-01? SG-01?"),
        ("vanthu@sxd.hochiminhcity.gov.vn", "2027-02-01T09:00", "return FM-01 SG-01"),
        ("vanthu@baubang.hochiminhcity.gov.vn", "2027-02-01T09:00", "deliver-warn FM-01~"),
        ("vanthu@baubang.hochiminhcity.gov.vn", "2027-06-30T23:59", "deliver-warn FM-01~"),
        ("vanthu@baubang.hochiminhcity.gov.vn", "2027-07-01T00:00", "return FM-01"),
    ],
)
def test_the_worked_example_of_the_documents(
    base: Path, tmp_path: Path, agencies: directory.Directory, sender: str, at: str, expected: str
) -> None:
    page = (ROOT / "docs" / "policy.md").read_text("utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    shutil.copytree(base, tmp_path / "c")
    with (tmp_path / "c" / "citations.yaml").open("a", encoding="utf-8") as citations:
        citations.write(next(one for one in blocks if one.startswith("# citations.yaml")))
    rules = next(one for one in blocks if one.startswith("# policy.yaml"))
    (tmp_path / "c" / "policy.yaml").write_text(rules, "utf-8")
    judged_by = policy.load(tmp_path / "c")
    trial = tmp_path / "trial.yaml"
    trial.write_text((DOCX % at).replace("vanthu@baubang.hochiminhcity.gov.vn", sender), "utf-8")
    verdict = policy.judge(judged_by, agencies, trials.situation(trials.load(trial)[0][0], agencies))
    found = [one for one in verdict.findings if one.rule in ("FM-01", "SG-01")]
    worst = max(one.disposition for one in found)
    assert f"{worst.text} {' '.join(sorted(trials.short(one) for one in found))}" == expected


@pytest.mark.parametrize(
    ("setting", "switch", "facts", "expected"),
    [
        ("forbidden_kinds: [{name: hồ sơ nhân sự, kind: HĐ}]", "", "kind: HĐ", "return SC-03"),
        ("forbidden_kinds: [{name: hồ sơ nhân sự, kind: HĐ}]", "", "kind: CV", "deliver "),
        ("forbidden_kinds: [{name: đề thi, pattern: '(?i)đề thi'}]", "", "abstract: V/v gửi Đề thi", "return SC-03"),
        ("forbidden_kinds: [{name: đề thi, pattern: '(?i)đề thi'}]", "", "abstract: V/v thi đua", "deliver "),
        ("portal_from: 2026-11-20", "TM-11: warn", "kind: CV", "deliver-warn TM-11"),
        ("portal_from: 2026-11-21", "TM-11: warn", "kind: CV", "deliver "),
        ("", "AC-03: warn", "kind: CV", "deliver "),
    ],
)
def test_rules_that_need_a_setting(
    base: Path, tmp_path: Path, agencies: directory.Directory, setting: str, switch: str, facts: str, expected: str
) -> None:
    shutil.copytree(base, tmp_path / "c")
    profile = tmp_path / "c" / "profiles" / "national_2026.yaml"
    profile.write_text(
        profile.read_text("utf-8").replace("acknowledge: true", f"acknowledge: true\n{setting}"), "utf-8"
    )
    (tmp_path / "c" / "policy.yaml").write_text(f"profile: national_2026\nrules: {{{switch}}}\n", "utf-8")
    text = _mail(
        f"[{{name: a.pdf, code: 7/SXD-VP, date: 2026-11-20, {facts}, signatures: [{{kind: person}}, {{kind: organisation}}]}}]"  # noqa: E501
    )
    (tmp_path / "trial.yaml").write_text(text, "utf-8")
    trial = trials.load(tmp_path / "trial.yaml")[0][0]
    verdict = policy.judge(policy.load(tmp_path / "c"), agencies, trials.situation(trial, agencies))
    assert f"{verdict.disposition.text} {' '.join(one.rule for one in verdict.findings)}" == expected


# -- properties ------------------------------------------------------------------------------------------------------

ADDRESSES = [
    CLERK, STAFF, "vanthu@hochiminhcity.gov.vn", "vanthu@binhduong.gov.vn", "chuyenvien.sxd@gmail.com", "ai@gmail.com",
    "vanthu@hatinh.gov.vn", "vanthu@snv.tiengiang.gov.vn", "phong1@hocvien.edu.vn", "x@congty.com.vn", "ubndxatanphu@gmail.com",  # noqa: E501
    "la@g\u043ev.vn", "x@gov.vn.example.com", "vanthu@laiuyen.baubang.binhduong.gov.vn",
]  # fmt: skip
WORDS = [
    "", "Dự thảo Kế hoạch", "Góp ý dự thảo", "Tờ trình phê duyệt", "Giấy mời họp", "Tài liệu họp", "Lịch làm việc", "kinh phí",  # noqa: E501
    "Báo cáo tháng", "Đơn kiến nghị", "{file}", "12/BC-STC: báo cáo", "\u202egnp.exe", "a" * 500, "%s{0}",
]  # fmt: skip
KINDS = {
    "secrecy": ["mat", "toi_mat", "tuyet_mat", "unknown", "declassified", "recall_mark"],
    "urgency": ["khan", "thuong_khan", "hoa_toc", "hoa_toc_hen_gio"],
    "circulation": ["internal", "return_after_reading", "recall", "no_spread"],
    "charset": ["tcvn3", "vni", "viscii", "viqr", "mojibake", "font", "undeclared"],
    "active": ["macro", "javascript", "launch", "executable", "script", "polyglot", "external_link", "openaction"],
    "uninspectable": [
        "encrypted",
        "smime",
        "too_deep",
        "ratio",
        "unreadable_scan",
        "garbage_text",
        "no_extractor",
        "new",
    ],
    "ambiguous": ["two From fields"],
    "filename": ["rtl_override", "double_extension", "type_mismatch"],
    "frame": ["red_box"],
    "malware": ["Eicar"],
    "mime": ["odd"],
    "future-kind": ["x"],
}
NAMES = ["a.pdf", "b.docx", "c.zip", "c.zip/d.xlsx", "subject", "body", ""]

short_text = st.sampled_from(WORDS) | st.text(max_size=30)
maybe = st.none() | st.builds(shape.DocumentField, value=short_text)
finding = st.sampled_from([(k, v) for k, vs in KINDS.items() for v in vs]).flatmap(
    lambda kv: st.builds(
        shape.Finding,
        kind=st.just(kv[0]),
        value=st.just(kv[1]),
        grade=st.sampled_from(["", "strong", "weak"]),
        about=st.sampled_from(NAMES),
        where=st.sampled_from(["", "trang 1"]),
        evidence=short_text,
    )
)
signature = st.builds(
    shape.Signature,
    state=st.sampled_from(list(shape.SignatureState)),
    kind=st.sampled_from(["", "person", "organisation", "timestamp"]),
    signer=short_text,
    subject_ids=st.lists(short_text, max_size=2).map(tuple),
    trust=st.sampled_from(["", "chuyen_dung", "quoc_gia"]),
)
document = st.builds(
    shape.Document,
    code=st.none() | st.sampled_from(["7/SXD-VP", "82/2014/QĐ-UBND", "x"]).map(lambda v: shape.DocumentField(value=v)),
    kind=st.none()
    | st.sampled_from(["CV", "BC", "TTr", "GM", "KH", "QĐ", "TB", "??"]).map(lambda v: shape.DocumentField(value=v)),
    date=st.none()
    | st.sampled_from(["2014-07-01", "2026-11-20", "không rõ", "9999-12-31"]).map(
        lambda v: shape.DocumentField(value=v)
    ),
    abstract=maybe,
    issuing_agency=st.none()
    | st.sampled_from(["Sở Nội vụ tỉnh Bình Dương", "UBND xã", "Công ty A"]).map(
        lambda v: shape.DocumentField(value=v)
    ),
    signer=maybe,
    recipients=st.lists(st.builds(shape.NamedRecipient, name=short_text, purpose=short_text), max_size=2).map(tuple),
    mode_line=st.sampled_from(["", "electronic_only", "electronic_and_paper", "paper"]),
    draft=st.booleans(),
    components=st.integers(0, 8),
    annexes_named=st.lists(short_text, max_size=3).map(tuple),
    internal=st.booleans(),
    recall=st.booleans(),
)
file = st.builds(
    shape.FileFacts,
    name=st.sampled_from(["a.pdf", "b.docx", "c.zip", "d.xlsx"]) | short_text,
    path=st.sampled_from(NAMES[:4]) | short_text,
    sha256=st.just("0" * 64),
    size=st.integers(0, 10**9),
    type=st.sampled_from(
        ["pdf", "docx", "zip", "rar", "xlsx", "jpg", "exe", "odt", "dwg", "ics", "p7s", "unknown", ""]
    ),
    inline=st.booleans(),
    depth=st.integers(0, 3),
    encrypted=st.booleans(),
    damaged=st.booleans(),
    pages=st.none() | st.integers(0, 9),
    text_layer=st.sampled_from(["", "full", "none", "garbage"]),
    fonts=st.lists(short_text, max_size=2).map(tuple),
    signatures=st.lists(signature, max_size=2).map(tuple),
    signature_removed=st.booleans(),
    seal_state=st.sampled_from(list(shape.SealState)),
    document=st.none() | document,
)
run = st.builds(
    shape.CheckRun,
    check=st.sampled_from(
        ["secrecy", "malware", "text", "ocr", "containers", "mime", "signature", "seal", "sender", "new"]
    ),
    status=st.sampled_from(list(shape.Status)),
    about=st.sampled_from(NAMES),
)
box = st.builds(shape.Mailbox, name=short_text, address=st.sampled_from([*ADDRESSES, ""]))
message = st.builds(
    shape.MessageFacts,
    subject=short_text,
    from_=st.lists(box, max_size=2).map(tuple),
    reply_to=st.lists(box, max_size=1).map(tuple),
    in_reply_to=st.sampled_from(["", "<a@b>"]),
    auto_submitted=st.sampled_from(["", "no", "auto-replied"]),
    body_text=short_text | st.just("Danh mục: a.pdf 20 KB; thieu.pdf 1,5 MB"),
    meeting_start=st.sampled_from(["", "2026-11-20T10:00:00+07:00", "mai", "2026-11-20"]),
)
inspection = st.builds(
    shape.Inspection,
    message=message,
    files=st.lists(file, max_size=3).map(tuple),
    findings=st.lists(finding, max_size=3).map(tuple),
    runs=st.lists(run, max_size=2).map(tuple),
    sender=st.builds(shape.SenderFacts, aligned=st.booleans(), dmarc=st.sampled_from(["", "pass", "fail"])),
)
situation = st.builds(
    policy.Situation,
    at=st.datetimes(dt.datetime(2009, 1, 1), dt.datetime(2030, 1, 1), timezones=st.just(VIETNAM)),
    direction=st.sampled_from(["in", "out", "internal"]),
    origin=st.builds(
        Origin, channel=st.sampled_from(["submission", "relay", "imap"]), peer=st.just("::1"), login=st.sampled_from(["", CLERK])  # noqa: E501
    ),
    envelope=st.builds(
        Envelope,
        sender=st.sampled_from([NullSender(), *map(_address, ADDRESSES)]),
        recipients=st.lists(st.sampled_from(ADDRESSES), max_size=3, unique=True).map(lambda many: _recipients(*many)),
    ),
    inspection=inspection,
    history=st.builds(
        policy.History,
        documents=st.lists(
            st.builds(policy.KnownDocument, case=st.just("c"), issuer=st.just(""), date=st.sampled_from(["", "2026-01-01"]),  # noqa: E501
                      content=st.just("x"), recalled=st.booleans()), max_size=1).map(tuple),
        calendar_publications=st.lists(st.just(_now()), max_size=1).map(tuple),
    ),
)  # fmt: skip
relaxed = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def _check(verdict: policy.Verdict, facts: policy.Situation) -> None:
    """What holds of every verdict."""
    assert len(verdict.recipients) == len(facts.envelope.recipients)
    worst = max((one.disposition for one in verdict.findings), default=policy.Disposition.DELIVER)
    assert verdict.disposition == worst
    if verdict.recipients:
        assert max(one.disposition for one in verdict.recipients) <= worst
    if any(run.check in ("secrecy", "malware") for run in facts.inspection.failed):
        assert verdict.disposition >= policy.Disposition.HOLD
    if any(f.kind == "secrecy" for f in facts.inspection.findings):
        assert verdict.disposition >= policy.Disposition.HOLD
        assert all(one.disposition >= policy.Disposition.HOLD for one in verdict.recipients)
    if verdict.disposition == policy.Disposition.BLOCK_SECRET:
        assert verdict.document is None and not verdict.headers and not verdict.urgency and verdict.secrecy_level
        assert all(not (one.about or one.where or one.evidence) for one in verdict.findings)
    if facts.direction == "in" and not (facts.origin.login or facts.inspection.sender.aligned):
        assert all(one.disposition != policy.Disposition.RETURN for one in verdict.findings)
    for one in verdict.findings:
        assert one.vi and one.en and "\n" not in one.vi + one.en + one.about + one.evidence
        if one.mode == "observe":
            assert one.disposition == policy.Disposition.DELIVER
        if one.mode == "warn":
            assert one.disposition <= policy.Disposition.DELIVER_WARN
    for name, value in verdict.headers:
        assert name.startswith("X-VBDT-") and value.isascii() and value.isprintable()


@relaxed
@given(facts=situation)
def test_any_facts_are_judged(rules: policy.Policy, agencies: directory.Directory, facts: policy.Situation) -> None:
    verdict, traces = policy.explain(rules, agencies, facts)
    _check(verdict, facts)
    assert policy.judge(rules, agencies, facts) == verdict  # same facts, same policy, same verdict
    assert {one.rule for one in traces} == set(policy.CATALOGUE)


@relaxed
@given(facts=situation, more=finding)
def test_another_finding_never_weakens(
    rules: policy.Policy, agencies: directory.Directory, facts: policy.Situation, more: shape.Finding
) -> None:
    before = policy.judge(rules, agencies, facts)
    richer = facts.inspection.model_copy(update={"findings": (*facts.inspection.findings, more)})
    after = policy.judge(rules, agencies, dataclasses.replace(facts, inspection=richer))
    assert after.disposition >= before.disposition
    for one, other in zip(before.recipients, after.recipients, strict=True):
        assert other.disposition >= one.disposition


@relaxed
@given(facts=situation, level=st.sampled_from(["mat", "toi_mat", "tuyet_mat", "unknown"]), about=st.sampled_from(NAMES))
def test_a_strong_mark_always_blocks(
    rules: policy.Policy, agencies: directory.Directory, facts: policy.Situation, level: str, about: str
) -> None:
    mark = shape.Finding(kind="secrecy", value=level, grade="strong", about=about)
    secret = facts.inspection.model_copy(update={"findings": (*facts.inspection.findings, mark)})
    verdict = policy.judge(rules, agencies, dataclasses.replace(facts, inspection=secret))
    assert verdict.disposition == policy.Disposition.BLOCK_SECRET
    assert {one.disposition for one in verdict.recipients} <= {policy.Disposition.BLOCK_SECRET}


def test_judging_reads_no_clock_disk_or_network() -> None:
    for name in ("classify", "rules"):
        source = (ROOT / "gateway" / f"{name}.py").read_text("utf-8")
        for word in (".now(", "time.time", " open(", "read_text", "socket", "random", "os.environ"):
            assert word not in source, f"{name}.py: {word}"


def test_every_rule_of_the_catalogue_has_a_golden_hit(rules: policy.Policy, agencies: directory.Directory) -> None:
    hit, missed = set(), set()
    for _, trial, _ in TRIALS:
        for trace in policy.explain(rules, agencies, trials.situation(trial, agencies))[1]:
            (hit if trace.status == "hit" else missed if trace.status == "miss" else set()).add(trace.rule)
    # TM-07 and TM-08 are added by dates, not judged; the others need settings, see test_rules_that_need_a_setting
    without = set(policy.CATALOGUE) - hit - {"TM-07", "TM-08", "SC-03", "TM-11", "AC-03"}
    assert without == set(), "no golden case hits these"
    assert set(policy.CATALOGUE) - missed - ALWAYS == set(), "no golden case misses these"


#: Rules that answer with a hit or with a reason why they do not apply, never with an empty list.
ALWAYS = {
    "MB-03",
    "TM-04",
    "TM-06",
    "TM-07",
    "TM-08",
    "SG-03",
    "SG-07",
    "FM-08",
    "FM-09",
    "DL",
    "RG-01",
    "RG-06",
    "SC-03",
    "AC-03",
    "TM-11",
}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("Tên đăng nhập: abc, mật khẩu: 123", "deliver-warn"),
        ("Tai khoan: abc\nMat khau: 123", "deliver-warn"),
        ("Đề nghị đổi mật khẩu định kỳ", "deliver"),
        ("Mật khẩu: 123", "deliver"),
    ],
)
def test_passwords_in_outgoing_mail(
    base: Path, tmp_path: Path, agencies: directory.Directory, body: str, expected: str
) -> None:
    judged_by = _with(base, tmp_path, "rules: {AC-03: warn}\n")
    path = tmp_path / "trial.yaml"
    path.write_text(_mail(f"[], body: {body!r}"), "utf-8")
    verdict = policy.judge(judged_by, agencies, trials.situation(trials.load(path)[0][0], agencies))
    assert verdict.disposition.text == expected
