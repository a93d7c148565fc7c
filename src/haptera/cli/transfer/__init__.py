"""Files in and out of a store, for `haptera import` and `haptera export` (docs/command-line.md)."""
