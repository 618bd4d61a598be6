"""Tables, and one writer that groups commits.

SQLite by default, PostgreSQL for more than one host; SQLAlchemy Core only. All times are integer milliseconds since the
epoch, UTC: they sort and subtract without parsing; people see RFC 3339 with +07:00.
Message bytes are not here but in `store.py`: rows belong into SQL, bodies beside it.
"""

from __future__ import annotations

import asyncio
import functools
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Dialect,
    Engine,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    exc,
    inspect,
    make_url,
)
from sqlalchemy import event as events
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateColumn

from gateway import durable
from gateway.errors import LOCAL_ERROR, Failure

metadata = MetaData()

#: One row per archived message. `id` is the case id. A message offered again (same bytes, sender and channel
#: direction) is found by `sha256`.
message = Table(
    "message",
    metadata,
    Column("id", Text, primary_key=True),
    # mail: received; imported: old mail from files; notice, dsn, alert: written by us
    Column("kind", Text, nullable=False),
    Column("about", Text),  # for notice and dsn: the case they speak of
    Column("direction", Text, nullable=False),  # in, out, internal
    Column("channel", Text, nullable=False),  # submission, relay, filter, imap, journal, import, gateway
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
    # queued, held, delivered, failed (gave up, or refused by the next hop), returned (by us, notice owed), refused (in
    # the session), seen (read from a mailbox: nothing is owed)
    Column("state", Text, nullable=False),
    Column("destination", Text, nullable=False, default=""),  # next hop key
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt_at", BigInteger),
    Column("first_attempt_at", BigInteger),
    Column("settled_at", BigInteger),
    Column("last_reply", Text, nullable=False, default=""),
    Column("delay_notices", Integer, nullable=False, default=0),
    # the gateway that has it under way (`lease`), as long as `next_attempt_at` is NULL
    Column("owner", Text, nullable=False, default="", server_default=""),
    UniqueConstraint("message", "address"),
    Index("recipient_due", "state", "next_attempt_at"),
)

#: The relay journal: a row with `intent_at` is durable before DATA is sent, `result` after the answer. An intent
#: without a result at start-up is a possible duplicate and is logged as one.
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
    Column("owner", Text, nullable=False, default="", server_default=""),  # the gateway that made it
    Index("attempt_recipient", "recipient"),
    Index("attempt_open", "finished_at"),
)

#: Gateways that are at work over one database of PostgreSQL: what one of them claimed is its own until `lease_at`, by
#: the clock of the database.
lease = Table(
    "lease",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("lease_at", BigInteger, nullable=False),
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
    Index("leaf_type", "type", "idx"),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("note", Text, nullable=False),  # C2SP signed note
)

#: What others attested of a checkpoint. `leaf` is the place of its `anchor` in the tree, once it has one.
attest = Table(
    "attest",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),  # of the witness, as configured; `timestamps`: the time stamp authority
    Column("at", BigInteger, nullable=False),  # the time it names
    Column("data", LargeBinary, nullable=False),  # signature lines, or the RFC 3161 response
    Column("leaf", BigInteger),
    Index("attest_leaf", "leaf"),
)

#: How each witness and the time stamp authority stand.
witness = Table(
    "witness",
    metadata,
    Column("name", Text, primary_key=True),
    Column("size", BigInteger, nullable=False, default=0),  # the last checkpoint it took
    Column("at", BigInteger),  # when
    Column("tried_at", BigInteger),
    Column("error", Text, nullable=False, default=""),  # of the last try; empty: it went well
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
    # between whom: internal (one agency), inter_agency, outside (citizens, firms); only on sent and received
    Column("scope", Text, nullable=False, default="", server_default=""),
    Index("event_month", "month", "agency"),
    Index("event_message", "message"),
)

#: What was published, each revision for good (reports.py): the signed JSON as it went out.
publication = Table(
    "publication",
    metadata,
    Column("period", Text, primary_key=True),  # 2026-11, 2026-H1, 2026
    Column("revision", Integer, primary_key=True, autoincrement=False),  # 1: first published; more: restated
    Column("at", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),  # of the JSON
    Column("data", LargeBinary, nullable=False),  # the JSON, zlib
    Column("signature", LargeBinary, nullable=False),  # Ed25519 over the JSON
    Column("leaf", BigInteger, nullable=False),  # its place in the tree
    Column("events", BigInteger, nullable=False),  # events of the period when it was made
)

#: Work by the clock, claimed by whoever comes first: once, however many daemons there are.
job = Table(
    "job",
    metadata,
    Column("name", Text, primary_key=True),
    Column("slot", Text, primary_key=True),  # the time it stands for: 2026-11, 2026-11-22
    Column("claimed_at", BigInteger, nullable=False),
    Column("claimed_by", Text, nullable=False),
    Column("finished_at", BigInteger),
    Column("result", Text, nullable=False, default=""),
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

#: Readable text of body and files, for the search index: zlib over JSON `{path: text}`. Not part of the proof; gone
#: with the content when a message is disposed of.
fulltext = Table(
    "fulltext",
    metadata,
    Column("message", Text, ForeignKey("message.id"), primary_key=True),
    Column("texts", LargeBinary, nullable=False),
)

#: What a message is below the header fields that servers put on top (`likeness.py`), where that is not all of it.
likeness = Table(
    "likeness",
    metadata,
    Column("message", Text, ForeignKey("message.id"), primary_key=True),
    Column("core", Text, nullable=False),  # SHA-256
    Index("likeness_core", "core"),
)

#: An archived message seen once more: in a journal, or in a mailbox with other header lines on top.
sighting = Table(
    "sighting",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("case_id", Text, nullable=False),  # archived message or tombstone
    Column("at", BigInteger, nullable=False),
    Column("via", Text, nullable=False),  # imap, journal, bcc
    Column("place", Text, nullable=False),  # the mailbox, or the journal address
    Column("digest", Text, nullable=False),  # SHA-256 of the bytes seen there; of a secret an HMAC
    Column("head", LargeBinary, nullable=False, default=b""),  # what stood on top of the message there
    Column("envelope", Text, nullable=False, default=""),  # JSON: what a journal report says
    UniqueConstraint("via", "place", "digest"),
    Index("sighting_case", "case_id"),
)

#: A legal hold: nothing that its question finds may be destroyed, now or later, until somebody releases it.
hold = Table(
    "hold",
    metadata,
    Column("name", Text, primary_key=True),
    Column("question", Text, nullable=False),  # JSON: what `search.Query` is made of
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("released_at", BigInteger),
    Column("released_by", Text, nullable=False, default=""),
    Column("release_reason", Text, nullable=False, default=""),
)

#: What a hold found when it was laid; what it finds later is asked anew.
hold_case = Table(
    "hold_case",
    metadata,
    Column("hold", Text, ForeignKey("hold.name"), primary_key=True),
    Column("message", Text, ForeignKey("message.id"), primary_key=True),
    Index("hold_case_message", "message"),
)

#: A proposal to destroy messages whose time is over, and what became of it.
disposal = Table(
    "disposal",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),  # proposed, confirmed (being carried out), done, withdrawn
    Column("decided_at", BigInteger),
    Column("decided_by", Text, nullable=False, default=""),
    Column("decision_reason", Text, nullable=False, default=""),
)
disposal_case = Table(
    "disposal_case",
    metadata,
    Column("disposal", Text, ForeignKey("disposal.id"), primary_key=True),
    Column("message", Text, ForeignKey("message.id"), primary_key=True),
    Column("class", Text, nullable=False, default=""),  # retention class, and why this one may go
    Column("basis", Text, nullable=False, default=""),
    Index("disposal_case_message", "message"),
)

#: Messages whose content is gone. Their rows stay, emptied, and so do their leaves.
destroyed = Table(
    "destroyed",
    metadata,
    Column("message", Text, ForeignKey("message.id"), primary_key=True),
    Column("disposal", Text, ForeignKey("disposal.id"), nullable=False),
    Column("at", BigInteger, nullable=False),
)

#: Recalls that a person entered (a notice on paper); those by mail are events `recalled`.
recall = Table(
    "recall",
    metadata,
    Column("message", Text, ForeignKey("message.id"), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

#: A folder of a mailbox under one UIDVALIDITY. When the server gives another, the row is closed and a new one begun.
imap_folder = Table(
    "imap_folder",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("account", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),  # inbox, sent, other
    Column("uidvalidity", BigInteger, nullable=False),
    Column("uidnext", BigInteger, nullable=False, default=1),  # UIDs below are in imap_message
    Column("history", BigInteger, nullable=False, default=0),  # UIDs below were there before the first connection
    Column("modseq", BigInteger, nullable=False, default=0),  # CONDSTORE; 0: the server has none
    Column("present", Integer, nullable=False, default=-1),  # messages at the last look; -1: not yet
    Column("unseen", Integer, nullable=False, default=0),
    Column("oldest_unseen_at", BigInteger),
    Column("first_at", BigInteger, nullable=False),
    Column("success_at", BigInteger),  # the last look that ended well
    Column("audited_at", BigInteger),
    Column("closed_at", BigInteger),
    Column("error", Text, nullable=False, default=""),  # of the last look, one line
    Column("error_at", BigInteger),
    Index("imap_folder_account", "account", "name"),
)

#: Each message that was ever on the server: what is missing here was overlooked, what is not `taken` is owed.
imap_message = Table(
    "imap_message",
    metadata,
    Column("folder", Integer, ForeignKey("imap_folder.id"), primary_key=True, autoincrement=False),
    Column("uid", BigInteger, primary_key=True, autoincrement=False),
    Column("account", Text, nullable=False),
    # missing (on the server, not taken yet), taken, secret (a tombstone), old (before `since`), lost (gone from the
    # server before it was taken)
    Column("state", Text, nullable=False),
    Column("size", BigInteger, nullable=False, default=0),  # as the server says; only a hint
    Column("internal_at", BigInteger),  # INTERNALDATE: when the server says it received the message
    Column("digest", Text, nullable=False, default=""),  # SHA-256; of a secret an HMAC, as in its tombstone
    Column("case_id", Text, nullable=False, default=""),  # archived message or tombstone; its rows are its sightings
    Column("found_at", BigInteger, nullable=False),
    Column("taken_at", BigInteger),
    Column("gone_at", BigInteger),  # no longer in this folder
    Column("tries", Integer, nullable=False, default=0),
    Column("next_at", BigInteger, nullable=False, default=0),
    Column("reason", Text, nullable=False, default=""),  # why the last try failed
    Index("imap_message_state", "folder", "state"),
    Index("imap_message_digest", "digest"),
    Index("imap_message_case", "case_id"),
)

#: What is to be done on the server, written before and confirmed after.
imap_action = Table(
    "imap_action",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("account", Text, nullable=False),
    Column("folder", Integer, ForeignKey("imap_folder.id"), nullable=False),  # where the message was found
    Column("uid", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),  # flag, move, release (from `target` back to the folder)
    Column("target", Text, nullable=False, default=""),  # folder name
    Column("keyword", Text, nullable=False, default=""),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False),  # bytes fetched
    Column("internal_at", BigInteger),
    Column("case_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("next_at", BigInteger, nullable=False, default=0),
    Column("tries", Integer, nullable=False, default=0),
    Column("reason", Text, nullable=False, default=""),
    Column("done_at", BigInteger),
    Column("result", Text, nullable=False, default=""),  # done, gone (neither here nor there any more)
    Index("imap_action_open", "account", "done_at"),
    Index("imap_action_case", "case_id"),
)

#: Something a person must be told at once (alerts.py). `key` makes a second one impossible. The text is what goes into
#: an SMS: no trích yếu, and of a secret or of malware nothing but the case.
alert = Table(
    "alert",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("key", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),  # urgent, secret, malware, trouble
    Column("subject", Text, nullable=False, default=""),  # urgent: the level; trouble: which
    Column("agency", Text, nullable=False, default=""),  # whose leader is told
    Column("case_id", Text, nullable=False, default=""),
    Column("document", Text, nullable=False, default=""),  # its number
    Column("text", Text, nullable=False),
    Column("detail", Text, nullable=False, default=""),  # trouble: more than fits into an SMS
    Column("at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),  # trouble: it is over
    Column("acked_at", BigInteger),
    Column("acked_by", Text, nullable=False, default=""),
    Column("acked_how", Text, nullable=False, default=""),  # mail, command
    Index("alert_open", "kind", "ended_at"),
    Index("alert_case", "case_id"),
)

#: One person told over one channel.
alert_send = Table(
    "alert_send",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("alert", Integer, ForeignKey("alert.id"), nullable=False),
    Column("what", Text, nullable=False, default="start"),  # start, end (of trouble)
    Column("channel", Text, nullable=False),
    Column("role", Text, nullable=False),  # leader, delegate, clerk, security, admin
    Column("phone", Text, nullable=False, default=""),
    Column("email", Text, nullable=False, default=""),
    Column("token", Text, nullable=False),  # in the Message-ID and the idempotency key
    Column("pressing", Integer, nullable=False, default=0),  # no quiet hours, no limits
    # waiting, sent, merged (told in one message with others), failed (gave up), cancelled (acknowledged before)
    Column("state", Text, nullable=False, default="waiting"),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_at", BigInteger, nullable=False),
    Column("give_up_at", BigInteger, nullable=False),
    Column("owner", Text, nullable=False, default=""),  # the gateway that is at it: an intent without a result
    Column("lease_at", BigInteger, nullable=False, default=0),  # until when
    Column("settled_at", BigInteger),
    Column("maybe_twice", Integer, nullable=False, default=0),  # attempts whose outcome nobody knows
    Column("result", Text, nullable=False, default=""),  # of the last attempt
    Column("letter", Text, nullable=False, default=""),  # mail: the message in the queue
    Index("alert_send_due", "state", "next_at"),
    Index("alert_send_alert", "alert"),
    Index("alert_send_token", "token"),
)

#: The registers of documents (register.py): one row per document, agency and direction. Rows of origin `mail` follow
#: from the archive alone and can be made again from it at any time; `paper` rows are typed in.
register_entry = Table(
    "register_entry",
    metadata,
    Column("id", Text, primary_key=True),  # made of agency, direction and document, so that it is always the same
    Column("agency", Text, nullable=False),
    Column("direction", Text, nullable=False),  # in, out
    Column("year", Integer, nullable=False),
    Column("origin", Text, nullable=False),  # mail, paper
    Column("day", Text, nullable=False),  # YYYY-MM-DD: arrival (in), issue or sending (out), in Vietnam
    Column("at", BigInteger, nullable=False),
    Column("message_class", Text, nullable=False, default=""),
    Column("sha256", Text, nullable=False, default=""),  # of the document's file
    Column("fields", Text, nullable=False),  # JSON: name to [value, source, confidence], as it was read or typed in
    # what follows holds the values that count, corrections included, for searching and numbering
    Column("document_key", Text, nullable=False, default=""),
    Column("issuer_key", Text, nullable=False, default=""),
    Column("document_year", Integer, nullable=False, default=0),
    Column("series", Text, nullable=False, default=""),  # out: series the number belongs to
    Column("number", Integer),  # out: number in its series
    Column("words", Text, nullable=False, default=""),  # all values, lower case without accents
    Index("register_entry_book", "agency", "direction", "year", "day"),
    Index("register_entry_document", "document_key"),
    Index("register_entry_number", "agency", "year", "series", "number"),
)

#: Messages that brought the document of an entry.
register_source = Table(
    "register_source",
    metadata,
    Column("entry", Text, ForeignKey("register_entry.id"), primary_key=True),
    Column("message", Text, ForeignKey("message.id"), primary_key=True),
    Column("path", Text, nullable=False, default=""),  # of the document among the message's files
    Column("message_id", Text, nullable=False, default=""),
    Index("register_source_message", "message"),
    Index("register_source_message_id", "message_id"),
)

#: What the document of an entry says about others: `target` is a document_key, or the Message-ID it answers.
register_link = Table(
    "register_link",
    metadata,
    Column("entry", Text, ForeignKey("register_entry.id"), primary_key=True),
    Column("kind", Text, primary_key=True),  # reply, replace, correct, amend, recall, cite
    Column("target", Text, primary_key=True),
    Column("source", Text, nullable=False),  # text, header
    Column("confidence", Integer, nullable=False),  # per cent
    Column("said", Text, nullable=False, default=""),  # the number as it is written
    Index("register_link_target", "target"),
)

#: What people did to the registers, in order; nothing is ever overwritten. `about`: an entry, or
#: `agency/year/series/number`.
register_change = Table(
    "register_change",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("about", Text, nullable=False),
    Column("field", Text, nullable=False),  # a field's name; link, unlink, compared, status, number …
    Column("old", Text, nullable=False, default=""),
    Column("new", Text, nullable=False, default=""),
    Column("who", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Index("register_change_about", "about"),
)

#: The next number of a series. Locked before a number is taken, so that numbers have no gaps and none is given twice.
register_series = Table(
    "register_series",
    metadata,
    Column("agency", Text, primary_key=True),
    Column("year", Integer, primary_key=True, autoincrement=False),
    Column("series", Text, primary_key=True),  # `in` for arrival numbers, else the kind or kinds of document
    Column("next", Integer, nullable=False, default=1),
)

#: Every number that was given, reserved or cancelled.
register_number = Table(
    "register_number",
    metadata,
    Column("agency", Text, primary_key=True),
    Column("year", Integer, primary_key=True, autoincrement=False),
    Column("series", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),  # used, reserved, cancelled
    Column("entry", Text, nullable=False, default=""),  # arrival numbers and paper entries; mail is found by number
    Column("code", Text, nullable=False, default=""),
    Column("fields", Text, nullable=False, default="{}"),  # what was known when it was given, as in register_entry
    Column("who", Text, nullable=False, default=""),
    Column("at", BigInteger, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("request", Text, unique=True),  # the same request gets the same number
    Index("register_number_entry", "entry"),
)

#: Entries put into the folder of an agency's document system: `at` before the file appears, `done_at` after.
register_drop = Table(
    "register_drop",
    metadata,
    Column("entry", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("done_at", BigInteger),
)

#: Documents exchanged on paper alone, as agencies report them. The newest row of a key counts; the others are history.
paper_count = Table(
    "paper_count",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("agency", Text, nullable=False),
    Column("month", Text, nullable=False),  # YYYY-MM
    Column("direction", Text, nullable=False),  # in, out
    Column("message_class", Text, nullable=False, default=""),  # empty: all together
    Column("number", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False, default=""),
    Column("source", Text, nullable=False, default=""),  # file:line
    Index("paper_count_month", "month", "agency"),
)

#: One row: the version of these tables.
schema = Table("schema", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

SCHEMA_VERSION = 1

T = TypeVar("T")

#: How long a transaction waits for another process that holds the database: long enough for a command line tool at
#: work, short enough that a client is still there to read 451.
BUSY_SECONDS = 4.0

#: A lock number of our own in PostgreSQL, held while the tables are made.
_TABLES_LOCK = 0x7662_6475

#: Functions that share one transaction at most, so that one slow disk does not make the first of them wait for ever.
GROUP = 256


@cache
def _insert_sql(dialect: str, table: Table, ignore: bool) -> str:
    """INSERT of all columns (autoincremented ones aside), in the driver's own parameter style."""
    names = [column.name for column in table.columns if column is not table.autoincrement_column]
    paramstyle: Dialect
    if dialect == "sqlite":
        statement: Any = sqlite.insert(table)
        paramstyle = sqlite.dialect(paramstyle="named")
    else:
        statement = postgresql.insert(table)
        paramstyle = postgresql.dialect(paramstyle="pyformat")
    if ignore:
        statement = statement.on_conflict_do_nothing()
    return str(statement.compile(dialect=paramstyle, column_keys=names))


@cache
def _defaults(table: Table) -> dict[str, object]:
    return {
        column.name: column.default.arg if column.default is not None else None  # type: ignore[attr-defined]
        for column in table.columns
        if column is not table.autoincrement_column
    }


def insert(connection: Connection, table: Table, rows: Iterable[Mapping[str, object]], *, ignore: bool = False) -> int:
    """Insert rows, absent columns by their default; with `ignore` rows that are there already stay as they are.

    Returns how many were inserted. Goes to the driver by itself because it runs five times for each message:
    SQLAlchemy's own way takes eight times the CPU. Only inside `Database.write`.
    """
    defaults = _defaults(table)
    values = [{**defaults, **row} for row in rows]
    if not values:
        return 0
    sql = _insert_sql(connection.dialect.name, table, ignore)
    driver = connection.dialect.loaded_dbapi
    try:
        cursor = connection.connection.cursor()
        if len(values) == 1:
            cursor.execute(sql, values[0])
        else:
            cursor.executemany(sql, values)
        return cursor.rowcount
    except driver.Error as error:
        raise exc.DBAPIError.instance(sql, None, error, driver.Error, dialect=connection.dialect) from error


class Database:
    """The rows. Reads run in a few threads, each on a snapshot; writes in one thread that groups them.

    Functions given to `write` while a commit is on its way to the disk share the next one, each in a savepoint of its
    own: one that fails undoes its own rows and nobody else's. `write` returns only after COMMIT.

    broken: why nothing more is written until a restart, or empty.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.broken = ""
        self._writer = engine.execution_options(writer=True)
        self._readers = ThreadPoolExecutor(4, "database-read")
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="database-write", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, url: str, *, busy_seconds: float = BUSY_SECONDS) -> Database:
        """Open, and create the tables when there are none. `url`: SQLAlchemy's, `sqlite:////path` or
        `postgresql+psycopg://…`. Raises Failure when the database cannot be used as it must be."""
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            engine = create_engine(parsed, pool_size=6, max_overflow=0, connect_args={"timeout": busy_seconds})
            events.listen(engine, "connect", _prepare_sqlite)
            events.listen(engine, "begin", _begin_sqlite)
            if parsed.database:
                durable.make_folder(Path(parsed.database).absolute().parent)
        else:
            engine = create_engine(
                parsed.set(drivername="postgresql+psycopg"), pool_size=6, max_overflow=0, pool_pre_ping=True
            )
        try:
            with engine.execution_options(writer=True).begin() as connection:
                if engine.dialect.name == "postgresql":  # two that start at once would make the same tables
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_TABLES_LOCK})")
                metadata.create_all(connection)
                for table in metadata.tables.values():  # a table that is there keeps its old indexes only
                    for index in table.indexes:
                        index.create(connection, checkfirst=True)
                _add_columns(connection)
                if connection.execute(schema.select()).first() is None:
                    connection.execute(schema.insert().values(version=SCHEMA_VERSION))
                version = connection.execute(schema.select()).scalar_one()
            if version != SCHEMA_VERSION:
                raise Failure(
                    LOCAL_ERROR.text,
                    f"database: tables of version {version}, this program knows {SCHEMA_VERSION}",
                    retryable=False,
                )
            if parsed.get_backend_name() == "sqlite" and parsed.database:
                durable.sync_folder(Path(parsed.database).absolute().parent)
        except (exc.DBAPIError, OSError, UnicodeDecodeError) as error:  # the last: of a name in a damaged schema
            engine.dispose()
            raise Failure(LOCAL_ERROR.text, f"database: {_reason(error)}") from error
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in the writer's thread and return its result once it is committed and durable.

        `fn` may be called once only, must not commit, and must not wait for anything but the database. What it raises
        is raised here, its rows undone. Raises Failure (retryable) when the database does not take it: then the rows
        are not there, or (an error in the commit itself) may be there after a restart.
        """
        if self.broken:
            raise Failure(LOCAL_ERROR.text, f"database: {self.broken}")
        if self._closed:
            raise Failure(LOCAL_ERROR.text, "database: closed")
        loop = asyncio.get_running_loop()
        job = _Job(fn, loop, loop.create_future())
        self._queue.put(job)
        return await job.future  # type: ignore[no-any-return]

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in a reader's thread on one snapshot. Raises Failure when the database cannot be read."""

        def run() -> T:
            try:
                with self.engine.connect() as connection:
                    return fn(connection)
            except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
                raise Failure(LOCAL_ERROR.text, f"database: {_reason(error)}") from error

        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    def close(self) -> None:
        """Finish what is queued, then let go. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()
            self._readers.shutdown()
            self.engine.dispose()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            jobs, last = [job], False
            while len(jobs) < GROUP:
                try:
                    another = self._queue.get_nowait()
                except queue.Empty:
                    break
                if another is None:
                    last = True
                    break
                jobs.append(another)
            self._commit(jobs)
            _deliver(jobs)
            if last:
                break

    def _commit(self, jobs: list[_Job]) -> None:
        """One transaction for all of them. Whatever happens, each job ends with a result or an error."""
        try:
            if self.broken:
                raise Failure(LOCAL_ERROR.text, f"database: {self.broken}")
            with self._writer.connect() as connection:
                try:
                    connection.begin()
                    for job in jobs:
                        job.run(connection, savepoint=len(jobs) > 1)
                    if len(jobs) == 1 and jobs[0].error is not None:
                        connection.rollback()
                    else:
                        durable.step()
                        connection.commit()
                        durable.step()
                except BaseException as error:
                    self._judge(error)
                    try:
                        connection.rollback()
                    except exc.DBAPIError:
                        connection.invalidate()
                    raise
        except BaseException as error:
            failure = error if isinstance(error, Failure) else Failure(LOCAL_ERROR.text, f"database: {_reason(error)}")
            for job in jobs:
                if job.error is None:
                    job.error = failure

    def _judge(self, error: BaseException) -> None:
        """After an fsync that failed nobody knows what is on disk: stop. A full or locked database passes by itself."""
        original = getattr(error, "orig", error)
        if isinstance(original, sqlite3.Error):
            code = getattr(original, "sqlite_errorcode", 0) & 0xFF
            if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM):
                self.broken = _reason(error)


class _Job:
    __slots__ = ("error", "fn", "future", "loop", "result")

    def __init__(self, fn: Callable[[Connection], Any], loop: asyncio.AbstractEventLoop, future: Any) -> None:
        self.fn, self.loop, self.future = fn, loop, future
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self, connection: Connection, savepoint: bool) -> None:
        """Raises only what concerns the whole transaction."""
        cursor = connection.connection.cursor()
        if savepoint:
            cursor.execute("SAVEPOINT job")
        try:
            self.result = self.fn(connection)
        except (exc.OperationalError, exc.InterfaceError):
            raise  # locked, full, broken, connection gone: not this job's fault, and not over with it
        except BaseException as error:
            self.error = error
            if savepoint:
                cursor.execute("ROLLBACK TO SAVEPOINT job")
        if savepoint:
            cursor.execute("RELEASE SAVEPOINT job")


def _deliver(jobs: list[_Job]) -> None:
    """Hand results to the loops they came from, one wake-up for each loop."""
    loops: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in jobs:
        loops.setdefault(job.loop, []).append(job)
    for loop, mine in loops.items():
        try:
            loop.call_soon_threadsafe(_settle, mine)
        except RuntimeError:  # the loop is closed: nobody waits any more
            continue


def _settle(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():  # cancelled by its caller; the rows are there all the same
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)


def _add_columns(connection: Connection) -> None:
    """Columns that a later version of this program knows, in tables that an earlier one made. They have a default for
    the rows that are there."""
    there = inspect(connection).get_multi_columns()
    for (_, name), columns in there.items():
        known = {one["name"] for one in columns}
        for column in metadata.tables[name].columns if name in metadata.tables else ():
            if column.name not in known and column.server_default is not None:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {definition}")


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Durability is asserted, not hoped for: WAL with synchronous=NORMAL loses acknowledged rows in a power cut."""
    connection.isolation_level = None  # we say BEGIN ourselves
    for pragma, wanted in (("journal_mode=WAL", "wal"), ("synchronous=FULL", None), ("foreign_keys=ON", None)):
        answer = connection.execute(f"PRAGMA {pragma}").fetchone()
        if wanted and (answer is None or answer[0] != wanted):
            raise sqlite3.OperationalError(f"PRAGMA {pragma} answered {answer and answer[0]}: is this a local disk?")
    for pragma, value in (("synchronous", 2), ("foreign_keys", 1)):
        if connection.execute(f"PRAGMA {pragma}").fetchone()[0] != value:
            raise sqlite3.OperationalError(f"PRAGMA {pragma} cannot be set to {value}")
    connection.execute("PRAGMA temp_store=MEMORY")
    # A flipped bit must not make a row unreadable, and with it all that are read together: what reads it compares.
    connection.text_factory = functools.partial(str, encoding="utf-8", errors="replace")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: wait for the write lock at the start, within the busy timeout, instead of failing in the middle.
    writer = connection.get_execution_options().get("writer")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")


def _reason(error: BaseException) -> str:
    """One line without statement and parameters: they may hold what a log must not."""
    original = getattr(error, "orig", None) or error
    name = getattr(original, "sqlite_errorname", "") or type(original).__name__
    return f"{name}: {' '.join(str(original).split())}"[:300]


def sqlite_url(path: Path) -> str:
    """The SQLAlchemy URL of an SQLite file."""
    return "sqlite:///" + os.fspath(path.absolute())
