"""Whatever holds a secret shows it to nobody: not by repr, and not by rich, which asks a method of its own."""

from __future__ import annotations

import dataclasses
import importlib
import os
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from rich.console import Console
from rich.pretty import pretty_repr

import haptera
from haptera.client.calls.administration import NewToken
from haptera.client.channels.store_url import Given
from haptera.connection.config import Config
from haptera.peer.own_credential import OwnCredential
from haptera.peer.url_options import Options
from haptera.security import ClientKeys, PlainLogin, SigningSecret, Verifier
from haptera.security.scram_messages import ClientFinal
from haptera.state.access_operations import SetNodeSecret, StoredVerifier
from haptera.state.access_pieces import _SecretHead
from haptera.storage.data_key import DataKey
from haptera.storage.master_key import MasterKey
from haptera.transport import Address

SECRET = b"nobody may ever read these words"
SHOWN = (SECRET.decode(), SECRET.hex(), SECRET.decode()[4:20])

HOLDERS: dict[type, Callable[[], object]] = {
    Address: lambda: Address(scheme="haptera", hosts=(("h", 1),), user="u", password=SECRET.decode()),
    Config: lambda: Config(entropy=os.urandom, signing_key=SECRET),
    DataKey: lambda: DataKey.of(SECRET),
    MasterKey: lambda: MasterKey.of(SECRET),
    NewToken: lambda: NewToken("token:1", SECRET.decode(), None),
    Given: lambda: Given("app", SECRET.decode()),
    Options: lambda: Options(signing_key=SECRET),
    ClientKeys: lambda: ClientKeys(SECRET, SECRET),
    SetNodeSecret: lambda: SetNodeSecret(SECRET),
    _SecretHead: lambda: _SecretHead(SECRET),
    StoredVerifier: lambda: StoredVerifier(SECRET, 4096, SECRET, SECRET),
    Verifier: lambda: Verifier(SECRET, 4096, SECRET, SECRET),
    SigningSecret: lambda: SigningSecret(SECRET, SECRET),
    OwnCredential: lambda: OwnCredential("PLAIN", "app", SECRET.decode()),
    PlainLogin: lambda: PlainLogin("app", SECRET.decode()),
    ClientFinal: lambda: ClientFinal("c", "r", SECRET, "c=c,r=r"),
}

# What a field of a secret is called.
SECRET_NAME = re.compile(
    r"secret|password(?!_file)|(signing|client|stored|server)_key$|private|credential$|^ikm$|^proof$"
)


def views(value: object) -> Iterator[str]:
    yield repr(value)
    yield str(value)
    yield f"{value}"
    yield pretty_repr(value)
    yield pretty_repr({"inside": [value]})
    console = Console(width=1000)
    with console.capture() as capture:
        console.print(value)
    yield capture.get()


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=[type_.__name__ for type_ in HOLDERS])
def test_no_view_of_what_holds_a_secret_shows_it(holder: Callable[[], object]) -> None:
    for view in views(holder()):
        assert not any(text in view for text in SHOWN), view


def fields_of(type_: type) -> list[str]:
    if issubclass(type_, msgspec.Struct):
        return list(type_.__struct_fields__)
    return [field.name for field in dataclasses.fields(type_)] if dataclasses.is_dataclass(type_) else []


def test_everything_with_a_field_for_a_secret_is_looked_at() -> None:
    found: set[Any] = set()
    for module in pkgutil.walk_packages(haptera.__path__, "haptera."):
        if module.name != "haptera.__main__":
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and value.__module__.startswith("haptera"):
                    found |= {value for name in fields_of(value) if SECRET_NAME.search(name)}
    assert found == HOLDERS.keys()
