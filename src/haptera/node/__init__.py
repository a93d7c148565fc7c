"""A node: the database put together from its state machine, its log, its command interface and its services.

Nothing is imported here, so that a process pays for no more of a node than it uses.
"""
