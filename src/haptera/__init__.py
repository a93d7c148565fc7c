"""Haptera: a durable key-value database, and the multiplexed messaging library it is served over."""

__version__ = "0.1.0"
