"""The jobs that a worker knows of: held against all jobs, however jobs become free, are taken and are read."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.client.recipes.candidates import KNOWN_LOW, KNOWN_MAX, PAGE_JOBS, PAUSE_S, RIVALS_MAX, Candidates, Crowd
from haptera.client.recipes.queue_keys import QueueKeys, are_digits, digits_of, ready_numbers, ready_text
from haptera.errors import InvalidKey


class Store:
    """The free jobs as they are, and a worker's candidates that are told of each change as a watch tells it."""

    def __init__(self) -> None:
        self.free: set[int] = set()
        self.items: set[int] = set()
        self.last = 0
        self.candidates = Candidates()

    def put(self, count: int) -> None:
        new = range(self.last + 1, self.last + count + 1)
        self.last += count
        self.items.update(new)
        self.free.update(new)
        self.candidates.free(new[0], new[-1])

    def claim(self, number: int) -> None:
        if number in self.free:
            self.free.discard(number)
            self.candidates.taken(digits_of(number))

    def give_back(self, number: int) -> None:
        if number in self.items and number not in self.free:
            self.free.add(number)
            self.candidates.free(number, number)

    def read_page(self) -> None:
        cursor = self.candidates.cursor
        page = sorted(number for number in self.items if digits_of(number) > cursor)[:PAGE_JOBS]
        found = [digits_of(number) for number in page if number in self.free]
        self.candidates.read(found, digits_of(page[-1]) if page else cursor, last=len(page) < PAGE_JOBS)

    def known(self) -> set[int]:
        """Take all candidates that it ever comes to know, in their order."""
        found: list[int] = []
        while True:
            while self.candidates.wanting:
                self.read_page()
            digits = self.candidates.pick(0)
            if digits is None:
                assert self.candidates.end_reached
                return set(found)
            found.append(int(digits))
            self.free.discard(found[-1])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 2 * KNOWN_MAX)),
        st.tuples(st.just("claim"), st.integers(1, 3 * KNOWN_MAX)),
        st.tuples(st.just("give back"), st.integers(1, 3 * KNOWN_MAX)),
        st.tuples(st.just("claim a block"), st.integers(0, 12)),
        st.tuples(st.just("give back a block"), st.integers(0, 12)),
        st.tuples(st.just("read"), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS)
def test_every_free_job_comes_to_be_known_and_the_memory_is_bounded(steps: list[tuple[str, int]]) -> None:
    store = Store()
    for step, number in steps:
        block = range(number * 128 + 1, number * 128 + 129)
        match step:
            case "put":
                store.put(number)
            case "claim":
                store.claim(number)
            case "give back":
                store.give_back(number)
            case "claim a block":
                for each in block:
                    store.claim(each)
            case "give back a block":
                for each in block:
                    store.give_back(each)
            case _:
                if store.candidates.wanting:
                    store.read_page()
        assert len(store.candidates) <= KNOWN_MAX
    free = set(store.free)
    assert store.known() == free


def test_the_first_free_job_is_the_first_candidate() -> None:
    store = Store()
    store.put(3 * PAGE_JOBS)
    store.read_page()
    for number in (1, 2, 3, 7):
        store.claim(number)
    assert store.candidates.pick(0) == digits_of(4)
    store.give_back(2)
    assert store.candidates.pick(0) == digits_of(2)
    assert store.candidates.pick(1) == digits_of(6)


def test_a_range_of_any_length_is_taken_as_far_as_there_is_room() -> None:
    candidates = Candidates()
    candidates.read([], "", last=True)
    candidates.free(5, 10**18)
    assert len(candidates) == KNOWN_MAX
    assert not candidates.end_reached
    assert candidates.cursor == digits_of(5 + KNOWN_MAX - 1)


def test_more_is_read_while_few_are_known_and_the_end_was_not_reached() -> None:
    candidates = Candidates()
    wanting = [candidates.wanting]
    candidates.read([digits_of(number) for number in range(1, KNOWN_LOW + 1)], digits_of(KNOWN_LOW), last=False)
    wanting.append(candidates.wanting)
    candidates.pick(0)
    wanting.append(candidates.wanting)
    candidates.read([], digits_of(KNOWN_LOW), last=True)
    wanting.append(candidates.wanting)
    candidates.begin()
    wanting.append(candidates.wanting)
    assert wanting == [True, False, True, False, True]
    assert (len(candidates), candidates.cursor) == (0, "")


def test_a_worker_that_is_alone_tries_the_first_job_at_once() -> None:
    crowd = Crowd(lambda: 0.999)
    crowd.won()
    assert (crowd.pause(1), crowd.place(300)) == (0.0, 0)


def test_a_worker_among_many_chooses_among_as_many_jobs_or_waits_a_moment() -> None:
    crowd = Crowd(lambda: 0.999)
    for _ in range(100):
        crowd.lost()
    assert crowd.place(10_000) == RIVALS_MAX - 1
    assert crowd.place(3) == 2
    assert crowd.pause(RIVALS_MAX) == 0.0
    assert crowd.pause(1) == pytest.approx(0.999 * (RIVALS_MAX - 1) * PAUSE_S)
    for _ in range(100):
        crowd.won()
    assert (crowd.pause(1), crowd.place(300)) == (0.0, 0)


@pytest.mark.parametrize("workers", [1, 8, 50])
def test_most_tries_succeed_however_many_workers_there_are(workers: int) -> None:
    """In rounds: each worker tries one of the first jobs, and all then know which are gone."""
    chance = random.Random(7)
    crowds = [Crowd(chance.random) for _ in range(workers)]
    free = list(range(10_000))
    tries = taken = 0
    for _ in range(100):
        known = len(free[:KNOWN_MAX])
        chosen: set[int] = set()
        for crowd in crowds:
            place = crowd.place(known)
            if place in chosen:
                crowd.lost()
            else:
                chosen.add(place)
                crowd.won()
        tries += workers
        taken += len(chosen)
        free = [job for place, job in enumerate(free) if place not in chosen]
    assert taken >= tries * 3 / 4


def test_the_keys_have_room_within_a_key_or_the_name_is_refused() -> None:
    name = "n" * (4096 - len("/.attempts/") - 20)
    assert QueueKeys(name).items == f"{name}/.items/"
    for refused in (name + "n", "", "a\0b"):
        with pytest.raises(InvalidKey):
            QueueKeys(refused)


@pytest.mark.parametrize("text", ["7-12", "1-1", f"{2**63 - 1}-{2**63 - 1}"])
def test_the_numbers_that_are_ready_are_read_as_they_are_written(text: str) -> None:
    numbers = ready_numbers(text.encode())
    assert numbers is not None
    assert ready_text(*numbers) == text


@pytest.mark.parametrize(
    "value", ["", "-", "7", "7-", "-7", "12-7", "0-7", "7--9", "+7-9", f"1-{2**63}", "1-" + "9" * 60]
)
def test_a_value_of_another_program_is_not_taken_for_numbers(value: str) -> None:
    assert ready_numbers(value.encode()) is None


@pytest.mark.parametrize("text", ["", "ready", "1", "0" * 21, "٠" * 20, "0" * 19 + "x"])
def test_keys_of_another_form_belong_to_no_job(text: str) -> None:
    assert not are_digits(text)
    assert are_digits(digits_of(7))
