"""The commands of users, roles, grants and tokens: what they write, where they take passwords from, how they end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

import click
import pytest

from haptera.cli import new_passwords
from haptera.cli.administration import GIVES_NO_MORE, change_step
from haptera.cli.durations import Duration
from haptera.client.calls import administration
from haptera.errors import failure
from haptera.security import Verifier
from haptera.testing import node_in_thread
from tests.integration.commands import Ended, run
from tests.support.planted import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def haptera(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A command with a node of its own, and with verifiers that cost nothing and hold the password in the clear."""

    def visible(password: str, entropy: object) -> Verifier:
        return Verifier(b"s" * 16, 600_000, password.encode()[:32].ljust(32), b"K" * 32)

    monkeypatch.setattr(administration, "new_verifier", visible)
    monkeypatch.delenv(new_passwords.VARIABLE, raising=False)
    with node_in_thread(listen="tcp", storage="memory") as url:
        monkeypatch.setenv("HAPTERA_URL", url)
        yield run


def ok(ended: Ended) -> str:
    assert (ended.code, ended.err) == (0, "")
    return ended.text


def test_users(haptera: Any) -> None:
    assert (
        ok(haptera("user", "add", "root", "--role", "admin", "--new-password-file", "-", stdin=PASSWORD.encode()))
        == "added\n"
    )
    assert ok(haptera("user", "add", "ann", "--no-password")) == "added\n"
    assert ok(haptera("user", "assign", "ann", "admin")) == "assigned\n"
    assert ok(haptera("user", "assign", "ann", "admin")) == "unchanged\n"
    assert ok(haptera("user", "disable", "ann")) == "disabled\n"
    assert ok(haptera("user", "list")) == "ann\tdisabled\tnone\tadmin\nroot\tenabled\tpassword\tadmin\n"
    assert json.loads(ok(haptera("user", "show", "ann", "--json"))) == {
        "user": "ann",
        "disabled": True,
        "password": False,
        "roles": ["admin"],
        "quota": None,
    }
    assert ok(haptera("user", "enable", "ann")) == "enabled\n"
    assert json.loads(ok(haptera("user", "withdraw", "ann", "admin", "--json"))) == {
        "user": "ann",
        "role": "admin",
        "changed": True,
    }
    assert ok(haptera("user", "show", "ann")) == "ann\tenabled\tnone\t-\t-\n"
    table = haptera("user", "list", terminal=True).text
    assert "root" in table and "roles" in table  # noqa: PT018
    assert ok(haptera("user", "remove", "ann")) == "removed\n"


def test_quotas(haptera: Any) -> None:
    ok(haptera("user", "add", "ann", "--no-password"))
    ok(haptera("set", "app/1", "12"))
    quota = ("user", "quota", "ann")
    assert ok(haptera(*quota, "--keys", "3", "--bytes", "100", "--claim", "app/")) == "set\n"
    assert ok(haptera("user", "show", "ann")) == "ann\tenabled\tnone\t-\tkeys=1/3,bytes=7/100\n"
    assert json.loads(ok(haptera("user", "show", "ann", "--json")))["quota"] == {
        "keys": {"limit": 3, "used": 1},
        "bytes": {"limit": 100, "used": 7},
        "watches": {"limit": None, "used": 0},
        "leases": {"limit": None, "used": 0},
    }
    assert json.loads(ok(haptera(*quota, "--watches", "0", "--leases", "2", "--json"))) == {
        "user": "ann",
        "quota": {"keys": None, "bytes": None, "watches": 0, "leases": 2},
        "changed": True,
    }
    assert ok(haptera(*quota, "--watches", "0", "--leases", "2")) == "unchanged\n"
    assert ok(haptera("user", "show", "ann")) == "ann\tenabled\tnone\t-\twatches=0/0,leases=0/2\n"
    for wrong in ((), ("--none", "--keys", "1"), ("--none", "--claim", "a"), ("--claim", "a"), ("--keys", "-1")):
        assert haptera(*quota, *wrong).code == 2, wrong
    assert "`haptera user show USER` says what is used" in haptera(*quota).err
    assert haptera("user", "quota", "token:t", "--keys", "1").code == 2
    assert "QUOTA" not in haptera("user", "quota", "none", "--keys", "1").err
    assert ok(haptera(*quota, "--none")) == "removed\n"
    assert ok(haptera(*quota, "--none")) == "unchanged\n"
    assert ok(haptera("user", "show", "ann")) == "ann\tenabled\tnone\t-\t-\n"


def test_a_token_may_count_for_the_quota_of_a_user(haptera: Any) -> None:
    ok(haptera("user", "add", "ann", "--no-password"))
    assert ok(haptera("token", "create", "ci", "--role", "admin", "--quota-of", "ann")).startswith("token:ci\t")
    ended = haptera("token", "create", "cd", "--role", "admin", "--quota-of", "none")
    assert (ended.code, "USER_NOT_FOUND" in ended.err) == (1, True)


def test_roles_and_grants(haptera: Any) -> None:
    assert ok(haptera("role", "add", "web")) == "added\n"
    assert ok(haptera("role", "add", "app", "--parent", "web", "--parent", "admin")) == "added\n"
    assert ok(haptera("grant", "add", "app", "write,read", "a/*")) == "added\n"
    assert ok(haptera("grant", "add", "app", "read", "a/*")) == "unchanged\n"
    assert ok(haptera("role", "show", "app")) == "a/*\tread,write\nparent\tadmin\nparent\tweb\n"
    assert json.loads(ok(haptera("role", "show", "app", "--json"))) == {
        "role": "app",
        "parents": ["admin", "web"],
        "grants": {"a/*": ["read", "write"]},
    }
    assert ok(haptera("role", "list")) == "admin\t1\t-\napp\t1\tadmin,web\nweb\t0\t-\n"
    assert ok(haptera("role", "remove-parent", "app", "web")) == "removed\n"
    assert ok(haptera("role", "add-parent", "app", "web")) == "added\n"
    assert ok(haptera("grant", "remove", "app", "write", "a/*")) == "removed\n"
    assert ok(haptera("role", "remove", "web")) == "removed\n"
    assert ok(haptera("role", "show", "app")) == "a/*\tread\nparent\tadmin\n"


def test_tokens(haptera: Any) -> None:
    assert ok(haptera("role", "add", "app")) == "added\n"
    name, secret = ok(haptera("token", "create", "ci", "--role", "app", "--ttl", "30d")).rstrip("\n").split("\t")
    assert (name, len(secret)) == ("token:ci", 43)
    made = json.loads(ok(haptera("token", "create", "ever", "--role", "app", "--json")))
    assert (made["user"], len(made["secret"]), made["expires_at"]) == ("token:ever", 43, None)
    first, second = ok(haptera("token", "list")).splitlines()
    assert re.fullmatch(r"token:ci\t\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\tapp", first)
    assert second == "token:ever\tnever\tapp"
    listed = [json.loads(line) for line in ok(haptera("token", "list", "--json")).splitlines()]
    assert listed[0]["expires_at"] == pytest.approx(time.time() + 30 * 86_400, abs=600)
    assert secret not in haptera("token", "list", "--json").text
    later = time.time() + 31 * 86_400
    with mock.patch("time.time", return_value=later):
        first, second = ok(haptera("token", "list")).splitlines()
        assert re.fullmatch(r"token:ci\tended \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\tapp", first)
        assert second == "token:ever\tnever\tapp"
    assert [each["ended"] for each in listed] == [False, False]
    assert ok(haptera("token", "revoke", "ci")) == "revoked\n"
    assert haptera("token", "revoke", "ci").code == 1


@pytest.mark.parametrize(
    ("command", "code", "name", "help_"),
    [
        (("user", "add", "root", "--no-password"), 1, "USER_EXISTS", "haptera passwd"),
        (("user", "show", "ann"), 1, "USER_NOT_FOUND", "haptera user list"),
        (("user", "add", "ann", "--no-password", "--role", "no"), 1, "ROLE_NOT_FOUND", "haptera role list"),
        (("role", "add", "admin"), 1, "ROLE_EXISTS", "haptera role show"),
        (("role", "remove", "admin"), 4, "PROTECTED_ROLE", "as its parent"),
        (("user", "remove", "root"), 4, "LAST_ADMIN", "another user an administrator"),
        (("user", "add", "a\nb", "--no-password"), 2, "INVALID_ARGUMENT", None),
    ],
)
def test_an_error_says_the_next_step(
    haptera: Any, command: tuple[str, ...], code: int, name: str, help_: str | None
) -> None:
    ok(haptera("user", "add", "root", "--role", "admin", "--new-password-file", "-", stdin=PASSWORD.encode()))
    ended = haptera(*command, "--json")
    told = json.loads(ended.err)
    assert (ended.code, told["error"]["name"]) == (code, name)
    assert told["error"].get("outcome", "not_applied") == "not_applied"
    assert help_ is None or help_ in told["error"]["help"]


def test_a_new_password_comes_from_a_file_standard_input_or_the_environment(
    haptera: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    for number, end in enumerate(("", "\n", "\r\n")):
        file.write_text(PASSWORD + end, encoding="utf-8", newline="")
        file.chmod(0o600)
        assert ok(haptera("user", "add", f"{number}", "--new-password-file", str(file))) == "added\n"
    monkeypatch.setenv(new_passwords.VARIABLE, PASSWORD)
    assert ok(haptera("passwd", "0")) == "changed\n"
    file.chmod(0o644)
    assert "key_file_open_to_others" in haptera("passwd", "1", "--new-password-file", str(file)).err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "does not hold one line"),
        (b"\n", "does not hold one line"),
        (b"correct horse\nbattery staple\n", "does not hold one line"),
        (b"x" * 1025, "does not hold one line"),
        (b"x" * 5000, "more than 1026 bytes"),
        (b"correct horse \xff", "something else than UTF-8"),
    ],
)
def test_a_password_that_is_none_is_a_mistake_in_the_use(
    haptera: Any, content: bytes, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    file.chmod(0o600)
    ended = haptera("user", "add", "ann", "--new-password-file", str(file))
    assert (ended.code, words in ended.err, b"horse" in ended.out + ended.err.encode()) == (2, True, False)
    if len(content) < 5000:
        assert haptera("user", "add", "ann", "--new-password-file", "-", stdin=content).code == 2
    assert ok(haptera("user", "list")) == ""


def test_without_a_terminal_the_other_ways_are_named(haptera: Any) -> None:
    for command in (("user", "add", "ann"), ("passwd", "ann")):
        ended = haptera(*command)
        assert ended.code == 2
        assert all(
            way in ended.err for way in ("--new-password-file FILE", "--new-password-file -", new_passwords.VARIABLE)
        )
    assert haptera("user", "add", "ann", "--no-password", "--new-password-file", "-").code == 2
    assert haptera("user", "add", "ann", "--new-password-file", "/no/such/file").code == 2


def test_a_terminal_is_asked_twice_and_shows_nothing(haptera: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [PASSWORD, "something else", PASSWORD, PASSWORD]
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return answers.pop(0)

    monkeypatch.setattr(click.termui, "hidden_prompt_func", answer)
    ended = haptera("user", "add", "ann", terminal=True)
    assert (ended.code, ended.text) == (0, "added\n")
    assert answers == []
    assert "New password of ann" in asked[0]
    assert PASSWORD not in ended.err


def test_a_password_that_is_too_easy_is_refused_without_being_shown(haptera: Any) -> None:
    ended = haptera("user", "add", "ann", "--new-password-file", "-", stdin=b"too easy")
    assert (ended.code, ended.out) == (4, b"")
    assert "at least 12 characters" in ended.err
    assert "too easy" not in ended.err
    assert ok(haptera("user", "list")) == ""


def test_a_password_is_no_argument(haptera: Any) -> None:
    for command in (("user", "add"), ("passwd",)):
        options = haptera(*command, "--help").text
        assert not re.search(r"--password\b(?!-file)", options)
        assert haptera(*command, "ann", "correct horse battery").code == 2


def test_whoami_and_the_password_of_nobody(haptera: Any) -> None:
    assert ok(haptera("whoami")) == "user: -\nroles: -\nmechanism: -\nsecure: no\n"
    assert json.loads(ok(haptera("whoami", "--json"))) == {"user": "", "roles": [], "mechanism": "", "secure": False}
    ended = haptera("passwd", "--new-password-file", "-", stdin=PASSWORD.encode())
    assert (ended.code, "name a USER" in ended.err) == (2, True)


def test_the_password_of_a_command_is_in_no_argument_and_in_none_of_its_outputs(tmp_path: Path) -> None:
    """A process of its own, as it is listed by ``ps``."""
    with node_in_thread(listen="tcp", storage="memory") as url:
        command = [sys.executable, "-m", "haptera", "user", "add", "ann", "--url", url, "--new-password-file", "-"]
        ended = subprocess.run(
            command, input=PASSWORD.encode(), capture_output=True, env=os.environ, check=True, cwd=tmp_path
        )
        assert (ended.stdout, ended.stderr) == (b"added\n", b"")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 2_592_000), ("12h", 43_200), ("90m", 5400), ("1w", 604_800), ("5", 5), ("0.5s", 0.5), (" 7s ", 7)],
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0", "0d", "-1d", "d", "1y", "1e3", "999999999999w", "1 d", "٣d"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


def test_permissions_are_known(haptera: Any) -> None:
    ok(haptera("role", "add", "app"))
    for given in ("", "fly", "read,", "read write"):
        ended = haptera("grant", "add", "app", given, "*")
        assert (ended.code, "user_admin" in ended.err) == (2, True)
    assert ok(haptera("grant", "add", "app", "read,read", "*")) == "added\n"


@pytest.mark.parametrize(
    "command",
    [
        ("user", "remove", "token:ci"),
        ("user", "disable", "token:ci"),
        ("user", "show", "token:ci"),
        ("user", "assign", "token:ci", "admin"),
        ("user", "add", "token:ci", "--no-password"),
        ("passwd", "token:ci"),
    ],
)
def test_a_token_in_place_of_a_user_is_told_its_own_commands(haptera: Any, command: tuple[str, ...]) -> None:
    ended = haptera(*command)
    assert (ended.code, "`haptera token revoke ci` ends it" in ended.err) == (2, True)


def test_a_change_that_gives_more_than_its_caller_has_is_told_the_rule() -> None:
    refused = [failure(2004, {"permission": "read", "pattern": "app/*"}), failure(2004, {"permission": "user_admin"})]
    assert [change_step(each.exception()) for each in refused] == [GIVES_NO_MORE, ""]
    assert change_step(failure(2007).exception()) == ""


def test_a_warning_of_a_file_is_shown_once_in_a_command(haptera: Any, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    file.chmod(0o644)
    ok(haptera("user", "add", "ann", "--no-password"))
    for _ in range(2):
        ended = haptera("passwd", "ann", "--new-password-file", str(file), "--user", "a", "--password-file", str(file))
        assert ended.err.count("key_file_open_to_others") == 1


def test_a_password_file_is_no_standard_input_and_has_one_line(haptera: Any, tmp_path: Path) -> None:
    ended = haptera("whoami", "--user", "ann", "--password-file", "-", stdin=PASSWORD.encode())
    assert (ended.code, "takes no standard input" in ended.err) == (2, True)
    file = tmp_path / "password"
    file.write_text("correct horse\nbattery staple\n")
    file.chmod(0o600)
    ended = haptera("whoami", "--user", "ann", "--password-file", str(file))
    assert (ended.code, "it holds more than one line" in ended.err, "horse" in ended.err) == (2, True, False)
