"""The order of checks at a node, message by message (spec/cafe.md, section 4)."""

from __future__ import annotations

import pytest

from haptera.dialects.cafe.conversation import Conversation
from haptera.dialects.cafe.message_keys import ConnectionKey
from haptera.dialects.cafe.message_reader import MESSAGES_MAX, MessageReader
from haptera.errors import Code, failure
from haptera.wire import Codec
from tools.cafe_vectors import BIND, CLIENT_NONCE, ENCRYPTED, ERR, GET, OK, SET, SHARED_KEY, encrypted, message

KEY = ConnectionKey(SHARED_KEY)
ALL = 1 << 30


def conversation(*, require_bind: bool = False) -> Conversation:
    return Conversation(KEY, require_bind=require_bind, entropy=bytes, codec=Codec())


def codes(talk: Conversation) -> list[tuple[int, int]]:
    """(request_id, code) of the refusals."""
    found = [each for refusal in talk.refusals for each in MessageReader(KEY).receive(refusal)]
    return [(each.request_id, int.from_bytes(each.value[:2], "big")) for each in found if each.opcode == ERR]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        # Each of them would fail in every later step as well.
        (message(9, 0, b"", b"", magic=1, version=2, flags=9, key_len=9999, tag=bytes(32)), 1002),
        (message(9, 0, b"", b"", version=2, flags=9, key_len=9999, tag=bytes(32)), 1001),
        (message(9, 0, b"", b"", flags=9, key_len=9999, tag=bytes(32)), 1004),
        (message(9, 0, b"\xff", b"", flags=9, tag=bytes(32)), 1011),
        (message(9, 0, b"\xff", b"", flags=9), 1008),
        (message(9, 1, b"\xff", b"", flags=9), 1006),
        (message(9, 1, b"\xff", b"", reserved=9), 1006),
        (message(BIND, 1, b"\xff", CLIENT_NONCE, flags=1), 1006),
        (message(9, 1, b"\xff", b""), 2001),
    ],
)
def test_the_first_check_that_fails_decides(data: bytes, code: int) -> None:
    talk = conversation(require_bind=True)
    talk.receive(data)
    assert talk.asked(10, ALL) == []
    assert [found for _, found in codes(talk)] == [code]
    assert talk.ended == (code not in {1008, 1006})


def test_a_refused_message_has_used_its_id_unless_its_id_is_why() -> None:
    talk = conversation()
    talk.receive(message(9, 5) + message(GET, 5, b"a") + message(GET, 4, b"a") + message(GET, 6, b"a"))
    assert [each.request_id for each in talk.asked(10, ALL)] == [6]
    assert codes(talk) == [(5, 1005), (5, 1008), (4, 1008)]


def test_a_bind_that_was_refused_binds_nothing_and_no_later_one_does() -> None:
    talk = conversation(require_bind=True)
    talk.receive(message(BIND, 1, b"", b"short") + message(BIND, 2, b"", CLIENT_NONCE) + message(GET, 3, b"a"))
    assert talk.asked(10, ALL) == []
    assert codes(talk) == [(1, 3003), (2, 1008), (3, 2001)]
    assert talk.ended


def test_messages_before_the_fault_are_done() -> None:
    talk = conversation()
    talk.receive(message(SET, 1, b"a", b"x") + b"rubbish")
    assert [each.request_id for each in talk.asked(10, ALL)] == [1]
    assert talk.asked(10, ALL) == []
    assert (codes(talk), talk.ended) == ([(0, 1002)], True)


def test_commands_are_given_by_number_and_by_size() -> None:
    talk = conversation()
    talk.receive(b"".join(message(SET, each, b"k", bytes(99)) for each in range(1, 1001)))
    found = []
    while talk.more:
        assert talk.held
        some = talk.asked(7, 450)
        assert len(some) == 5
        found += some
    assert [each.request_id for each in found] == list(range(1, 1001))
    assert talk.held == 0


def test_an_unfinished_message_is_expected_with_its_size() -> None:
    talk = conversation()
    whole = message(SET, 1, b"a", bytes(1000))
    talk.receive(whole[:10])
    assert (talk.expected, talk.held) == (48, 10)
    talk.receive(whole[10:100])
    assert (talk.expected, talk.held) == (len(whole), 100)
    talk.receive(whole[100:])
    assert (talk.expected, len(talk.asked(1, ALL))) == (None, 1)


def test_the_reader_gives_so_many_messages_at_once() -> None:
    reader = MessageReader(KEY)
    data = b"".join(message(GET, each, b"k") for each in range(1, MESSAGES_MAX + 11))
    assert len(reader.receive(data)) == MESSAGES_MAX
    assert reader.more
    assert len(reader.receive(b"")) == 10
    assert not reader.more


def test_neither_a_key_nor_a_value_is_in_the_text_of_a_message() -> None:
    (found,) = MessageReader(KEY).receive(message(SET, 1, b"private", b"secret"))
    assert "private" not in repr(found)
    assert "secret" not in repr(found)


def test_the_last_words_belong_to_no_request_and_end_the_conversation() -> None:
    talk = conversation()
    (told,) = MessageReader(KEY).receive(talk.farewell(failure(Code.SHUTTING_DOWN)))
    assert (told.opcode, told.request_id, told.value[:2]) == (ERR, 0, (5005).to_bytes(2, "big"))
    talk.receive(message(GET, 1, b"a"))
    assert talk.asked(10, ALL) == []


def test_a_long_text_of_an_error_is_cut_between_characters() -> None:
    talk = conversation()
    (told,) = MessageReader(KEY).receive(talk.farewell(failure(Code.SHUTTING_DOWN, message="ä" * 2000)))
    assert told.value[2:].decode() == "ä" * 512


def test_an_answer_is_encrypted_as_its_request_was() -> None:
    talk = conversation()
    talk.receive(encrypted(GET, 1, bytes(12), b"a", key=SHARED_KEY) + message(GET, 2, b"a"))
    hidden, plain = talk.asked(10, ALL)
    answers = [MessageReader(KEY).receive(talk.answer(each, (b"value", 1, None)))[0] for each in (hidden, plain)]
    assert [(each.opcode, each.flags) for each in answers] == [(OK, ENCRYPTED), (OK, 0)]
    assert b"value" not in answers[0].value


def test_nothing_more_comes_once_the_conversation_has_ended() -> None:
    talk = conversation(require_bind=True)
    talk.receive(message(GET, 1, b"a") + message(GET, 2, b"a"))
    assert talk.asked(10, ALL) == []
    assert (talk.ended, talk.more) == (True, False)


def test_the_reader_gives_nothing_behind_a_fault() -> None:
    reader = MessageReader(KEY)
    assert reader.receive(message(GET, 1, b"a", tag=bytes(32))) == []
    assert reader.error is not None
    assert reader.error.code == 1011
    assert reader.receive(message(GET, 2, b"a")) == []
    assert (reader.held, reader.more, reader.refused_id) == (0, False, 1)
