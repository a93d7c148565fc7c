"""The section of users, roles and tokens in a snapshot.

Its rows are ``[kind, name, [role, …], verifier or nil, disabled, expires_at_ms or nil, grants]``: first the roles, then
the users, then the tokens, each in the order of their names. The grants of a role are ``[[pattern, [permission, …]],
…]``, in their order. The row of a token that counts for the quota of a user ends with that user's name. A state without
any of them has no such section, unless it once had one.

The secret of the decoys is the head of a section of its own, which has no rows: `secret_pieces`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from haptera.access_rules import ADMIN_ROLE, NODE_SECRET_SIZE, PERMISSIONS
from haptera.key_rules import VERSION_MAX
from haptera.state import limits
from haptera.state.access import StoredRole, StoredToken, StoredUser
from haptera.state.access_operations import StoredVerifier
from haptera.state.command_encoding import UnknownPart
from haptera.state.msgpack_arrays import array_header
from haptera.state.piece_decoding import PIECE_SIZE, MalformedPieces, PieceDecoder, require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.state.access import Access

#: The names of the sections.
ACCESS_SECTION: Final = "access"
SECRET_SECTION: Final = "node_secret"  # noqa: S105  # its name alone

_encoder: Final = msgspec.msgpack.Encoder()


class _Head(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    revision: int
    roles: int
    users: int
    tokens: int


class _Row(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    kind: Literal["role", "user", "token"]
    name: str
    roles: tuple[str, ...]
    verifier: StoredVerifier | None = None
    disabled: bool = False
    expires_at_ms: int | None = None
    grants: tuple[tuple[str, tuple[str, ...]], ...] = ()
    quota_of: str = ""


class _SecretHead(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    secret: bytes

    def __repr__(self) -> str:
        return "_SecretHead(***)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("secret", "***")]


_head: Final = PieceDecoder(ACCESS_SECTION, _Head)
_secret_head: Final = PieceDecoder(SECRET_SECTION, _SecretHead)
_rows: Final = PieceDecoder(ACCESS_SECTION, list[_Row])
_KINDS: Final = ("role", "user", "token")


def access_pieces(access: Access) -> Iterator[bytes]:
    """Give the section in pieces; none for a state that never had a user, a role, a token or a secret."""
    if not access.revision:
        return
    yield _encoder.encode((access.revision, len(access.roles), len(access.users), len(access.tokens)))
    rows: list[bytes] = []
    size = 0
    for row in _rows_of(access):
        # Older software reads the rows that it knows.
        encoded = _encoder.encode(row if row.quota_of else msgspec.structs.astuple(row)[:-1])
        rows.append(encoded)
        size += len(encoded)
        if size >= PIECE_SIZE:
            yield array_header(len(rows)) + b"".join(rows)
            rows, size = [], 0
    if rows:
        yield array_header(len(rows)) + b"".join(rows)


def _rows_of(access: Access) -> Iterator[_Row]:
    for name, role in sorted(access.roles.items()):
        yield _Row("role", name, role.parents, grants=role.grants)
    for name, user in sorted(access.users.items()):
        yield _Row("user", name, user.roles, user.verifier, user.disabled)
    for name, token in sorted(access.tokens.items()):
        expires_at_ms, quota_of = token.expires_at_ms, token.quota_of
        yield _Row("token", name, token.roles, token.verifier, expires_at_ms=expires_at_ms, quota_of=quota_of)


def secret_pieces(access: Access) -> Iterator[bytes]:
    """Give the section of the secret in its one piece; none for a state without it."""
    if access.secret:
        yield _encoder.encode((access.secret,))


class SecretLoader:
    """Fills in the secret of the decoys."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def head(self, piece: bytes) -> None:
        """Read the one piece."""
        secret = _secret_head.decode(piece).secret
        require(len(secret) == NODE_SECRET_SIZE, "no secret of a node has this size")
        self._access.secret = secret

    def rows(self, piece: bytes) -> None:
        """Refuse a second piece."""
        require(False, "the secret of a node has one piece")

    def finish(self) -> None:
        """Judge the section as a whole, when that of the users is there."""
        access = self._access
        require(not access.secret or access.revision > 0, "the secret of a node is one change of the users")


class AccessLoader:
    """Fills the part with its section."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._counts: tuple[int, ...] = (0, 0, 0)
        self._last = (0, "")
        self._tables: tuple[dict[str, Any], ...] = ({}, {}, {})
        self._revision = 0

    def head(self, piece: bytes) -> None:
        """Read the head."""
        head = _head.decode(piece)
        require(0 < head.revision <= VERSION_MAX, "no users have this revision")
        self._revision, self._counts = head.revision, (head.roles, head.users, head.tokens)
        bounds = (limits.ROLES_MAX, limits.USERS_MAX, limits.TOKENS_MAX)
        fits = all(0 <= count <= most for count, most in zip(self._counts, bounds, strict=True))
        require(fits, "there are too many users, roles or tokens")

    def rows(self, piece: bytes) -> None:
        """Read some rows."""
        for row in _rows.decode(piece):
            place = (_KINDS.index(row.kind), row.name)
            require(self._last < place, "users, roles and tokens are not in their order")
            self._last = place
            self._tables[place[0]][row.name] = _record(row)

    def finish(self) -> None:
        """Judge the section as a whole."""
        counts = tuple(map(len, self._tables))
        require(counts == self._counts, f"there are {counts} roles, users and tokens and not {self._counts}")
        if not self._revision:
            return
        access = self._access
        roles, users, tokens = self._tables
        access.adopt(users=users, roles=roles, tokens=tokens)
        access.revision = self._revision
        require(ADMIN_ROLE not in roles, "the built-in role stands among the others")
        try:
            access.check()
        except (AssertionError, ValueError) as error:
            raise MalformedPieces(str(error)) from error


def _record(row: _Row) -> StoredRole | StoredUser | StoredToken:
    """Return the record of a row, which has the fields of its kind alone."""
    if row.kind == "role":
        for _, permissions in row.grants:
            for each in permissions:
                if each not in PERMISSIONS:
                    reason = f"has a permission {each[:64]!r} that is not known"
                    raise UnknownPart(ACCESS_SECTION, reason, kind="part", source="snapshot")
        _require_fields(row, grants=row.grants)
        return StoredRole(row.roles, row.grants)  # type: ignore[arg-type]  # they are known
    if row.kind == "user":
        _require_fields(row, verifier=row.verifier, disabled=row.disabled)
        return StoredUser(row.verifier, row.roles, row.disabled)
    _require_fields(row, verifier=row.verifier, expires_at_ms=row.expires_at_ms, quota_of=row.quota_of)
    if row.verifier is None:
        raise MalformedPieces("a token has no verifier")
    return StoredToken(row.verifier, row.roles, row.expires_at_ms, row.quota_of)


def _require_fields(row: _Row, **fields: Any) -> None:
    require(row == _Row(row.kind, row.name, row.roles, **fields), f"a {row.kind} has a field of another kind")
