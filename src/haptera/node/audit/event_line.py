"""The fields of an audit line (spec/audit.md, section 2): their order, and how long each may be. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from haptera.node.audit.event import AuditEvent

__all__ = ["TEXT_MAX", "KeyForm", "fields_of", "hashed_keys", "plain_key"]

#: Characters of a text. A peer chooses some of them, and the log must not grow with its choice.
TEXT_MAX: Final = 256

#: Gives the fields that stand for a key.
KeyForm = Callable[[str], dict[str, Any]]


def plain_key(key: str) -> dict[str, Any]:
    """The key itself; of a long one the beginning and the size in bytes."""
    if len(key) <= TEXT_MAX:
        return {"key": key}
    return {"key": key[:TEXT_MAX], "key_size": len(key.encode("utf-8", "surrogatepass"))}


def hashed_keys(secret: bytes, name: str) -> KeyForm:
    """Give the form of keys of which the log has HMAC-SHA256 alone, under a secret of this name."""

    def hashed(key: str) -> dict[str, Any]:
        digest = hmac.digest(secret, key.encode("utf-8", "surrogatepass"), hashlib.sha256)
        return {"key_hash": f"{name}:{digest.hex()}"}

    return hashed


def fields_of(event: AuditEvent, key_form: KeyForm) -> dict[str, Any]:
    """All fields but those of the chain, in their order. A field that says nothing is left out."""
    fields: dict[str, Any] = {"time": event.time_ms, "kind": event.kind}
    caller = event.caller
    for name in ("connection", "address", "user", "mechanism"):
        if text := getattr(caller, name):
            fields[name] = _cut(text)
    fields["method"] = _cut(event.method)
    if event.key is not None:
        fields.update(key_form(event.key))
    if event.keys is not None:
        fields["keys"] = event.keys
    if event.target is not None:
        fields["target"] = _cut(event.target)
    fields["outcome"] = event.outcome
    fields["code"] = event.code
    if event.latency_us is not None:
        fields["latency_us"] = event.latency_us
    if event.detail:
        fields["detail"] = {
            name: _cut(value) if isinstance(value, str) else value for name, value in event.detail.items()
        }
    return fields


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX]
