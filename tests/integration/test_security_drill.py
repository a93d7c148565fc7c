"""The scripts of docs/security.md run as they stand there, and leave what the page says."""

from __future__ import annotations

import re
from pathlib import Path

from haptera.testing.directories import socket_directory
from tests.integration.commands import run
from tests.integration.test_restore_drill import follow
from tests.unit.node.process import serving

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
SCRIPTS = [found[1].splitlines() for found in re.finditer(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]


def test_the_users_of_the_page_are_made_and_removed() -> None:
    there, back = SCRIPTS
    folder = Path(socket_directory())  # whose path is short enough for a socket
    with serving(folder / "haptera-data") as node:
        url = node.ready().url
        lines = follow(there, folder)
        assert lines[-5:] == [
            "*\tbackup,metrics",
            "parent\tapp",
            "ann\tenabled\tpassword\tapp,operator",
            "root\tenabled\tpassword\tadmin",
            "token:nightly\tapp",
        ]
        name, secret = (folder / "nightly.token").read_text(encoding="utf-8").rstrip("\n").split("\t")
        assert (name, len(secret)) == ("token:nightly", 43)
        assert follow(back, folder)[-1] == "app/*\tread,write,scan,watch"
        assert run("user", "list", "--url", url).text == "root\tenabled\tpassword\tadmin\n"
        node.signal()
        assert node.end() == 0
    assert [path.name for path in folder.iterdir()] == ["haptera-data"]
