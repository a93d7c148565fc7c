"""JSON of our own and of other stores."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest

from haptera.cli.transfer import json_array
from haptera.cli.transfer.columns import Wanted
from haptera.cli.transfer.errors import BadFile
from haptera.cli.transfer.row_batches import Reader


def items(data: bytes, **wanted: Any) -> list[tuple[str, bytes]]:
    batches = Reader(io.BytesIO(data), "-", Wanted(**wanted), form=None).batches()
    return [item for batch in batches for item in batch.items]


def of(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_objects_of_our_own() -> None:
    rows = of(
        {"key": "a", "value": "text ü\n", "version": 3, "expires_at": None},
        {"key": "b", "value_base64": "/w=="},
        {"key": "c", "value": ""},
    )
    assert items(rows) == [("a", "text ü\n".encode()), ("b", b"\xff"), ("c", b"")]
    assert items(b"[" + rows.strip().replace(b"\n", b",\n") + b"]") == items(rows)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"key": "k"}, "value or value_base64 is needed, and not both"),
        ({"key": "k", "value": "v", "value_base64": "dg=="}, "and not both"),
        ({"value": "v"}, "no 'key' in the object"),
        ({"key": 1, "value": "v"}, "text is needed, not 1"),
        ({"key": "k", "value": 1}, "text is needed, not 1"),
        ({"key": "k", "value_base64": "?"}, "a value that is not base64"),
        ({"key": "k", "value": "v", "expires_at": "soon"}, "expires_at is not a number"),
        ({"key": "k", "value": "v", "expires_at": True}, "expires_at is not a number"),
        ({"key": "k", "type": "hash", "value": {}}, "a Redis hash: of Redis only strings are stored"),
        ({"key": "k", "type": "string", "ttl": 5, "value": "v"}, "the entry expires"),
        ({"key": "aw==", "value": "dg==", "mod_revision": 1, "lease": 7}, "the entry expires"),
        ({"key": "k", "flags": 0, "value": 5}, "base64 is needed"),
        ([1], "not an object"),
        ({"key": "\ud800", "value": "v"}, "not JSON|lone surrogate"),
    ],
)
def test_objects_that_are_no_rows(row: Any, reason: str) -> None:
    with pytest.raises(BadFile, match=f"line 2: .*({reason})"):
        items(of({"key": "a", "value": ""}, row))
    with pytest.raises(BadFile, match=f"item 1: .*({reason})"):
        items(b"[" + of(row) + b"]")


def test_columns_name_members() -> None:
    rows = of({"id": "a", "n": 5, "tags": ["x"]}, {"id": "b", "n": 6, "tags": []})
    assert items(rows, key="id", value="n") == [("a", b"5"), ("b", b"6")]
    assert items(rows, key="id", value="tags") == [("a", b'["x"]'), ("b", b"[]")]
    with pytest.raises(BadFile, match="no 'name' in the object"):
        items(rows, key="name")


def test_etcd() -> None:
    """What `etcdctl get --prefix '' -w json` prints: keys and values in base64, an empty value left out."""
    pairs = [
        {"key": b64(b"a\tb"), "create_revision": 2, "mod_revision": 4, "version": 1, "value": b64(b"\xff")},
        {"key": b64(b"empty"), "create_revision": 3, "mod_revision": 3, "version": 1},
    ]
    header = {"cluster_id": 14841639068965178418, "member_id": 1, "revision": 4, "raft_term": 2}
    assert items(of({"header": header, "kvs": pairs, "count": 2})) == [("a\tb", b"\xff"), ("empty", b"")]
    assert len(items(of({"header": header, "kvs": pairs, "more": True, "count": 5}) * 2)) == 4


@pytest.mark.parametrize("indent", [None, "\t"])
def test_consul(indent: str | None) -> None:
    """What `consul kv export` prints, and what the HTTP API answers to `/v1/kv/?recurse`."""
    exported = [{"key": "a/", "flags": 0, "value": ""}, {"key": "a/b", "flags": 42, "value": b64(b"\xff\n")}]
    assert items(json.dumps(exported, indent=indent).encode()) == [("a/", b""), ("a/b", b"\xff\n")]
    answered = [{"LockIndex": 0, "Key": "a", "Flags": 0, "Value": None, "CreateIndex": 1, "ModifyIndex": 1}]
    assert items(json.dumps(answered, indent=indent).encode()) == [("a", b"")]


def test_redis() -> None:
    """What `riot file-export` and `redis-dump` write of strings."""
    rows = of(
        {"key": "a", "type": "string", "ttl": -1, "value": "v", "memoryUsage": 300},
        {"db": 0, "key": "b", "ttl": -1, "type": "string", "value": "w", "size": 1},
    )
    assert items(rows) == [("a", b"v"), ("b", b"w")]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[1, 2", "item 1: not an object"),
        (b'[{"key":"a","value":"b"}', r"item 2: the end where , or \] belongs"),
        (b'[{"key":"a","value":"b"} {', r"item 2: '\{' where , or \] belongs"),
        (b'[{"key":"a","value":"b', "item 2: not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"header":{"revision":1},"kvs":[{"key":', "item 2: not JSON"),
        (b'{"key":"a","value":"b"', "line 1: not JSON"),
        (b"[\xff", "not UTF-8|not JSON"),
    ],
)
def test_documents_that_are_broken(data: bytes, reason: str) -> None:
    with pytest.raises(BadFile, match=reason):
        items(data)


def test_a_document_is_read_item_by_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document may be larger than memory; one item may not be larger than a row can be."""
    count = 100_000
    rows = b",".join(b'{"key":"k%d","value":"%s"}' % (n, b"v" * 20) for n in range(count))
    batches = Reader(io.BytesIO(b"[" + rows + b"]"), "-", Wanted(), form=None).batches()
    first = next(batches)
    assert first.position < len(rows) / 4
    assert len(first.items) + sum(len(batch.items) for batch in batches) == count
    monkeypatch.setattr(json_array, "ITEM_SIZE_MAX", 1_000_000)
    with pytest.raises(BadFile, match="an item of more than 1000000 characters"):
        items(b'[{"key":"a","value":"' + b"x" * 5_000_000 + b'"}]')
