"""Users, roles and grants against a naive model, and each compiled check against the globs themselves."""

from __future__ import annotations

import re
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from haptera.access_rules import KEY_PERMISSIONS, NODE_PERMISSIONS, PERMISSIONS
from haptera.errors import Failure
from haptera.state import (
    Logged,
    StateMachine,
    Write,
    decode_commands,
    dump_pieces,
    encode_commands,
    load_pieces,
    validate,
)
from haptera.state.access import reached
from haptera.state.access_operations import (
    AddGrant,
    AddParent,
    AddRole,
    AddToken,
    AddUser,
    AssignRole,
    RemoveGrant,
    RemoveParent,
    RemoveRole,
    RemoveToken,
    RemoveUser,
    SetDisabled,
    SetVerifier,
    StoredVerifier,
    WithdrawRole,
)
from haptera.state.glob import MalformedGlob, compile_glob, literal_prefix
from haptera.state.permits import Permits

users = st.sampled_from(["ann", "bob", "eve"])
roles = st.sampled_from(["admin", "ops", "app", "web"])
tokens = st.sampled_from(["token:1", "token:2"])
patterns = st.sampled_from(["*", "a*", "ab*", "a", "*b", "a?b", "[ab]*", "b*a", r"\**"])
keys = st.text("ab*é", max_size=6)
permissions = st.lists(st.sampled_from(PERMISSIONS), min_size=1, max_size=3, unique=True)
verifiers = st.sampled_from([StoredVerifier(b"s" * 16, 600_000, bytes((n,)) * 32, b"K" * 32) for n in (1, 2)])
role_lists = st.lists(roles, max_size=2)

changes: st.SearchStrategy[Write] = st.one_of(
    st.builds(AddUser, users, st.none() | verifiers, role_lists),
    st.builds(RemoveUser, users),
    st.builds(SetVerifier, users, st.none() | verifiers),
    st.builds(SetDisabled, users, st.booleans()),
    st.builds(AssignRole, users, roles),
    st.builds(WithdrawRole, users, roles),
    st.builds(AddRole, roles, role_lists),
    st.builds(AddRole, roles, st.just([])),
    st.builds(RemoveRole, roles),
    st.builds(AddParent, roles, roles),
    st.builds(RemoveParent, roles, roles),
    st.builds(AddGrant, roles, permissions, st.just("*")),
    st.builds(
        AddGrant, roles, st.lists(st.sampled_from(KEY_PERMISSIONS), min_size=1, max_size=3, unique=True), patterns
    ),
    st.builds(RemoveGrant, roles, permissions, patterns),
    st.builds(AddToken, tokens, verifiers, role_lists, st.none() | st.integers(1, 60)),
    st.builds(RemoveToken, tokens),
)
entries = st.lists(st.tuples(st.integers(0, 9), st.lists(changes, min_size=1, max_size=3)), max_size=25)


def as_expression(pattern: str) -> str:
    """A glob as a regular expression, by a reading of its own; of the globs of this file alone."""
    return "".join(
        {"*": ".*", "?": "."}.get(each, each if each.startswith("[") else re.escape(each[-1:]))
        for each in re.findall(r"\[[^]]*\]|\\.|.", pattern)
    )


class Model:
    """The part said again, as plainly as possible: sets of names, changed in place, and the code of each refusal."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.parents: dict[str, set[str]] = {"admin": set()}
        self.grants: dict[str, set[tuple[str, str]]] = {"admin": {(each, "*") for each in PERMISSIONS}}

    def held(self, names: set[str]) -> set[str]:
        before: set[str] = set()
        now = set(names)
        while now != before:
            before, now = now, now | {parent for name in now for parent in self.parents[name]}
        return now

    def administrators(self) -> set[str]:
        return {
            name
            for name, user in self.users.items()
            if "admin" in self.held(user["roles"]) and user["verifier"] is not None and not user["disabled"]
        }

    def allowed(self, name: str, permission: str, key: str, now_ms: int) -> bool:
        if name in self.tokens:
            expires = self.tokens[name]["expires"]
            if expires is not None and expires <= now_ms:
                return False
            held = self.tokens[name]["roles"]
        elif name in self.users and not self.users[name]["disabled"]:
            held = self.users[name]["roles"]
        else:
            return False
        granted = {grant for role in self.held(held) for grant in self.grants[role]}
        return any(
            permission == each and re.fullmatch(as_expression(pattern), key, re.DOTALL) is not None
            for each, pattern in granted
        )

    def do(self, op: Write, now_ms: int) -> int | bool:
        """The code of the refusal, or whether something was changed."""
        code = self._refusal(op, now_ms)
        if code:
            return code
        before = self._copy()
        had_one = bool(self.administrators())
        self._make(op, now_ms)
        if had_one and not self.administrators():
            self._restore(before)
            return 2012
        return isinstance(op, AddToken) or self._copy() != before

    def _copy(self) -> Any:
        return (
            {name: {**user, "roles": set(user["roles"])} for name, user in self.users.items()},
            {name: {**token, "roles": set(token["roles"])} for name, token in self.tokens.items()},
            {name: set(parents) for name, parents in self.parents.items()},
            {name: set(grants) for name, grants in self.grants.items()},
        )

    def _restore(self, copied: Any) -> None:
        self.users, self.tokens, self.parents, self.grants = copied

    def _refusal(self, op: Any, now_ms: int) -> int:
        match op:
            case AddUser():
                if op.user in self.users:
                    return 2007
            case AddToken():
                expires = self.tokens.get(op.token, {"expires": 0})["expires"]
                if expires is None or expires > now_ms:
                    return 2007
            case RemoveToken():
                return 0 if op.token in self.tokens else 2008
            case AddRole():
                if op.role in self.parents:
                    return 2009
            case RemoveRole() | AddParent() | RemoveParent() | AddGrant() | RemoveGrant():
                if op.role == "admin":
                    return 2011
            case _:
                if op.user not in self.users:
                    return 2008
        named = [*getattr(op, "roles", []), *getattr(op, "parents", [])]
        named += [getattr(op, name) for name in ("role", "parent") if hasattr(op, name) and type(op) is not AddRole]
        if any(name not in self.parents for name in named):
            return 2010
        if isinstance(op, AddParent) and op.role in self.held({op.parent}):
            return 3003
        return 0

    def _make(self, op: Any, now_ms: int) -> None:
        match op:
            case AddUser():
                self.users[op.user] = {"verifier": op.verifier, "roles": set(op.roles), "disabled": False}
            case RemoveUser():
                del self.users[op.user]
            case SetVerifier():
                self.users[op.user]["verifier"] = op.verifier
            case SetDisabled():
                self.users[op.user]["disabled"] = op.disabled
            case AssignRole():
                self.users[op.user]["roles"].add(op.role)
            case WithdrawRole():
                self.users[op.user]["roles"].discard(op.role)
            case AddRole():
                self.parents[op.role], self.grants[op.role] = set(op.parents), set()
            case RemoveRole():
                del self.parents[op.role], self.grants[op.role]
                for held in (
                    *self.parents.values(),
                    *(each["roles"] for table in (self.users, self.tokens) for each in table.values()),
                ):
                    held.discard(op.role)
            case AddParent():
                self.parents[op.role].add(op.parent)
            case RemoveParent():
                self.parents[op.role].discard(op.parent)
            case AddGrant():
                self.grants[op.role] |= {(each, op.pattern) for each in op.permissions}
            case RemoveGrant():
                self.grants[op.role] -= {(each, op.pattern) for each in op.permissions}
            case AddToken():
                for name in [*self.tokens]:
                    expires = self.tokens[name]["expires"]
                    if expires is not None and expires <= now_ms:
                        del self.tokens[name]
                self.tokens[op.token] = {"verifier": op.verifier, "roles": set(op.roles), "expires": op.expires_at_ms}
            case _:
                del self.tokens[op.token]


@settings(deadline=None)
@given(entries, st.lists(st.tuples(st.sampled_from(["ann", "bob", "token:1"]), keys), min_size=1, max_size=5))
def test_each_command_has_the_result_of_the_model_and_each_check_too(
    history: list[tuple[int, list[Write]]], asked: list[tuple[str, str]]
) -> None:
    machine, model, now_ms = StateMachine(), Model(), 1
    machine.read_by(lambda: now_ms)
    log = []
    for index, (elapsed_ms, ops) in enumerate(history, 1):
        now_ms += elapsed_ms
        accepted = [op for op in ops if validate(op) is None]
        logged = decode_commands(encode_commands([Logged(op) for op in accepted]))
        log.append((index, now_ms, logged))
        known = machine.known(logged[0]) if len(logged) == 1 else None
        results = machine.apply(index, now_ms, logged)
        for op, result in zip(accepted, results, strict=True):
            expected = model.do(op, now_ms)
            assert (result.code if isinstance(result, Failure) else result) == (
                (expected,) if isinstance(expected, bool) else expected
            ), op
        if len(logged) == 1:
            assert known == (None if results[0] == (True,) else results[0])
        machine.check()
    for name, key in asked:
        permits = machine.access.permits(name, now_ms)
        for of_keys in KEY_PERMISSIONS:
            assert permits.may(of_keys, key) is model.allowed(name, of_keys, key, now_ms)
        for of_node in NODE_PERMISSIONS:
            assert permits.has(of_node) is model.allowed(name, of_node, "", now_ms)
    again = load_pieces(dump_pieces(machine), index=machine.index, time_ms=machine.time_ms)
    replayed = StateMachine()
    for index, time_ms, logged in log:
        replayed.apply(index, time_ms, logged)
    assert again.digest() == machine.digest() == replayed.digest()


many_patterns = st.lists(st.sampled_from(["*", "?", "a", "b", "ab", "[ab]", "[!a]"]), min_size=1, max_size=6).map(
    "".join
)


@given(st.lists(many_patterns | keys.filter(bool).map(lambda key: key.replace("*", r"\*") + "*"), max_size=8), keys)
def test_a_check_is_what_its_globs_say_together(given_patterns: list[str], key: str) -> None:
    permits = Permits([(pattern, ("read",)) for pattern in given_patterns])
    matched = [re.fullmatch(as_expression(each).replace("[!", "[^"), key, re.DOTALL) for each in given_patterns]
    assert permits.may("read", key) is any(matched)
    if permits.covers("read", key):
        assert all(permits.may("read", key + more) for more in ("", "a", "b", "é", "zz"))


@given(st.text(st.sampled_from(r"ab*?[]\!-é"), max_size=12))
def test_the_literal_prefix_is_that_of_the_compiled_glob(pattern: str) -> None:
    try:
        compiled = compile_glob(pattern)
    except MalformedGlob:
        return
    assert literal_prefix(pattern) == compiled.prefix


@given(st.lists(many_patterns, max_size=6), many_patterns, keys)
def test_a_pattern_that_is_held_matches_no_key_beyond_the_grants(held: list[str], pattern: str, key: str) -> None:
    permits = Permits([(each, ("read",)) for each in held])
    assert all(permits.holds("read", each) for each in held)
    if permits.holds("read", pattern) and compile_glob(pattern).matches(key):
        assert permits.may("read", key)


SAMPLED_KEYS = ("", "a", "ab", "abb", "b", "ba", "*", "é", "a*b")


def powers(machine: StateMachine, name: str, now_ms: int) -> set[tuple[str, str]]:
    permits = machine.access.permits(name, now_ms)
    of_keys = {(each, key) for each in KEY_PERMISSIONS for key in SAMPLED_KEYS if permits.may(each, key)}
    return of_keys | {(each, "") for each in NODE_PERMISSIONS if permits.has(each)}


@settings(deadline=None)
@given(st.lists(changes, max_size=25), st.lists(changes, max_size=15), st.lists(roles, max_size=2))
def test_no_row_of_commands_gives_its_user_more_than_it_had(
    before: list[Write], given_by_ann: list[Write], held: list[str]
) -> None:
    """Neither itself, nor by a user or a token of which it has chosen the password."""
    machine = StateMachine()
    index = 0

    def apply(op: Write, user: str) -> bool:
        nonlocal index
        if validate(op) is not None:
            return False
        index += 1
        [result] = machine.apply(index, 1, [Logged(op, user)])
        machine.check()
        return result == (True,)

    for op in before:
        apply(op, "")
    for op in (AddRole("boss", []), AddGrant("boss", ["user_admin"], "*"), AddUser("ann", None, [])):
        apply(op, "")
    for role in ("boss", *held):
        apply(AssignRole("ann", role), "")
    had = powers(machine, "ann", 1)
    admin = "admin" in reached(machine.access.roles, machine.access.users["ann"].roles)
    owned = {"ann"}
    for op in given_by_ann:
        if apply(op, "ann") and isinstance(op, AddUser | SetVerifier | AddToken):
            owned.add(op.token if isinstance(op, AddToken) else op.user)
        for name in owned:
            assert powers(machine, name, 1) <= had, op
            holder = machine.access.users.get(name) or machine.access.tokens.get(name)
            assert admin or holder is None or "admin" not in reached(machine.access.roles, holder.roles), op
