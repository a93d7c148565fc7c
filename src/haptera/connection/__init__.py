"""Frames to events: the sans-IO state machine of one connection.

``Connection`` takes bytes, commands and the time, and gives events and bytes; it never touches a socket or a clock.
``spec/protocol.md``, sections 3, 4 and 8, is the contract that it implements.
"""

from haptera.connection.config import Budget, Config, Role
from haptera.connection.connection import Connection

__all__ = ["Budget", "Config", "Connection", "Role"]
