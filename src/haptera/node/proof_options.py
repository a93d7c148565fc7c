"""The options of a node about proofs of identity, as fields of `haptera.node.config.NodeConfig` have them."""

from __future__ import annotations

from typing import Annotated, Final

from haptera.node.option_kinds import Option, path_text, switch, user_text
from haptera.wire import SECRET_SIZE_MIN

ADMIN_USER_DEFAULT: Final = "admin"

NoAuth = Annotated[
    bool,
    switch(
        "Security",
        "Ask no caller for a proof of identity: each caller may do everything. For addresses of this machine alone.",
    ),
]

InsecureListen = Annotated[
    bool,
    switch(
        "Security",
        "Listen beyond this machine although there is no authentication, or neither TLS nor signing.",
    ),
]

AdminUser = Annotated[
    str,
    Option(
        user_text,
        "Security",
        "NAME",
        "Name of the administrator that the first start makes. Its password is from the variable "
        "HAPTERA_ADMIN_PASSWORD or from admin_password_file; if neither is given, the node makes one and shows it "
        "once.",
    ),
]

AdminPasswordFile = Annotated[
    str | None,
    Option(
        path_text,
        "Security",
        "FILE",
        "File with the password of this administrator, without its line end. It is read at the first start alone.",
    ),
]

ExternalUsersFile = Annotated[
    str | None,
    Option(
        path_text,
        "Security",
        "FILE",
        "TOML file with the users that client certificates and users of this machine stand for "
        "(docs/security.md). Without it the first URI or DNS name of a certificate is the name of its user.",
    ),
]

SigningUser = Annotated[
    str | None,
    Option(
        user_text,
        "Security",
        "NAME",
        "The user as whom peers with the key of signing_key_file act; by default that of admin_user.",
    ),
]

SigningKeyFile = Annotated[
    str | None,
    Option(
        path_text,
        "Security",
        "FILE",
        f"Sign every frame with the secret in this file, {SECRET_SIZE_MIN} bytes or more, and refuse peers that do "
        "not have it. The local socket in the data directory stays unsigned.",
    ),
]
