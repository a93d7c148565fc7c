"""Proofs of identity: the exchanges that authenticate a user, over bytes (spec/protocol.md, section 5).

Pure: nothing here knows a socket, a clock, a file or an event loop, and randomness is passed in.
"""

from __future__ import annotations

from haptera.security.binding import UNBOUND, Binding, hello_binding, link_binding
from haptera.security.errors import ExchangeFailed
from haptera.security.password_policy import password_refusal
from haptera.security.plain import PlainLogin, read_plain, write_plain
from haptera.security.salted_passwords import SaltedPasswords
from haptera.security.scram import SCRAM_SHA_256, ScramAcceptor, ScramDialer, SigningSecret
from haptera.security.scram_messages import new_nonce
from haptera.security.throttle import LoginThrottle, network_of
from haptera.security.verifiers import ClientKeys, Verifier, decoy, derive_keys, new_verifier, verifier_of

__all__ = [
    "SCRAM_SHA_256",
    "UNBOUND",
    "Binding",
    "ClientKeys",
    "ExchangeFailed",
    "LoginThrottle",
    "PlainLogin",
    "SaltedPasswords",
    "ScramAcceptor",
    "ScramDialer",
    "SigningSecret",
    "Verifier",
    "decoy",
    "derive_keys",
    "hello_binding",
    "link_binding",
    "network_of",
    "new_nonce",
    "new_verifier",
    "password_refusal",
    "read_plain",
    "verifier_of",
    "write_plain",
]
