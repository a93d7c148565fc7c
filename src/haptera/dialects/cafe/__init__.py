"""CAFE, the 48-byte multiplexed key-value protocol (spec/cafe.md): the dialect of a node, and a client.

`messages`, `message_keys`, `message_reader`, `bodies` and `conversation` are pure. The client imports nothing that only
a node needs.
"""
