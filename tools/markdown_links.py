"""Reads the links and headings of Markdown pages, and says which links lead nowhere.

usage: python -m tools.markdown_links       prints each broken link of the project's pages; ends with 1 if there is one

A heading's anchor is the one that GitHub gives it, and the site gives it the same. Links to other hosts
are not followed.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parent.parent
#: Where the project has pages, in the order in which they are read.
PAGES: Final = ("*.md", "docs/*.md", "spec/*.md", "bench/*.md", "examples/*.md")

FENCE: Final = re.compile(r"^ {0,3}(```+|~~~+)")
HEADING: Final = re.compile(r"^(#{1,6}) +(.*?)(?: +#+)?$")
INLINE_CODE: Final = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
LINK: Final = re.compile(r"(?<=\])\(([^()\s]+)(?:\s+\"[^\"]*\")?\)")
DEFINITION: Final = re.compile(r"^\[[^\]]+\]:[ \t]+(\S+)", re.MULTILINE)
NAMED: Final = re.compile(r"<a (?:id|name)=\"([^\"]+)\"")
ELSEWHERE: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


class Link(NamedTuple):
    """A link of a page, and the place of its target in the text."""

    target: str
    start: int
    line: int

    @property
    def path(self) -> str:
        """The file that it leads to, relative to its page; empty for the page itself."""
        return unquote(self.target.partition("#")[0])

    @property
    def anchor(self) -> str:
        """The heading that it leads to; empty for the beginning."""
        return unquote(self.target.partition("#")[2])

    @property
    def elsewhere(self) -> bool:
        """Whether it leads out of the project."""
        return ELSEWHERE.match(self.target) is not None


def pages() -> list[Path]:
    """Return the project's pages."""
    return [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]


def without_code(text: str) -> str:
    """Return a page of the same length whose blocks of code are blanks."""
    lines, fence, code, blank = [], "", False, True
    for line in text.splitlines(keepends=True):
        opened = FENCE.match(line)
        if fence:
            shown = False
            if opened and line.strip() == opened[1] and opened[1].startswith(fence):
                fence = ""
        elif opened:
            fence, shown = opened[1], False
        else:
            code = line.startswith("    ") and (blank or code)
            shown = not code
        blank = not line.strip()
        lines.append(line if shown else re.sub(r"[^\n]", " ", line))
    return "".join(lines)


def links(text: str) -> Iterator[Link]:
    """Give the links of a page in their order, those of images among them."""
    prose = INLINE_CODE.sub(lambda code: re.sub(r"[^\n]", " ", code[0]), without_code(text))
    found = [*LINK.finditer(prose), *DEFINITION.finditer(prose)]
    for match in sorted(found, key=lambda match: match.start(1)):
        yield Link(match[1], match.start(1), prose.count("\n", 0, match.start(1)) + 1)


def anchor_of(heading: str) -> str:
    """Return the anchor of a heading: without its marks and signs, in small letters, a dash for each blank."""
    shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """Return the anchors of a page that a link may name; of equal headings the first alone has one."""
    found = Counter(anchor_of(match[2]) for line in without_code(text).splitlines() if (match := HEADING.match(line)))
    return {*found, *NAMED.findall(text)}


@cache
def _anchors_of(path: Path) -> set[str]:
    return anchors(path.read_text(encoding="utf-8"))


def broken(page: Path) -> Iterator[str]:
    """Give a line for each link of a page that leads nowhere."""
    for link in links(page.read_text(encoding="utf-8")):
        if link.elsewhere:
            continue
        target = Path(posixpath.normpath(page.parent / link.path)) if link.path else page
        if not target.exists() or not target.is_relative_to(ROOT):
            yield f"{page.relative_to(ROOT)}:{link.line}: {link.target}: no such file"
        elif link.anchor and (target.suffix != ".md" or link.anchor not in _anchors_of(target)):
            yield f"{page.relative_to(ROOT)}:{link.line}: {link.target}: no such heading"


def main() -> int:
    """Print the broken links; return the exit status."""
    found = [line for page in pages() for line in broken(page)]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
