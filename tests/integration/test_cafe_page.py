"""The script and the program of docs/cafe.md run as they stand there, one behind the other."""

from __future__ import annotations

import re
import secrets
import shlex
import sys
from pathlib import Path

from haptera.testing.directories import socket_directory
from tests.integration.test_restore_drill import follow
from tests.unit.node.process import serving

PAGE = (Path(__file__).parents[2] / "docs" / "cafe.md").read_text(encoding="utf-8")
[SCRIPT] = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
[PROGRAM] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_program_of_the_page_runs_as_the_user_of_the_page() -> None:
    folder = Path(socket_directory())  # whose path is short enough for a socket
    key = folder / "cafe.key"
    key.write_bytes(secrets.token_bytes(32))
    key.chmod(0o600)
    listener = f"cafe://127.0.0.1:0?key_file={key}&require_bind=true"
    with serving(folder / "haptera-data", "--listen", listener, "--signing-user", "sensors", auth=True) as node:
        node.ready()  # at its own protocol, and then at the second listener
        port = node.ready().url.rpartition(":")[2]
        assert follow(SCRIPT.splitlines(), folder) == ["added"] * 3
        (folder / "program.py").write_text(PROGRAM.replace(":7777", f":{port}"), encoding="utf-8")
        [shown] = follow([f"{shlex.quote(sys.executable)} program.py"], folder)
        assert re.fullmatch(r"\d+ b'21.5'", shown), shown
