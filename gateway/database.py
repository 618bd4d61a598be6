"""Tables, and one writer that groups commits.

SQLite by default, PostgreSQL for more than one host; SQLAlchemy Core only. All times are integer milliseconds since the
epoch, UTC: they sort and subtract without parsing; people see RFC 3339 with +07:00.
Message bytes are not here but in `store.py`: rows belong into SQL, bodies beside it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

#: One row per archived message. `id` is the case id. A message offered again (same bytes, sender and channel
#: direction) is found by `sha256`.
message = Table(
    "message",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # mail: received; notice, dsn, alert: written by us and owed to somebody
    Column("about", Text),  # for notice and dsn: the case they speak of
    Column("direction", Text, nullable=False),  # in, out, internal
    Column("channel", Text, nullable=False),  # submission, relay, filter, imap, gateway
    Column("received_at", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sender", Text, nullable=False),  # envelope sender, '' for the null sender
    Column("login", Text, nullable=False, default=""),
    Column("peer", Text, nullable=False, default=""),
    Column(
        "trace", LargeBinary, nullable=False, default=b""
    ),  # header fields put on top at delivery; not part of the bytes
    Column("subject", Text, nullable=False, default=""),
    Column("header_from", Text, nullable=False, default=""),
    Column("message_id", Text, nullable=False, default=""),
    Column("message_class", Text, nullable=False, default=""),
    Column("verdict", Text, nullable=False),  # deliver … block-secret never has a row
    Column("profile", Text, nullable=False, default=""),
    Column("delivery_mode", Text, nullable=False, default=""),
    Column("policy_digest", Text, nullable=False, default=""),
    Column("agency", Text, nullable=False, default=""),  # agency id whose mailbox this is (sender's when outgoing)
    Column("document_code", Text, nullable=False, default=""),
    Column("document_key", Text, nullable=False, default=""),  # code without spaces and accents, upper case
    Column("document_kind", Text, nullable=False, default=""),
    Column("document_date", Text, nullable=False, default=""),
    Column("abstract", Text, nullable=False, default=""),
    Column("signer", Text, nullable=False, default=""),
    Column("issuing_agency", Text, nullable=False, default=""),
    Column("record", Text, nullable=False, default="{}"),  # JSON: envelope, origin, inspection (without texts), verdict
    Column("smtputf8", Integer, nullable=False, default=0),
    Column("ret", Text, nullable=False, default=""),
    Column("envid", Text, nullable=False, default=""),
    Index("message_sha256", "sha256"),
    Index("message_received", "received_at"),
    Index("message_document", "document_key"),
    Index("message_agency", "agency", "received_at"),
)

#: One row per recipient: the queue is the rows with state `queued`.
recipient = Table(
    "recipient",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("message", Text, ForeignKey("message.id"), nullable=False),
    Column("address", Text, nullable=False),
    Column("notify", Text, nullable=False, default=""),
    Column("orcpt", Text, nullable=False, default=""),
    Column("agency", Text, nullable=False, default=""),
    Column("verdict", Text, nullable=False),
    # queued, held, delivered, failed (gave up or refused by next hop), returned (by us, notice owed), refused (in session)
    Column("state", Text, nullable=False),
    Column("destination", Text, nullable=False, default=""),  # next hop key
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt_at", BigInteger),
    Column("first_attempt_at", BigInteger),
    Column("settled_at", BigInteger),
    Column("last_reply", Text, nullable=False, default=""),
    Column("delay_notices", Integer, nullable=False, default=0),
    UniqueConstraint("message", "address"),
    Index("recipient_due", "state", "next_attempt_at"),
)

#: The relay journal: a row with `intent_at` is durable before DATA is sent, `result` after the answer. An intent without
#: a result at start-up is a possible duplicate and is logged as one.
attempt = Table(
    "attempt",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("recipient", Integer, ForeignKey("recipient.id"), nullable=False),
    Column("intent_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("destination", Text, nullable=False),
    Column("result", Text, nullable=False, default=""),  # delivered, deferred, failed, interrupted
    Column("reply", Text, nullable=False, default=""),
    Index("attempt_recipient", "recipient"),
    Index("attempt_open", "finished_at"),
)

#: Attachments and members of containers, by digest, for search and comparison.
attachment = Table(
    "attachment",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("message", Text, ForeignKey("message.id"), nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Index("attachment_sha256", "sha256"),
    Index("attachment_message", "message"),
)

#: Leaves of the hash tree in order (reliability.md 2.4). `entry` is RFC 8785 JSON; its RFC 6962 leaf hash is `hash`.
leaf = Table(
    "leaf",
    metadata,
    Column("idx", Integer, primary_key=True, autoincrement=False),  # dense from 0
    Column("type", Text, nullable=False),  # message, delivery, access, admin, anchor, dispose, key, boot, tombstone
    Column("case_id", Text, nullable=False, default=""),
    Column("at", BigInteger, nullable=False),
    Column("entry", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Index("leaf_case", "case_id"),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("note", Text, nullable=False),  # C2SP signed note
)

#: What happened, for the figures. `key` makes a replay harmless: the same event counts once.
event = Table(
    "event",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("key", Text, nullable=False, unique=True),
    Column("at", BigInteger, nullable=False),
    Column("month", Text, nullable=False),  # YYYY-MM in Asia/Ho_Chi_Minh
    Column(
        "kind", Text, nullable=False
    ),  # sent, received, returned, held, blocked_secret, malware, refused_envelope, delivered, failed …
    Column("agency", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("message_class", Text, nullable=False, default=""),
    Column("profile", Text, nullable=False, default=""),
    Column("rule", Text, nullable=False, default=""),
    Column("mode", Text, nullable=False, default=""),
    Column("value", Text, nullable=False, default=""),
    Column("message", Text, nullable=False, default=""),
    Index("event_month", "month", "agency"),
)

#: All that stays of a message with a secrecy mark (design.md promise 2): no subject, file name, text or plain digest.
tombstone = Table(
    "tombstone",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("sender", Text, nullable=False),
    Column("recipients", Text, nullable=False),  # JSON list
    Column("peer", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("level", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("digest", Text, nullable=False),  # HMAC-SHA-256 under the installation's salt
)

#: Decisions of people about held mail, and every other act of an administrator.
decision = Table(
    "decision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("message", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("act", Text, nullable=False),  # release, return, retry, note
    Column("reason", Text, nullable=False, default=""),
)

#: Policies that ever gave a verdict, whole, by digest.
policy = Table(
    "policy",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("first_used_at", BigInteger, nullable=False),
    Column("text", Text, nullable=False),  # canonical JSON of the effective policy
)

#: One notice per (sender, rule set, message): the key makes a second one impossible.
notice_sent = Table(
    "notice_sent",
    metadata,
    Column("key", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
)
