"""What systemd is told, on a socket as it makes one."""

import asyncio
import socket

import pytest

from pgbreaker.notify import Notifier


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def test_lines_arrive_in_one_datagram(manager):
    Notifier({"NOTIFY_SOCKET": manager.getsockname()}).send(
        "READY=1", "STATUS=2 targets"
    )

    assert manager.recv(4096) == b"READY=1\nSTATUS=2 targets"


def test_an_abstract_socket_is_written_with_an_at_sign():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0pgbreaker-test-notify")
        sock.settimeout(5)

        Notifier({"NOTIFY_SOCKET": "@pgbreaker-test-notify"}).send("READY=1")

        assert sock.recv(4096) == b"READY=1"


def test_without_a_manager_nothing_happens():
    Notifier({}).send("READY=1")
    Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}).send("READY=1")


async def test_the_watchdog_is_fed_only_while_nothing_is_in_trouble(manager):
    trouble: list[str] = []
    notifier = Notifier(
        {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "20000"}
    )
    telling = asyncio.create_task(
        notifier.keep_telling(
            lambda: "1 target", lambda: trouble[0] if trouble else None
        )
    )

    well = await asyncio.to_thread(manager.recv, 4096)
    trouble.append("the sentinel of main has ended")
    ill = well
    while b"WATCHDOG" in ill:
        ill = await asyncio.to_thread(manager.recv, 4096)
    telling.cancel()

    assert well == b"WATCHDOG=1\nSTATUS=1 target"
    assert ill == b"STATUS=the sentinel of main has ended"
