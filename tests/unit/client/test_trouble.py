"""The rule of errors that pass, held against the specification."""

from __future__ import annotations

import pytest

from haptera.client.trouble import PASSING_SOON, ends_watch_alone, passes, passes_soon
from haptera.errors import (
    REMEDIES,
    ConnectionLost,
    HapteraError,
    LeaseLost,
    LocalProtocolError,
    RemoteProtocolError,
    ServerError,
    failure,
)
from tests.support.refusals import LASTING, PASSING


@pytest.mark.parametrize("name", PASSING)
def test_an_error_passes_that_the_specification_has_a_client_try_again(name: str) -> None:
    error = PASSING[name]()
    assert passes(error)
    assert ends_watch_alone(error)


@pytest.mark.parametrize(
    ("code", "goes_on"), [(2001, False), (2002, False), (2003, True), (2005, False), (1013, True), (1014, True)]
)
def test_a_user_that_is_not_let_in_does_not_try_again(code: int, goes_on: bool) -> None:
    assert passes(ConnectionLost("refused", failure=failure(code))) is goes_on
    assert passes(ConnectionLost("cut"))


@pytest.mark.parametrize("name", LASTING)
def test_an_error_stays_that_the_same_request_meets_again(name: str) -> None:
    error = LASTING[name]()
    assert not passes(error)
    assert not ends_watch_alone(error)


@pytest.mark.parametrize(("code", "watch_alone"), [(4009, True), (4010, False), (4011, False)])
def test_an_error_about_what_was_asked_for_stays_and_one_about_the_place_of_a_watch_ends_the_watch_alone(
    code: int, watch_alone: bool
) -> None:
    error = failure(code).exception()
    assert not passes(error)
    assert ends_watch_alone(error) is watch_alone


@pytest.mark.parametrize(
    ("code", "passing"), [(1999, False), (3999, False), (4999, False), (5999, True), (6999, True), (10_000, False)]
)
def test_a_code_of_a_newer_server_goes_by_its_thousand(code: int, passing: bool) -> None:
    assert code not in REMEDIES
    assert passes(ServerError(code, "NEW", "a newer server says so")) is passing


def test_an_answer_that_breaks_the_protocol_ends_a_watch_alone_and_a_mistake_of_this_side_stays() -> None:
    broken: list[HapteraError] = [RemoteProtocolError(1002), LocalProtocolError(3004), LeaseLost("over")]
    assert [passes(error) for error in broken] == [False] * 3
    assert [ends_watch_alone(error) for error in broken] == [True, False, False]


@pytest.mark.parametrize("code", sorted(PASSING_SOON))
def test_a_refusal_that_passes_within_a_call_has_it_sent_again_where_that_cannot_apply_it_twice(code: int) -> None:
    assert REMEDIES[code] in {"later", "reconnect"}
    assert passes_soon(failure(code, outcome="unknown"), write=False)
    assert passes_soon(failure(code, outcome="not_applied"), write=True)
    assert passes_soon(failure(code, outcome="unknown"), write=True) is (code == 1003), (
        "nothing but the answer is damaged"
    )


@pytest.mark.parametrize("code", [5002, 5001, 3005, 4002])
def test_a_caller_is_told_of_a_refusal_that_outlasts_a_call(code: int) -> None:
    assert not passes_soon(failure(code, outcome="not_applied"), write=False)
