"""The base install and each extra: it has what it promises, and names the extra that another use needs.

The node stands in another environment than its clients, as it does for users.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import socket
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from haptera.cli.exit_codes import CONFIGURATION, USAGE
from tests.distribution.environments import PROJECT
from tests.integration.test_examples_messaging import HUB, PANEL
from tests.integration.test_readme import PROGRAMS, SHOWN
from tools.distributions import ROOT

if TYPE_CHECKING:
    from tests.distribution.conftest import Maker
    from tests.distribution.environments import Cell

EXAMPLES: Final = ROOT / "examples"
#: Names of packages, without their versions.
NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
#: The programs of the README's tour: the database, for threads, and the messaging library.
OF_DATABASE, OF_THREADS, OF_MESSAGING = range(3)


def names(requirements: list[str]) -> set[str]:
    """The packages of requirements, in the form of indexes."""
    found = (NAME.match(line) for line in requirements)
    return {match[0].lower().replace("_", "-") for match in found if match is not None}


def test_the_base_install_is_two_packages_beside_haptera(environment: Maker) -> None:
    assert set(environment().packages()) == {"haptera", *names(PROJECT["dependencies"])}


@pytest.mark.parametrize("extra", ["server", "cli", "zstd", "otel"])
def test_an_extra_brings_its_packages_in_a_version_that_is_allowed(extra: str, environment: Maker, cell: Cell) -> None:
    required = PROJECT["dependencies"] + PROJECT["optional-dependencies"][extra]
    packages = environment(extra).packages()
    assert names(required) <= set(packages)
    # The others come with the extras that name them alone.
    others = names(
        [line for lines in PROJECT["optional-dependencies"].values() for line in lines if "haptera" not in line]
    )
    assert set(packages) & others <= names(required)
    if cell.versions == "oldest" and cell.python == "3.11":
        bounds = dict(re.findall(r"^([\w.-]+)>=([\d.]+)", "\n".join(required), re.MULTILINE))
        for name, bound in bounds.items():
            version = packages[name.lower().replace("_", "-")]
            assert (version + ".0").startswith(f"{bound}."), (
                f"{name} {version} is not the oldest that is allowed, {bound}"
            )


def test_the_package_comes_from_the_wheel_and_not_from_the_checkout(environment: Maker, short_path: Path) -> None:
    made = environment()
    program = "import haptera, sys; print(haptera.__file__); print(*sys.path, sep='\\n')"
    file, *searched = made.run_program(program, short_path).splitlines()
    assert file.startswith(str(made.folder))
    assert not [path for path in searched if path.startswith(str(ROOT))]


def test_messaging_needs_the_base_install_alone(environment: Maker, short_path: Path) -> None:
    base = environment()
    program = PROGRAMS[OF_MESSAGING].replace("/tmp/home.sock", str(short_path / "home.sock"))
    assert base.run_program(program, short_path) == SHOWN[OF_MESSAGING]
    assert base.run_program(EXAMPLES / "two_peers.py", short_path).endswith("10001 NO_SUCH_ROOM\n")
    assert base.run_program(EXAMPLES / "sqlite_rows.py", short_path).endswith("each came once: True\n")
    # All that has no deadline, on which a busy machine has its own opinion.
    late = {"panel: shows warming up the attic"}
    assert set(base.run_program(EXAMPLES / "smart_home.py", short_path).splitlines()) >= {*HUB, *PANEL} - late


@pytest.mark.parametrize("number", [OF_DATABASE, OF_THREADS])
def test_the_client_needs_the_base_install_alone(number: int, environment: Maker, short_path: Path) -> None:
    with environment("server").node(short_path) as node:
        assert environment().run_program(PROGRAMS[number], short_path, HAPTERA_URL=node.url) == SHOWN[number]


def test_an_example_with_a_served_store_needs_the_base_install_alone(environment: Maker, short_path: Path) -> None:
    with environment("server").node(short_path) as node:
        shown = environment().run_program(EXAMPLES / "config_store.py", short_path, HAPTERA_URL=node.url)
    assert shown.splitlines()[-1] == "KEY_EXISTS not_applied"


LOGIN: Final = """
import asyncio, sys
import haptera
from haptera.authentication import PasswordUsers, verifier_for

class Echo(haptera.Service):
    name = "echo"

    @haptera.method
    async def say(self, request):
        return request.peer.identity.user.encode() + b" says " + request.payload

async def main():
    users = PasswordUsers({"ada": verifier_for("a long password of hers")})
    async with haptera.listen("haptera://127.0.0.1:0", services=[Echo()], authenticator=users) as server:
        async with haptera.dial(server.url, user="ada", password="a long password of hers") as peer:
            print(await peer.call("echo", "say", b"hello"))
        try:
            async with haptera.dial(server.url, user="ada", password="another one") as peer:
                await peer.call("echo", "say", b"hello")
        except haptera.HapteraError as error:
            print(error.name)

asyncio.run(main())
assert "cryptography" not in sys.modules
"""


def test_passwords_need_the_base_install_alone(environment: Maker, short_path: Path) -> None:
    assert environment().run_program(LOGIN, short_path) == "b'ada says hello'\nAUTHENTICATION_FAILED\n"


CAFE: Final = """
import asyncio, sys
from pathlib import Path
from haptera.cafe import MultiplexedClient

async def main(url, key):
    async with MultiplexedClient.connect(url, key=Path(key).read_bytes()) as client:
        await client.set(b"k", b"v")
        print(await client.get(b"k"))

asyncio.run(main(*sys.argv[1:]))
"""


def test_the_client_of_cafe_needs_the_base_install_alone(environment: Maker, short_path: Path) -> None:
    key = short_path / "key"
    key.touch(0o600)
    key.write_bytes(bytes(range(32)))
    with environment("server").node(short_path, "--listen", f"cafe://127.0.0.1:0?key_file={key}") as node:
        assert environment().run_program(CAFE, short_path, node.urls["cafe"].partition("?")[0], str(key)) == "b'v'\n"


@pytest.mark.parametrize(
    ("program", "extra"),
    [
        ("haptera.open('state')", "server"),
        ("haptera.sync.open('state')", "server"),
        ("import haptera.testing; haptera.testing.node", "server"),
        ("haptera.sync.connect('haptera://127.0.0.1:1?compression=zstd').get('k')", "zstd"),
        ("haptera.sync.dial('haptera://127.0.0.1:1?compression=zstd')", "zstd"),
        ("import asyncio; asyncio.run(haptera.dial('haptera://127.0.0.1:1?compression=zstd'))", "zstd"),
        ("from haptera.notebook import table; table([])", "cli"),
    ],
)
def test_a_use_that_needs_an_extra_names_it(program: str, extra: str, environment: Maker, short_path: Path) -> None:
    command = [environment().python, "-I", "-c", f"import haptera, haptera.sync; {program}"]
    done = environment().run(command, short_path)
    *_, told = done.stderr.splitlines()
    assert done.returncode == 1
    assert told.startswith("haptera.errors.")
    assert told.endswith(f"pip install 'haptera[{extra}]'")
    assert list(short_path.iterdir()) == []


@pytest.mark.parametrize(
    ("installed", "command", "code", "extra"),
    [
        ((), ("get", "k"), USAGE, "cli"),
        ((), ("--help",), USAGE, "cli"),
        ((), ("serve",), CONFIGURATION, "server"),
        (("cli",), ("serve",), CONFIGURATION, "server"),
        (("cli",), ("bench", "read", "--embedded"), USAGE, "server"),
        (("cli",), ("dev-certs", "."), USAGE, "server"),
        (("cli",), ("get", "k", "--url", "haptera://h?compression=zstd"), USAGE, "zstd"),
        (("server",), ("serve", "--compression", "zstd"), CONFIGURATION, "zstd"),
        (("zstd",), ("get", "k"), USAGE, "cli"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_command_that_needs_an_extra_names_it(
    installed: tuple[str, ...], command: tuple[str, ...], code: int, extra: str, environment: Maker, short_path: Path
) -> None:
    made = environment(*installed)
    done = made.run([str(made.folder / "bin" / "haptera"), *command], short_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("haptera: ")
    assert done.stderr.endswith(f"pip install 'haptera[{extra}]'\n")
    assert done.stderr.count("\n") == 1
    assert list(short_path.iterdir()) == []


def test_the_extra_of_the_server_serves_and_opens_a_store(environment: Maker, short_path: Path) -> None:
    server = environment("server")
    assert server.run_program(EXAMPLES / "embedded.py", short_path, str(short_path / "state")).startswith("run 1\n")
    listen = [part for url in ("haptera://127.0.0.1:0", "resp://127.0.0.1:0") for part in ("--listen", url)]
    with server.node(short_path, *listen) as node:
        # The commands that need no table work too, because they need no more than the node does.
        for command, shown in ((("set", "k", "v"), "1\n"), (("get", "k"), "v\n"), (("scan",), "k\tv\n")):
            done = server.run([str(server.folder / "bin" / "haptera"), *command], short_path, HAPTERA_URL=node.url)
            assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")
        host, _, port = node.urls["resp"].removeprefix("resp://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(b"GET k\r\n")
            assert client.recv(100) == b"$1\r\nv\r\n"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell what a process has loaded")
def test_the_extra_of_the_server_brings_the_event_loop_of_nodes(environment: Maker, short_path: Path) -> None:
    with environment("server").node(short_path) as node:
        assert "/uvloop/" in Path(f"/proc/{node.pid}/maps").read_text(encoding="utf-8")


COMPRESSED: Final = """
import asyncio, sys
import haptera

class Length(haptera.Service):
    name = "length"

    @haptera.method
    async def of(self, request):
        return str(len(request.payload)).encode()

async def main():
    async with haptera.listen("haptera://127.0.0.1:0?compression=zstd", services=[Length()]) as server:
        async with haptera.dial(server.url.partition("?")[0] + "?compression=zstd") as peer:
            print(await peer.call("length", "of", b"x" * 100_000))

asyncio.run(main())
assert "zstandard" in sys.modules
"""


def test_the_extra_of_compression_compresses(environment: Maker, short_path: Path) -> None:
    assert environment("zstd").run_program(COMPRESSED, short_path) == "b'100000'\n"


def test_the_shell_runs_commands_from_a_pipe(environment: Maker, short_path: Path) -> None:
    cli = environment("cli")
    with environment("server").node(short_path) as node:
        command = [str(cli.folder / "bin" / "haptera"), "shell", "--url", node.url]
        done = cli.run(command, short_path, "set k v\nget k\nmulti\nincr n\nincr n\nexec\nget n\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "2"


def test_the_shell_at_a_terminal_needs_the_extra_of_the_command_line(environment: Maker, short_path: Path) -> None:
    server = environment("server")
    terminal, inside = pty.openpty()
    with server.node(short_path) as node:
        command = [str(server.folder / "bin" / "haptera"), "shell", "--url", node.url]
        variables = server.variables(short_path, TERM="xterm")
        shell = subprocess.run(
            command,
            env=variables,
            stdin=inside,
            stdout=inside,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    os.close(inside)
    os.close(terminal)
    assert shell.returncode == USAGE
    assert shell.stderr == "haptera: this needs the package prompt_toolkit: pip install 'haptera[cli]'\n"


def test_the_shell_runs_at_a_terminal(environment: Maker, short_path: Path) -> None:
    cli = environment("cli")
    terminal, inside = pty.openpty()
    with environment("server").node(short_path) as node:
        command = [str(cli.folder / "bin" / "haptera"), "shell", "--url", node.url]
        variables = cli.variables(short_path, TERM="xterm")
        shell = start_at(command, variables, inside)
        os.close(inside)
        try:
            # Typed ahead: the terminal keeps it until the prompt is there.
            os.write(terminal, b"set k v\rget k\rexit\r")
            shown = b""
            with contextlib.suppress(OSError):  # the other side of a terminal has gone
                while piece := os.read(terminal, 4096):
                    shown += piece
            assert shell.wait(timeout=60) == 0, shown
        finally:
            shell.kill()
            shell.wait()
            os.close(terminal)
    lines = re.split(rb"[\r\n]+", re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown))
    assert b"v" in lines, lines


def start_at(command: list[str], variables: dict[str, str], terminal: int) -> subprocess.Popen[bytes]:
    """Start a program whose streams are all a terminal."""
    return subprocess.Popen(command, env=variables, stdin=terminal, stdout=terminal, stderr=terminal)


def test_the_completion_of_shells_is_written(environment: Maker, short_path: Path) -> None:
    cli = environment("cli")
    for shell in ("bash", "zsh", "fish"):
        done = cli.run([str(cli.folder / "bin" / "haptera"), "completion", shell], short_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "_HAPTERA_COMPLETE" in done.stdout


TABLE: Final = """
import asyncio
import haptera
import rich
from haptera.notebook import table

async def main():
    async with haptera.connect() as db:
        await db.set("fruit/apple", "red")
        rich.print(table([entry async for entry in db.scan(prefix="fruit/")]))

asyncio.run(main())
"""


def test_tables_of_results_need_the_extra_of_the_command_line(environment: Maker, short_path: Path) -> None:
    with environment("server").node(short_path) as node:
        shown = environment("cli").run_program(TABLE, short_path, HAPTERA_URL=node.url)
    assert "fruit/apple" in shown
    assert "red" in shown


MODELS: Final = """
import asyncio
import haptera
import pydantic

class Config(pydantic.BaseModel):
    host: str
    port: int = 25

async def main():
    async with haptera.connect() as db:
        configs = db.typed(Config)
        await configs.set("mail", Config(host="mail.example"))
        print((await configs.get("mail")).value)
        await db.set("bad", "{}")
        try:
            await configs.get("bad")
        except haptera.errors.UnexpectedValue as error:
            print(error.name)

asyncio.run(main())
"""


def test_models_of_pydantic_are_values_where_it_is_installed(environment: Maker, short_path: Path) -> None:
    beside = environment(beside=("pydantic>=2",))
    with environment("server").node(short_path) as node:
        shown = beside.run_program(MODELS, short_path, HAPTERA_URL=node.url)
    assert shown == "host='mail.example' port=25\nUNEXPECTED_VALUE\n"


def test_spans_go_through_services_and_the_store(environment: Maker, short_path: Path, cell: Cell) -> None:
    """With the SDK that belongs to the oldest API that is allowed, too."""
    (bound,) = re.findall(r"opentelemetry-api(.*)", "\n".join(PROJECT["optional-dependencies"]["otel"]))
    made = environment("otel", "server", beside=(f"opentelemetry-sdk{bound}",))
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    (picture,) = re.findall(r"```mermaid\n(.*?)```", page, re.DOTALL)
    assert made.run_program(EXAMPLES / "one_trace.py", short_path) == picture
    if cell.versions == "oldest":
        assert made.packages()["opentelemetry-api"] == made.packages()["opentelemetry-sdk"]


TESTS: Final = textwrap.dedent("""
    import pytest

    async def test_a_flag(haptera_db):
        await haptera_db.set("flags/new-checkout", b"on")
        assert (await haptera_db.get("flags/new-checkout")).value == b"on"

    @pytest.mark.haptera(storage="memory", listen="tcp")
    async def test_over_tcp(haptera_url, haptera_db):
        assert haptera_url.startswith("haptera://127.0.0.1:")
        assert await haptera_db.increment("hits") == 1
""")


def test_the_fixtures_for_tests_of_users_are_found(environment: Maker, short_path: Path) -> None:
    made = environment("server", beside=("pytest>=8.4", "pytest-asyncio>=1.4"))
    (short_path / "test_it.py").write_text(TESTS)
    (short_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    done = made.run([made.python, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"], short_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
