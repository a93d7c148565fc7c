"""The file that says whom certificates and users of this machine stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from haptera.errors import ConfigurationError
from haptera.node.external_users import FILE_SIZE_MAX, ExternalUsers, read_external_users

if TYPE_CHECKING:
    from pathlib import Path

BOTH = """
[certificates]
"spiffe://prod/web" = "web"
"db.example" = "ops"

[uids]
1000 = "ann"
"""


def written(path: Path, text: str) -> ExternalUsers:
    file = path / "users.toml"
    file.write_text(text)
    return read_external_users(str(file))


def test_without_a_file_the_first_name_of_a_certificate_is_its_user_and_no_uid_is_one() -> None:
    users = read_external_users(None)
    assert users.of_certificate(("spiffe://prod/web", "db.example")) == "spiffe://prod/web"
    assert users.of_certificate(()) is None
    assert users.of_uid(0) is None


def test_the_first_name_that_the_file_has_counts_and_names_that_it_lacks_stand_for_nobody(tmp_path: Path) -> None:
    users = written(tmp_path, BOTH)
    assert users.of_certificate(("other.example", "db.example", "spiffe://prod/web")) == "ops"
    assert users.of_certificate(("other.example",)) is None
    assert (users.of_uid(1000), users.of_uid(1001)) == ("ann", None)


def test_a_file_without_certificates_leaves_them_their_first_name(tmp_path: Path) -> None:
    assert written(tmp_path, '[uids]\n5 = "ann"\n').of_certificate(("web.example",)) == "web.example"
    assert written(tmp_path, "[certificates]\n").of_certificate(("web.example",)) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[users]\n", "'users' is no table of it"),
        ("certificates = 5\n", "certificates is no table"),
        ('[certificates]\n"a" = 5\n', "'a' in certificates is given no name"),
        ('[certificates]\n"a" = "token:x"\n', "is given no name"),
        ('[certificates]\n"a" = "local"\n', "is given no name"),
        ('[uids]\nann = "ann"\n', "'ann' in uids is no number"),
        ('[uids]\n-1 = "ann"\n', "'-1' in uids is no number"),
        ("[uids\n", "not a TOML file"),
        ("#" * (FILE_SIZE_MAX + 1), "larger than"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        written(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none.toml cannot be used: No such file"):
        read_external_users(str(tmp_path / "none.toml"))
