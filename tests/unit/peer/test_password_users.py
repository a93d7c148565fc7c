"""Users with passwords, as a program of the messaging library keeps them (docs/messaging.md, "Users")."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import haptera
from haptera.authentication import PasswordUsers, Verifier, verifier_for
from haptera.security import verifiers

if TYPE_CHECKING:
    import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "messaging.md").read_text(encoding="utf-8")


async def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifiers, "ITERATIONS", 4096)  # a busy machine has no time for the usual ones
    section = PAGE.partition("\n## Users\n")[2].partition("\n## ")[0]
    (example,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    code = compile(example, "docs/messaging.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    namespace: dict[str, Any] = {"__name__": "__main__", "haptera": haptera}
    result = eval(code, namespace)  # it awaits at its top level, as `python -m asyncio` does
    assert inspect.isawaitable(result)
    await result


def test_an_unknown_user_looks_like_any_other_each_time() -> None:
    verifier = verifier_for("a long sentence as a password")
    users = PasswordUsers({"ada": verifier})
    assert users.login("ada") == (verifier, True)
    hidden, admitted = users.login("nobody")
    assert users.login("nobody") == (hidden, False)
    assert not admitted
    assert (len(hidden.salt), hidden.iterations) == (len(verifier.salt), verifier.iterations)
    other = PasswordUsers({}).login("nobody")[0]
    assert other != hidden  # which names are unknown cannot be told by comparing two listeners


def test_the_work_of_a_login_is_the_same_for_each_name(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(secret: bytes, name: str) -> Verifier:
        made.append(name)
        return verifiers.decoy(secret, name)

    monkeypatch.setattr("haptera.peer.password_users.decoy", counted)
    users = PasswordUsers({"ada": Verifier(bytes(16), 4096, bytes(32), bytes(32))})
    users.login("ada")
    users.login("nobody")
    assert made == ["ada", "nobody"]


def test_a_verifier_shows_none_of_its_keys() -> None:
    verifier = Verifier(b"salt" * 4, 4096, b"stored" * 5, b"server" * 5)
    assert "stored" not in repr(verifier).replace("stored_key", "")
    assert repr(verifier) == "Verifier(iterations=4096)"
