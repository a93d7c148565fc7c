"""The connections of one address have a bound, and those of another are not refused for them."""

from __future__ import annotations

from haptera.node.connection_shares import ConnectionShares


def test_one_more_than_the_limit_is_refused_until_one_is_gone() -> None:
    shares = ConnectionShares(2)
    taken = [shares.take_of(f"192.0.2.1:{port}") for port in (1, 2, 3)]
    assert taken == ["192.0.2.1", "192.0.2.1", None]
    assert shares.take_of("192.0.2.2:1") == "192.0.2.2"
    assert shares.refused == 1
    shares.give_back("192.0.2.1")
    assert shares.take_of("192.0.2.1:4") == "192.0.2.1"
    assert shares.take_of("192.0.2.1:5") is None


def test_addresses_of_one_network_of_ipv6_are_one() -> None:
    shares = ConnectionShares(1)
    assert shares.take_of("[2001:db8::1]:7") == "2001:db8::/64"
    assert shares.take_of("[2001:db8::2]:7") is None
    assert shares.take_of("[2001:db8:0:1::1]:7") is not None
    assert shares.take_of("[::ffff:192.0.2.1]:7") == "192.0.2.1"
    assert shares.take_of("192.0.2.1:8") is None


def test_unix_sockets_have_no_limit_and_neither_has_a_node_without_one() -> None:
    shares = ConnectionShares(1)
    assert [shares.take_of("unix") for _ in range(3)] == ["", "", ""]
    unlimited = ConnectionShares(0)
    assert [unlimited.take_of("192.0.2.1:1") for _ in range(3)] == ["", "", ""]


def test_nothing_is_kept_of_connections_that_are_gone() -> None:
    shares = ConnectionShares(2)
    for port in range(100):
        address = shares.take_of(f"192.0.2.{port}:1")
        assert address is not None
        shares.give_back(address)
    shares.give_back("")
    assert shares._counts == {}
