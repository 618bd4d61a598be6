"""Message bytes in a bucket of an S3-compatible store, with its object lock.

The same promises as in a folder: a name appears only with its bytes, the same bytes are kept once, every read is
checked against the digest. An object is only ever created (If-None-Match), so that two gateways cannot disturb each
other, and nothing is written over; where damaged bytes are put again, a new version stands on top of the old.

A store that does not answer is no broken store: mail is answered 451 meanwhile, and it goes on by itself.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway import blobfile, durable
from gateway.blobfile import ENCRYPTED, GZIP, KINDS, PLAIN, Keyring
from gateway.config import S3, Gateway
from gateway.errors import LOCAL_ERROR, Failure
from gateway.store import Damaged, Item, Store, blob_name, digest_of

#: Requests at the same time; one takes milliseconds of waiting and little else.
_CONNECTIONS = 16
#: Bytes of one message that are made ready in memory; larger ones in a nameless file, in the form in which they go.
_IN_MEMORY = 8 << 20
_CONNECT_SECONDS = 3.0
_ABSENT = {"NoSuchKey", "404"}
_TAKEN = {"PreconditionFailed", "412"}


class ObjectStore(Store):
    """`root` is a local folder for what is set aside and for large bodies on their way."""

    def __init__(self, root: Path, settings: S3, *, kind: str, keyring: Keyring | None = None) -> None:
        try:
            import boto3  # noqa: F401
        except ImportError:
            reason = "store.s3 needs the package boto3: pip install 'congvan-gateway[s3]'"
            raise Failure(reason, reason, retryable=False) from None
        self._settings = settings
        self._prefix = f"{settings.prefix}sha256/"
        self._lock = threading.Lock()
        self._connected: Any = None
        self._pool = ThreadPoolExecutor(_CONNECTIONS, "store-s3")
        super().__init__(root, kind=kind, keyring=keyring)

    def _prepare(self) -> None:
        durable.make_folder(self._temporary)

    # ------------------------------------------------------------------ the bucket

    def _client(self) -> Any:
        with self._lock:
            if self._connected is None:
                import boto3
                from botocore.config import Config

                given = self._settings
                access, secret = _credentials(given.credentials.path())
                self._connected = boto3.session.Session().client(
                    "s3",
                    endpoint_url=given.endpoint,
                    region_name=given.region,
                    aws_access_key_id=access,
                    aws_secret_access_key=secret,
                    verify=str(given.ca) if given.ca else None,
                    config=Config(
                        signature_version="s3v4",
                        s3={"addressing_style": "path"},
                        connect_timeout=_CONNECT_SECONDS,
                        read_timeout=given.timeout,
                        retries={"mode": "standard", "total_max_attempts": 2},
                        max_pool_connections=_CONNECTIONS + 8,
                        # We send MD5 ourselves, which every store knows; newer checksums not all of them do.
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
            return self._connected

    def _ask(self, operation: str, **words: Any) -> Any:
        """One request. Raises _Refused for an answer that is a no, Failure for none."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._client(), operation)(Bucket=self._settings.bucket, **words)
        except ClientError as error:
            told = error.response.get("Error", {})
            raise _Refused(str(told.get("Code", "")), str(told.get("Message", ""))) from error
        except (BotoCoreError, OSError) as error:
            reason = " ".join(str(error).split())
            raise Failure(LOCAL_ERROR.text, f"store: {self._settings.endpoint}: {reason}"[:300]) from error

    def check(self) -> None:
        """Is the bucket there, and does it lock as the settings demand? Raises Failure: not retryable when a person
        must change something."""
        try:
            self._ask("head_bucket")
            if self._settings.lock is not None:
                found = self._ask("get_object_lock_configuration")
                if found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
                    raise _Refused("ObjectLockConfigurationNotFoundError", "object lock is not enabled")
        except _Refused as error:
            if error.code.startswith("5"):
                raise error.failure() from error
            reason = (
                f"store.s3: bucket {self._settings.bucket} at {self._settings.endpoint}: {error}"
                + ("; make the bucket anew with object lock, or remove `lock`" if "ObjectLock" in error.code else "")
            )  # fmt: skip
            raise Failure(reason, reason, retryable=False) from error

    # ------------------------------------------------------------------ the same promises

    def clear(self) -> None:
        super().clear()
        try:
            self.check()
        except Failure as failure:
            if not failure.retryable:
                raise  # a store that is merely away comes back

    def put_groups(self, groups: Sequence[Iterable[Item]]) -> list[BaseException | None]:
        def one(items: Iterable[Item]) -> BaseException | None:
            try:
                for chunks, sha256 in items:
                    self._put(chunks, sha256)
            except Exception as error:
                return self._told(error)
            return None

        return [one(groups[0])] if len(groups) == 1 else list(self._pool.map(one, groups))

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, _Refused):
            return error.failure()
        if isinstance(error, OSError):  # of the local folder
            return Failure(LOCAL_ERROR.text, f"store: {error.strerror}")
        return error

    def _put(self, chunks: Iterable[bytes], sha256: str) -> None:
        key = self._key(sha256, self._kind)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self._temporary)) as body:
            digest = hashlib.md5(usedforsecurity=False)
            for piece in self._written(chunks, sha256):
                digest.update(piece)
                body.write(piece)
            words: dict[str, Any] = {
                "Key": key,
                "ContentMD5": base64.b64encode(digest.digest()).decode(),
                "ContentLength": body.tell(),
                "ContentType": "application/octet-stream",
            }
            if (lock := self._settings.lock) is not None:
                words["ObjectLockMode"] = lock.mode.upper()
                words["ObjectLockRetainUntilDate"] = dt.datetime.now(dt.UTC) + dt.timedelta(days=lock.days)
            for more in ({"IfNoneMatch": "*"}, {}):
                body.seek(0)
                try:
                    self._ask("put_object", Body=body, **words, **more)
                    return
                except _Refused as error:
                    if error.code not in _TAKEN or not more:
                        raise
                if not self.problem(sha256):
                    return

    def _key(self, sha256: str, kind: str) -> str:
        return self._prefix + blob_name(sha256, kind)

    def exists(self, sha256: str) -> bool:
        for kind in self._kinds:
            try:
                self._ask("head_object", Key=self._key(sha256, kind))
                return True
            except _Refused as error:
                if error.code not in _ABSENT:
                    raise error.failure() from error
        return False

    def raw(self, sha256: str, size: int = 1 << 20) -> tuple[str, Iterator[bytes]]:
        for kind in self._kinds:
            try:
                body = self._ask("get_object", Key=self._key(sha256, kind))["Body"]
            except _Refused as error:
                if error.code not in _ABSENT:
                    raise error.failure() from error
                continue
            return kind, self._pieces(body, size)
        raise Damaged(sha256, "missing")

    def _pieces(self, body: Any, size: int) -> Iterator[bytes]:
        from botocore.exceptions import BotoCoreError

        with contextlib.closing(body):
            try:
                while piece := body.read(size):
                    yield piece
            except (BotoCoreError, OSError) as error:
                raise Failure(LOCAL_ERROR.text, f"store: {' '.join(str(error).split())}"[:300]) from error

    def put_raw(self, sha256: str, kind: str, pieces: Iterable[bytes]) -> None:
        raise NotImplementedError("only folders are written to in this way")

    def remove(self, sha256: str) -> None:
        """All versions of these bytes."""
        try:
            for kind in KINDS:
                key = self._key(sha256, kind)
                found = self._ask("list_object_versions", Prefix=key)
                for one in (*found.get("Versions", ()), *found.get("DeleteMarkers", ())):
                    if one["Key"] == key:
                        self._ask("delete_object", Key=key, VersionId=one["VersionId"])
        except _Refused as error:
            if error.code in ("AccessDenied", "InvalidRequest", "ObjectLocked"):
                reason = f"the object store does not let go of {sha256} yet: {error}"
                raise Failure(reason, reason, retryable=False) from error
            raise error.failure() from error

    def set_aside(self, sha256: str) -> None:
        """A copy of the damaged bytes goes to `corrupt`; in the bucket nothing is destroyed."""
        with contextlib.suppress(Damaged, Failure):
            kind, pieces = self.raw(sha256)
            corrupt = self.root.parent / "corrupt"
            durable.make_folder(corrupt)
            durable.replace(corrupt / f"{sha256}{kind}", b"".join(pieces))

    def digests(self) -> Iterator[str]:
        more: dict[str, str] = {}
        while True:
            try:
                found = self._ask("list_objects_v2", Prefix=self._prefix, **more)
            except _Refused as error:
                raise error.failure() from error
            for one in found.get("Contents", ()):
                folder, _, name = one["Key"].removeprefix(self._prefix).rpartition("/")
                yield digest_of(folder, name) or one["Key"]
            if not found.get("IsTruncated"):
                return
            more = {"ContinuationToken": found["NextContinuationToken"]}


class _Refused(Exception):
    """The store answered, and its answer is a no."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code} {text}".strip())
        self.code = code

    def failure(self) -> Failure:
        return Failure(LOCAL_ERROR.text, f"store: {self}"[:300])


def _credentials(path: Path) -> tuple[str, str]:
    """Access key and secret key, one a line. Raises Failure."""
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = f"store.s3.credentials: {path}: {getattr(error, 'strerror', None) or 'is not UTF-8'}"
        raise Failure(reason, reason) from None
    if len(lines) != 2:
        reason = f"store.s3.credentials: {path}: two lines are needed, access key and secret key"
        raise Failure(reason, reason, retryable=False)
    return lines[0], lines[1]


def open_store(settings: Gateway) -> Store:
    """The store that the settings name. Raises Failure."""
    wanted, root = settings.store, settings.data / "blobs"
    keyring = None
    if wanted.encryption is not None:
        keys = wanted.encryption
        keyring = Keyring(
            settings.data / "keys" / "store",
            lambda: [blobfile.read_wrapping_key(path) for path in (keys.key.path(), *keys.former)],
        )
    kind = ENCRYPTED if keyring is not None else GZIP if wanted.compress else PLAIN
    if wanted.s3 is None:
        return Store(root, kind=kind, keyring=keyring)
    return ObjectStore(root, wanted.s3, kind=kind, keyring=keyring)
