"""The throttle of failed authentication: slow for a guesser, and harmless for everyone else."""

from __future__ import annotations

from random import Random

import pytest

from haptera.security import LoginThrottle, throttle
from haptera.security.throttle import network_of

HOME, ELSEWHERE = "198.51.100.1", "203.0.113.9"


class Guesser:
    """Tries passwords as fast as it is let, on a clock of its own."""

    def __init__(self, login: LoginThrottle | None = None, address: str = HOME, name: str = "root") -> None:
        self.login = login or LoginThrottle()
        self.address, self.name = address, name
        self.now = 1000.0

    def attempt(self, ok: bool = False) -> int | None:
        """Milliseconds to wait, or None for an attempt that was judged."""
        wait = self.login.refuses(self.name, self.address, self.now)
        if wait is None:
            self.login.ended(self.name, self.address, ok, self.now)
        return wait

    def waits(self, count: int) -> list[float]:
        """The seconds before each of so many wrong attempts, each made as soon as it is judged."""
        found = []
        for _ in range(count):
            wait = self.attempt()
            found.append(0.0 if wait is None else wait / 1000)
            if wait is not None:
                self.now += wait / 1000
                assert self.attempt() is None
        return found

    def fail(self, count: int) -> None:
        self.waits(count)


def test_after_three_failures_each_wait_is_twice_as_long_up_to_a_quarter_of_an_hour() -> None:
    waits = Guesser().waits(16)
    assert waits[:8] == [0, 0, 0, 0, 1, 2, 4, 8]
    assert waits[12:] == [256, 512, 900, 900]


def test_an_attempt_within_the_wait_is_refused_with_the_time_that_is_left_and_makes_it_no_longer() -> None:
    guesser = Guesser()
    guesser.fail(6)
    guesser.now += 0.5
    assert guesser.attempt() == guesser.attempt(ok=True) == 3500
    guesser.now += 3.5
    assert guesser.attempt(ok=True) is None


def test_the_right_password_forgives_the_user_at_its_address_alone() -> None:
    login = LoginThrottle()
    home, away = Guesser(login), Guesser(login, ELSEWHERE)
    home.fail(3)
    away.fail(3)
    assert home.attempt(ok=True) is None
    assert home.waits(4) == [0, 0, 0, 0]
    assert away.waits(2) == [0, 1]


def test_a_user_is_forgiven_an_hour_after_its_wait() -> None:
    guesser = Guesser()
    guesser.fail(8)
    guesser.now += 16 + 3599
    assert guesser.waits(2)[1] == 32
    guesser.now += 64 + 3600
    assert guesser.waits(5) == [0, 0, 0, 0, 1]


def test_no_guesser_locks_the_administrator_out_from_elsewhere() -> None:
    """Trap: a lock-out that anyone can trigger for the administrator from outside."""
    login = LoginThrottle()
    random = Random(7)
    for _ in range(2000):
        guesser = Guesser(login, f"203.0.{random.randrange(256)}.{random.randrange(256)}")
        guesser.attempt()
    home = Guesser(login)
    assert home.attempt(ok=True) is None
    assert [home.attempt(), home.attempt()] == [None, None], "a mistake costs it nothing"
    assert home.attempt() == 30_000


def test_a_user_that_is_guessed_from_many_places_is_guessed_slower_from_each() -> None:
    login = LoginThrottle()
    for number in range(throttle.USER_FAILURES):
        assert Guesser(login, f"203.0.113.{number}").attempt() is None
    assert Guesser(login).waits(4) == [0, 0, 30, 60]
    other = Guesser(login, name="ann")
    assert other.waits(4) == [0, 0, 0, 0]
    later = Guesser(login, ELSEWHERE)
    later.now += 3600
    assert later.waits(4) == [0, 0, 0, 0], "it is forgotten"


def test_an_address_that_tries_many_names_has_to_wait_between_them() -> None:
    login, now = LoginThrottle(), 1000.0
    judged, refused = 0, set()
    for number in range(100):
        wait = login.refuses(f"user{number}", HOME, now)
        if wait is None:
            login.ended(f"user{number}", HOME, False, now)
            judged += 1
        else:
            refused.add(wait)
    assert (judged, refused) == (throttle.ADDRESS_FAILURES, {5000})
    assert login.refuses("root", ELSEWHERE, now) is None
    assert login.refuses("root", HOME, now + 4.5) in {500, 501}
    assert login.refuses("root", HOME, now + 5.0) is None


def test_an_account_of_its_own_gains_a_guesser_nothing() -> None:
    login, now = LoginThrottle(), 1000.0
    judged = 0
    for number in range(200):
        for name, ok in ((f"user{number}", False), ("mallory", True)):
            if login.refuses(name, HOME, now) is None:
                login.ended(name, HOME, ok, now)
                judged += not ok
    assert judged == throttle.ADDRESS_FAILURES


def test_connections_that_come_back_at_one_instant_come_in() -> None:
    login, now = LoginThrottle(), 1000.0
    names = [f"app{number % 20}" for number in range(1000)]
    assert [login.refuses(name, HOME, now) for name in names] == [None] * 1000
    for name in names:
        login.ended(name, HOME, True, now)
    assert login.size == 0
    assert login.refuses("app0", HOME, now) is None


def test_a_wrong_password_in_many_processes_makes_the_wait_of_one_failure() -> None:
    login, now = LoginThrottle(), 1000.0
    judged = [login.refuses("app", HOME, now) for _ in range(80)]
    assert judged.count(None) == throttle.UNDER_WAY_MAX
    assert set(judged[64:]) == {1000}
    for _ in range(64):
        login.ended("app", HOME, False, now)
    assert login.refuses("app", HOME, now) == (64 - 29) * 5000, "the address pays for each"
    now += (64 - 29) * 5
    assert login.refuses("app", HOME, now) is None
    login.ended("app", HOME, False, now)
    assert login.refuses("app", HOME, now + 5) is None, "and the user waits for two seconds alone"


def test_a_user_that_has_failed_has_no_more_attempts_under_way_than_it_may_fail() -> None:
    login, now = LoginThrottle(), 1000.0
    for _ in range(2):
        assert login.refuses("root", HOME, now) is None
        login.ended("root", HOME, False, now)
    assert login.refuses("root", HOME, now) is None
    assert login.refuses("root", HOME, now) == 1000
    assert login.refuses("root", ELSEWHERE, now) is None
    login.ended("root", HOME, False, now)
    assert login.refuses("root", HOME, now) is None


def test_an_address_has_a_bound_of_attempts_under_way() -> None:
    login = LoginThrottle()
    judged = [login.refuses(f"user{number}", HOME, 1.0) for number in range(2000)]
    assert judged.count(None) == throttle.ADDRESS_UNDER_WAY_MAX
    assert login.refuses("root", ELSEWHERE, 1.0) is None
    login.ended("user0", HOME, True, 1.0)
    assert login.refuses("root", HOME, 1.0) is None


def test_the_debt_of_an_address_has_a_bound() -> None:
    login = LoginThrottle()
    for number in range(1000):
        login.refuses(f"user{number}", HOME, 1.0)
    for number in range(1000):
        login.ended(f"user{number}", HOME, False, 1.0)
    assert login.refuses("root", HOME, 1.0) == (throttle.ADDRESS_DEBT_MAX + 1) * 5000


def test_an_attempt_that_never_began_counts_for_its_address_alone() -> None:
    login = LoginThrottle()
    for _ in range(throttle.ADDRESS_FAILURES):
        login.malformed(HOME, 1.0)
    assert login.refuses("root", HOME, 1.0) == 5000
    assert login.size == 1
    assert login.refuses("root", ELSEWHERE, 1.0) is None


def test_memory_is_bounded_and_a_flood_of_others_does_not_end_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAIRS_MAX", "ADDRESSES_MAX", "USERS_MAX"):
        monkeypatch.setattr(throttle, name, 100)
    guesser = Guesser()
    guesser.fail(12)
    for number in range(5000):
        for _ in range(3):
            Guesser(guesser.login, f"10.0.{number // 256}.{number % 256}", f"user{number}").attempt()
    assert guesser.login.size <= 300
    assert guesser.attempt() == 256_000
    guesser.now += 256
    assert guesser.waits(2) == [0, 512]


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unix:1000", "unix:1000"),
        ("", ""),
    ],
)
def test_an_address_stands_for_the_place_of_one_customer(address: str, place: str) -> None:
    assert network_of(address) == place


def test_addresses_of_one_network_of_ipv6_share_their_failures() -> None:
    login = LoginThrottle()
    for number in range(4):
        assert Guesser(login, f"2001:db8::{number:x}").attempt() is None
    assert Guesser(login, "2001:db8::ffff").attempt() == 1000
    assert Guesser(login, "2001:db8:0:1::1").attempt() is None
