"""What users may import, and what importing it costs."""

from __future__ import annotations

import importlib
import inspect
import os
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import haptera
from haptera import authentication, cafe, errors, recipes, typed
from haptera.errors.codes import BY_CODE

DATABASE = {
    "Backup",
    "Cache",
    "Database",
    "Entry",
    "Event",
    "Scan",
    "TransactResult",
    "Transaction",
    "Watch",
    "connect",
    "open",
}
RECIPE_NAMES = {
    "Barrier",
    "Counter",
    "Election",
    "Holding",
    "Job",
    "Lease",
    "LeaseInfo",
    "Lock",
    "Pending",
    "Pipeline",
    "Queue",
    "RateLimit",
    "Semaphore",
    "Worker",
}
MESSAGING = {
    "Answer",
    "Budget",
    "Call",
    "CallStream",
    "ConnectionOptions",
    "Credentials",
    "Limits",
    "Peer",
    "Request",
    "Server",
    "Service",
    "Trace",
    "dial",
    "listen",
    "method",
}
ERRORS = {
    "CallError",
    "Code",
    "ConnectionLost",
    "DeadlineExceeded",
    "Failure",
    "HapteraError",
    "KeyExists",
    "KeyNotFound",
    "Outcome",
    "PermissionDenied",
    "TransactionConflict",
    "VersionMismatch",
    "errors",
}
OTHER_ERRORS = {
    "REMEDIES",
    "TABLE",
    "ConfigurationError",
    "CorruptionError",
    "DamagedBackup",
    "DirectoryInUse",
    "ForeignArchive",
    "LeaseLost",
    "LocalProtocolError",
    "LockLost",
    "MissingKey",
    "NewerFormat",
    "OutdatedCopy",
    "ProtocolError",
    "RemoteProtocolError",
    "ServerError",
    "StorageError",
    "UnexpectedValue",
    "WaitTimeout",
    "WrongKey",
    "WrongLoop",
    "describe",
    "failure",
    "printable",
}
AUTHENTICATION = {
    "EXTERNAL",
    "PLAIN",
    "SCRAM",
    "Authenticator",
    "Identity",
    "PasswordUsers",
    "Verifier",
    "decoy",
    "verifier_for",
}
CAFE = {"MultiplexedClient"}
TYPED = {
    "CodecName",
    "TypedCache",
    "TypedCallStream",
    "TypedChanges",
    "TypedDatabase",
    "TypedEntry",
    "TypedEvent",
    "TypedScan",
    "TypedTransaction",
    "TypedWatch",
    "method",
}
NAMES_MAX = 40


def test_the_public_names_are_these_and_no_others() -> None:
    assert set(haptera.__all__) == DATABASE | MESSAGING | ERRORS | {"__version__"}
    assert len(haptera.__all__) <= NAMES_MAX
    assert set(errors.__all__) == (ERRORS | OTHER_ERRORS) - {
        "errors",
        *(error_class.__name__ for error_class in BY_CODE.values()),
    }


def test_the_recipes_are_these_and_can_be_imported_by_name() -> None:
    assert set(recipes.__all__) == RECIPE_NAMES
    assert set(recipes.__all__) <= set(dir(recipes))
    with pytest.raises(AttributeError):
        recipes.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_the_names_of_authentication_are_these_and_no_others() -> None:
    assert set(authentication.__all__) == AUTHENTICATION
    assert set(authentication.__all__) <= set(dir(authentication))
    with pytest.raises(AttributeError):
        authentication.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_the_names_of_cafe_are_these_and_no_others() -> None:
    assert set(cafe.__all__) == CAFE
    assert set(cafe.__all__) <= set(dir(cafe))
    with pytest.raises(AttributeError):
        cafe.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_the_names_for_values_with_a_type_are_these_and_no_others() -> None:
    assert set(typed.__all__) == TYPED
    assert set(typed.__all__) <= set(dir(typed))
    assert all(getattr(typed, name) is not None for name in TYPED)
    with pytest.raises(AttributeError):
        typed.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def public(thing: type) -> Iterator[Any]:
    """The functions of a class that a program may call."""
    for name, member in vars(thing).items():
        if not name.startswith("_"):
            function = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if inspect.isfunction(function):
                yield function


def every_class() -> dict[str, object]:
    """What an annotation may name: the classes of all modules that are loaded, by their names. Those of `haptera.sync`
    have names that others have, too, and their own modules know them.
    """
    return {
        name: value
        for module in sorted(sys.modules.values(), key=lambda each: not each.__name__.startswith("haptera.sync"))
        if module.__name__.partition(".")[0] in {"haptera", "types"}
        for name, value in vars(module).items()
        if isinstance(value, type)
    } | {"os": os, "CodecName": typed.CodecName}


def named(hint: object) -> Iterator[object]:
    """A type and all types in it."""
    yield hint
    for inner in get_args(hint):
        yield from named(inner)


FUNCTIONS = [haptera.connect, haptera.open, haptera.listen, haptera.dial, haptera.method, typed.method]
RECIPES = [getattr(recipes, name) for name in recipes.__all__]
CLASSES = [value for value in (getattr(haptera, name) for name in haptera.__all__) if inspect.isclass(value)]
CLASSES += RECIPES
CLASSES += [authentication.PasswordUsers, authentication.Authenticator, cafe.MultiplexedClient]
CLASSES += [value for value in (getattr(typed, name) for name in sorted(TYPED)) if inspect.isclass(value)]


def test_every_type_that_a_public_signature_names_can_be_imported() -> None:
    functions = [*FUNCTIONS, *(function for each in CLASSES for function in public(each))]
    known = every_class()
    importable = {id(getattr(haptera, name)) for name in haptera.__all__}
    importable |= {id(getattr(errors, name)) for name in dir(errors)}
    importable |= {id(recipe) for recipe in RECIPES}
    importable |= {id(getattr(typed, name)) for name in TYPED}
    importable |= {id(getattr(authentication, name)) for name in authentication.__all__}
    importable |= {id(cafe.MultiplexedClient)}
    hidden = {
        f"{function.__qualname__}: {hint!r}"
        for function in functions
        for whole in get_type_hints(
            inspect.unwrap(function), localns={**known, **inspect.unwrap(function).__globals__}
        ).values()
        for hint in named(whole)
        if isinstance(hint, type) and hint.__module__.startswith("haptera") and id(hint) not in importable
    }
    assert not hidden


@pytest.mark.parametrize("name", haptera.__all__)
def test_a_public_name_leads_to_something(name: str) -> None:
    assert getattr(haptera, name) is not None
    assert name in dir(haptera)


@pytest.mark.parametrize(
    "function", [*FUNCTIONS, *(each for thing in CLASSES for each in public(thing))], ids=lambda each: each.__qualname__
)
def test_a_public_function_says_what_it_takes_and_what_it_returns(function: Any) -> None:
    """In sections, of which tools make pages. A timeout alone is explained where its class is."""
    parameters = [name for name in inspect.signature(function).parameters if name not in {"self", "cls", "timeout"}]
    text = function.__doc__ or ""
    if parameters:
        described = text.partition("Args:\n")[2].partition("\n\n")[0]
        assert [name for name in parameters if not re.search(rf"\b{name}\b.*:", described)] == []
        returned = inspect.signature(function).return_annotation
        assert returned in {None, "None"} or "Returns:\n" in text
    assert text


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'haptera' has no attribute 'no_such_name'"):
        haptera.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_the_version_is_the_packages() -> None:
    assert haptera.__version__ == version("haptera")


def imported_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running the code."""
    script = f"import sys\n{code}\nprint(*sys.modules, sep='\\n')"
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(process.stdout.split())


def test_importing_the_package_imports_none_of_its_parts() -> None:
    loaded = imported_by("import haptera")
    assert {name for name in loaded if name.startswith("haptera")} == {"haptera", "haptera.lazy", "haptera.version"}
    assert not loaded & {"asyncio", "msgspec", "google_crc32c"}


def test_the_client_and_the_messaging_library_need_nothing_beyond_the_base_install() -> None:
    loaded = imported_by(
        "import haptera\nhaptera.connect, haptera.listen, haptera.dial, haptera.open, haptera.errors.DirectoryInUse"
    )
    extras = {"cryptography", "sortedcontainers", "uvloop", "click", "rich", "zstandard"}
    assert not loaded & extras
    assert "haptera.node" not in loaded


def test_a_recipe_is_imported_when_it_is_first_asked_for() -> None:
    loaded = imported_by("import haptera.recipes\nhaptera.connect, haptera.Database")
    assert not {name for name in loaded if name.startswith("haptera.client.recipes.")}


def test_nothing_is_printed_where_no_logging_is_set_up(tmp_path: Path) -> None:
    """Opening a store warns of its key file, and a handler that fails is an error in the log: neither is for stderr."""
    script = """
import asyncio, logging, sys, haptera

class Failing(haptera.Service):
    name = "failing"

    @haptera.method
    async def fails(self, request):
        raise ValueError("a fault")

async def main():
    async with haptera.open(sys.argv[1]) as db:
        await db.set("k", b"v")
    async with haptera.listen("haptera://127.0.0.1:0", services=[Failing()]) as server:
        async with haptera.dial(server.url) as peer:
            try:
                await peer.call("failing", "fails")
            except haptera.errors.HandlerFailed:
                print("failed")

asyncio.run(main())
logging.basicConfig(level=logging.WARNING, format="%(message)s")
asyncio.run(main())
"""
    command = [sys.executable, "-c", script, str(tmp_path / "data")]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stdout == "failed\nfailed\n"
    # And a program that has set logging up sees all of it, once.
    assert [line for line in process.stderr.splitlines() if line.startswith(("key_file", "handler"))] == [
        "key_file_beside_data",
        "handler_failed",
    ]


def documented(*heads: str) -> set[str]:
    """The names in the first columns of the tables of docs/client.md that begin with these heads."""
    text = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
    found: set[str] = set()
    for head in heads:
        rows = text.partition(f"| {head} | |\n")[2].partition("\n\n")[0].splitlines()[1:]
        for row in rows:
            found.update(re.findall(r"`(\w+)", row.split(" | ")[0]))
    return found


def shown(class_: type) -> set[str]:
    return {name for name in dir(class_) if not name.startswith("_")}


def test_peers_and_requests_show_the_names_that_are_documented_and_no_others() -> None:
    assert shown(haptera.Peer) == documented("call of a `Peer`", "attribute of a `Peer`")
    assert shown(haptera.Request) == documented("of a `Request`")


def test_a_peer_is_a_peer_and_no_part_of_it_extends_another() -> None:
    from haptera.peer.dispatcher import Dispatcher
    from haptera.peer.link import Link
    from haptera.peer.outgoing_calls import Caller

    for class_ in (haptera.Peer, haptera.Request, Caller, Dispatcher, Link):
        assert [each for each in class_.__mro__[1:] if each.__module__.startswith("haptera")] == []


@pytest.mark.parametrize(
    "module",
    [
        *("haptera", "haptera.authentication", "haptera.cafe", "haptera.errors", "haptera.notebook"),
        *("haptera.recipes", "haptera.sync", "haptera.testing", "haptera.typed"),
    ],
)
def test_help_shows_each_name_of_a_module(module: str) -> None:
    thing = importlib.import_module(module)
    page = pydoc.plain(pydoc.render_doc(thing))
    assert [name for name in thing.__all__ if name not in page and name != "__version__"] == []
