"""Lists every module in docs/modules.md, each with the first sentence of its docstring.

usage: python -m tools.generate_module_index            writes the file
       python -m tools.generate_module_index --check    writes nothing; ends with 1 if the file is not current
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.written_part import WrittenPart

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = ROOT / "src" / "haptera"
DOCUMENT: Final = ROOT / "docs" / "modules.md"
BEGIN: Final = "<!-- The modules: listed by tools/generate_module_index.py. -->"
END: Final = "<!-- End of the modules. -->"


def index() -> str:
    """Return a table for each package, in the order of their paths."""
    packages = sorted({path.parent for path in SOURCE.rglob("*.py")})
    return "\n".join(line for package in packages for line in table(package))


def table(package: Path) -> Iterator[str]:
    """Give the lines of one package: its own purpose, and its modules."""
    name = package.relative_to(SOURCE.parent).as_posix()
    yield f"## `{name}`"
    yield ""
    yield purpose(package / "__init__.py")
    yield ""
    modules = [path for path in sorted(package.glob("*.py")) if path.name != "__init__.py"]
    if modules:
        yield "| module | purpose |"
        yield "| --- | --- |"
        for path in modules:
            yield f"| `{path.name}` | {purpose(path).replace('|', chr(92) + '|')} |"
        yield ""


def purpose(path: Path) -> str:
    """Return the first paragraph of a module's docstring, in the code marks of Markdown."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(text.partition("\n\n")[0].split())
    return re.sub(r":\w+:(?=`)", "", first).replace("``", "`")


if __name__ == "__main__":
    sys.exit(WrittenPart(DOCUMENT, BEGIN, END, index).main("lists every module in docs/modules.md"))
