# Generated from tests/unit/client/calls/test_administration.py by
# tools/generate_sync_tests.py (make generate). Do not edit.
"""The administration of users: over a connection and embedded, and how it treats passwords."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from haptera.client import Token
from haptera.errors import InvalidArgument, UserNotFound
from haptera.sync import Database, connect, open
from haptera.testing import MemoryFileSystem, node_in_thread

each_store = pytest.mark.parametrize("kind", ["served", "embedded"])


@contextmanager
def store(kind: str, path: Path) -> Iterator[Database]:
    if kind == "embedded":
        with open(path / "data") as db:
            yield db
    else:
        with node_in_thread(storage=MemoryFileSystem()) as url, connect(url) as db:
            yield db


@each_store
def test_a_token_is_made_with_a_secret_that_is_given_once(kind: str, tmp_path: Path) -> None:
    with store(kind, tmp_path) as db:
        before = time.time()
        made = db.admin.add_token("ci", roles=["admin"], ttl=60)
        other = db.admin.add_token("token:ever", roles=[])
        assert (made.name, other.name) == ("token:ci", "token:ever")
        assert len({made.secret, other.secret}) == 2
        assert all((re.fullmatch("[\\w-]{43}", each.secret, re.ASCII) for each in (made, other)))
        assert made.expires_at is not None
        assert before + 59 < made.expires_at <= time.time() + 60
        rows = [Token("token:ci", ["admin"], made.expires_at), Token("token:ever", [], None)]
        assert [token for token in db.admin.tokens()] == rows
        db.admin.remove_token("ci")
        assert [token.name for token in db.admin.tokens()] == ["token:ever"]
        with pytest.raises(UserNotFound):
            db.admin.remove_token("ci")


@each_store
def test_whoami_is_anonymous_where_no_proof_is_asked_for(kind: str, tmp_path: Path) -> None:
    with store(kind, tmp_path) as db:
        who = db.whoami()
        assert (who.user, who.roles, who.mechanism, who.secure) == ("", [], "", False)


@each_store
@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda admin: admin.add_user(b"ann"), TypeError),
        (lambda admin: admin.add_user("ann", b"password and more"), TypeError),
        (lambda admin: admin.add_user("ann", roles="admin"), TypeError),
        (lambda admin: admin.add_user("\ud800"), ValueError),
        (lambda admin: admin.add_grant("app", ["read"], "\udfff"), ValueError),
        (lambda admin: admin.add_token("ci", roles=[], ttl=0), ValueError),
        (lambda admin: admin.add_token("ci", roles=[None]), TypeError),
        (lambda admin: admin.add_user(""), InvalidArgument),
        (lambda admin: admin.add_user("token:ci"), InvalidArgument),
        (lambda admin: admin.add_user("local"), InvalidArgument),
        (lambda admin: admin.add_user("a\nb"), InvalidArgument),
        (lambda admin: admin.add_user("a" * 257), InvalidArgument),
    ],
)
def test_a_mistake_in_a_call_is_the_same_error_in_each_store(
    kind: str, call: Callable[[Any], Any], error: type[Exception], tmp_path: Path
) -> None:
    with store(kind, tmp_path) as db:
        with pytest.raises(error):
            call(db.admin)
        assert [user for user in db.admin.users()] == []
