"""Which of several addresses and hosts is used, and when each is tried (RFC 8305).

Trap: one dead address or host uses up the time of the others.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvloop

from haptera import ConnectionLost, dial, listen
from haptera.errors import ConfigurationError
from haptera.testing import VirtualClockLoop, virtual_clock
from haptera.transport import bind_sockets
from haptera.transport.dialling import connect_first
from haptera.transport.limits import ADDRESSES_MAX
from tests.support.virtual import loop
from tests.unit.peer.hosts import ANY_PORT, Echo, eventually, served


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


class Lines:
    """Attempts to connect, by the addresses tried and when; an address's fate is a time to connect in, or an error."""

    def __init__(self, **fates: float | Exception) -> None:
        self.fates = fates
        self.tried: list[tuple[str, float]] = []
        self.aborted: list[str] = []

    async def __call__(self, host: Any, address: Any) -> Line:
        name = address[0]
        self.tried.append((name, loop().time()))
        fate = self.fates.get(name, ConnectionRefusedError("refused"))
        if isinstance(fate, Exception):
            raise fate
        await asyncio.sleep(fate)
        return Line(self, name)

    async def connect(self, *hosts: str, timeout: float | None = 5.0) -> str:
        return (await connect_first([(host, 1) for host in hosts], self, timeout, discard=Line.abort)).name


class Line:
    def __init__(self, lines: Lines, name: str) -> None:
        self.lines = lines
        self.name = name

    def abort(self) -> None:
        self.lines.aborted.append(self.name)


NEVER = 1e9


@virtual_clock
async def test_a_host_that_swallows_syns_costs_a_quarter_of_a_second() -> None:
    lines = Lines(a=NEVER, b=0.1)
    assert await lines.connect("a", "b") == "b"
    assert lines.tried == [("a", 0.0), ("b", 0.25)]
    assert loop().time() == pytest.approx(0.35)


@virtual_clock
async def test_a_host_that_refuses_costs_nothing() -> None:
    lines = Lines(c=0.0)
    assert await lines.connect("a", "b", "c") == "c"
    assert loop().time() == 0.0


@virtual_clock
async def test_a_host_that_refuses_costs_nothing_while_another_is_silent() -> None:
    lines = Lines(a=NEVER, c=0.0)
    assert await lines.connect("a", "b", "c") == "c"
    assert lines.tried == [("a", 0.0), ("b", 0.25), ("c", 0.25)]


@virtual_clock
async def test_an_error_that_is_none_of_the_network_is_raised_as_it_is() -> None:
    lines = Lines(a=NEVER, b=ValueError("a key file that cannot be read"))
    with pytest.raises(ValueError, match="key file"):
        await lines.connect("a", "b", "c")
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


@virtual_clock
async def test_the_first_to_connect_wins_and_what_comes_later_is_closed() -> None:
    assert await Lines(a=0.4, b=0.4).connect("a", "b") == "a"
    assert await Lines(a=0.4, b=0.1).connect("a", "b") == "b"
    together = Lines(a=0.25, b=0.0)
    winner = await together.connect("a", "b")
    await asyncio.sleep(1.0)
    assert together.aborted == [name for name, _ in together.tried if name != winner]


@virtual_clock
async def test_the_families_and_the_hosts_take_turns() -> None:
    loop().network.name("a", "1:6", "2:6", "3:6", "4.1", "4.2")
    loop().network.name("b", "c4")
    lines = Lines()
    with pytest.raises(ConnectionLost):
        await lines.connect("a", "b")
    assert [name for name, _ in lines.tried] == ["1:6", "4.1", "c4", "2:6", "4.2", "3:6"]


@virtual_clock
async def test_every_host_that_fails_is_named_with_its_reason() -> None:
    loop().network.name("nameless")
    lines = Lines(c=NEVER)
    with pytest.raises(ConnectionLost) as lost:
        await lines.connect("a", "nameless", "c", timeout=3.0)
    assert loop().time() == 3.0
    assert lost.value.outcome == "not_applied"
    assert str(lost.value) == (
        "cannot connect to a:1: refused; cannot connect to nameless:1: [Errno -2] Name or service not known; "
        "cannot connect to c:1: it took too long"
    )


@virtual_clock
async def test_a_name_that_is_resolved_slowly_holds_up_no_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = VirtualClockLoop.getaddrinfo

    async def slowly(self: Any, host: str, port: int, **options: Any) -> Any:
        if host == "slow":
            await asyncio.sleep(3.0)
        return await resolve(self, host, port, **options)

    monkeypatch.setattr(VirtualClockLoop, "getaddrinfo", slowly)
    lines = Lines(slow=0.0, b=0.0)
    assert await lines.connect("slow", "b") == "b"
    assert loop().time() == 0.25
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1, "nothing is resolved any more"
    assert await lines.connect("slow") == "slow"


@virtual_clock
async def test_an_address_keeps_the_interface_that_it_is_reached_through(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolved(*_: Any, **__: Any) -> Any:
        addresses = [("fe80::1", 1, 0, 3), ("fe80::2%eth0", 1, 0, 3), ("::1", 1, 0, 0)]
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(VirtualClockLoop, "getaddrinfo", resolved)
    lines = Lines()
    with pytest.raises(ConnectionLost):
        await lines.connect("a")
    assert [name for name, _ in lines.tried] == ["fe80::1%3", "fe80::2%eth0", "::1"]


@virtual_clock
async def test_addresses_of_a_hostile_resolver_are_bounded() -> None:
    loop().network.name("a", *(f"a{number}" for number in range(1000)))
    lines = Lines()
    with pytest.raises(ConnectionLost):
        await lines.connect("a")
    assert len(lines.tried) == ADDRESSES_MAX


@virtual_clock
async def test_cancelled_dialling_leaves_no_attempt_behind() -> None:
    loop().network.silence("silent")
    dialling = asyncio.ensure_future(dial("haptera://silent", timeout=None))
    await asyncio.sleep(1.0)
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


@virtual_clock
async def test_a_silent_address_is_not_waited_for_where_its_name_has_another() -> None:
    async with served(ANY_PORT, Echo()) as server:
        network = loop().network
        network.name("db", "10.0.0.1", "127.0.0.1")
        network.silence("10.0.0.1")
        peer = await dial(f"haptera://db:{port_of(server.url)}")
        assert loop().time() == 0.25
        assert await peer.call("echo", "one", b"x") == b"x"
        assert peer.dialled == ("db", port_of(server.url))
        await peer.aclose()
        with pytest.raises(ConnectionLost, match=r"10\.0\.0\.1:7457: it took too long"):
            await dial("haptera://10.0.0.1", timeout=5.0)
        assert loop().time() == 5.25


@contextmanager
def swallowing(address: str, port: int) -> Iterator[None]:
    """A listener whose queue is full, so that the kernel drops further SYNs."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((address, port))
        yield


@pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_over_sockets_the_next_host_is_reached_within_the_call(loops: Any) -> None:
    async def main() -> None:
        async with served("haptera://127.0.0.1:0", Echo()) as server:
            port = port_of(server.url)
            with swallowing("127.0.0.9", port):
                async with dial(f"haptera://127.0.0.9:{port},127.0.0.1:{port}") as peer:
                    assert await peer.call("echo", "one", b"x") == b"x"
                    assert peer.dialled == ("127.0.0.1", port)

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(main())


# -- listening on a name ----------------------------------------------------------------------------------------------


def several(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have the name ``several`` stand for these addresses, in the whole process."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        hosts = addresses if host == "several" else (host,)
        return [info for each in hosts for info in resolve(each, port, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_every_address_of_a_name_is_listened_on(monkeypatch: pytest.MonkeyPatch, loops: Any) -> None:
    several(monkeypatch, "127.0.0.1", "127.0.0.2")

    async def main() -> None:
        async with served("haptera://several:0", Echo()) as server:
            assert server.url.startswith("haptera://several:")
            for address in ("127.0.0.1", "127.0.0.2"):
                async with dial(f"haptera://{address}:{port_of(server.url)}") as peer:
                    assert await peer.call("echo", "one", b"x") == b"x"
            await eventually(lambda: server.accepted == 2)
            server.close()
            await server.drain()
            for address in ("127.0.0.1", "127.0.0.2"):
                with pytest.raises(ConnectionLost):
                    await dial(f"haptera://{address}:{port_of(server.url)}")

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(main())


async def test_an_address_that_is_not_here_is_left_out_and_one_in_use_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    several(monkeypatch, "192.0.2.1", "127.0.0.1")
    async with served("haptera://several:0", Echo()) as server:
        async with dial(f"haptera://127.0.0.1:{port_of(server.url)}") as peer:
            assert await peer.call("echo", "one", b"x") == b"x"
        several(monkeypatch, "127.0.0.2", "127.0.0.1")
        with pytest.raises(ConfigurationError, match="Address already in use"):
            await listen(server.url)
        await (await listen(f"haptera://127.0.0.2:{port_of(server.url)}")).aclose()  # nothing is left of the attempt


async def test_a_chosen_port_that_is_taken_on_another_address_is_chosen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    several(monkeypatch, "127.0.0.1", "127.0.0.2")
    bind = bind_sockets._bind_tcp
    refusals = [OSError(98, "Address already in use")] * 3

    def taken(family: int, kind: int, protocol: int, place: tuple[Any, ...]) -> socket.socket:
        if place[0] == "127.0.0.2" and refusals:
            raise refusals.pop()
        return bind(family, kind, protocol, place)

    monkeypatch.setattr(bind_sockets, "_bind_tcp", taken)
    async with served("haptera://several:0", Echo()) as server:
        assert refusals == []
        async with dial(f"haptera://127.0.0.2:{port_of(server.url)}") as peer:
            assert await peer.call("echo", "one", b"x") == b"x"
