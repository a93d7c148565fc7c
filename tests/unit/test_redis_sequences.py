"""The sequences of commands for a node and a real Redis have no command on which the Redis waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.redis_sequences import mangled

if TYPE_CHECKING:
    from tests.support.redis_wire import Words

RIGHT: list[Words] = [(b"WAIT", b"0", b"0"), (b"WAIT", b"1", b"1")]
#: A Redis without replicas waits for one of these numbers until the time-out, and for ever where this is 0.
REPLICAS = frozenset({b"1", b"4000000"})
LONG_TIMEOUTS = frozenset({b"0", b"4000000"})


def test_a_mangled_wait_is_over_at_once() -> None:
    drawn: set[Words] = set()

    @settings(max_examples=1000, database=None)
    @given(mangled(st.sampled_from(RIGHT)))
    def draw(command: Words) -> None:
        drawn.add(command)

    draw()
    assert {(b"WAIT", b"4000000", b"1"), (b"WAIT", b"0", b"4000000"), (b"WAIT", b"1"), (b"wait", b"0", b"0")} <= drawn
    assert not {words for words in drawn if len(words) == 3 and words[1] in REPLICAS and words[2] in LONG_TIMEOUTS}
