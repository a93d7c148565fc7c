"""The age of a copy: what proves it, and what does not."""

from __future__ import annotations

import asyncio

import pytest

from haptera.client.watches import freshness
from haptera.client.watches.freshness import ANSWERS_MAX, ASK_INTERVAL_S, NEVER_NS, Freshness
from haptera.errors import ConnectionLost
from haptera.testing import virtual_clock

SERVER, OTHER = b"s" * 16, b"o" * 16


def whole(revision: int = 10) -> Freshness:
    """That of a copy that has the entries of a revision, which were asked for at 100."""
    made = Freshness()
    made.read_anew(100, SERVER, revision)
    return made


def test_a_copy_that_was_read_is_as_fresh_as_the_moment_when_its_entries_were_asked_for() -> None:
    assert Freshness().fresh_ns == NEVER_NS
    assert whole().fresh_ns == 100


def test_a_copy_with_all_changes_is_as_fresh_as_the_question_and_not_as_the_answer() -> None:
    copy = whole()
    copy.answered(200, SERVER, 10)
    assert copy.fresh_ns == 200


def test_a_copy_that_lacks_changes_becomes_fresh_when_they_are_here() -> None:
    copy = whole()
    copy.answered(200, SERVER, 12)
    copy.answered(300, SERVER, 14)
    assert copy.fresh_ns == 100
    copy.reached(11)
    assert copy.fresh_ns == 100
    copy.reached(13)
    assert copy.fresh_ns == 200
    copy.reached(14)
    assert copy.fresh_ns == 300


def test_trap_news_alone_make_a_copy_fresh() -> None:
    """They may have waited in a buffer for an hour."""
    copy = whole()
    for revision in range(11, 100):
        copy.reached(revision)
    assert copy.fresh_ns == 100


def test_an_answer_of_another_server_proves_nothing() -> None:
    copy = whole()
    copy.answered(200, SERVER, 12)
    copy.answered(300, OTHER, 5)
    copy.reached(20)
    assert copy.fresh_ns == 100
    copy.read_anew(250, OTHER, 4)
    assert copy.fresh_ns == 250
    copy.reached(5)
    assert copy.fresh_ns == 300


def test_a_copy_that_is_read_anew_is_no_older_than_it_was() -> None:
    copy = whole()
    copy.answered(200, SERVER, 10)
    copy.read_anew(150, SERVER, 10)
    assert copy.fresh_ns == 200


def test_of_questions_with_one_answer_the_last_counts() -> None:
    copy = whole()
    for asked_ns in range(200, 200 + 10 * ANSWERS_MAX):
        copy.answered(asked_ns, SERVER, 11)
    copy.reached(11)
    assert copy.fresh_ns == 199 + 10 * ANSWERS_MAX


def test_a_copy_that_is_far_behind_keeps_the_first_answers() -> None:
    """With the last ones in their place, one that is always as far behind would never know its age."""
    copy = whole()
    for number in range(10 * ANSWERS_MAX):
        copy.answered(200 + number, SERVER, 11 + number)
    copy.reached(11)
    assert copy.fresh_ns == 200
    copy.answered(9000, SERVER, 9000)
    copy.reached(8999)
    assert copy.fresh_ns == 199 + ANSWERS_MAX
    copy.reached(9000)
    assert copy.fresh_ns == 9000


@virtual_clock
async def test_it_asks_twice_a_second_however_long_an_answer_takes_and_over_failures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time = asyncio.get_running_loop().time
    monkeypatch.setattr(freshness, "boot_time_ns", lambda: round(time() * 1e9))
    asked: list[float] = []

    async def ask() -> tuple[bytes, int]:
        asked.append(time())
        if len(asked) == 2:
            raise ConnectionLost("cut")
        await asyncio.sleep(2.0 if len(asked) == 3 else 0.1)
        return SERVER, 10

    copy = whole()
    asking = asyncio.ensure_future(copy.keep_asking(ask))
    await asyncio.sleep(0.2)
    assert copy.fresh_ns == 100, "it was asked before"
    await asyncio.sleep(4.0)
    asking.cancel()
    assert asked == pytest.approx([0, *(ASK_INTERVAL_S * number for number in (1, 2)), 3.0, 3.5, 4.0])
    assert copy.age_s == pytest.approx(4.2 - 4.0)
