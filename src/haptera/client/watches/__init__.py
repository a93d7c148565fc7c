"""Changes as they happen and as they happened: watches, local copies and the history of a key."""
