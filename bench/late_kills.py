"""Mail held under a key of its own: a kill at every durable step from the hold to the verdict, of secrets and others.

    ./run measure late_kills

After each kill the data folder is searched for the plain bytes, and the next start must end with exactly one message
or one tombstone where 250 was said, without key and ciphertext.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from gateway import log as logs
from tests.test_late import walk


def main() -> None:
    logs.configure()
    for secret in (True, False):
        with tempfile.TemporaryDirectory() as name:
            count = itertools.count(1)
            told = walk(Path(name), secret, count)
            kills = next(count) - 2
            print(
                f"{'secret' if secret else 'ordinary'}: {kills} kills, {told} after 250; nothing lost, nothing readable"
            )


if __name__ == "__main__":
    main()
