"""Builds the site of the documentation into site/, and takes no warning for an answer.

usage: make docs

The pages of the project, and those that are made of the code, are put into build/site. Zensical makes the site of them.
A link that leads nowhere, a heading that is not there, or any other warning ends the build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import Final

from tools import site_commands, site_pages, site_reference
from tools.markdown_links import ROOT

STAGE: Final = ROOT / "build" / "site"
SITE: Final = ROOT / "site"
#: A line of a warning: of Zensical, and of the reader of docstrings.
WARNING: Final = re.compile(r"^(?:WARNING|Warning|ERROR)\b", re.MULTILINE)


def main() -> int:
    """Build the site; return the exit status."""
    shutil.rmtree(STAGE, ignore_errors=True)
    pages = STAGE / "pages"
    site_pages.stage(pages)
    site_reference.stage(pages)
    site_commands.stage(pages)
    missing = [page for page in site_pages.navigation() if not (pages / page).exists()]
    if missing:
        sys.stderr.write("".join(f"{page}: the navigation names it, and it is no page\n" for page in missing))
        return 1
    shutil.copyfile(site_pages.CONFIGURATION, STAGE / "zensical.toml")
    made = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"],
        cwd=STAGE,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if made.returncode or WARNING.search(made.stdout):
        sys.stderr.write(made.stdout)
        return 1
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(STAGE / "site", SITE)
    print(f"the site is {SITE.relative_to(ROOT)}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
