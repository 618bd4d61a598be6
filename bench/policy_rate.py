"""Figures of policy and directory: judging, loading, looking up, replaying.

    python bench/policy_rate.py                 all figures, about a minute
    python bench/policy_rate.py --random 1000000   judge that many random fact sets; any exception ends the run with 1
    python bench/policy_rate.py --replay 100000    replay an archive of that many messages

Judging is measured over the golden tables of the tests under the whole catalogue. CPU time, one core.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gateway import archive, config, directory, policy, replay, trials  # noqa: E402
from gateway import database as db  # noqa: E402
from gateway.database import Database  # noqa: E402
from gateway.inspection.findings import CheckRun, Finding, Inspection, Status  # noqa: E402
from gateway.message import MemoryBody, Received  # noqa: E402

DATA = ROOT / "tests" / "data" / "policy"


def situations(agencies: directory.Directory) -> list[policy.Situation]:
    return [
        trials.situation(trial, agencies)
        for path in sorted((DATA / "golden").glob("*.yaml"))
        for trial, _ in trials.load(path)
    ]


def judging(rules: policy.Policy, agencies: directory.Directory, many: list[policy.Situation]) -> None:
    """Microseconds per message, each with a subject of its own so that no cached spelling helps."""
    times = []
    for round_number in range(20):
        for number, one in enumerate(many):
            message = one.inspection.message
            words = {
                "subject": f"{message.subject} {round_number}-{number}",
                "body_text": message.body_text + "Kính gửi " * 100,
            }
            facts = one.inspection.model_copy(update={"message": message.model_copy(update=words)})
            fresh = policy.Situation(one.at, one.direction, one.origin, one.envelope, facts, one.history)
            start = time.process_time_ns()
            policy.judge(rules, agencies, fresh)
            times.append((time.process_time_ns() - start) / 1000)
    times.sort()
    print(
        f"judge: {len(times)} messages, mean {statistics.fmean(times):.0f} µs, "
        f"median {times[len(times) // 2]:.0f} µs, 99 % {times[len(times) * 99 // 100]:.0f} µs"
    )


def sizes(agencies: int, mailboxes: int) -> None:
    """Load a province of that size from CSV and look mailboxes up."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        shutil.copytree(ROOT / "config" / "lists", base / "lists")
        (base / "directory").mkdir()
        rows = "".join(
            f"a{n},Cơ quan số {n},unit,{'' if n == 0 else f'a{n // 20}'},c{n}.tinh.gov.vn,2020-01-01\n"
            for n in range(agencies)
        )
        (base / "directory" / "agencies.csv").write_text(f"id,name,level,parent,domains,certificate_issued_on\n{rows}")
        rows = "".join(
            f"m{n}@c{n % agencies}.tinh.gov.vn,{'AGENCY' if n < agencies else 'PERSONAL'},Chuyên viên {n},a{n % agencies},2020-01-01,m{n}@gmail.com\n"  # noqa: E501
            for n in range(mailboxes)
        )
        (base / "directory" / "mailboxes.csv").write_text(f"address,kind,holder,agency,issued_on,private\n{rows}")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, cpu = time.perf_counter(), time.process_time()
        known = directory.load(base / "directory")
        took, used = time.perf_counter() - start, time.process_time() - cpu
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(
            f"load: {agencies} agencies, {mailboxes} mailboxes: {took:.1f} s ({used:.1f} s CPU), {memory:.0f} MiB more"
        )
        from datetime import date

        day, chosen = date(2026, 1, 1), [random.randrange(mailboxes) for _ in range(20000)]
        start = time.process_time()
        for n in chosen:
            assert known.agency_of(f"m{n}@c{n % agencies}.tinh.gov.vn", day)
        print(f"look up: {(time.process_time() - start) / len(chosen) * 1e6:.1f} µs")


def random_facts(rules: policy.Policy, agencies: directory.Directory, many: list[policy.Situation], count: int) -> int:
    """Random mixtures of the golden facts: files, findings, runs, senders and recipients of any with those of any."""
    chooser = random.Random(20261122)
    values = [("secrecy", "mat"), ("secrecy", "declassified"), ("active", "macro"), ("uninspectable", "encrypted"),
              ("charset", "vni"), ("urgency", "hoa_toc"), ("ambiguous", "x"), ("filename", "conflict"), ("new", "new")]  # fmt: skip  # noqa: E501
    names = [f.path for one in many for f in one.inspection.files] + ["subject", "body", ""]
    failures = 0
    start = time.process_time()
    for _ in range(count):
        a, b, c, d = (chooser.choice(many) for _ in range(4))
        kind, value = chooser.choice(values)
        found = Finding(
            kind=kind, value=value, grade=chooser.choice(("", "weak", "strong")), about=chooser.choice(names)
        )
        run = CheckRun(
            check=chooser.choice(("secrecy", "malware", "text", "seal", "sender")), status=chooser.choice(list(Status))
        )
        facts = Inspection(
            message=a.inspection.message,
            files=b.inspection.files + c.inspection.files,
            findings=(*c.inspection.findings, found),
            runs=(*d.inspection.runs, run),
            sender=d.inspection.sender,
        )
        mixed = policy.Situation(
            d.at, chooser.choice(("in", "out", "internal")), c.origin, b.envelope, facts, d.history
        )
        try:
            verdict = policy.judge(rules, agencies, mixed)
            broken = run.status in (Status.FAILED, Status.TIMED_OUT) and run.check in ("secrecy", "malware")
            if broken and verdict.disposition < policy.Disposition.HOLD:
                raise AssertionError("a failed check agreed")
        except Exception as error:
            failures += 1
            print(f"random facts: {type(error).__name__}: {error}")
            if failures > 10:
                break
    used = time.process_time() - start
    print(f"random facts: {count} judged, {failures} failures, {used / count * 1e6:.0f} µs CPU each")
    return failures


def fill(folder: Path, rules: policy.Policy, agencies: directory.Directory, count: int, start: int = 0) -> None:
    """Put `count` messages into the archive of a configuration, as the daemon writes them, from the golden facts; a
    number for each, so that no two are the same. Rows only: the hash tree and the bytes are not what is measured."""
    many = situations(agencies)
    verdicts = [policy.judge(rules, agencies, one) for one in many]
    database = Database.open(config.read(folder).database_url)
    try:
        with database.engine.execution_options(writer=True).begin() as connection:
            for first in range(start, start + count, 1000):
                rows = []
                for number in range(first, min(first + 1000, start + count)):
                    one, verdict = many[number % len(many)], verdicts[number % len(many)]
                    data = f"Subject: {number}\r\n\r\n".encode()
                    body = MemoryBody(data, hashlib.sha256(data).hexdigest())
                    received = Received(f"{number:016}", one.at, one.envelope, one.origin, body)
                    case = archive.Case(received, one.direction, one.inspection, verdict, b"", (), history=one.history)
                    rows.append(archive._row(case, archive._record(case)))
                db.insert(connection, db.message, rows)
    finally:
        database.close()


def replaying(folder: Path, rules: policy.Policy, agencies: directory.Directory, count: int) -> None:
    """Judge an archive of that many messages again in two processes, from its database; then once more as another
    policy that observes one rule."""
    start = time.perf_counter()
    fill(folder, rules, agencies, count)
    print(f"archive: {count} messages written in {time.perf_counter() - start:.1f} s")
    other = folder / "other.yaml"
    other.write_text("profile: national_2026\nrules:\n  FM-01: {mode: observe, to: 2099-12-31}\n", "utf-8")
    for name, judged_by in (("the same policy", policy.load(folder)), ("another", policy.load(folder, other))):
        database = Database.open(config.read(folder).database_url)
        start, used = time.perf_counter(), _cpu()
        with database.engine.connect() as connection:
            result = replay.run(replay.stored(connection), judged_by, agencies, 2)
        took, used = time.perf_counter() - start, _cpu() - used
        database.close()
        print(
            f"replay, {name}: {result.total} messages in {took:.1f} s, {result.total / took:.0f} a second, "
            f"{used:.1f} s CPU, {len(result.changes)} change, {len(result.unreadable)} unreadable"
        )


def _cpu() -> float:
    own, below = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + below.ru_utime + below.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=20_000, help="random fact sets to judge")
    parser.add_argument("--replay", type=int, default=20_000, help="stored messages to judge again")
    parser.add_argument("--agencies", type=int, default=10_000)
    parser.add_argument("--mailboxes", type=int, default=300_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "config"
        shutil.copytree(ROOT / "config", base)
        shutil.rmtree(base / "directory")
        shutil.copytree(DATA / "directory", base / "directory")
        start = time.process_time()
        rules = policy.load(base)
        print(f"policy: loaded in {(time.process_time() - start) * 1000:.0f} ms CPU, {len(policy.CATALOGUE)} rules")
        agencies = directory.load(base / "directory")
        many = situations(agencies)
        judging(rules, agencies, many)
        failures = random_facts(rules, agencies, many, options.random) if options.random else 0
        if options.replay:
            replaying(base, rules, agencies, options.replay)
    if options.mailboxes:
        sizes(options.agencies, options.mailboxes)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
