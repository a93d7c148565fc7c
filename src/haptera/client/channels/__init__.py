"""The way of a call to its store: over a connection that is kept, or to a node in this process."""
