"""The changes of a copy: each reader is told what it needs to follow the copy, and keeps no more."""

from __future__ import annotations

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera import Event
from haptera.client.watches.copy_changes import CopyChanges
from haptera.errors import ConnectionLost, PermissionDenied
from haptera.testing import run, virtual_clock


def change(kind: str, key: str, version: int = 1) -> Event:
    return Event("put" if kind == "put" else "delete", key, b"" if kind == "put" else None, version)


@given(st.lists(st.tuples(st.sampled_from(["put", "delete", "read"]), st.sampled_from("abc")), max_size=30))
def test_a_reader_of_any_pace_follows_the_copy_and_keeps_no_more_than_its_keys(steps: list[tuple[str, str]]) -> None:
    async def follow() -> None:
        changes, copy, known = CopyChanges(), {"a": 0, "b": 0}, {"a": 0, "b": 0}
        reading = changes.read()
        (reader,) = changes._readers

        async def read() -> None:
            event = await anext(reading)
            assert event.kind == "put" or event.key in known, "it was told of that key"
            if event.kind == "put":
                known[event.key] = event.version
            else:
                del known[event.key]

        for version, (step, key) in enumerate(steps, 1):
            if step == "put":
                changes.tell(change("put", key, version), was_there=key in copy)
                copy[key] = version
            elif step == "delete" and copy.pop(key, None) is not None:
                changes.tell(change("delete", key, version), was_there=True)
            elif step == "read" and reader._waiting:
                await read()
            assert reader._waiting.keys() <= copy.keys() | known.keys()
        while reader._waiting:
            await read()
        assert known == copy

    run(follow())


@virtual_clock
async def test_trap_changes_behind_the_call_and_before_the_first_wait_are_not_told() -> None:
    changes = CopyChanges()
    reading = changes.read()
    changes.tell(change("put", "a"), was_there=False)
    assert (await anext(reading)).key == "a"


@virtual_clock
async def test_trap_an_iterator_that_was_dropped_is_kept() -> None:
    changes = CopyChanges()
    reading, begun, closed = changes.read(), changes.read(), changes.read()
    changes.tell(change("put", "a"), was_there=False)
    await anext(begun)
    await anext(closed)
    await closed.aclose()
    del reading, begun
    gc.collect()
    await asyncio.sleep(0.1)
    assert not changes._readers


@pytest.mark.parametrize("error", [None, PermissionDenied(2004, "PERMISSION_DENIED", "no")])
@virtual_clock
async def test_readers_are_told_the_rest_and_then_the_end(error: PermissionDenied | None) -> None:
    changes = CopyChanges()
    early, waiting = changes.read(), changes.read()
    changes.tell(change("put", "a"), was_there=False)
    await anext(waiting)
    task = asyncio.ensure_future(anext(waiting))
    await asyncio.sleep(0)
    changes.end(error)
    assert (await anext(early)).key == "a"
    for ended in (task, anext(early), anext(changes.read())):
        with pytest.raises(ConnectionLost if error is None else PermissionDenied):
            await ended
