"""The lines of the audit log and their chain (spec/audit.md, sections 2 and 5)."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import google_crc32c
import msgspec
import pytest

from haptera.node.audit.chain import BEGINNING, LINE_SIZE_MAX, Head, read_line, sealed
from haptera.node.audit.event import AuditCaller, AuditEvent
from haptera.node.audit.event_line import TEXT_MAX, fields_of, hashed_keys, plain_key
from tests.unit.node.audit.logs import event

ROOT = Path(__file__).parents[4]


def line_of(made: AuditEvent, before: Head = BEGINNING) -> bytes:
    return sealed(fields_of(made, plain_key), before)[0]


def test_a_line_has_the_bytes_that_the_specification_shows() -> None:
    shown = re.findall(r'^    (\{"sequence".*\})$', (ROOT / "spec/audit.md").read_text(), re.MULTILINE)
    caller = AuditCaller("551a5b77871bd92f9aad02eb73a7258f", "unix")
    first, head = sealed(
        fields_of(AuditEvent(time_ms=1795985664509, kind="log", method="audit.begun"), plain_key), BEGINNING
    )
    second, _ = sealed(fields_of(event(1795985664509, caller=caller, key="a", latency_us=41848), plain_key), head)
    assert [first.decode(), second.decode()] == shown


def test_a_line_can_be_verified_with_nothing_but_a_hash_and_a_checksum() -> None:
    first, head = sealed({"a": 1}, BEGINNING)
    second, _ = sealed({"b": "ü"}, head)
    assert msgspec.json.decode(second)["previous"] == hashlib.sha256(first).hexdigest()
    body, _, rest = second.partition(b',"check"')
    assert rest == b':"%08x"}' % google_crc32c.value(body)


def test_a_line_says_its_sequence_and_the_line_before_it() -> None:
    line, head = sealed({"a": 1}, Head(4, bytes(range(32))))
    assert read_line(line) == (head, bytes(range(32)))
    assert head == (5, hashlib.sha256(line).digest())


@pytest.mark.parametrize("at", [0, 12, 20, -1, -5, -40, -100])
def test_a_line_with_another_byte_is_no_line(at: int) -> None:
    line = bytearray(line_of(event()))
    line[at] ^= 1
    assert read_line(bytes(line)) is None


def test_text_of_a_peer_cannot_end_its_line_or_look_like_a_field() -> None:
    hostile = 'x\n\r\x00\x1b[2J\x7f\x85\u2028"}\n{"sequence":1,"previous":"' + "0" * 64
    line = line_of(event(key=hostile, caller=AuditCaller(user=hostile), detail={"reason": hostile}))
    assert re.fullmatch(rb"[\x20-\x7e]*", line)
    assert read_line(line) is not None
    assert msgspec.json.decode(line)["key"] == hostile


def test_long_text_is_cut_and_a_line_stays_within_its_bound() -> None:
    long = "\U0001f600" * 4096
    made = event(
        key=long, target=long, method=long, caller=AuditCaller(long, long, long, long), detail={"reason": long}
    )
    line = line_of(made)
    assert len(line) < LINE_SIZE_MAX
    fields = msgspec.json.decode(line)
    assert (fields["key"], fields["key_size"]) == (long[:TEXT_MAX], 4 * 4096)
    assert fields["user"] == fields["target"] == fields["detail"]["reason"] == long[:TEXT_MAX]


def test_a_field_that_says_nothing_is_left_out() -> None:
    made = AuditEvent(time_ms=1, kind="log", method="audit.begun")
    assert list(fields_of(made, plain_key)) == ["time", "kind", "method", "outcome", "code"]


def test_hashed_keys_are_equal_where_the_keys_are_and_do_not_show_them() -> None:
    form = hashed_keys(b"s" * 32, "0a0b")
    first, second, other = (fields_of(event(key=key), form)["key_hash"] for key in ("k1", "k1", "k2"))
    assert first == second != other
    assert first.startswith("0a0b:")
    assert "key" not in fields_of(event(key="k1"), form)
    assert hashed_keys(b"t" * 32, "0a0b")("k1") != form("k1")


def test_a_head_is_read_as_it_is_written() -> None:
    head = Head(12, bytes(range(32)))
    assert Head.parse(str(head)) == head


@pytest.mark.parametrize("text", ["", "1", "0:" + "0" * 64, "1:" + "A" * 64, "1:" + "0" * 63, f"{2**53}:" + "0" * 64])
def test_a_text_that_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SEQUENCE:HASH"):
        Head.parse(text)
