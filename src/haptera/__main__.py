"""``python -m haptera``: the command line."""

from __future__ import annotations

from haptera.cli.startup import main

if __name__ == "__main__":
    main()
