"""Campaigns over many places: `make test` tries some of them, from a random one on, and `make test-long` all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

import pytest

Place = TypeVar("Place")


def thinned(step: int) -> pytest.MarkDecorator:
    """Give a test its ``step``: this one in `make test`, and 1 in `make test-long`."""
    return pytest.mark.parametrize("step", [step, pytest.param(1, marks=pytest.mark.long)])


def some(places: Sequence[Place], step: int) -> Sequence[Place]:
    """Each ``step``th of the places. The seed that a failure prints chooses the same ones again."""
    return places[random.randrange(min(step, len(places))) :: step]
