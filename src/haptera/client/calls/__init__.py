"""The calls of a database by their subjects, their arguments and their answers."""
