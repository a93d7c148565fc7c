"""Moments of the past on the command line: a revision, or a time."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypedDict

import click

from haptera.cli.parameter_type import ParameterType
from haptera.key_rules import VERSION_MAX

#: Unix seconds, with a fraction or without.
_SECONDS: Final = re.compile(r"\d{1,12}(\.\d{1,9})?", re.ASCII)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Time(ParameterType[int]):
    """A moment, in Unix milliseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        if _SECONDS.fullmatch(text):
            return int(Decimal(text) * 1000)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is neither a time, such as 2026-11-28T14:00:00Z, nor seconds since 1970.", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{text!r} has no time zone; Z at its end means UTC, +01:00 an hour before it.", param, ctx)
        return (moment - _EPOCH) // timedelta(milliseconds=1)


class PastMoment(TypedDict, total=False):
    """A moment of the past, as calls of a database take it; empty for the present."""

    at_revision: int
    at_time: float


class RevisionOrTime(ParameterType[PastMoment]):
    """A moment of the past. A whole number is a revision, because seconds since 1970 may have a fraction."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PastMoment:
        text = str(value).strip()
        if text.isascii() and text.isdigit():
            return PastMoment(at_revision=click.IntRange(0, VERSION_MAX).convert(int(text), param, ctx))
        return _at(Time().convert(value, param, ctx))


def moment_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add ``--at-revision`` and ``--at-time``; the command gets them as ``moment``."""

    @click.option(
        "--at-revision", type=click.IntRange(0, VERSION_MAX), metavar="N", help="As it was right after revision N."
    )
    @click.option("--at-time", type=Time(), metavar="T", help="As it was at T: 2026-11-28T14:00:00Z, or Unix seconds.")
    @functools.wraps(function)
    def wrapper(at_revision: int | None, at_time: int | None, **arguments: Any) -> int:
        if at_revision is not None and at_time is not None:
            raise click.UsageError("give either --at-revision or --at-time")
        moment = PastMoment()
        if at_revision is not None:
            moment = PastMoment(at_revision=at_revision)
        elif at_time is not None:
            moment = _at(at_time)
        return function(moment=moment, **arguments)

    return wrapper


def _at(time_ms: int) -> PastMoment:
    if not 0 <= time_ms <= VERSION_MAX:
        raise click.UsageError("a time lies behind 1970")
    return PastMoment(at_time=time_ms / 1000)
