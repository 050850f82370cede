"""The doors of a daemon of its own process, against clients that mean no good.

In short; `tests/bench/malformed.py` and `slow_clients.py` are the same at length.
"""

import asyncio

from support.abuse import Slow, abused, good_requests, throw

GROWTH = 5.0  # MB


async def test_what_is_no_http_neither_kills_nor_leaks_nor_holds_up_others(tmp_path):
    async with abused(tmp_path) as daemon:
        await throw(daemon.port, 1000, seed=1)
        before = daemon.resident()
        async with good_requests(daemon.port) as took:
            told = await throw(daemon.port, 2000, seed=2)
        growth = daemon.resident() - before
        complaints = daemon.complaints()

    assert complaints == []
    assert told.wrong == []
    assert sum(told.statuses.values()) == 2000
    assert told.statuses[400] > 300
    assert [status for status in told.statuses if status in (500, 503, 504)] == []
    assert growth < GROWTH
    assert sorted(took)[len(took) // 2] < 100


async def test_clients_that_take_for_ever_do_not_starve_others(tmp_path):
    async with abused(tmp_path) as daemon:
        async with Slow(daemon.port, headers=600, readers=60, bodies=2) as slow:
            async with good_requests(daemon.port) as took:
                await asyncio.sleep(2)
            connections, opened = daemon.connections(), await slow.opened()
        complaints = daemon.complaints()

    assert complaints == []
    assert opened >= 662
    assert connections <= 520  # of one address, however many it opens
    assert len(took) > 10
    assert sorted(took)[len(took) // 2] < 100
