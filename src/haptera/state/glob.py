r"""Globs over keys: ``*``, ``?``, ``[abc]``, ``[a-z]``, ``[!abc]`` or ``[^abc]``, and ``\`` before a literal character.

A glob matches whole keys. ``*`` is any run of characters, none included, ``?`` any one; nothing is special about any
separator or line end. Inside brackets a ``-`` that stands first or last is itself, and ``\`` escapes; a ``]`` always
ends the class. Malformed are: a class without its end or without a character, a range that runs backwards, and a ``\``
at the end. Neighbouring stars count as one, and a glob has `limits.GLOB_STARS_MAX` at most.

Between two stars stands a run of elements that each match exactly one character, so the leftmost place where a run
fits is as good as any later one. Each run is therefore an atomic group, and nothing ever backtracks over it: a match
takes at most (length of the key) x (length of the glob) steps. The run behind the last star is compared with the key's
end alone, and the runs before it see only what it leaves: ``ab*ba`` does not match ``aba``.
"""

from __future__ import annotations

import re
from functools import lru_cache

from haptera.state import limits


class MalformedGlob(ValueError):
    """The text is no glob, or one with too many stars; the message says why."""


class Glob:
    """A compiled glob, made by `compile_glob`.

    ``prefix`` is the literal text that every match begins with. ``cost`` is the number of elements that a match may
    have to compare at each character; 0 where every key with the prefix matches and `matches` need not be asked.
    """

    __slots__ = ("_head", "_tail", "_tail_length", "cost", "prefix")

    def __init__(self, runs: list[list[str]], prefix: str) -> None:
        *before, last = runs
        self.prefix = prefix
        self._tail_length = len(last)
        self._tail = re.compile("".join(last), re.DOTALL)
        self._head: re.Pattern[str] | None = None
        if before:
            first, *middle = ("".join(run) for run in before)
            self._head = re.compile(first + "".join(f"(?>.*?{run})" for run in middle), re.DOTALL)
        elements = sum(map(len, runs))
        prefix_alone = len(runs) == 2 and not last and len(before[0]) == len(prefix)
        self.cost = 0 if prefix_alone else elements + 1

    def matches(self, key: str) -> bool:
        """Whether the whole key matches."""
        end = len(key) - self._tail_length
        if self._head is None:
            return end == 0 and self._tail.match(key) is not None
        if end < 0 or self._head.match(key, 0, end) is None:
            return False
        return self._tail_length == 0 or self._tail.match(key, end) is not None


@lru_cache(maxsize=64)
def compile_glob(text: str) -> Glob:
    """The glob that ``text`` says. Raises `MalformedGlob`."""
    runs: list[list[str]] = [[]]
    literal: list[str] = []
    in_prefix = True
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*":
            in_prefix = False
            if runs[-1] or len(runs) == 1:
                runs.append([])
            if len(runs) > limits.GLOB_STARS_MAX + 1:
                raise MalformedGlob(f"more than {limits.GLOB_STARS_MAX} stars")
            continue
        if char == "?":
            in_prefix = False
            runs[-1].append(".")
        elif char == "[":
            in_prefix = False
            element, at = _class(text, at)
            runs[-1].append(element)
        else:
            if char == "\\":
                char, at = _escaped(text, at)
            runs[-1].append(re.escape(char))
            if in_prefix:
                literal.append(char)
    return Glob(runs, "".join(literal))


def _escaped(text: str, at: int) -> tuple[str, int]:
    if at == len(text):
        raise MalformedGlob("a backslash at the end escapes nothing")
    return text[at], at + 1


def _class(text: str, at: int) -> tuple[str, int]:
    """The class whose inside begins at ``at``, as a regular expression, and the place behind its ``]``."""
    negated = text[at : at + 1] in {"!", "^"}
    at += negated
    members: list[str] = []
    while at < len(text):
        if text[at] == "]":
            if not members:
                raise MalformedGlob("a class names no character")
            return f"[{'^' if negated else ''}{''.join(members)}]", at + 1
        low, at = _member(text, at)
        if text[at : at + 1] == "-" and text[at + 1 : at + 2] not in {"", "]"}:
            high, at = _member(text, at + 1)
            if high < low:
                raise MalformedGlob("a range runs backwards")
            members.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            members.append(re.escape(low))
    raise MalformedGlob("a class has no end")


def _member(text: str, at: int) -> tuple[str, int]:
    return _escaped(text, at + 1) if text[at] == "\\" else (text[at], at + 1)
