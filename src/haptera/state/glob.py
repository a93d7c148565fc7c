r"""Globs over keys: ``*``, ``?``, ``[abc]``, ``[a-z]``, ``[!abc]`` or ``[^abc]``, and ``\`` before a literal character.

A glob matches whole keys. ``*`` is any run of characters, none included, ``?`` any one; nothing is special about any
separator or line end. Inside brackets a ``-`` that stands first or last is itself, and ``\`` escapes; a ``]`` always
ends the class. Malformed are: a class without its end or without a character, a range that runs backwards, and a ``\``
at the end. Neighbouring stars count as one, and a glob has `limits.GLOB_STARS_MAX` at most.

Between two stars stands a run of elements that each match exactly one character, so the leftmost place where a run
fits is as good as any later one, and nothing ever backtracks over it: a match takes at most (length of the key) x
(length of the glob) steps. The run behind the last star is compared with the key's end alone, and the runs before it
see only what it leaves: ``ab*ba`` does not match ``aba``.

A run of literal characters is looked for as text. Any other is cut into pieces, each a regular expression of its own,
because to compile one costs microseconds a character: a long glob is compiled piece by piece (`compile_steps`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from haptera.state import limits
from haptera.state.sliced_work import Steps, finish

#: Characters of a glob up to which it is compiled where it stands, in a tenth of a millisecond.
SHORT_GLOB_MAX: Final = 64
#: Characters of one regular expression: a millisecond to compile. The pattern of a grant, of 256 bytes, is never cut,
#: because a run in pieces is looked for with a step of Python at each place where its first piece fits.
_PIECE_MAX: Final = 512
#: Literal characters, as many as there are; and one behind its backslash.
_LITERAL: Final = re.compile(r"(?s)(?:[^*?\[\\]+|\\.)*")
#: A character, without its backslash, and the literal text behind it.
_UNESCAPED: Final = re.compile(r"(?s)\\?(.[^\\]*)")
#: Units of work of parsing a character, and of compiling one.
_PARSE_WORK: Final = 2
_COMPILE_WORK: Final = 8


class MalformedGlob(ValueError):
    """The text is no glob, or one with too many stars; the message says why."""


class _Run:
    """The elements between two stars: `width` characters. ``text`` is the run itself where it is all literal."""

    __slots__ = ("elements", "pieces", "text", "width")

    def __init__(self) -> None:
        self.elements: list[str] = []  # as regular expressions, each of one character
        self.pieces: list[tuple[re.Pattern[str], int]] = []  # with the number of elements
        self.text: str | None = ""
        self.width = 0

    def add(self, element: str, literal: str | None) -> None:
        self.elements.append(element)
        self.width += 1
        self.text = None if literal is None or self.text is None else self.text + literal

    def compile(self) -> Steps[None]:
        elements, self.elements = self.elements, []
        if self.text is not None:
            return
        first = 0
        while first < len(elements):
            size, end = len(elements[first]), first + 1
            while end < len(elements) and size < _PIECE_MAX:
                size += len(elements[end])
                end += 1
            pattern = re.compile("".join(elements[first:end]), re.DOTALL)
            self.pieces.append((pattern, end - first))
            first = end
            yield size * _COMPILE_WORK

    def fits(self, key: str, at: int) -> bool:
        """Whether the run stands in ``key`` at this place."""
        if self.text is not None:
            return key.startswith(self.text, at)
        for pattern, width in self.pieces:
            if pattern.match(key, at) is None:
                return False
            at += width
        return True

    def find(self, key: str, low: int, high: int) -> int:
        """The end of the leftmost place of the run in ``key[low:high]``; -1 where there is none."""
        width = self.width
        if self.text is not None:
            at = key.find(self.text, low, high)
            return -1 if at < 0 else at + width
        pattern, first = self.pieces[0]
        high -= width - first
        while (found := pattern.search(key, low, high)) is not None:
            low = found.start()
            if len(self.pieces) == 1 or self.fits(key, low):
                return low + width
            low += 1
        return -1


class Glob:
    """A compiled glob, made by `compile_glob`.

    ``prefix`` is the literal text that every match begins with. ``cost`` is the number of elements that a match may
    have to compare at each character; 0 where every key with the prefix matches and `matches` need not be asked.
    """

    __slots__ = ("_first", "_last", "_middle", "cost", "prefix")

    def __init__(self, runs: list[_Run], prefix: str) -> None:
        self.prefix: str = prefix
        self._first = runs[0]
        self._last = runs[-1] if len(runs) > 1 else None
        self._middle = runs[1:-1]
        prefix_alone = len(runs) == 2 and not runs[1].width and runs[0].width == len(prefix)
        self.cost: int = 0 if prefix_alone else sum(run.width for run in runs) + 1

    def matches(self, key: str) -> bool:
        """Whether the whole key matches."""
        first, last = self._first, self._last
        at = first.width
        if last is None:
            return len(key) == at and first.fits(key, 0)
        end = len(key) - last.width
        if end < at or not first.fits(key, 0) or not last.fits(key, end):
            return False
        for run in self._middle:
            at = run.find(key, at, end)
            if at < 0:
                return False
        return True


def literal_prefix(text: str) -> str:
    """Return the ``prefix`` that the compiled glob would have, without compiling the rest of it."""
    return split_prefix(text)[0]


def split_prefix(text: str) -> tuple[str, str]:
    """Return the ``prefix`` of a glob, and the glob that the rest of a key with it has to match."""
    found = _LITERAL.match(text)
    assert found is not None
    prefix = found[0]
    return "".join(_UNESCAPED.findall(prefix)) if "\\" in prefix else prefix, text[found.end() :]


@lru_cache(maxsize=64)
def compile_glob(text: str) -> Glob:
    """The glob that ``text`` says. Raises `MalformedGlob`."""
    return finish(compile_steps(text))


def compile_steps(text: str) -> Steps[Glob]:
    """As `compile_glob`, in slices and without the cache, for a glob longer than SHORT_GLOB_MAX."""
    runs = [_Run()]
    literal: list[str] = []
    in_prefix = True
    at = parsed = 0
    while at < len(text):
        if at - parsed >= _PIECE_MAX:
            yield (at - parsed) * _PARSE_WORK
            parsed = at
        char = text[at]
        at += 1
        if char == "*":
            in_prefix = False
            if runs[-1].width or len(runs) == 1:
                runs.append(_Run())
            if len(runs) > limits.GLOB_STARS_MAX + 1:
                raise MalformedGlob(f"more than {limits.GLOB_STARS_MAX} stars")
            continue
        if char == "?":
            in_prefix = False
            runs[-1].add(".", None)
        elif char == "[":
            in_prefix = False
            element, at = _class(text, at)
            runs[-1].add(element, None)
        else:
            if char == "\\":
                char, at = _escaped(text, at)
            runs[-1].add(re.escape(char), char)
            if in_prefix:
                literal.append(char)
    for run in runs:
        yield from run.compile()
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
