# ruff: noqa: SIM905
"""How searching, proving and indexing grow with the archive, and notmuch on the same mail in the same run.

    ./run measure archive_scale [--marks 10000,100000,1000000] [--notmuch 100000] [--folder DIR] [--seed 7] [--json]

Fills an archive with made-up mail of agencies (numbers, people, dates, 60 to 600 words of Vietnamese) through the
archive's own rows and leaves, many messages in a transaction, without the bytes themselves. At each mark it prints:
messages indexed a second, bytes of the index for a message, and the median and the slowest of a hundred searches of
each kind, and of a hundred proofs. `--notmuch N` writes the first N messages as files too and lets notmuch index and
count the same words. Words are drawn as words of a language are: a few very often, most seldom.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from gateway import archive as archives
from gateway.archive import Archive, Case
from gateway.message import VIETNAM
from gateway.search import Query
from tests.cases import case, close, open_archive

_ONSETS = "b c ch d đ g gh gi h k kh l m n ng nh ph qu r s t th tr v x".split()
_RIMES = (
    "a ác ài àn áo ăn ăng âm ân âu ay ây e em en ét ê ên ết i ích iên iết iệu im in inh o oa oàn óc ói on ong ô ôi ông "
    "ốt ơ ơi ơn u ua uân úc ui un ung uộc uôn uy uyên ư ưa ức ười ương ước ượng ừng y yên yêu"
).split()
_PHRASES = (
    "căn cứ Luật Tổ chức chính quyền địa phương;thực hiện ý kiến chỉ đạo của Chủ tịch Ủy ban nhân dân tỉnh;"
    "về việc tăng cường sử dụng văn bản điện tử;đề nghị các sở, ban, ngành báo cáo kết quả;trước ngày;"
    "phòng cháy và chữa cháy;an toàn giao thông đường bộ;cải cách thủ tục hành chính;kế hoạch đầu tư công trung hạn;"
    "giấy mời họp giao ban;quy hoạch sử dụng đất;chuyển đổi số;bảo vệ môi trường;giáo dục và đào tạo;"
    "phòng chống thiên tai;quyết toán ngân sách nhà nước;tuyển dụng viên chức;tiếp công dân;thanh tra chuyên ngành;"
    "bổ nhiệm cán bộ quản lý;hỗ trợ doanh nghiệp nhỏ và vừa;y tế dự phòng;xây dựng nông thôn mới;"
    "kính gửi Ủy ban nhân dân các huyện, thị xã, thành phố;trân trọng;nơi nhận như trên, lưu văn thư"
).split(";")
_KINDS = {"CT": "Chỉ thị", "QĐ": "Quyết định", "TB": "Thông báo", "BC": "Báo cáo", "TTr": "Tờ trình", "KH": "Kế hoạch"}
_NAMES = "Văn An;Thị Bình;Đức Cường;Minh Đức;Thu Hà;Quang Huy;Ngọc Lan;Hữu Nghĩa;Thanh Sơn;Anh Tuấn;Hải Yến".split(";")
_FAMILIES = "Nguyễn Trần Lê Phạm Hoàng Huỳnh Phan Vũ Võ Đặng Bùi Đỗ".split()
_AGENCIES = [f"{kind}-{n:02}" for kind in ("so", "huyen", "xa", "ban") for n in range(1, 26)]


class Mail:
    """Made-up mail, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        words = [onset + rime for onset in _ONSETS for rime in _RIMES]
        self.random.shuffle(words)
        self.words = words
        self.codes: list[str] = []
        self.weights = [1 / (place + 3) for place in range(len(words))]
        total, self.upto = 0.0, []
        for weight in self.weights:
            total += weight
            self.upto.append(total)

    def text(self) -> str:
        pieces: list[str] = []
        count = int(min(600, 60 + self.random.expovariate(1 / 120)))
        while sum(piece.count(" ") + 1 for piece in pieces) < count:
            pieces.append(self.random.choice(_PHRASES))
            pieces.append(" ".join(self.random.choices(self.words, cum_weights=self.upto, k=12)))
            if self.random.random() < 0.2:
                pieces.append(f"số {self.random.randrange(1, 3000)} ngày {self.random.randrange(1, 29)}")
        return ",\n".join(pieces) + "."

    def __iter__(self) -> Iterator[Case]:
        at = dt.datetime(2024, 1, 2, 7, tzinfo=VIETNAM)
        number = 0
        while True:
            number += 1
            draw = self.random
            at += dt.timedelta(seconds=draw.expovariate(1 / 60))
            agency = draw.choice(_AGENCIES)
            kind, name = draw.choice(list(_KINDS.items()))
            code = f"{number % 2900 + 1}/{kind}-{agency.upper().replace('-', '')}"
            about = f"{name} {draw.choice(_PHRASES)}"
            body = f"{name} số {code}\n{self.text()}\nKT. GIÁM ĐỐC {draw.choice(_FAMILIES)} {draw.choice(_NAMES)}\n"
            to = tuple(f"van.thu@{one}.tinh.gov.vn" for one in draw.sample(_AGENCIES, draw.randrange(1, 5)))
            data = (
                f"From: van.thu@{agency}.tinh.gov.vn\r\nTo: {', '.join(to)}\r\nSubject: {code} {about}\r\n"
                f"Date: {at:%a, %d %b %Y %H:%M:%S %z}\r\nMessage-ID: <{number}@{agency}.tinh.gov.vn>\r\n"
                "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
                "Content-Transfer-Encoding: 8bit\r\n\r\n" + body.replace("\n", "\r\n")
            ).encode()
            made = case(
                data, number=number, sender=f"van.thu@{agency}.tinh.gov.vn", to=to, code=code, at=at, counts=(),
                subject=f"{code} {about}", texts={"": body}, state="delivered", direction="internal",
            )  # fmt: skip
            owed = tuple(replace(one, agency=one.address[8:].partition(".")[0]) for one in made.owed)
            if len(self.codes) < 10_000:
                self.codes.append(code)
            yield replace(made, owed=owed, verdict=replace(made.verdict, agency=agency))


def fill(archive: Archive, cases: Iterator[Case], count: int, maildir: Path | None) -> float:
    """Rows and leaves of so many messages. Returns seconds."""
    begun = time.perf_counter()

    async def work() -> None:
        for start in range(0, count, 2000):
            some = list(islice(cases, min(2000, count - start)))

            def append(connection: Any, some: list[Case] = some) -> None:
                for one in some:
                    record = archives._record(one)
                    archive._append(connection, one, archives._row(one, record), record, archives._Files())

            await archive.database.write(append)
            if maildir is not None:
                for one in some:
                    folder = maildir / one.received.case[-2:]
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / one.received.case).write_bytes(b"".join(one.received.body.chunks()))

    asyncio.run(work())
    return time.perf_counter() - begun


def timed(work: Callable[[Any], object], over: list[Any]) -> dict[str, float]:
    """Median and slowest in milliseconds, and the median of our own CPU: that of a machine with nothing else to do."""
    spent, cpu = [], []
    for one in over:
        begun, before = time.perf_counter(), time.process_time()
        work(one)
        spent.append((time.perf_counter() - begun) * 1000)
        cpu.append((time.process_time() - before) * 1000)
    return {
        "median_ms": round(statistics.median(spent), 2),
        "slowest_ms": round(max(spent), 1),
        "median_cpu_ms": round(statistics.median(cpu), 2),
    }


def questions(mail: Mail, seed: int) -> dict[str, list[Query]]:
    """A hundred of each kind; words as often as they are in the text, so common ones are asked for most."""
    draw = random.Random(seed)
    half = mail.words[: len(mail.words) // 2]
    seldom = mail.words[len(mail.words) // 2 :]

    def some(make: Callable[[], Query]) -> list[Query]:
        return [make() for _ in range(100)]

    def code() -> str:
        return draw.choice(mail.codes).lower().replace("/", " / ").replace("-", " - ")

    def phrase() -> str:
        return f'"{draw.choice(_PHRASES).replace(";", "")}"'

    return {
        "number": some(lambda: Query(number=code())),
        "one common word": some(lambda: Query(text=draw.choices(mail.words, cum_weights=mail.upto)[0])),
        "one seldom word": some(lambda: Query(text=draw.choice(seldom))),
        "two words": some(lambda: Query(text=" ".join(draw.sample(half, 2)))),
        "two words, one agency, one month": some(
            lambda: Query(text=" ".join(draw.sample(half, 2)), agency=draw.choice(_AGENCIES),
                          since=1704128400000, until=1706806800000)
        ),
        "phrase in every 10th message": some(lambda: Query(text=phrase())),
        "beginning of a word": some(lambda: Query(text=draw.choice(seldom)[:3] + "*")),
        "sender, newest": some(lambda: Query(sender=f"van.thu@{draw.choice(_AGENCIES)}.tinh.gov.vn")),
        "agency, newest": some(lambda: Query(agency=draw.choice(_AGENCIES))),
        "last page of a month": some(lambda: Query(since=1704128400000, until=1706806800000, offset=5000, limit=50)),
    }  # fmt: skip


TEXT = ("one common word", "one seldom word", "two words", "two words, one agency, one month",
        "phrase in every 10th message", "beginning of a word")  # fmt: skip


def measured(archive: Archive, mail: Mail, messages: int, seed: int) -> dict[str, Any]:
    index = archive.index
    result: dict[str, Any] = {"searches": {}}
    asked = questions(mail, seed)
    for kind, some in asked.items():
        hits = int(statistics.median(index.search(one).total for one in some[:10]))
        result["searches"][kind] = {**timed(index.search, some), "hits": hits}
    result["full text"] = timed(index.search, [one for kind in TEXT for one in asked[kind]])

    async def proofs() -> list[float]:
        await archive.checkpoint()
        draw, spent = random.Random(seed), []
        for _ in range(100):
            place = draw.randrange(messages)
            found = await archive.database.read(
                lambda c, place=place: c.exec_driver_sql("SELECT case_id FROM leaf WHERE idx = ?", (place,)).scalar()
            )
            begun = time.perf_counter()
            await archive.prove(found)
            spent.append((time.perf_counter() - begun) * 1000)
        return spent

    spent = asyncio.run(proofs())
    result["proof"] = {"median_ms": round(statistics.median(spent), 2), "slowest_ms": round(max(spent), 1)}
    return result


def notmuch(folder: Path, maildir: Path, count: int, mail: Mail, seed: int) -> dict[str, Any]:
    config = folder / "notmuch.conf"
    config.write_text(f"[database]\npath={maildir}\n[new]\ntags=\n[user]\nname=x\nprimary_email=x@tinh.gov.vn\n")
    env = {**os.environ, "NOTMUCH_CONFIG": str(config)}
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["notmuch", "new", "--quiet"], env=env, check=True, capture_output=True)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = sum(path.stat().st_size for path in (maildir / ".notmuch").rglob("*") if path.is_file())

    def ask(query: Query) -> None:
        words = ["notmuch", "search", "--output=messages", "--sort=newest-first", "--limit=50", query.text]
        subprocess.run(words, env=env, check=True, capture_output=True)

    asked = questions(mail, seed)
    nothing = timed(
        lambda _: subprocess.run(["notmuch", "count", "id:none"], env=env, check=True, capture_output=True),
        [0] * 20,
    )
    return {
        "messages_per_second": round(count / seconds),
        "cpu_ms_per_message": round(cpu / count * 1000, 2),
        "bytes_per_message": round(size / count),
        "start of the program": {"median_ms": nothing["median_ms"]},
        "searches": {
            kind: timed(ask, asked[kind])
            for kind in ("one common word", "one seldom word", "two words", "phrase in every 10th message")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--marks", default="10000,100000,1000000")
    parser.add_argument("--notmuch", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; default: the temporary folder")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    marks = [int(one) for one in given.marks.split(",")]
    peer = given.notmuch if shutil.which("notmuch") else 0
    if given.notmuch and not peer:
        print("notmuch is not installed: no comparison", file=sys.stderr)

    def tell(**what: Any) -> None:
        what["load"] = round(os.getloadavg()[0], 1)
        print(json.dumps(what, ensure_ascii=False) if given.json else _plain(what), flush=True)

    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder, mail = Path(name), Mail(given.seed)
        cases, done = iter(mail), 0
        maildir = folder / "mail"

        async def opened() -> Archive:
            return open_archive(folder / "data")

        archive = asyncio.run(opened())
        for mark in marks:
            add = mark - done
            kept = min(add, max(0, peer - done))
            seconds = fill(archive, cases, kept, maildir) if kept else 0.0
            seconds += fill(archive, cases, add - kept, None) if add > kept else 0.0
            begun, before = time.perf_counter(), time.process_time()
            archive.index.catch_up()
            indexing, spent = time.perf_counter() - begun, time.process_time() - before
            done = mark
            state = archive.index.state()
            database = sum(path.stat().st_size for path in (folder / "data").glob("gateway.db*"))
            tell(
                messages=mark,
                filled_per_second=round(add / seconds),
                indexed_per_second=round(add / indexing),
                indexing_cpu_ms_per_message=round(spent / add * 1000, 2),
                index_bytes_per_message=round(state["bytes"] / mark),
                database_bytes_per_message=round(database / mark),
                **measured(archive, mail, mark, given.seed),
            )
            if peer and done >= peer:
                tell(notmuch=notmuch(folder, maildir, peer, mail, given.seed), messages=peer)
                peer = 0
                shutil.rmtree(maildir, ignore_errors=True)
        asyncio.run(close(archive))


def _plain(what: dict[str, Any], depth: int = 0) -> str:
    lines = []
    for key, value in what.items():
        if isinstance(value, dict) and any(isinstance(one, dict) for one in value.values()):
            lines += [" " * depth + f"{key}:", _plain(value, depth + 2)]
        elif isinstance(value, dict):
            lines.append(" " * depth + f"{key:36} " + "  ".join(f"{name} {one}" for name, one in value.items()))
        else:
            lines.append(" " * depth + f"{key:36} {value}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
