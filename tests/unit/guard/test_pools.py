"""`pgbreaker.guard.pools`: what is told of the pools of a process."""

import gc
import threading

import pytest

from pgbreaker import Target
from pgbreaker.guard.monitor import Monitor
from pgbreaker.guard.pools import _KNOWN, Use, forget, uses, watch


class Pool:
    """A pool that is as its test says."""

    def __init__(self, use):
        self.use = use


def watch_new(target, use):
    pool = Pool(use)
    watch(pool, target, lambda pool: pool.use)
    return pool


@pytest.fixture
def watched():
    """Has a pool watched that is there until the test ends."""
    pools = []

    def make(target, use):
        pools.append(watch_new(target, use))
        return pools[-1]

    return make


FULL = Use(used=4, idle=0, max=4, waiters=2)


def test_a_pool_is_told_of_as_it_is_at_that_moment(watched):
    pool = watched("now", FULL)
    first = uses()["now"]

    pool.use = Use(used=1, idle=3, max=4, waiters=0)

    assert first == FULL
    assert uses()["now"] == pool.use


def test_pools_of_one_target_are_told_of_together(watched):
    watched("both", FULL)
    watched("both", Use(1, 2, 6, 0))

    assert uses()["both"] == Use(used=5, idle=2, max=10, waiters=2)


def test_with_one_that_has_no_limit_there_is_none(watched):
    watched("some", FULL)
    watched("some", Use(1, 0, None, 0))

    assert uses()["some"].max is None


def test_one_that_is_closed_is_told_of_no_more(watched):
    pool = watched("closing", FULL)

    pool.use = None

    assert "closing" not in uses()


def test_one_that_cannot_be_read_is_left_out_and_said_once(watched, caplog):
    def fail(_pool):
        raise RuntimeError("closed meanwhile")

    broken = Pool(None)
    watch(broken, "mixed", fail)
    watched("mixed", FULL)

    told = [uses()["mixed"] for _ in range(3)]

    assert told == [FULL] * 3
    (said,) = caplog.records
    assert said.getMessage() == "a pool of mixed cannot be read"
    assert "closed meanwhile" in caplog.text
    assert Monitor(Target("mixed")).status()["pool"]["used"] == 4


def test_each_that_cannot_be_read_is_said_of(caplog):
    pools = [Pool(None), Pool(None)]
    for pool in pools:
        watch(pool, "broken", lambda pool: pool.nothing)

    assert "broken" not in uses()

    assert len(caplog.records) == 2


def test_one_that_is_gone_leaves_nothing_behind(watched):
    watched("kept", FULL)
    for _ in range(100):
        watch_new("gone", FULL)
    gc.collect()

    assert "gone" not in uses()
    watched("kept", FULL)
    assert [entry.target for entry in _KNOWN.all if entry.pool() is None] == []
    assert uses()["kept"].used == 8


def test_one_that_is_forgotten_is_told_of_no_more_and_the_others_are(watched):
    first, second = watched("two", FULL), watched("two", FULL)

    forget(first)

    assert uses()["two"] == second.use


@pytest.mark.parametrize(
    ("asking", "idle", "waiters"), [(0, 0, 0), (3, 0, 3), (3, 2, 1), (1, 4, 0)]
)
def test_who_finds_a_connection_idle_does_not_wait(asking, idle, waiters):
    use = Use.of(used=1, idle=idle, limit=5, asking=asking)

    assert use.waiters == waiters


@pytest.mark.usefixtures("littered")
def test_threads_that_watch_forget_and_read_lose_no_pool(watched):
    for _ in range(30):  # more than Python has tuples ready for
        watched("busy", Use(1, 0, 1, 0))
    seen = []

    def come_and_go():
        for _ in range(300):
            forget(watch_new("other", FULL))
            seen.append(uses()["busy"].used)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(seen) == {30}
    assert len(seen) == 1200
    assert "other" not in uses()


def test_the_monitor_tells_the_same_of_its_targets_pools(watched):
    watched("watched", FULL)
    watched("another", Use(9, 9, 9, 9))

    status = Monitor(Target("watched")).status()

    assert status["pool"] == {"used": 4, "idle": 0, "max": 4, "waiters": 2}
    assert Monitor(Target("without")).status()["pool"] == {}
