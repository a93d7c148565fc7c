"""JSON: one object a line, as `haptera export` writes them, and the exports of other stores.

A file that begins with ``[``, or as the answer of `etcdctl get -w json` does, is one document; else each line is an
object.
The members of an object tell its kind:

- ours: ``key``, ``value`` (text) or ``value_base64``, and ``expires_at``; ``version`` is passed over
- a row of Redis, as RIOT and redis-dump write it: ``key``, ``type``, ``value``
- an entry of `consul kv export` or of Consul's HTTP API: ``key``, ``flags``, ``value`` in base64
- a pair of etcd: ``key`` and ``value`` in base64, ``mod_revision``
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.cli.transfer.errors import BadRow
from haptera.cli.transfer.json_array import Document
from haptera.cli.transfer.unpacked_lines import Lines, Source

if TYPE_CHECKING:
    from haptera.cli.transfer.columns import Row, Rows, Wanted

_ETCD: Final = re.compile(rb'\s*\{\s*"(?:header|kvs)"\s*:')
_decode_line = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

EXPIRES: Final = "the entry expires, and the row does not say when"


def json_rows(source: Source, wanted: Wanted, start: bytes) -> Rows:
    """The rows of a file that begins with ``start``."""
    if wanted.key is None and _ETCD.match(start):
        return _Documents(source, wanted, etcd=True)
    if start.lstrip().startswith(b"["):
        return _Documents(source, wanted, etcd=False)
    return _ObjectLines(source, wanted)


class _ObjectLines:
    unit = "line"

    def __init__(self, source: Source, wanted: Wanted) -> None:
        self._lines = Lines(source)
        self._wanted = wanted

    @property
    def number(self) -> int:
        return self._lines.number

    def __iter__(self) -> Iterator[Row | str]:
        comment = self._wanted.comment
        while line := self._lines.read():
            if comment is not None and line.startswith(comment):
                continue
            try:
                found = _decode_line(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                yield f"not JSON: {error}"
            except RecursionError:
                yield "it is nested too deeply"
            else:
                yield _row(found, self._wanted)


class _Documents:
    unit = "item"

    def __init__(self, source: Source, wanted: Wanted, *, etcd: bool) -> None:
        self._document = Document(source)
        self._wanted = wanted
        self._etcd = etcd

    @property
    def number(self) -> int:
        return self._document.number

    def __iter__(self) -> Iterator[Row | str]:
        document = self._document
        while document.next_char():
            if not self._etcd:
                for item in document.items():
                    yield _row(item, self._wanted)
                continue
            for member in document.members():
                if member == "kvs" and document.next_char() == "[":
                    for item in document.items():
                        yield _row(item, self._wanted)
                else:
                    document.value()


def _row(found: Any, wanted: Wanted) -> Row | str:
    if not isinstance(found, dict):
        return "not an object with a key and a value"
    try:
        if wanted.key is not None or wanted.value is not None:
            return _text(_member(found, wanted.key or "key")), _as_text(_member(found, wanted.value or "value"))
        return _known(found)
    except BadRow as bad:
        return str(bad)
    except UnicodeEncodeError:
        return "text with a lone surrogate, which no encoding has"


def _known(found: dict[str, Any]) -> Row:
    if "mod_revision" in found:
        if found.get("lease"):
            raise BadRow(EXPIRES)
        return _base64(found.get("key")), _base64(found.get("value", ""))
    if "flags" in found or "Flags" in found:
        lower = "key" in found  # the command writes lower case, the HTTP API capitals
        value = found.get("value" if lower else "Value")
        return _text(found.get("key" if lower else "Key")), b"" if value is None else _base64(value)
    key = _text(_member(found, "key"))
    if "type" in found:
        return key, _of_redis(found)
    expires_at = found.get("expires_at")
    if expires_at is not None and (isinstance(expires_at, bool) or not isinstance(expires_at, int | float)):
        raise BadRow("expires_at is not a number of seconds")
    if ("value" in found) == ("value_base64" in found):
        raise BadRow("value or value_base64 is needed, and not both")
    return key, _base64(found["value_base64"]) if "value_base64" in found else _text(found["value"]), expires_at


def _of_redis(found: dict[str, Any]) -> bytes:
    kind = str(found["type"]).lower()
    if kind not in {"string", "json", "rejson-rl"}:
        raise BadRow(f"a Redis {kind}: of Redis only strings are stored")
    ttl = found.get("ttl")
    if isinstance(ttl, int | float) and ttl > 0:
        raise BadRow(EXPIRES)
    return _text(_member(found, "value"))


def _member(found: dict[str, Any], name: str) -> Any:
    if name not in found:
        raise BadRow(f"no {name!r} in the object")
    return found[name]


def _text(value: object) -> bytes:
    if not isinstance(value, str):
        raise BadRow(f"text is needed, not {json.dumps(value)[:40]}")
    return value.encode()


def _as_text(value: object) -> bytes:
    """Text as it is, anything else as the JSON that stood there."""
    return value.encode() if isinstance(value, str) else _encode(value)


def _base64(value: object) -> bytes:
    if not isinstance(value, str):
        raise BadRow(f"base64 is needed, not {json.dumps(value)[:40]}")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        raise BadRow("a value that is not base64") from None
