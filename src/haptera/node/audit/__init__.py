"""The audit log of a node (spec/audit.md): who did what, as a chain of lines in which a change shows."""
