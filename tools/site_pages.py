"""Puts the pages of the site together: those of the project as they stand there, and the files that they link to.

A page keeps its place, so a link between two pages stays as it is. A file that is no page, such as a program or a
vector of bytes, becomes a page that shows it, and so does a folder: the site needs no other place to be whole.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import tomllib
from typing import TYPE_CHECKING, Any, Final

from tools.markdown_links import FENCE, ROOT, Link, links, pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIGURATION: Final = ROOT / "docs" / "zensical.toml"
#: Files that a browser shows by itself.
PICTURES: Final = frozenset({".png", ".svg"})
#: The name that the highlighter of code knows a kind of file by, where that is not the end of the file's name.
LANGUAGES: Final = {".py": "python", ".md": "markdown"}
#: Bytes of a file that is shown. A longer one is no reading matter.
SHOWN_SIZE_MAX: Final = 256 * 1024


def navigation() -> list[str]:
    """Return the pages that the navigation of the site names, in its order."""
    return list(_named(tomllib.loads(CONFIGURATION.read_text(encoding="utf-8"))["project"]["nav"]))


def _named(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for each in entry.values() if isinstance(entry, dict) else entry:
            yield from _named(each)


def stage(target: Path) -> None:
    """Write all pages of the project below ``target``, and what they link to."""
    written = {page.relative_to(ROOT).as_posix() for page in pages()}
    for page in sorted(written):
        text = (ROOT / page).read_text(encoding="utf-8")
        for link in reversed([*links(text)]):
            new = _staged_link(page, link, written, target)
            text = text[: link.start] + new + text[link.start + len(link.target) :]
        _write(target / page, text)


def _staged_link(page: str, link: Link, pages: set[str], target: Path) -> str:
    """Return the target that a link has in the site, where the file that it leads to is put."""
    if link.elsewhere or not link.path:
        return link.target
    name = posixpath.normpath(posixpath.join(posixpath.dirname(page), link.path))
    if name in pages:
        return link.target
    found = ROOT / name
    if f"{name}/README.md" in pages:
        return posixpath.join(link.path, "README.md")
    if found.is_dir():
        _write(target / name / "index.md", _folder(name, found))
        return posixpath.join(link.path, "index.md")
    if found.suffix in PICTURES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, target / name)
        return link.target
    _write(target / f"{name}.md", _file(name, found))
    return f"{link.path}.md"


def _folder(name: str, path: Path) -> str:
    """Return the page that lists the files of a folder."""
    rows = [f"| `{each.name}` | {each.stat().st_size:,} |" for each in sorted(path.iterdir()) if each.is_file()]
    return "\n".join([f"# {name}", "", "| file | bytes |", "| --- | ---: |", *rows, ""])


def _file(name: str, path: Path) -> str:
    """Return the page that shows a file."""
    text = path.read_text(encoding="utf-8")
    if len(text) > SHOWN_SIZE_MAX:
        raise ValueError(f"{name} has more than {SHOWN_SIZE_MAX} bytes: link to a smaller file, or to its folder")
    fences = [match[1] for line in text.splitlines() if (match := FENCE.match(line))]
    fence = "`" * (max(map(len, fences), default=2) + 1)
    language = LANGUAGES.get(path.suffix, path.suffix.removeprefix(".") or "text")
    return f"# {name}\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(re.sub(r"\n{3,}\Z", "\n", text), encoding="utf-8")
