"""Leases that a database keeps alive, and the holder's knowledge of them."""
