"""Proofs of identity: the exchanges that authenticate a user, over bytes (spec/protocol.md, section 5).

Pure: nothing here knows a socket, a clock, a file or an event loop, and randomness is passed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.lazy import lazily

if TYPE_CHECKING:
    from haptera.security.binding import UNBOUND, Binding, hello_binding, link_binding
    from haptera.security.errors import ExchangeFailed
    from haptera.security.mechanisms import SCRAM_SHA_256
    from haptera.security.password_policy import password_refusal
    from haptera.security.plain import PlainLogin, read_plain, write_plain
    from haptera.security.salted_passwords import SaltedPasswords
    from haptera.security.scram import ScramAcceptor, ScramDialer, SigningSecret
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

#: Each name with its module, which is imported when it is first used: few connections have a proof.
_MODULES: Final = {
    "Binding": "haptera.security.binding",
    "ClientKeys": "haptera.security.verifiers",
    "ExchangeFailed": "haptera.security.errors",
    "LoginThrottle": "haptera.security.throttle",
    "PlainLogin": "haptera.security.plain",
    "SCRAM_SHA_256": "haptera.security.mechanisms",
    "SaltedPasswords": "haptera.security.salted_passwords",
    "ScramAcceptor": "haptera.security.scram",
    "ScramDialer": "haptera.security.scram",
    "SigningSecret": "haptera.security.scram",
    "UNBOUND": "haptera.security.binding",
    "Verifier": "haptera.security.verifiers",
    "decoy": "haptera.security.verifiers",
    "derive_keys": "haptera.security.verifiers",
    "hello_binding": "haptera.security.binding",
    "link_binding": "haptera.security.binding",
    "network_of": "haptera.security.throttle",
    "new_nonce": "haptera.security.scram_messages",
    "new_verifier": "haptera.security.verifiers",
    "password_refusal": "haptera.security.password_policy",
    "read_plain": "haptera.security.plain",
    "verifier_of": "haptera.security.verifiers",
    "write_plain": "haptera.security.plain",
}

if not TYPE_CHECKING:  # a type checker would take it to mean that any name is there
    __getattr__ = lazily(__name__, _MODULES)
