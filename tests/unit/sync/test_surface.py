"""The names of `haptera.sync`: those of `haptera`, with the same parameters, and nothing to await."""

from __future__ import annotations

import inspect
import io
import pydoc
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import haptera
import haptera.client
import haptera.peer
import haptera.sync
import haptera.typed

NAMES = {
    "Administration",
    "Backup",
    "Barrier",
    "Cache",
    "CallStream",
    "Counter",
    "Database",
    "Election",
    "End",
    "Entry",
    "Event",
    "Holding",
    "Items",
    "Job",
    "LastingPeer",
    "LastingStream",
    "Lease",
    "Lock",
    "Peer",
    "Pending",
    "Pipeline",
    "Queue",
    "RateLimit",
    "Request",
    "Scan",
    "Semaphore",
    "Server",
    "Service",
    "TransactResult",
    "Transaction",
    "TypedCache",
    "TypedCallStream",
    "TypedChanges",
    "TypedDatabase",
    "TypedScan",
    "TypedTransaction",
    "TypedWatch",
    "Watch",
    "Worker",
    "connect",
    "dial",
    "listen",
    "method",
    "open",
    "typed_method",
}
#: The classes that are made of asynchronous ones.
MADE = sorted(
    NAMES - {"End", "Entry", "Event", "Items", "Pending", "Service", "TransactResult"} - {"method", "typed_method"}
)
#: What is not for threads, with its reason in tools/sync_classes.py.
LEFT_OUT = {
    "Peer": {"request", "when_writable", "writable", "attributes"},
    "Server": {"opened", "established", "lost", "tls_failed", "log"},
    "Request": {
        *("respond", "fail", "send", "room", "left", "try_send", "try_send_all"),
        *("on_cancel", "answered_below"),
    },
}
#: What is for threads alone, and an attribute that only objects of the asynchronous class show.
OWN = {"close", "answer"}
#: Words that have no meaning for a program without a loop.
OF_TASKS = re.compile(r"\b(async|await|coroutine|asyncio)\b")


MODULES = (haptera, haptera.client, haptera.typed, haptera.peer)


def asynchronous(name: str) -> Any:
    return next(getattr(module, name) for module in MODULES if hasattr(module, name))


def shown(class_: type) -> set[str]:
    return {name for name in dir(class_) if not name.startswith("_")}


def test_the_names_are_these_and_no_others() -> None:
    assert set(haptera.sync.__all__) == NAMES
    assert set(dir(haptera.sync)) >= NAMES
    assert all(getattr(haptera.sync, name) is not None for name in NAMES)
    with pytest.raises(AttributeError):
        haptera.sync.no_such_name  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", [name for name in MADE if name[0].isupper()])
def test_a_class_has_the_members_of_its_asynchronous_one(name: str) -> None:
    expected = shown(asynchronous(name)) - LEFT_OUT.get(name, set())
    found = shown(getattr(haptera.sync, name))
    assert found - OWN == expected - OWN


@pytest.mark.parametrize("name", MADE)
def test_a_call_has_the_parameters_of_its_asynchronous_one_and_nothing_to_await(name: str) -> None:
    made, source = getattr(haptera.sync, name), asynchronous(name)
    members = shown(made) - OWN if inspect.isclass(made) else {""}
    for member in members:
        ours, theirs = (getattr(made, member), getattr(source, member, None)) if member else (made, source)
        assert not inspect.iscoroutinefunction(ours)
        assert not inspect.isasyncgenfunction(ours)
        if not inspect.isfunction(ours):
            continue
        assert inspect.isfunction(theirs)
        own = {"handler_threads"} if member == "" else set()
        parameters, expected = (dict(inspect.signature(each).parameters) for each in (ours, theirs))
        assert [each for each in parameters if each not in own] == list(expected)
        for each, parameter in expected.items():
            assert parameters[each].default == parameter.default
            assert parameters[each].kind == parameter.kind


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_docstrings_speak_to_threads(name: str) -> None:
    thing = getattr(haptera.sync, name)
    documented = [thing, *(getattr(thing, member) for member in shown(thing))] if inspect.isclass(thing) else [thing]
    made_here = [each for each in documented if getattr(each, "__module__", "").startswith("haptera.sync")]
    said = {getattr(each, "__qualname__", name): OF_TASKS.findall(each.__doc__ or "") for each in made_here}
    allowed = {"method": ["async"], "typed_method": ["async"]}  # which it refuses
    assert {where: words for where, words in said.items() if words != allowed.get(where, [])} == {}
    assert all(each.__doc__ for each in made_here)


def test_help_reads_from_the_example_to_the_names() -> None:
    output = io.StringIO()
    pydoc.Helper(output=output).help(haptera.sync.Database)
    text = output.getvalue()
    assert "Any number of threads may use it at once" in text
    assert "async " not in text
    page = pydoc.plain(pydoc.render_doc(haptera.sync))
    assert "with haptera.sync.connect() as db:" in page


def test_the_package_is_an_attribute_and_loads_nothing_before_it_is_used() -> None:
    code = "import haptera, sys; haptera.sync; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in loaded if name.startswith("haptera")} == {
        *("haptera", "haptera.lazy", "haptera.sync", "haptera.version")
    }
    assert "asyncio" not in loaded


def test_the_recipes_load_when_one_is_made() -> None:
    code = "import haptera.sync, sys; haptera.sync.Database; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {name for name in loaded if name.startswith("haptera.client.recipes.")}


def test_each_name_of_the_asynchronous_surface_is_here_or_one_for_both_or_listed_as_absent() -> None:
    page = (Path(__file__).parents[3] / "docs" / "sync.md").read_text()
    absent = page.partition("## Absent for threads")[2].partition("\n## ")[0]
    surface = {name: getattr(haptera, name) for name in haptera.__all__}
    surface |= {name: getattr(haptera.typed, name) for name in haptera.typed.__all__ if name != "method"}
    used_awaited = {name for name, thing in surface.items() if awaits(thing)}
    assert used_awaited - NAMES - {name for name in used_awaited if f"`{name}`" in absent} == set()
    members = {f"{name}.{member}" for name, members in LEFT_OUT.items() for member in members}
    internal = {"Server.opened", "Server.established", "Server.lost", "Server.tls_failed", "Server.log"}
    assert {name for name in members - internal if f"`{name}`" not in absent} == set()


def awaits(thing: Any) -> bool:
    """Whether a program has to await something of it, or gives it coroutines."""
    members = [getattr(thing, name, None) for name in dir(thing)] if inspect.isclass(thing) else [thing]
    return any(
        inspect.iscoroutinefunction(inspect.unwrap(each)) or inspect.isasyncgenfunction(each)
        for each in members
        if callable(each)
    )
