"""What a knock says of a server that opens the door late, or not at all."""

import asyncio

import pytest

from pgbreaker.config import for_dsn
from pgbreaker.postgres.target import Target
from support.simulated import Sites
from support.virtual import VirtualLoop


def knock(*, way: float, lost: float) -> str:
    """Knock for 200 ms at a frozen server that is *way* seconds away, by a daemon that
    was held up for *lost* seconds; returns what the failure says."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.network = sites = Sites(loop)
        machine = sites.add("db.example").machine
        machine.way = way
        machine.freeze()
        plan = for_dsn("postgresql://pgbreaker@db.example/app").targets[0]
        await Target(plan, late=lambda _since: lost).knock(0.2)

    with (
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
        pytest.raises(TimeoutError) as told,
    ):
        runner.run(run())
    return str(told.value)


def test_a_silent_server_is_given_what_connecting_has_left():
    assert knock(way=0.05, lost=0.0) == (
        "connected, but the server is silent for 149 ms"
    )


def test_where_connecting_took_all_of_the_time_no_wait_is_said_to_be_less_than_none():
    """A daemon that was held up waits longer for the network than it was to."""
    assert knock(way=0.4, lost=0.3) == "connected, but the server is silent for 1.0 ms"
