"""haptera.errors and the generated modules beside it: spec/protocol.md, section 6."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera import errors
from haptera.errors import (
    TABLE,
    CallError,
    Code,
    ConnectionLost,
    CorruptionError,
    Failure,
    HapteraError,
    LocalProtocolError,
    Outcome,
    ProtocolError,
    RemoteProtocolError,
    ServerError,
    StorageError,
    codes,
    failure,
)
from haptera.errors.codes import BY_CODE
from tools import generate_errors

RELEASED = Path(__file__).parents[2] / "vectors" / "released_errors.json"


def test_the_generated_files_follow_from_their_source() -> None:
    assert generate_errors.stale(generate_errors.generate()) == []


def test_every_released_code_keeps_its_name() -> None:
    released = json.loads(RELEASED.read_text())
    now = {str(code): name for code, (name, _, _) in TABLE.items()}
    assert released.items() <= now.items(), "a released code or name was changed or removed"


def test_every_code_is_in_the_table_of_released_ones() -> None:
    """So that whoever adds a code adds it there too, and nobody after can change it unseen."""
    assert set(json.loads(RELEASED.read_text())) == {str(code) for code in TABLE}


def test_codes_names_and_classes_say_the_same() -> None:
    assert {code.value: code.name for code in Code} == {code: name for code, (name, _, _) in TABLE.items()}
    assert BY_CODE.keys() == TABLE.keys()
    for code, error_class in BY_CODE.items():
        assert error_class.__name__.lower() == TABLE[code][0].replace("_", "").lower()
        assert error_class.__name__ in codes.__all__


@pytest.mark.parametrize("code", sorted(TABLE))
def test_a_failure_becomes_the_exception_of_its_code(code: int) -> None:
    error = failure(code, {"key": "a"}).exception()

    assert type(error) is BY_CODE[code]
    assert isinstance(error, ServerError)
    assert (error.code, error.name, error.message) == (code, *TABLE[code][:2])
    assert error.outcome == TABLE[code][2]
    assert error.details == {"key": "a"}


@pytest.mark.parametrize("error_class", [*BY_CODE.values(), ServerError, CallError])
def test_a_server_error_survives_copying_and_pickling(error_class: type[ServerError]) -> None:
    error = error_class(10_001, "NAME", "a message", outcome="applied", details={"key": "a"})
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is error_class
        assert vars(other) == vars(error)
        assert str(other) == str(error)


@pytest.mark.parametrize(
    "error",
    [
        LocalProtocolError(1008),
        RemoteProtocolError(1003, "another message", {"expected": 1, "actual": 2}),
        ConnectionLost("the connection was reset", outcome="not_applied"),
        ConnectionLost("refused", outcome="not_applied", failure=failure(1013, {"limit": 3})),
        ConnectionLost("refused", failure=Failure(1999, "LATER", "of a later version", "unknown", {})),
        CorruptionError("/data/log/1", 64, "a record", "zeros"),
    ],
)
def test_other_errors_survive_pickling(error: HapteraError) -> None:
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error)
    assert vars(other) == vars(error)
    assert str(other) == str(error)


@pytest.mark.parametrize(
    ("code", "builtin"),
    [
        (Code.KEY_NOT_FOUND, KeyError),
        (Code.DEADLINE_EXCEEDED, TimeoutError),
        (Code.PERMISSION_DENIED, PermissionError),
        (Code.INVALID_ARGUMENT, ValueError),
    ],
)
def test_a_code_with_a_built_in_exception_of_its_meaning_is_one(code: Code, builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match=TABLE[code][1]):
        raise failure(code).exception()


def test_the_exception_tree() -> None:
    assert issubclass(LocalProtocolError, ProtocolError)
    assert issubclass(RemoteProtocolError, ProtocolError)
    assert issubclass(ConnectionLost, ConnectionError)
    assert issubclass(CallError, ServerError)
    assert issubclass(CorruptionError, StorageError)
    for error in (ProtocolError, ConnectionLost, ServerError, StorageError, errors.ConfigurationError):
        assert issubclass(error, HapteraError)


@pytest.mark.parametrize("code", sorted(TABLE))
def test_a_connection_that_its_peer_ended_is_of_the_class_of_the_reason_too(code: int) -> None:
    """Trap: an error class outside the documented tree. Each name that can be caught is raised somewhere."""
    why = failure(code, {"limit": 3}, outcome="unknown")
    lost: Any = ConnectionLost("refused", outcome="not_applied", failure=why)
    for caught in (BY_CODE[code], ConnectionLost, ConnectionError, ServerError):
        with pytest.raises(caught, match="refused"):
            raise lost
    assert str(lost) == "refused"
    assert (lost.code, lost.name, lost.details) == (code, TABLE[code][0], {"limit": 3})
    assert lost.outcome == "not_applied", "what is known of the call, not what the reason says of itself"
    assert type(lost) is type(ConnectionLost("again", failure=failure(code)))


@pytest.mark.parametrize("code", [1999, 10_000])
def test_a_connection_that_ended_with_a_code_not_known_here_is_plainly_lost(code: int) -> None:
    lost = ConnectionLost("refused", failure=Failure(code, "OF_THE_FUTURE", "not known", "not_applied", {}))
    assert type(lost) is ConnectionLost
    assert lost.failure is not None


@pytest.mark.parametrize(
    ("error", "name", "outcome"),
    [
        (HapteraError("a message"), "HAPTERA_ERROR", "unknown"),
        (ConnectionLost("the connection was reset"), "CONNECTION_LOST", "unknown"),
        (errors.ConfigurationError("no such option"), "CONFIGURATION_ERROR", "not_applied"),
        (errors.LeaseLost("it was not renewed"), "LEASE_LOST", "unknown"),
        (errors.LockLost("its place was deleted"), "LOCK_LOST", "unknown"),
        (errors.WaitTimeout("jobs is held by others"), "WAIT_TIMEOUT", "not_applied"),
        (errors.WrongLoop("another loop"), "WRONG_LOOP", "not_applied"),
        (StorageError("a message"), "STORAGE_ERROR", "not_applied"),
        (CorruptionError("/data/log/1", 64, "a record", "zeros"), "CORRUPTION_ERROR", "not_applied"),
        (errors.DirectoryInUse("/data", 1), "DIRECTORY_IN_USE", "not_applied"),
        (errors.MissingKey("/data/key"), "MISSING_KEY", "not_applied"),
        (errors.WrongKey("/data/log/1", "00", "01"), "WRONG_KEY", "not_applied"),
        (errors.NewerFormat("/data/log/1", 2, 1), "NEWER_FORMAT", "not_applied"),
        (errors.OutdatedCopy("/data/log", "segment 9", "segment 2"), "OUTDATED_COPY", "not_applied"),
    ],
)
def test_an_error_without_a_code_has_a_name_an_outcome_and_no_details(
    error: HapteraError, name: str, outcome: Outcome
) -> None:
    """So that a program handles every error by the same four attributes."""
    assert (error.code, error.name, error.outcome, dict(error.details)) == (None, name, outcome, {})


def test_an_error_of_the_protocol_says_what_became_of_the_call() -> None:
    assert (RemoteProtocolError(1003).outcome, LocalProtocolError(3004).outcome) == ("unknown", "not_applied")


def test_a_class_is_named_as_a_program_imports_it() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, HapteraError)]
    assert len(classes) > 10
    for error_class in (*classes, *BY_CODE.values()):
        assert error_class.__module__ == "haptera.errors"
        assert getattr(errors, error_class.__name__) is error_class
        assert error_class.__name__ in dir(errors)
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        errors.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_an_applications_code_is_a_call_error() -> None:
    error = Failure(10_000, "TOO_COLD", "the room is too cold", "not_applied", {"celsius": 11}).exception()
    assert type(error) is CallError
    assert (error.code, error.name, error.outcome) == (10_000, "TOO_COLD", "not_applied")


def test_a_code_of_a_newer_peer_is_a_plain_server_error() -> None:
    error = Failure(4999, "OF_THE_FUTURE", "not known here", "not_applied", {}).exception()
    assert type(error) is ServerError
    assert error.name == "OF_THE_FUTURE"


def test_what_is_given_takes_the_place_of_what_follows_from_the_code() -> None:
    given_failure = failure(3007, {"limit": 64}, outcome="unknown", message="no stream is free")
    assert given_failure == Failure(3007, "TOO_MANY_REQUESTS", "no stream is free", "unknown", {"limit": 64})


def test_a_failure_of_a_code_outside_the_protocol_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="10000 is not an error code of the protocol"):
        failure(10_000)
    with pytest.raises(ValueError, match="1 is not an error code of the protocol"):
        LocalProtocolError(1)


def test_the_code_of_a_failure_is_a_plain_integer() -> None:
    """An IntEnum would be compared and encoded by its own, slower, methods."""
    assert type(failure(Code.KEY_NOT_FOUND).code) is int
    assert type(LocalProtocolError(Code.PROTOCOL_VIOLATION).code) is int


def test_an_error_reads_as_one_line() -> None:
    error = failure(4002, {"key": "a", "expected": 3, "actual": 0}).exception()
    assert str(error) == "VERSION_MISMATCH (4002): the key has another version {key: 'a', expected: 3, actual: 0}"
    assert str(failure(4001).exception()) == "KEY_NOT_FOUND (4001): the key does not exist"
    assert str(ConnectionLost("reset by peer")) == "reset by peer"
    assert str(CorruptionError("log/7", 512, "00000000", "3f2a1b4c")) == (
        "log/7 is damaged at byte 512: expected 00000000, found 3f2a1b4c"
    )


def test_an_error_line_holds_nothing_that_a_terminal_obeys() -> None:
    name, message, said = "N\x1b[2J", "m\n\x9b31m \u202e\x7f", {"k\r": "v\x07", "n": {"\x1b": "\x1b"}}
    for error in (
        Failure(12_000, name, message, "unknown", said).exception(),
        Failure(4001, name, message, "unknown", said).exception(),
        RemoteProtocolError(1002, message, said),
    ):
        assert str(error).isprintable()
        assert (error.message, error.details) == (message, said)
    assert str(CallError(12_000, "N", "a\x1bb\n")) == "N (12000): a\\x1bb\\n"


def test_a_long_detail_does_not_make_a_long_line() -> None:
    line = str(failure(4001, {"key": "k" * 4096}).exception())
    assert len(line) < 300
    assert line.endswith("…}")


details = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text())


outcomes = st.sampled_from(get_args(Outcome))


@given(st.builds(Failure, st.integers(0, 2**32), st.text(), st.text(), outcomes, details))
def test_a_failure_is_the_payload_of_an_error_frame(sent: Failure) -> None:
    payload = msgspec.msgpack.encode(sent)
    assert msgspec.msgpack.decode(payload, type=Failure) == sent
    as_map: dict[str, Any] = msgspec.msgpack.decode(payload)
    assert list(as_map) == ["code", "name", "message", "outcome", "details"]


def source(**changes: str) -> str:
    """A source of one error, with some of its lines replaced."""
    lines = {
        "code": "4001",
        "name": '"KEY_NOT_FOUND"',
        "scope": '"stream"',
        "message": '"the key does not exist"',
        "outcome": '"not_applied"',
        "retry": '"no"',
        "meaning": '"The key is missing."',
        "details": "{}",
    } | changes
    error = "[[error]]\n" + "\n".join(f"{key} = {value}" for key, value in lines.items())
    return f'[groups]\n4000 = {{ name = "Data", meaning = "Data." }}\n{error}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (source(code="999"), "code is 1000 to 9999"),
        (source(code="5001"), "no group for [5000]"),
        (source(name='"KeyNotFound"'), "name is in capitals"),
        (source(message='"The key."'), "message is one line"),
        (source(scope='"request"'), "scope is one of"),
        (source(outcome='"maybe"'), "outcome is one of"),
        (source(retry='"yes"'), "retry is one of"),
        (source(meaning='"no sentence"'), "meaning is a sentence"),
        (source() + source().partition("}\n")[2], "code used twice: [4001]"),
        (source() + source(code="4000").partition("}\n")[2], "name used twice: ['KEY_NOT_FOUND']"),
        (
            source() + source(code="4000", name='"A"', message='"a b"').partition("}\n")[2],
            "errors stand in the order of their codes",
        ),
    ],
)
def test_the_generator_refuses_what_the_source_forbids(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        generate_errors.load(text)
