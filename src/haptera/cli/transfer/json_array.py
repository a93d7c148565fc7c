"""A JSON document that is too large to be read at once: the items of its array, one after the other."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from haptera.cli.transfer.errors import BadFile
from haptera.cli.transfer.unpacked_lines import LINE_SIZE_MAX, Damaged, Source

#: Characters of one item: the largest value in base64, and all that may stand beside it.
ITEM_SIZE_MAX: Final = LINE_SIZE_MAX

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_value_at = json.JSONDecoder().raw_decode


class Document:
    """The text of a file, as far as it is needed. ``number`` counts the items that were read."""

    def __init__(self, source: Source) -> None:
        self.number: int = 0
        self._source = source
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._text = ""
        self._at = 0

    def next_char(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, *chars: str) -> str:
        """Read one of ``chars``."""
        found = self.next_char()
        if found not in chars:
            there = repr(found) if found else "the end"
            raise self.bad(f"{there} where {' or '.join(chars)} belongs")
        self._at += 1
        return found

    def value(self) -> Any:
        """Read one value of any kind."""
        self.next_char()
        while True:
            try:
                value, end = _value_at(self._text, self._at)
            except RecursionError:
                raise self.bad("it is nested too deeply") from None
            except ValueError as error:
                if len(self._text) - self._at > ITEM_SIZE_MAX:
                    raise self.bad(f"an item of more than {ITEM_SIZE_MAX} characters") from None
                if not self._more(len(self._text) - self._at):
                    raise self.bad(f"not JSON: {error}") from None
            else:
                # A number may go on in the next block.
                if end < len(self._text) or not self._more():
                    self._at = end
                    return value

    def items(self) -> Iterator[Any]:
        """The items of an array that begins here."""
        self.take("[")
        if self.next_char() == "]":
            self.take("]")
            return
        while True:
            self.number += 1
            yield self.value()
            if self.take(",", "]") == "]":
                return

    def members(self) -> Iterator[str]:
        """The names of the members of an object that begins here. The caller reads each one's value."""
        self.take("{")
        if self.next_char() == "}":
            self.take("}")
            return
        while True:
            name = self.value()
            self.take(":")
            yield str(name)
            if self.take(",", "}") == "}":
                return

    def bad(self, reason: str) -> BadFile:
        return BadFile(self.number + 1, reason, "item")

    def _more(self, least: int = 1) -> bool:
        """Read on, at least as many characters as there are already, so that a long value is not tried too often."""
        self._text, self._at = self._text[self._at :], 0
        parts = [self._text]
        gained = 0
        try:
            while gained < least and (block := self._source.block()):
                parts.append(self._decode(block))
                gained += len(parts[-1])
        except UnicodeDecodeError:
            raise self.bad("not UTF-8") from None
        except Damaged as error:
            raise self.bad(f"the compressed file is damaged: {error}") from error
        self._text = "".join(parts)
        return gained > 0
