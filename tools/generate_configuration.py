"""Writes the tables of docs/configuration.md from the options of `haptera serve`.

usage: python -m tools.generate_configuration            writes the file
       python -m tools.generate_configuration --check    writes nothing; ends with 1 if the file is not current
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from haptera.node.config import OPTIONS, NodeConfig
from tools.written_part import WrittenPart

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


PART: Final = WrittenPart(DOCUMENT, BEGIN, END, tables)


if __name__ == "__main__":
    sys.exit(PART.main("Writes the tables of docs/configuration.md."))
