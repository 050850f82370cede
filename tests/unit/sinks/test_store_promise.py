"""No acknowledged entry is ever lost, whatever ends the process, or the machine.

`tests/bench/kills.py` does the same five hundred times.
"""

import asyncio
import contextlib
import random
import sqlite3
from functools import partial

from support.kills import Kills
from support.power import Power
from support.storing import entry, override, storing


def test_no_kill_loses_what_was_acknowledged(tmp_path):
    path, luck, kills = tmp_path / "state.db", random.Random(1), Kills()

    for _ in range(15):
        kills.once(path, luck)
    asyncio.run(kills.audit(path))

    assert kills.lost == []
    assert kills.faults == []
    assert len(kills.acknowledged) > 100


async def lose_power(tmp_path, connect, cuts=40) -> tuple[int, int]:
    """Write through a disk that loses power *cuts* times, and look at what it leaves.

    Returns:
        Entries that had been acknowledged and were not there, of how many.
    """
    luck = random.Random(2)
    power = Power(f"power-{tmp_path.name}")
    acknowledged: list[int] = []
    found: list[tuple[int, int]] = []
    image = tmp_path / "image"

    def cut() -> None:
        if luck.random() < 0.05 and acknowledged and len(found) < cuts:
            had = list(acknowledged)
            power.image(image, luck)
            found.append((sum(id_ not in ids_of(image) for id_ in had), len(had)))

    (tmp_path / "disk").mkdir()
    path = tmp_path / "disk" / "state.db"
    async with storing(path, connect=partial(connect, power)) as store:
        power.cut = cut
        for number in range(1, 10_000, 2):
            store.keep({"main/read": {"n": number, "more": "x" * 3000}})
            await asyncio.gather(
                store.record([entry(number)]), store.record([override(number + 1)])
            )
            acknowledged += (number, number + 1)
            if len(found) == cuts:
                break
        power.cut = lambda: None
        assert len(found) == cuts
    return sum(lost for lost, _ in found), sum(had for _, had in found)


def ids_of(image) -> set[int]:
    """What a file that the power went from under tells; it has to be whole."""
    with contextlib.closing(sqlite3.connect(image / "state.db")) as connection:
        assert connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        if connection.execute("SELECT * FROM sqlite_schema").fetchone() is None:
            return set()  # not even that was synced
        entries = {id_ for (id_,) in connection.execute("SELECT id FROM entry")}
        audit = connection.execute("SELECT entry FROM audit").fetchall()
        assert {id_ for (id_,) in audit} <= entries
        return entries


async def test_no_power_cut_loses_what_was_acknowledged(tmp_path):
    lost, had = await lose_power(tmp_path, Power.connect)

    assert lost == 0
    assert had > 500


async def test_the_disk_that_loses_power_does_lose_what_was_not_synced(tmp_path):
    """Or the test above would show nothing."""

    lost, _ = await lose_power(tmp_path, Power.connect_careless)

    assert lost > 0
