"""A part of a document that a tool writes, between two comments of the document."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class WrittenPart(NamedTuple):
    """The document, the comments around its part, and the function that makes the part."""

    document: Path
    begin: str
    end: str
    make: Callable[[], str]

    def generated(self, text: str) -> str:
        """Return the document with a current part."""
        pattern = re.compile(f"{re.escape(self.begin)}.*?{re.escape(self.end)}", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{self.document.name} has no place between {self.begin} and {self.end}")
        return pattern.sub(lambda _: f"{self.begin}\n\n{self.make()}\n{self.end}", text)

    def main(self, description: str) -> int:
        """Write the document, or with ``--check`` say that it is not current. Return the exit status."""
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if the file is not current")
        check = parser.parse_args().check
        text = self.document.read_text(encoding="utf-8")
        current = self.generated(text)
        if text == current:
            return 0
        if check:
            print(f"{self.document.name} is not current: make generate", file=sys.stderr)
            return 1
        self.document.write_text(current, encoding="utf-8")
        return 0
