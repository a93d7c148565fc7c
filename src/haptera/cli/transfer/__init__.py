"""Files in and out of a store: what `haptera import` reads and `haptera export` writes (docs/command-line.md)."""
