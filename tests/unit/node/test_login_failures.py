"""The attempts to authenticate of a node: what counts as the failure of whom, without a connection."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from haptera.node.login_failures import LoginFailures
from haptera.node.metrics import Metrics
from haptera.peer import address_of
from haptera.security import throttle
from tests.unit.node.doubles import Recorded

WRONG = "the password is wrong"


def peer(remote: str = "192.0.2.1:5", uid: int | None = None) -> Any:
    credentials = None if uid is None else SimpleNamespace(uid=uid)
    return SimpleNamespace(remote=remote, credentials=credentials, attributes={})


class Door:
    """The failures of a node, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.metrics = Metrics()
        self.recorded = Recorded()
        self.failures = LoginFailures(self.metrics, self.recorded, lambda: self.now)

    def attempt(self, who: Any, name: str = "root", reason: str | None = WRONG) -> dict[str, Any] | None:
        """The details of the refusal, or None for an attempt that was judged and ended like this."""
        refused = self.failures.refuses(who, name)
        if refused is None:
            self.failures.ended(who, name, "PLAIN", reason)
            return None
        assert (refused.code, refused.outcome) == (2003, "not_applied")
        return dict(refused.details)


@pytest.mark.parametrize(
    ("remote", "uid", "address"),
    [
        ("192.0.2.1:5", None, "192.0.2.1"),
        ("[2001:db8::1]:5", None, "2001:db8::1"),
        ("unix", 1000, "unix:1000"),
        ("unix", None, "unix"),
    ],
)
def test_an_address_has_no_port_and_a_unix_socket_has_the_user_of_the_process(
    remote: str, uid: int | None, address: str
) -> None:
    who = peer(remote, uid)
    assert address_of(who.remote, who.credentials) == address


def test_a_user_waits_after_three_failures_on_whatever_connections_and_comes_in_behind_the_wait() -> None:
    door = Door()
    for port in range(4):
        assert door.attempt(peer(f"192.0.2.1:{port}")) is None
    assert door.attempt(peer(), reason=None) == {"retry_after_ms": 1000}
    assert door.attempt(peer("192.0.2.2:5"), reason=None) is None
    assert door.attempt(peer(), "other", reason=None) is None
    door.now += 1
    assert door.attempt(peer(), reason=None) is None
    assert (door.metrics.logins_total, door.metrics.logins_failed_total) == (3, 5)
    assert door.recorded.attempts == [
        *[("root", "PLAIN", 2002)] * 4,
        ("root", "", 2003),
        *[("root", "PLAIN", 0), ("other", "PLAIN", 0), ("root", "PLAIN", 0)],
    ]


def test_the_users_of_a_machine_do_not_wait_for_each_other() -> None:
    door = Door()
    for _ in range(4):
        assert door.attempt(peer("unix", 1001)) is None
    assert door.attempt(peer("unix", 1001)) is not None
    assert door.attempt(peer("unix", 1000), reason=None) is None


def test_an_attempt_that_names_nobody_is_a_failure_of_its_address_alone() -> None:
    door = Door()
    for _ in range(throttle.ADDRESS_FAILURES - 1):
        assert door.attempt(peer(), "", "the argument is malformed") is None
    assert door.attempt(peer(), reason=None) is None
    assert door.attempt(peer(), "", "the argument is malformed") is None
    assert door.attempt(peer(), reason=None) is not None
    assert door.attempt(peer("192.0.2.2:5"), reason=None) is None


def test_malformed_attempts_do_not_end_those_that_are_under_way() -> None:
    door = Door()
    under_way = [peer(f"192.0.2.1:{port}") for port in range(throttle.UNDER_WAY_MAX)]
    assert all(door.failures.refuses(each, "root") is None for each in under_way)
    assert door.attempt(peer(), "", "the argument is malformed") is None
    assert door.attempt(peer()) == {"retry_after_ms": throttle.UNDER_WAY_WAIT_MS}
    door.failures.ended(under_way[0], "root", "SCRAM-SHA-256", None)
    assert door.attempt(peer(), reason=None) is None


def test_each_attempt_ends_where_it_has_begun_though_the_socket_tells_its_process_no_more() -> None:
    door = Door()
    for _ in range(throttle.UNDER_WAY_MAX + 1):
        who = peer("unix", 1000)
        assert door.failures.refuses(who, "root") is None
        who.credentials = None
        door.failures.ended(who, "root", "PLAIN", None)
