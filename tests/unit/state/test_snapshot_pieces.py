"""The state in pieces: what is refused, and that a machine made of them goes on as the one that was dumped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.errors import Code, Failure, failure
from haptera.key_rules import EXPIRY_MAX_MS, KEY_SIZE_MAX, VALUE_SIZE_MAX, VERSION_MAX
from haptera.state import Logged, MalformedPieces, Replayed, StateMachine, UnknownPart, dump_pieces, limits, load_pieces
from haptera.state.operations import (
    Clear,
    Delete,
    Expire,
    Get,
    GetAndDelete,
    GetAndExpire,
    Increment,
    OpenScan,
    Rename,
    Set,
    SetMany,
    TimeToLive,
    Transact,
)
from haptera.state.piece_decoding import PIECE_SIZE
from haptera.state.requests import Remembered
from tests.unit.state.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from haptera.state import Write

Pieces = list[tuple[str, bytes]]

pack = msgspec.msgpack.encode
DIGEST = b"d" * 32


def request_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def loaded(machine: StateMachine) -> Store:
    again = load_pieces(dump_pieces(machine), index=machine.index, time_ms=machine.time_ms)
    again.check()
    assert again.digest() == machine.digest()
    return as_store(again, machine)


def as_store(again: StateMachine, machine: StateMachine) -> Store:
    """The machine as the tests drive it: with all that it has, and at the time of the other."""
    store = Store()
    for name in StateMachine.__slots__:
        setattr(store, name, getattr(again, name))
    store.now_ms = getattr(machine, "now_ms", store.now_ms)
    return store


def busy_store() -> Store:
    """Keys of all sizes, and answers of every form: small, large, reduced, failed."""
    store = Store()
    store.do(Set("gone", b"x"))
    store.do(Clear())
    store.do(SetMany([(f"key/{number}", b"v" * number) for number in range(300)]))
    store.do(Set("é/\U0001f600", b"\0\xff"))
    store.do(Set("large", b"l" * 5000))
    store.do(Set("old", b"o" * 200))
    store.do(Set("n", b"1"), "ann", request_id(1), DIGEST)
    store.do(Increment("n", 41), "bob", request_id(1), DIGEST)
    store.do(Set("old", b"new", return_previous=True), "ann", request_id(2), DIGEST)
    store.do(Set("large", b"new", return_previous=True), "ann", request_id(3), DIGEST)
    store.do(Delete("old", return_previous=True), "ann", request_id(4), b"e" * 32)
    store.do(Set("n", b"2", 1), "ann", request_id(5), DIGEST, resent=True)
    store.do(Rename("none", "n"), "ann", request_id(6), DIGEST, resent=True)
    store.wait(1000)
    return store


def test_a_new_machine_comes_back() -> None:
    again = loaded(StateMachine())
    assert (again.index, again.time_ms, again.revision) == (0, 0, 0)
    assert again.scan() == []


def test_all_of_a_busy_machine_comes_back() -> None:
    store = busy_store()
    again = loaded(store)
    assert (again.index, again.time_ms, again.revision) == (store.index, store.time_ms, store.revision)
    assert again.kv.cleared_at == store.kv.cleared_at == 2
    assert again.scan() == store.scan()
    assert list(again.requests.rows()) == list(store.requests.rows())
    assert again.requests.size == store.requests.size > 200


def test_remembered_answers_are_given_again_in_the_same_form() -> None:
    """Previous entries are tuples, as they were, and not the lists that a decoder makes of arrays."""
    store = busy_store()
    again = loaded(store)
    for number in range(1, 8):
        op = Set("other", b"")
        for user in ("ann", "bob"):
            results = [
                machine.do(op, user, request_id(number), b"e" * 32 if number == 4 else DIGEST)
                for machine in (store, again)
            ]
            assert results[0] == results[1]
            assert repr(results[0]) == repr(results[1])
    assert again.digest() == store.digest()
    assert isinstance(again.do(Set("x", b""), "ann", request_id(1), DIGEST), Replayed)
    kept = again.do(Set("x", b""), "ann", request_id(3), DIGEST)
    assert isinstance(kept, Failure)
    assert kept.code == Code.ANSWER_NOT_KEPT


def test_answers_expire_at_the_same_entry() -> None:
    store = busy_store()
    again = loaded(store)
    for _ in range(12):
        for machine in (store, again):
            machine.wait(60_000)
        assert again.digest() == store.digest()
    assert len(again.requests) == 0


def test_large_answers_give_way_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    store = busy_store()
    again = loaded(store)
    monkeypatch.setattr(limits, "ANSWERS_SIZE_PER_USER_MAX", 600)
    for number in range(10, 20):
        for machine in (store, again):
            machine.do(Set("old", b"%d" % number * 100, return_previous=True), "ann", request_id(number), DIGEST)
        assert again.digest() == store.digest()


def test_keys_keep_the_time_at_which_they_expire() -> None:
    store = busy_store()
    kv = store.kv
    kv.revision += 1
    kv._put("key/7", b"soon", kv.revision, kv.entries.get("key/7"), 12_345)
    again = loaded(store)
    assert again.kv.entries.get("key/7") == (b"soon", kv.revision, 12_345)
    assert again.kv.entries.get("key/8") == store.kv.entries.get("key/8")


def test_the_column_of_expiries_is_left_out_where_no_key_expires() -> None:
    """So an older version reads the snapshot of a store without a time to live."""
    store = busy_store()
    assert all(len(columns) == 3 for columns in kv_columns(store))
    store.kv._put("key/7", b"soon", 5, store.kv.entries.get("key/7"), 12_345)
    assert [len(columns) for columns in kv_columns(store)] == [4]


def kv_columns(store: StateMachine) -> list[list[Any]]:
    return [msgspec.msgpack.decode(piece) for section, piece in dump_pieces(store) if section == "kv"][1:]


def test_a_dump_is_the_same_for_equal_states() -> None:
    """Whatever the history and the hashes of the process: the keys stand in their order."""
    first, second = Store(), Store()
    first.do(SetMany([("a", b""), ("b", b""), ("c", b"")]))
    second.do(SetMany([("c", b""), ("b", b""), ("a", b"")]))
    pieces = list(dump_pieces(first))
    assert pieces == list(dump_pieces(loaded(first)))
    assert _of_the_state(pieces) == _of_the_state(dump_pieces(second))


def _of_the_state(pieces: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The pieces without the events, whose order is that in which a change was made."""
    return [piece for piece in pieces if piece[0] != "events"]


def test_the_keys_that_only_a_reader_still_sees_are_left_out() -> None:
    store = busy_store()
    cursor = store.cursor(OpenScan())
    store.do(Delete("key/7"))
    again = loaded(store)
    assert again.value("key/7") is None
    assert len(again.kv.index.ghosts) == 0
    cursor.close()


def test_pieces_have_a_size_that_memory_and_turns_can_bear() -> None:
    store = Store()
    items = [(f"{number:06}", bytes(100)) for number in range(30_000)]
    store.apply(1, 0, [Logged(SetMany(items)), Logged(Set("x", bytes(VALUE_SIZE_MAX)))])
    sizes = [len(piece) for section, piece in dump_pieces(store) if section == "kv"][1:]
    assert len(sizes) > 10
    assert all(PIECE_SIZE * 9 // 10 < size < PIECE_SIZE * 2 for size in sizes[:-1])
    assert VALUE_SIZE_MAX < sizes[-1] < VALUE_SIZE_MAX + PIECE_SIZE
    loaded(store)


def test_many_answers_are_several_pieces() -> None:
    store = Store()
    change = Set("a", bytes(2000), return_previous=True)
    store.apply(1, 0, [Logged(change, "ann", request_id(number), DIGEST) for number in range(400)])
    sizes = [len(piece) for section, piece in dump_pieces(store) if section == "requests"]
    assert len(sizes) > 3
    assert max(sizes) < PIECE_SIZE * 2
    loaded(store)


KV: Pieces = [("kv", pack([5, 1, 2])), ("kv", pack([["a", "b"], [b"1", b"2"], [2, 5]]))]
SMALL = ["ann", request_id(1), 10, DIGEST, [5, None], None]
LARGE = ["ann", request_id(2), 20, DIGEST, [6, [b"p" * 100, 3, None]], 6]
REQUESTS: Pieces = [("requests", pack([20, 2])), ("requests", pack([SMALL, LARGE]))]


def load(pieces: Pieces) -> StateMachine:
    return load_pieces(iter(pieces), index=9, time_ms=20)


def rows(keys: Any, values: Any = None, versions: Any = None, *expiries: Any) -> Pieces:
    """A kv section of one piece of rows, with values and versions that fit unless others are given, and with a column
    of expiries if one is.
    """
    values = [b""] * len(keys) if values is None else values
    versions = [2] * len(keys) if versions is None else versions
    return [("kv", pack([5, 1, len(keys)])), ("kv", pack([keys, values, versions, *expiries])), *REQUESTS]


def answers(*found: Any, clock_ms: int = 20) -> Pieces:
    return [*KV, ("requests", pack([clock_ms, len(found)])), ("requests", pack(list(found)))]


def changed(answer: list[Any], place: int, to: Any) -> list[Any]:
    return [*answer[:place], to, *answer[place + 1 :]]


def test_the_pieces_that_the_refusals_are_made_of_are_accepted() -> None:
    machine = load([*KV, *REQUESTS])
    machine.check()
    assert (machine.index, machine.time_ms, machine.revision, len(machine.requests)) == (9, 20, 5, 2)
    load([*REQUESTS, *KV]).check()
    load(rows(["a", "é", "\U0001f600"])).check()
    load(rows(["a", "b"], None, None, [None, EXPIRY_MAX_MS])).check()
    load(rows(["a", "b"], None, None, [None, None])).check()
    load(answers(changed(SMALL, 4, [b"p", 3, None, 5]))).check()
    load(answers(changed(SMALL, 4, [b"p", 3, 9]))).check()
    load(answers(changed(SMALL, 4, [True, 3, [[4, [b"p", 3, None]], None, [b"p", 3, 9], [True]]]))).check()


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        KV,
        REQUESTS,
        [*KV, *REQUESTS, *KV],
        [*REQUESTS, *KV, REQUESTS[1]],
        [KV[1], KV[0], *REQUESTS],
        [KV[0], *REQUESTS],
        [KV[0], KV[1], KV[1], *REQUESTS],
        [*KV, REQUESTS[0]],
        [*KV, ("requests", pack([-1, 0]))],
        [("kv", b""), *REQUESTS],
        [("kv", b"\xc1"), *REQUESTS],
        [("kv", b"\x91" * 5000), *REQUESTS],
        [("kv", pack([5, 1, 2]) + b"\0"), KV[1], *REQUESTS],
        [("kv", pack([-1, 0, 0])), *REQUESTS],
        [("kv", pack([5, 6, 0])), *REQUESTS],
        [("kv", pack([VERSION_MAX + 1, 0, 0])), *REQUESTS],
        rows([]),
        rows([""]),
        rows(["a\0"]),
        rows(["a", "é\0"]),
        rows(["k" * (KEY_SIZE_MAX + 1)]),
        rows(["é" * (KEY_SIZE_MAX // 2 + 1)]),
        rows([1]),
        rows(["b", "a"]),
        rows(["a", "a"]),
        rows(["a"], [bytes(VALUE_SIZE_MAX + 1)]),
        rows(["a"], ["text"]),
        rows(["a"], [b"", b""]),
        rows(["a"], None, [2, 2]),
        rows(["a"], None, [6]),
        rows(["a"], None, [1]),
        rows(["a"], None, [0]),
        rows(["a"], None, None, []),
        rows(["a"], None, None, [1, 2]),
        rows(["a"], None, None, [0]),
        rows(["a"], None, None, [-1]),
        rows(["a", "b"], None, None, [None, EXPIRY_MAX_MS + 1]),
        rows(["a"], None, None, [1.5]),
        rows(["a"], None, None, ["1"]),
        [("kv", pack([5, 1, 2])), *rows(["b"])[1:2], *rows(["a"])[1:2], *REQUESTS],
        answers(SMALL, SMALL),
        answers(LARGE, SMALL),
        answers(LARGE, clock_ms=19),
        answers(changed(SMALL, 1, b"short")),
        answers(changed(SMALL, 2, -1)),
        answers(changed(SMALL, 3, b"short")),
        answers(changed(SMALL, 4, -1)),
        answers(changed(SMALL, 4, "text")),
        answers(changed(SMALL, 4, [[b"p", 3]])),
        answers(changed(SMALL, 4, [[b"p", 3, None, None]])),
        answers(changed(SMALL, 4, [True, 3, [4]])),
        answers(changed(SMALL, 4, [True, 3, [[b"p", 3, [b"p", 3]]]])),
        answers(changed(SMALL, 4, [1, 3, [[4, None]]])),
        answers(changed(SMALL, 4, [True, 3, [[4, [b"p", "3", None]]]])),
        answers(changed(SMALL, 4, [True, 3, [[4, [[b"p"], 3, None]]]])),
        answers(changed(SMALL, 5, 5)),
        answers(changed(LARGE, 5, None)),
        answers(changed(LARGE, 4, 6)),
        answers(changed(LARGE, 4, [6, [bytes(limits.ANSWER_SIZE_MAX), 3, None]])),
    ],
)
def test_pieces_of_no_state_are_refused(pieces: Pieces) -> None:
    with pytest.raises(MalformedPieces):
        load(pieces)


def test_a_user_with_too_many_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWERS_PER_USER_MAX", 1)
    with pytest.raises(MalformedPieces):
        load([*KV, *REQUESTS])
    load(answers(SMALL, changed(LARGE, 0, "bob")))


@pytest.mark.parametrize("name", ["ANSWERS_SIZE_PER_USER_MAX", "ANSWERS_SIZE_MAX"])
def test_large_answers_beyond_their_budget_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(limits, name, 200)
    load([*KV, *REQUESTS])
    with pytest.raises(MalformedPieces):
        load(answers(SMALL, LARGE, changed(LARGE, 1, request_id(3))))


def test_a_section_of_a_newer_version_is_named() -> None:
    with pytest.raises(
        UnknownPart, match="'locks' is not known: the snapshot was written by a newer version"
    ) as caught:
        load([*KV, *REQUESTS, ("locks", b"")])
    assert caught.value.part == "locks"


@pytest.mark.parametrize(
    "pieces",
    [
        [("kv", pack([5, 1, 2, 0])), KV[1], *REQUESTS],
        [KV[0], ("kv", pack([["a"], [b""], [1], [None], [None]])), *REQUESTS],
        [*KV, ("requests", pack([20, 2, 0])), REQUESTS[1]],
        answers([*SMALL, None]),
    ],
)
def test_fields_of_a_newer_version_are_no_damage(pieces: Pieces) -> None:
    with pytest.raises(UnknownPart, match="has more fields than are known"):
        load(pieces)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"\xff" + data])
def test_any_changed_piece_is_malformed_or_another_state(change: Callable[[bytes], bytes]) -> None:
    for at, (section, piece) in enumerate([*KV, *REQUESTS]):
        pieces = [*KV, *REQUESTS]
        pieces[at] = (section, change(piece))
        with pytest.raises(MalformedPieces):
            load(pieces)


def test_a_row_says_what_is_wrong_with_it() -> None:
    table = StateMachine().requests
    table.clock_ms = 5
    row = Remembered("ann", request_id(1), 9, DIGEST, failure(Code.KEY_NOT_FOUND), None)
    assert table.restore(row) == "is out of its order"


@pytest.mark.parametrize(
    "op",
    [
        Set("a", b"2", return_previous=True),
        Delete("a", return_previous=True),
        Increment("a"),
        Rename("a", "b"),
        GetAndDelete("a"),
        GetAndExpire("a", ttl_ms=5),
        Expire("a", 5),
        Transact([], [Get("a"), GetAndExpire("a", persist=True), TimeToLive("a"), GetAndDelete("a"), Get("a")]),
    ],
    ids=lambda op: type(op).__name__,
)
def test_the_remembered_answer_to_each_change_is_loaded(op: Write) -> None:
    store = Store()
    store.do(Set("a", b"1", ttl_ms=1000))
    answer = store.do(op, "app", bytes(16), bytes(32))
    assert loaded(store).requests.judge("app", bytes(16), bytes(32)) == Replayed(answer)  # type: ignore[arg-type]
