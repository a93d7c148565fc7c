"""Writes fuzz/corpus: what each target starts from, made of spec/vectors and of sessions between honest peers.

usage: python -m fuzz.make_corpus

The same files in each run of the same software. They need not follow each change of it: a session of yesterday is as
good a start as one of today. An input that once was a finding is kept under a name that begins with `found-`; those
are written by hand and left alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import zstandard

from fuzz import identity, reference
from fuzz.cafe import record as cafe_record
from fuzz.conversation import WRITE_SIZE, Application, Options, config, peer_config, shake
from fuzz.mutators import OPTIONS_SIZE
from fuzz.reference import RawFrame
from fuzz.store import ACCESS_ROWS, ALL_METHODS, KEYRING, NODE_HEAD, QUOTA_ROWS
from fuzz.targets import MARK, RAW_LENGTH_SIZE, record_signed
from haptera.connection import Connection, Role
from haptera.connection.stream_law import ConnectionState
from haptera.errors import LocalProtocolError, failure
from haptera.security import ScramAcceptor, ScramDialer
from haptera.state.access_operations import AddGrant, AddRole, AddToken, AddUser, SetQuota, SetVerifier, StoredVerifier
from haptera.state.command_encoding import Logged, encode_commands
from haptera.state.node_operations import NoteAuditHead, SetMaintenance
from haptera.state.operations import (
    Clear,
    Compare,
    Delete,
    DeleteMany,
    Exists,
    Forget,
    Get,
    Increment,
    Rename,
    Set,
    SetMany,
    Transact,
    Write,
)
from haptera.storage import BackupFile, LogEntry, Manifest
from haptera.storage.backup.format import Digest, chunk_header, head_of
from haptera.storage.segment_format import RecordCipher, SegmentHeader
from haptera.wire.frame import FrameType, encode_frame
from haptera.wire.metadata import Tag, encode_entry
from haptera.wire.payload import Goaway, encode_payload
from tools.cafe_vectors import BIND, make_cafe

ROOT = Path(__file__).resolve().parent
CORPUS = ROOT / "corpus"
VECTORS = ROOT.parent / "spec" / "vectors"
CAFE_HEADER_SIZE = 48
FOUND = "found-"
#: Larger vectors are left out: a fuzzer spends its time on the bytes of each input.
_VECTOR_SIZE_MAX = 20_000
_SEGMENT_SIZE = 400

pack = msgspec.msgpack.encode
Inputs = Iterator[tuple[str, bytes]]


def _vectors(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for vector in json.loads((VECTORS / f"{name}.json").read_text())["vectors"]:
        text = "".join(sign if sign.isalnum() else "-" for sign in vector["name"].lower())
        yield "-".join(part for part in text.split("-") if part), vector


def _options(number: int) -> bytes:
    """Options of which each is chosen by some inputs."""
    return bytes((number % 64, number * 7 % 256))


# -- wire ------------------------------------------------------------------------------------------------------------


def make_decoder() -> Inputs:
    frames = {name: bytes.fromhex(vector["hex"]) for name, vector in _vectors("frames")}
    for name, data in frames.items():
        yield f"frame-{name}", _options(len(name)) + data
    first = next(iter(frames.values()))
    for name, vector in _vectors("headers"):
        yield f"header-{name}", _options(len(name)) + first + bytes.fromhex(vector["hex"])
    large = RawFrame(reference.ITEM, 0, 1, b"", bytes(20_000)).encode()
    damaged = RawFrame(reference.REQUEST, 0, 1, b"\x01s\x01m", b"abc", body_crc=1).encode()
    yield "largest-and-damaged", _options(3) + first + large + damaged + large


def make_compression() -> Inputs:
    random = Random(1).randbytes(1500)
    size = len(random).to_bytes(RAW_LENGTH_SIZE, "big")
    yield "without-checksum", size + zstandard.ZstdCompressor().compress(random)
    yield "skippable", size + b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    for name, payload in (("text", b"some text, " * 200), ("zeros", bytes(100_000)), ("random", random)):
        for declared in (True, False):
            compressor = zstandard.ZstdCompressor(write_checksum=True, write_content_size=declared)
            size = len(payload).to_bytes(RAW_LENGTH_SIZE, "big")
            yield f"{name}-{'declared' if declared else 'undeclared'}", size + compressor.compress(payload)


def make_metadata() -> Inputs:
    for name, vector in _vectors("frames"):
        if vector["frame"]["metadata"]:
            yield f"frame-{name}", bytes.fromhex(vector["frame"]["metadata"])
    sizes = {Tag.REQUEST_ID: 16, Tag.TIMEOUT_MS: 4, Tag.TRACEPARENT: 26, Tag.ANSWERED_BELOW: 8, Tag.TRACESTATE: 9}
    yield (
        "entries",
        b"".join(encode_entry(tag, b"a=b,c=d,e=f,g=h,i=j,k=l"[:size].ljust(size)) for tag, size in sizes.items()),
    )
    yield "unknown-critical", b"\x01s\x01m" + encode_entry(0xFE, b"x") + encode_entry(0x7F, b"")


def make_handshake() -> Inputs:
    kinds = {reference.HELLO: 0, reference.WELCOME: 1, reference.GOAWAY: 2, reference.ERROR: 3}
    for name, vector in _vectors("frames"):
        kind = kinds.get(vector["frame"]["type"])
        if kind is not None:
            yield f"frame-{name}", bytes((kind,)) + bytes.fromhex(vector["frame"]["payload"])
    hello = Connection(Role.DIALER, peer_config(), 0.0).data_to_send(WRITE_SIZE)
    yield "hello-of-ours", b"\x00" + reference.split(hello)[0][0].payload
    yield "hello-for-a-signing-acceptor", b"\xfa" + reference.split(hello)[0][0].payload  # 250 % 5 == 0
    yield "goaway", b"\x02" + encode_payload(Goaway(code=1014, name="GOING_AWAY", message="m", last_stream=7))
    yield "failure", b"\x03" + encode_payload(failure(4002, {"key": "k", "expected": 1, "actual": 2}))
    yield "failure-of-an-application", b"\x03" + pack({**_ERROR, "code": 10_001, "details": {"a": [None, {"b": 1.5}]}})
    yield "open-map", b"\x04" + pack({"a": 1, "b": [1, {"c": b"d"}], "grease-1": None})
    nested: Any = 1
    for _ in range(33):
        nested = [nested]
    yield "nested", b"\x04" + pack({"a": nested})


_ERROR = {"code": 1, "name": "N", "message": "m", "outcome": "unknown", "details": {}}


# -- sessions --------------------------------------------------------------------------------------------------------


def _record(role: Role, options: Options, steps: int) -> bytes:
    """What an honest peer says to an `Application` of `role` behind the handshake: a bit of everything."""
    subject = Application(role, options)
    other = Connection(Role.ACCEPTOR if role is Role.DIALER else Role.DIALER, peer_config(), 0.0)
    # The application's own handshake was with another peer; the same one again, up to what it has sent by now.
    again = Connection(role, config(options, role), 0.0)
    shake(again, other)
    for streaming in (False, True, True, False):
        again.request("s", "m", b"abc", streaming=streaming)
    other.receive_data(again.data_to_send(WRITE_SIZE), 0.0)
    random = Random(options.seed)
    spoken = b""
    mine: list[int] = []
    theirs = [stream for stream in range(1, 9) if other.serves(stream)]
    for _ in range(steps):
        try:
            _speak(other, random, mine, theirs)
        except LocalProtocolError:
            continue  # the stream has ended meanwhile
        said = other.data_to_send(WRITE_SIZE)
        spoken += said
        subject.learn(subject.connection.receive_data(said, 0.0))
        other.receive_data(subject.connection.data_to_send(WRITE_SIZE), 0.0)
        if other.state is not ConnectionState.OPEN:
            break
    return spoken


def _speak(other: Connection, random: Random, mine: list[int], theirs: list[int]) -> None:
    entries = encode_entry(Tag.REQUEST_ID, bytes(16)) + encode_entry(Tag.ANSWERED_BELOW, bytes(8))
    streams = mine + theirs
    match random.randrange(11):
        case 0 | 1:
            size = random.choice((0, 100, 3000))
            mine.append(other.request("s", "m", bytes(size), streaming=random.random() < 0.7, entries=entries))
        case 2 | 3 | 4 if streams:
            other.send_item(random.choice(streams), bytes(random.choice((0, 50, 2500))))
        case 5 if mine:
            other.finish(mine[-1])
        case 6 if mine:
            other.cancel(random.choice(mine))
        case 7 if theirs:
            other.respond(theirs.pop(), b"answer", encode_entry(Tag.REVISION, bytes(8)))
        case 8 if theirs:
            other.fail(theirs.pop(0), failure(4001, {"key": "k"}))
        case 9:
            other.ping(bytes(8))
        case 10 if random.random() < 0.2:
            other.go_away(1014)
        case _:
            other.take_item(random.choice((1, 2, 3, 4)))


def _make_sessions(role: Role) -> Inputs:
    for number in (0, 1, 2, 8, 10, 12, 24, 31, 32, 34, 41):
        head = _options(number)
        yield f"session-{number}", head + _record(role, Options(head), 40)
    head = _options(9 + 32)
    route, item = b"\x01s\x01m", bytes(1500)
    id_ = 1 if role is Role.ACCEPTOR else 2
    fragments = [
        RawFrame(reference.REQUEST, reference.MORE | reference.STREAMING, id_, route, item),
        RawFrame(reference.CREDIT, 0, id_, b"", bytes((0, 0, 16, 0))),
        RawFrame(reference.REQUEST, reference.CONTINUED, id_, b"", item),
        RawFrame(reference.ITEM, reference.MORE, id_, b"", item),
        RawFrame(reference.CANCEL, 0, id_),
        RawFrame(reference.ITEM, reference.CONTINUED, id_, b"", b"rest"),
    ]
    yield "fragments", head + b"".join(each.encode() for each in fragments)
    answers = [
        RawFrame(reference.ITEM, reference.MORE, 3 - id_, b"", item),
        RawFrame(reference.ERROR, 0, 3 - id_, b"", encode_payload(failure(3010))),
        RawFrame(reference.RESPONSE, reference.MORE, 5 - id_, b"", item),
        RawFrame(reference.RESPONSE, reference.CONTINUED, 5 - id_, b"", item),
        RawFrame(reference.RESPONSE, 0, 7 - id_, b"", b"damaged", body_crc=1),
        RawFrame(reference.RESPONSE, 0, 9 - id_, encode_entry(0xFE, b""), b"unknown critical"),
    ]
    yield "answers", head + b"".join(each.encode() for each in answers)


def make_acceptor() -> Inputs:
    yield from _make_sessions(Role.ACCEPTOR)
    for name, vector in _vectors("connection"):
        # Those vectors begin with HELLO, which here has been said.
        frames, rest = reference.split(bytes.fromhex(vector["hex"]))
        data = b"".join(each.encode() for each in frames[1:]) + rest
        if data and len(data) < _VECTOR_SIZE_MAX:
            yield f"vector-{name}", _options(1) + data


def make_dialer() -> Inputs:
    yield from _make_sessions(Role.DIALER)


def make_hello() -> Inputs:
    for name, vector in _vectors("connection"):
        data = bytes.fromhex(vector["hex"])
        if len(data) < _VECTOR_SIZE_MAX:
            yield f"vector-{name}", _options(len(name)) + data


def make_welcome() -> Inputs:
    for number in (0, 4, 6):
        head = _options(number)
        dialer = Connection(Role.DIALER, config(Options(head), Role.DIALER), 0.0)
        acceptor = Connection(Role.ACCEPTOR, peer_config(), 0.0)
        dialer.request("s", "m", b"first flight")
        acceptor.receive_data(dialer.data_to_send(WRITE_SIZE), 0.0)
        acceptor.respond(1, b"answer")
        yield f"session-{number}", head + acceptor.data_to_send(WRITE_SIZE)
    yield "refused", _options(0) + RawFrame(reference.ERROR, payload=pack(_ERROR | {"code": 1001})).encode()


def make_signed() -> Inputs:
    for role in Role:
        yield f"to-{role.name.lower()}", bytes(OPTIONS_SIZE - 1) + bytes((int(role),)) + record_signed(role)


# -- kv and storage --------------------------------------------------------------------------------------------------

_VERIFIER = [b"s" * 16, 600_000, b"k" * 32, b"K" * 32]

_ARGUMENTS: dict[str, list[list[Any]]] = {
    "get": [["a"], ["k" * 4097], ["a", {"at_revision": 1}]],
    "set": [
        ["a", b"v"],
        ["a", b"v", {"if_version": 1, "return_previous": True}],
        ["n", b"", {"if": "absent"}],
        ["a", b"v", {"if": "present"}],
        ["a", b"v", {"ttl_ms": 1}],
        ["a", b"v", {"lease": 3, "fence": 4}],
    ],
    "delete": [["a"], ["a", {"if_version": 0}], ["a", {"return_previous": True}]],
    "exists": [["é"]],
    "get_many": [[["a", "b", "missing"]]],
    "set_many": [[[["a", b"1"], ["a", b"2"]]], [[["a", b"1"]], {}]],
    "delete_many": [[["a", "a", "missing"]]],
    "increment": [["a", 1], ["c/2", 1], ["new", -5, {"initial": 2**63 - 1}], ["b", 1]],
    "rename": [["a", "z"], ["a", "b", {"if_absent": True}]],
    "scan": [[], [{"prefix": "c/", "limit": 1}], [{"start": "b", "end": "k", "reverse": True, "keys_only": True}]],
    "count": [[], [{"glob": "c/*"}], [{"glob": "[a-c]?\\*{"}], [{"prefix": "\U0010ffff"}]],
    "clear": [[{"prefix": "c/"}], []],
    "get_and_delete": [["a"], ["missing"]],
    "get_and_expire": [["a", {"ttl_ms": 1000}], ["a", {"persist": True}]],
    "expire": [["a", 1000], ["a", None], ["missing", 1]],
    "ttl": [["a"], ["missing"]],
    "watch": [[], [{"key": "a", "initial": True}], [{"prefix": "c/", "start_revision": 1, "with_previous": True}]],
    "history": [["a"], ["a", {"limit": 1}]],
    "grant_lease": [[1000], [999]],
    "renew_lease": [[[1, 2]], [[]]],
    "revoke_lease": [[1]],
    "leases": [[], [{"after": 1, "limit": 1}]],
    "transact": [
        [[["a", "version", "=", 1], ["b", "value", "<", b"z"]], [["set", ["a", b"v"]], ["get", ["z"]]]],
        [[["a", "exists", "!=", True]], [], [["increment", ["n", 1]], ["rename", ["a", "b", {"if_absent": True}]]]],
        [[], [["delete", ["a", {"return_previous": True}]], ["exists", ["a"]], ["clear", []]]],
        [[["a", "lease", "=", 0]], [["get", ["a"]]], [], {"fence": 1}],
    ],
    "add_user": [["ann", _VERIFIER, ["app"]], ["ann", None, []], ["token:1", None, []]],
    "remove_user": [["ann"]],
    "set_verifier": [["ann", _VERIFIER], ["ann", None]],
    "set_disabled": [["ann", True]],
    "assign_role": [["ann", "admin"]],
    "withdraw_role": [["ann", "admin"]],
    "add_role": [["app", ["admin"]], ["app", []]],
    "remove_role": [["app"]],
    "add_parent": [["app", "app"]],
    "remove_parent": [["app", "admin"]],
    "add_grant": [["app", ["read", "write"], "a/*"], ["app", ["user_admin"], "*"]],
    "remove_grant": [["app", ["read"], "[a-b]?"]],
    "add_token": [
        ["token:1", _VERIFIER, ["admin"]],
        ["token:1", _VERIFIER, [], {"expires_at_ms": 1, "quota_of": "ann"}],
    ],
    "remove_token": [["token:1"]],
    "set_quota": [["ann", {"keys": 1, "bytes": 2**53 - 1, "claim": "a/"}], ["ann"]],
    "users": [[], [{"after": "a", "limit": 1}]],
    "user": [["ann"]],
    "quota": [["ann"]],
    "roles": [[], [{"limit": 0}]],
    "role": [["admin"], ["app"]],
    "tokens": [[], [{"after": "token:1"}]],
}


def make_arguments() -> Inputs:
    for number, name in enumerate(ALL_METHODS):
        for which, argument in enumerate(_ARGUMENTS[name]):
            yield f"{name}-{which}", bytes((number,)) + pack(argument)
    yield "scan-after", bytes((list(ALL_METHODS).index("scan"),)) + pack([{"after": "b", "glob": "**[!x]", "limit": 0}])
    yield "doubled-option", bytes((1,)) + b"\x93\xa1a\xc4\x00\x82\xa2if\xa6absent\xa2if\xa7present"


def make_commands() -> Inputs:
    writes: list[Write] = [
        Set("a", b"v", 1, "absent", True),
        Delete("a", 1, True),
        SetMany([("a", b"1"), ("b", b"")]),
        DeleteMany(["a", "b"]),
        Increment("a", -1, 5),
        Rename("a", "b", True),
        Clear("c/"),
        Transact([Compare("a", "version", "=", 1)], [Set("a", b"v"), Get("a")], [Exists("b"), Rename("a", "b")]),
        Forget("app", [bytes(16), bytes(range(16))]),
    ]
    verifier = StoredVerifier(bytes(16), 4096, bytes(32), bytes(32))
    access: list[Write] = [
        AddRole("app", ["admin"]),
        AddGrant("app", ["read", "write"], "a/*"),
        AddUser("ann", verifier, ["app"]),
        SetVerifier("ann", None),
        AddToken("token:1", verifier, [], 5, "ann"),
        SetQuota("ann", 1, 2, 3, 4, "a/"),
    ]
    yield "users", encode_commands([Logged(op) for op in access])
    node: list[Write] = [SetMaintenance(True, "move"), SetMaintenance(False), NoteAuditHead(7, bytes(range(32)))]
    yield "node", encode_commands([Logged(op) for op in node])
    yield "newer-permission", pack([[["access.add_grant", "r", ["read", "fly"], "*"], "app"]])
    yield "each", encode_commands([Logged(op) for op in writes])
    yield "with-ids", encode_commands([Logged(op, "app", bytes(16), bytes(32)) for op in writes])
    yield "none", encode_commands([])
    yield "newer-part", pack([[["lease.grant", 1, 2], "app"]])
    yield "newer-field", pack([[["kv.clear", "p", 1], "app"]])
    yield "newer-operation", pack([[["kv.transact", [], [["kv.touch", "a", 1]]], "app"]])
    yield "newer-compare", pack([[["kv.transact", [["a", "lease", "=", 1]], []], "app"]])
    yield "newer-entry", pack([[["kv.clear", "p"], "app", None, None, 1]])


def make_pieces() -> Inputs:
    previous = (b"p" * 100, 3, None)
    answers = [
        ("app", bytes(16), 10, bytes(32), (5, None), None),
        ("app", bytes(range(16)), 10, None, (6, previous), 6),
        ("app", bytes(range(1, 17)), 10, None, (True, 6, ((6, previous), None, previous)), 6),
        ("b", bytes(16), 20, bytes(32), failure(4001, {"key": "a"}, outcome="not_applied"), failure(4001)),
        ("b", bytes(range(16)), 20, bytes(32), 7, None),
    ]
    inputs = {
        "kv-head": pack((5, 1, 2)),
        "kv-rows": pack((("a", "é"), (b"1", b"v" * 50), (2, 5))),
        "requests-head": pack((20, 1)),
        "requests-rows": pack(answers[:1]),
        "leases-head": pack((1,)),
        "leases-rows": pack(((3, 1000, ("b",)),)),
        "access-head": pack((3, 2, 2, 2)),
        "access-rows": pack(ACCESS_ROWS),
        "node-head": pack(NODE_HEAD),
        "quotas-head": pack((2,)),
        "quotas-rows": pack(QUOTA_ROWS),
    }
    for at, (name, data) in enumerate(inputs.items()):
        yield name, bytes((at,)) + data
    yield "requests-large", b"\3" + pack(answers[1:2])
    yield "requests-failure", b"\3" + pack(answers[2:3])
    yield "requests-brief", b"\3" + pack(answers[3:])
    yield "newer-field", b"\0" + pack((5, 1, 2, 0))
    yield "newer-permission", b"\7" + pack((("role", "app", (), None, False, None, (("*", ("fly",)),)),))


def make_log() -> Inputs:
    for durable in (True, False):
        for count, closed in ((0, False), (1, False), (3, False), (3, True)):
            name = f"{'sync' if durable else 'os'}-{count}-{'sealed' if closed else 'active'}"
            segment = _segment(count, durable=durable, closed=closed)
            yield name, bytes((0 if durable else 1,)) + segment
    segment = _segment(3, durable=True, closed=False)
    yield "torn", b"\0" + segment[:200] + bytes(len(segment) - 200)
    yield "damaged", b"\0" + segment[:150] + b"\xff" + segment[151:]
    yield "empty", b"\0"
    yield "zeros", bytes(401)


def _segment(count: int, *, durable: bool, closed: bool) -> bytes:
    """The bytes of a log's first segment, as `Log` writes it but for an id that is not random."""
    header = SegmentHeader(1, bytes(range(16)), KEYRING.newest.id, 1, bytes(16), _SEGMENT_SIZE, durable)
    codec = RecordCipher(header, KEYRING.newest)
    entries = [LogEntry(1, index, 1000 + index, b"payload %d" % index) for index in range(1, count + 1)]
    records = header.encode() + b"".join(codec.encode(entry) for entry in entries)
    return records if closed else records.ljust(_SEGMENT_SIZE, b"\0")


def make_backup() -> Inputs:
    segment = _segment(3, durable=True, closed=True)
    yield "empty", _backup([])
    yield "segments", _backup([("segment", 1, segment), ("segment", 2, segment)])
    yield "snapshot", _backup([("snapshot", 9, b"any bytes"), ("segment", 1, segment)])
    yield "chunks", _backup([("segment", 1, bytes(300))])[:-48]


def _backup(files: list[tuple[Any, int, bytes]]) -> bytes:
    """The bytes of a backup, as `BackupWriter` makes them but for an id that is not random."""
    id_, key = bytes(range(16)), KEYRING.newest
    manifest = Manifest(
        directory_format=2,
        version="1",
        node_id=bytes(16),
        time_ms=1000,
        index=3,
        revision=3,
        entry_time_ms=1003,
        first_segment=1,
        keys=[key.id],
        files=[BackupFile(kind, number, len(content)) for kind, number, content in files],
    )
    digest = Digest(id_, key)
    data = head_of(id_, key, b"the keyring", manifest)
    for number, (_, _, content) in enumerate(files):
        data += chunk_header(id_, number, content) + content
    digest.update(data)
    value = digest.value()
    return data + chunk_header(id_, len(files), value) + value


def make_address() -> Inputs:
    urls = {
        "tcp": "haptera://127.0.0.1:7457",
        "name": "haptera://app@db.example",
        "several": "haptera://a:7457,b,[::1]:0?timeout=2&compression=zstd",
        "password": f"haptera://app:{MARK}@host?name=x",
        "password-with-slash": f"haptera://app:{MARK}/x@host",
        "password-with-at": f"haptera://app:x@{MARK}@host:99999",
        "encoded": f"haptera://a%40b:%2F{MARK}@[fe80::1]",
        "unix": "haptera+unix:///run/haptera.sock",
        "unix-password": f"haptera+unix://app:{MARK}@/run/a%20b.sock?timeout=1",
        "unix-nul": "haptera+unix:///a%00b",
        "doubled-option": f"haptera://u:{MARK}@h?a=1&a=2",
        "fragment": f"haptera://u:{MARK}@h#x",
        "foreign": f"redis://:{MARK}@h",
        "no-scheme": f"u:{MARK}@h",
        "empty": "",
    }
    for name, url in urls.items():
        yield name, url.encode()


# -- identity --------------------------------------------------------------------------------------------------------


def make_scram() -> Inputs:
    """An honest exchange, message by message, and some that are nearly one."""
    one = ScramDialer(identity.USER, identity.BINDING, identity.DIALER_NONCE)
    other = ScramAcceptor(identity.BINDING, identity.ACCEPTOR_NONCE)
    first = one.first()
    other.receive_first(first)
    challenge = other.challenge(identity.VERIFIER, admitted=True)
    one.challenge(challenge)
    final = one.prove(identity.KEYS)
    last = other.receive_final(final)
    yield "client-first", b"\0" + first
    yield "client-first-with-extensions", b"\0" + first + b",x=1,Y=a=b"
    yield "client-first-escaped", b"\0" + first.replace(b"n=app", b"n=a=2C=3Db")
    yield "client-first-to-act-as-another", b"\0" + first.replace(b",,", b",a=root,")
    yield "server-first", b"\1" + challenge
    yield "server-first-with-an-extension", b"\1" + challenge + b",x=1"
    yield "server-first-most-iterations", b"\1" + challenge.replace(b"4096", b"1000000")
    yield "client-final", b"\2" + final
    yield "client-final-of-zeros", b"\2" + final.rpartition(b",p=")[0] + b",p=" + b"A" * 43 + b"="
    yield "client-final-with-an-extension", b"\2" + final.replace(b",p=", b",x=1,p=")
    yield "server-final", b"\3" + last
    yield "server-final-with-an-extension", b"\3" + last + b",x=1"
    yield "server-final-error", b"\3e=other-error"


def make_plain() -> Inputs:
    """Logins, and some that are nearly one."""
    yield "login", b"\0app\0secret words"
    yield "not-ascii", "\0jürgen\0pässwörd".encode()
    yield "to-act-as-another", b"root\0app\0secret words"
    yield "too-many-parts", b"\0app\0a\0b"
    yield "longest", b"\0" + b"n" * 256 + b"\0" + b"p" * 1024


def make_entrance() -> Inputs:
    """Strangers: requests without an exchange, behind one, steps of exchanges, and more than may be kept."""

    def request(stream: int, service: bytes, method: bytes, payload: bytes) -> bytes:
        route = bytes((len(service),)) + service + bytes((len(method),)) + method
        return encode_frame(FrameType.REQUEST, 0, stream, route, payload)

    def step(stream: int, message: bytes, mechanism: str = "SCRAM-SHA-256") -> bytes:
        return request(stream, b"session", b"authenticate", msgspec.msgpack.encode((mechanism, message)))

    first = ScramDialer(identity.USER, identity.BINDING, identity.DIALER_NONCE).first()
    final = b"c=biws,r=" + b"d" * 24 + b"a" * 24 + b",p=" + b"A" * 43 + b"="
    get = b"".join(request(stream, b"kv", b"get", b"x") for stream in (5, 7))
    for name, head in (("plain", b"\0\7"), ("signed", b"\1\7")):
        yield f"{name}-exchange", head + step(1, first) + step(3, final) + get
        yield f"{name}-no-exchange", head + get
        yield f"{name}-swapped", head + step(1, final) + step(3, first)
    yield "failures", b"\0\7" + b"".join(step(stream, b"garbage") for stream in (1, 3, 5))
    yield "mechanisms", b"\0\7" + step(1, b"", "EXTERNAL") + step(3, b"\0app\0x", "PLAIN")
    yield "describe", b"\0\7" + request(1, b"session", b"describe", b"\x90") + step(3, first)
    kept = b"".join(request(stream, b"kv", b"set", bytes(5000)) for stream in range(3, 13, 2))
    yield "kept", b"\0\7" + step(1, first) + kept
    yield "flood", b"\0\7" + b"".join(request(stream, b"kv", b"set", bytes(900)) for stream in range(1, 161, 2))


def make_resp() -> Inputs:
    """Commands of each form, in pipelines, and each kind of fault."""

    def command(*arguments: bytes) -> bytes:
        return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments)

    forms = {
        "get": command(b"GET", b"k"),
        "set": command(b"SET", b"k", b"\r\n$1\r\n", b"EX", b"10"),
        "long": command(b"SET", b"k", b"v" * 1100),
        "many": command(b"MGET", *(b"%d" % number for number in range(80))),
        "inline": b"SET k 'a b' \"\\x41\\n\"\r\nGET k\n\r\n",
        "empty": b"*0\r\n*-1\r\n" + command(b""),
        "patterns": command(b"KEYS", b"a[b-d]*\\??", b"abxyz"),
    }
    faults = [b"*x\r\n", b"*1\r\n$-1\r\n", b"*1\r\nGET\r\n", b"GET 'k\r\n", b"*11\r\n", b"*1\r\n$1073741824\r\n"]
    for name, data in forms.items():
        yield name, b"\0\1" + data
        yield f"{name}-limited", b"\1\2" + data
    yield "pipeline", b"\0\3" + b"".join(forms.values())
    for number, fault in enumerate(faults):
        yield f"fault-{number}", bytes((number & 1, 4)) + forms["get"] + fault


# -- files -----------------------------------------------------------------------------------------------------------


def make_cafe_connections() -> Inputs:
    """The connections of the vectors, as they are and with tags that are made right again."""
    for number, vector in enumerate(make_cafe()):
        sent = [bytes.fromhex(step["hex"]) for step in vector["steps"] if step["from"] == "client"]
        bound, plain, raw = False, b"", b""
        for each in sent:
            plain += cafe_record(4 | (2 if bound else 1), each[:16] + each[48:])
            raw += cafe_record(3, each)
            bound = bound or each[3] == BIND
        options = bytes((int(vector["require_bind"]),))
        yield f"{number:02}-raw", options + raw
        if all(len(each) >= CAFE_HEADER_SIZE for each in sent):
            yield f"{number:02}-tagged", options + plain


MAKERS = {
    "decoder": make_decoder,
    "hello": make_hello,
    "welcome": make_welcome,
    "acceptor": make_acceptor,
    "dialer": make_dialer,
    "signed": make_signed,
    "compression": make_compression,
    "metadata": make_metadata,
    "handshake": make_handshake,
    "arguments": make_arguments,
    "commands": make_commands,
    "pieces": make_pieces,
    "log": make_log,
    "backup": make_backup,
    "address": make_address,
    "scram": make_scram,
    "plain": make_plain,
    "cafe": make_cafe_connections,
    "entrance": make_entrance,
    "resp": make_resp,
}


def make() -> dict[Path, bytes]:
    """Every file of the corpus but those that were found."""
    files: dict[Path, bytes] = {}
    for target, maker in MAKERS.items():
        for name, data in maker():
            path = CORPUS / target / f"{name}.bin"
            assert path not in files
            files[path] = data
    return files


def main() -> None:
    wanted = make()
    for path in CORPUS.glob("*/*.bin"):
        if path not in wanted and not path.name.startswith(FOUND):
            path.unlink()
    for path, data in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
