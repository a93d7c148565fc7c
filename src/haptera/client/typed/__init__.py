"""A database whose values are of one type of the program: the calls of a `Database` that have values."""
