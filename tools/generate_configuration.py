"""Writes the tables of docs/configuration.md from the options of `haptera serve`.

usage: python tools/generate_configuration.py            writes the file
       python tools/generate_configuration.py --check    writes nothing; ends with 1 if the file is not current
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Final

from haptera.node.config import OPTIONS, NodeConfig

DOCUMENT: Final = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
BEGIN: Final = "<!-- The options: written by tools/generate_configuration.py. -->"
END: Final = "<!-- End of the options. -->"


def tables() -> str:
    """Return a table for each group of options."""
    defaults = NodeConfig()
    lines: list[str] = []
    for group in dict.fromkeys(option.group for option in OPTIONS.values()):
        lines += [f"### {group}", "", "| option | value | default | meaning |", "| --- | --- | --- | --- |"]
        for name, option in OPTIONS.items():
            if option.group == group:
                default = option.show(getattr(defaults, name))
                shown = f"`{default}`" if default else ""
                value = option.value.replace("|", "\\|")
                lines.append(f"| `{name}` | {value} | {shown} | {option.meaning} |")
        lines.append("")
    return "\n".join(lines)


def generated(text: str) -> str:
    """Return the document with current tables."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{DOCUMENT.name} has no place for the options")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{tables()}\n{END}", text)


def main() -> int:
    """Write the document, or say that it is not current."""
    parser = argparse.ArgumentParser(description="Writes the tables of docs/configuration.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if the file is not current")
    check = parser.parse_args().check
    text = DOCUMENT.read_text(encoding="utf-8")
    current = generated(text)
    if text == current:
        return 0
    if check:
        print(f"{DOCUMENT.name} is not current: make generate", file=sys.stderr)
        return 1
    DOCUMENT.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
