"""The terms of the kv service with one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from haptera.kv_groups import KV_GROUPS
from haptera.node.services.kv_methods import METHODS, methods_with
from haptera.node.services.kv_terms import Terms
from tests.unit.node.doubles import FakePeer

if TYPE_CHECKING:
    from haptera.peer import Peer


class CountingPeer(FakePeer):
    """A peer that counts how often it is asked for its capabilities."""

    asked = 0

    @property
    def capabilities(self) -> frozenset[str]:
        self.asked += 1
        return self._capabilities

    @capabilities.setter
    def capabilities(self, capabilities: frozenset[str]) -> None:
        self._capabilities = capabilities


def terms(*capabilities: str) -> Terms:
    return Terms.of(cast("Peer", FakePeer(capabilities=frozenset(capabilities))))


def test_a_connection_has_the_methods_of_its_capabilities() -> None:
    assert terms(*KV_GROUPS).methods is METHODS
    assert terms("pipelining").methods.keys() == methods_with(set()).keys() < METHODS.keys()


def test_the_ids_of_changes_count_by_idempotency_and_times_are_told_by_kv_ttl() -> None:
    assert (terms("idempotency").identifies, terms("idempotency").hides_times) == (True, True)
    assert (terms("kv_ttl").identifies, terms("kv_ttl").hides_times) == (False, False)


def test_an_answer_has_as_many_bytes_as_the_peer_takes() -> None:
    peer = FakePeer()
    peer.max_message = 77
    assert Terms.of(cast("Peer", peer)).message_max == 77


def test_a_connection_is_asked_for_its_terms_once() -> None:
    peer = CountingPeer()
    first = Terms.of(cast("Peer", peer))
    assert Terms.of(cast("Peer", peer)) is first
    assert peer.asked == 1
    assert Terms.of(cast("Peer", CountingPeer())) is not first
