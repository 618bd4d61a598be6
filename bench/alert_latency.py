"""Seconds from the 250 of a most urgent document to its arrival at a receiver of text messages; kills on request.

    ./run measure alert_latency --count 60 --seed 1 [--kills 5]

A real gateway with everything on, staff submitting signed PDFs marked HỎA TỐC over STARTTLS, one after the other, and
an HTTP receiver that notes when each text came; the letter to the leader is timed at the next hop. With `--kills` the
gateway is killed that many times while mail comes in, and started again: at a random moment, as soon as a 250 is heard,
and while the receiver has a text and has not answered, in turn. Each document that got 250 must have been told, and
what was told twice must be listed as a possible duplicate.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import smtplib
import statistics
import tempfile
import threading
import time
from email import message_from_bytes
from email.policy import SMTP
from pathlib import Path

from tests import harness, test_alerts
from tests.receiver import Receiver


def main() -> None:
    parser = argparse.ArgumentParser(prog="alert_latency", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=0)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    receiver, sink, passwords = Receiver(), harness.Sink(), harness.PasswordServer()
    arrivals: list[float] = []  # of mail at the next hop, in the order of `sink.messages`
    sink.answers["dot"] = lambda _: arrivals.append(time.time())
    alerts = f"""
alerts:
  channels: [{{name: sms, kind: sms, url: "{receiver.url}/gui"}}, {{name: thu, kind: mail}}]
  urgent: {{channels: [sms, thu]}}
"""
    with tempfile.TemporaryDirectory() as name:
        config = harness.write_config(
            Path(name), hop_port=sink.port, auth_port=passwords.port, directory=test_alerts.DIRECTORY, extra=alerts
        )
        test_alerts.signer().write_trust(config / "trust")
        letters = [test_alerts.letter(f"{number}/TB-SNV") for number in range(1, asked.count + 1)]
        gateway = harness.Gateway(config).start()
        accepted: dict[str, float] = {}  # case → time of 250
        stop = threading.Event()

        def send() -> None:
            for raw in letters:
                while True:  # as a mail client that keeps its message until 250
                    try:
                        answer = test_alerts.submit(gateway, raw)
                    except (OSError, smtplib.SMTPException):
                        stop.wait(0.2)
                        continue
                    if answer.startswith("250"):
                        accepted.setdefault(answer.split()[-1], time.time())
                        break
            stop.set()

        sender = threading.Thread(target=send)
        sender.start()
        kills = 0
        while kills < asked.kills and not stop.is_set():
            if kills % 3 == 0:  # whenever it comes
                stop.wait(rng.uniform(1, 4))
            elif kills % 3 == 1:  # as soon as a 250 is heard
                known = len(accepted)
                while len(accepted) == known and not stop.is_set():
                    time.sleep(0.001)
            else:  # the service has the text, and its answer does not come
                receiver.gate.clear()
                known = len(receiver.requests)
                with receiver.arrived:
                    receiver.arrived.wait_for(lambda known=known: len(receiver.requests) > known or stop.is_set(), 30)
            gateway.kill()
            receiver.gate.set()
            gateway.start()
            kills += 1
        sender.join()
        deadline = time.time() + 120
        while time.time() < deadline and len(_told(receiver)) < len(accepted):
            with receiver.arrived:
                receiver.arrived.wait(0.2)
        time.sleep(1.0)  # for what should not come
        rows = [
            json.loads(line) for line in gateway.command("alerts", "list", "--json", "--limit", "100000").splitlines()
        ]
        with contextlib.suppress(AssertionError):
            gateway.stop()
    told = _told(receiver)
    explained = {row["case"] for row in rows if any(one["possible_duplicates"] for one in row["sends"])}
    twice = {case for case, times in told.items() if len(times) > 1}
    letters_at = {
        case: at
        for (_, to, data), at in zip(sink.messages, arrivals, strict=False)
        if to == [test_alerts.LEADER] and (case := _case(data)) in accepted
    }
    mail = sorted(at - accepted[case] for case, at in letters_at.items())
    waits = sorted(times[0] - accepted[case] for case, times in told.items() if case in accepted)
    print(
        json.dumps(
            {
                "accepted": len(accepted),
                "told": len(set(told) & set(accepted)),
                "never_told": len(set(accepted) - set(told)),
                "kills": kills,
                "told_twice": len(twice),
                "told_twice_unexplained": len(twice - explained),
                "seconds_median": round(statistics.median(waits), 3),
                "seconds_95": round(waits[int(len(waits) * 0.95) - 1], 3),
                "seconds_max": round(waits[-1], 3),
                "letters": len(mail),
                "letter_seconds_median": round(statistics.median(mail), 3),
                "letter_seconds_max": round(mail[-1], 3),
                "seed": asked.seed,
            }
        )
    )


def _case(data: bytes) -> str:
    """The case id in the subject of an alert by mail."""
    subject = str(message_from_bytes(data, policy=SMTP)["Subject"])
    found = re.search(r" - (\w{16}) /", subject)
    return found[1] if found else ""


def _told(receiver: Receiver) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for one in list(receiver.requests):
        if case := re.search(r"Ma (\w{16})$", one.json["text"]):
            found.setdefault(case[1], []).append(one.at)
    return found


if __name__ == "__main__":
    main()
