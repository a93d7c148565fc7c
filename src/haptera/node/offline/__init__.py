"""Tools that work on a data directory without a node: they check it, and rebuild the state that it had at a moment."""
