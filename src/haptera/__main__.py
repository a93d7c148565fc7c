"""``python -m haptera``: the command line."""

from haptera.cli.main import main

if __name__ == "__main__":
    main()
