"""CAFE under arbitrary cuts, damage and repetition (spec/cafe.md)."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from haptera.dialects.cafe.bodies import message, opened, packed, unpacked
from haptera.dialects.cafe.conversation import Conversation
from haptera.dialects.cafe.message_keys import ConnectionKey
from haptera.dialects.cafe.message_reader import MessageReader
from haptera.dialects.cafe.messages import ENCRYPTED, Message
from haptera.wire import Codec
from tools.cafe_vectors import BIND, DEL, GET, SET, SHARED_KEY
from tools.cafe_vectors import message as specified

KEY = ConnectionKey(SHARED_KEY)
NAMES = st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text).map(str.encode)
REQUESTS = st.lists(st.tuples(st.sampled_from((GET, SET, DEL)), NAMES, st.binary(max_size=60)), min_size=1, max_size=8)
CUTS = st.lists(st.integers(0, 2000), max_size=12)


def conversation() -> Conversation:
    return Conversation(KEY, require_bind=False, entropy=bytes, codec=Codec())


def sent(requests: list[tuple[int, bytes, bytes]]) -> list[bytes]:
    """The messages of a connection, with rising ids."""
    return [
        specified(opcode, number, name, value if opcode == SET else b"")
        for number, (opcode, name, value) in enumerate(requests, 1)
    ]


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(each % (len(data) + 1) for each in cuts)})
    return [data[start:stop] for start, stop in pairwise(places)]


def read(data: list[bytes], messages_max: int = 256) -> tuple[list[Message], tuple[int, int] | None]:
    reader = MessageReader(KEY)
    found: list[Message] = []
    for piece in data:
        found += reader.receive(piece, messages_max)
        while reader.more:
            found += reader.receive(b"", messages_max)
        assert reader.held <= sum(map(len, data))
    return found, None if reader.error is None else (reader.error.code, reader.refused_id)


@given(REQUESTS, CUTS, st.integers(1, 5))
def test_any_cut_of_the_bytes_gives_the_same_messages(
    requests: list[tuple[int, bytes, bytes]], cuts: list[int], messages_max: int
) -> None:
    data = b"".join(sent(requests))
    found = read([data])
    assert [(each.opcode, each.key) for each in found[0]] == [(opcode, name) for opcode, name, _ in requests]
    assert read(cut(data, cuts), messages_max) == found


@given(REQUESTS, st.data())
def test_a_flipped_bit_of_any_message_is_noticed_and_nothing_behind_it_is_believed(
    requests: list[tuple[int, bytes, bytes]], data: st.DataObject
) -> None:
    messages = sent(requests)
    place = data.draw(st.integers(0, len(messages) - 1))
    bit = data.draw(st.integers(0, 8 * len(messages[place]) - 1))
    damaged = bytearray(messages[place])
    damaged[bit // 8] ^= 1 << bit % 8
    talk = conversation()
    talk.receive(b"".join([*messages[:place], bytes(damaged), *messages[place + 1 :]]))
    asked = talk.asked(100, 1 << 20)
    assert [each.request_id for each in asked] == list(range(1, place + 1))
    # A length that became greater may wait for bytes that never come; nothing else goes on.
    longer = 80 <= bit < 128
    assert talk.ended or longer
    assert len(talk.refusals) == (1 if talk.ended else 0)
    talk.receive(b"".join(messages))
    assert talk.ended or longer
    assert not talk.asked(100, 1 << 20)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20))
def test_only_rising_ids_are_done(ids: list[int]) -> None:
    talk = conversation()
    talk.receive(b"".join(specified(GET, each, b"k") for each in ids))
    done = [each.request_id for each in talk.asked(100, 1 << 20)]
    expected: list[int] = []
    for each in ids:
        if each > (expected[-1] if expected else 0):
            expected.append(each)
    assert done == expected
    assert len(talk.refusals) == len(ids) - len(expected)
    assert not talk.ended


@given(NAMES, st.one_of(st.binary(max_size=40), st.integers(0, 5000).map(bytes)), st.booleans(), st.booleans())
def test_a_body_comes_out_as_it_went_in(name: bytes, value: bytes, encrypts: bool, compresses: bool) -> None:
    codec = Codec()
    flags, sent_value = packed(codec, value) if compresses else (0, value)
    flags |= ENCRYPTED if encrypts else 0
    data = message(KEY, SET, 7, flags, name, sent_value, nonce=bytes(12))
    ((found,), fault) = read([data])
    assert fault is None
    got_name, got_value = opened(KEY, found)
    assert (got_name, unpacked(codec, found.flags, got_value)) == (name, value)
    if encrypts and len(name) > 3:
        assert name not in data


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_each_nonce_changes_the_key(client: bytes, server: bytes) -> None:
    keys = [KEY, KEY.bound(client, server), KEY.bound(server, client)]
    tags = {each.tag(b"head", b"body") for each in keys}
    assert len(tags) == (3 if client != server else 2)


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_a_fault(data: bytes) -> None:
    talk = conversation()
    talk.receive(data)
    assert not talk.asked(100, 1 << 20)
    assert talk.held <= len(data)
    talk = conversation()
    talk.receive(specified(BIND, 1, b"", bytes(16)) + data)
    assert not talk.asked(100, 1 << 20)
