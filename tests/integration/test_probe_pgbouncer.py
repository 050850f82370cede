"""Is what pgbouncer says of its pools, its clients and its databases read rightly?

Of the versions, only the one installed here is asked; the columns of others are told.
"""

import asyncio
import contextlib

import pytest

from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.reading import Finding
from pgbreaker.core.secret import Secret
from pgbreaker.postgres.failures import read_failure
from pgbreaker.postgres.wire import ServerError, Wire
from pgbreaker.probes.pgbouncer import PGBOUNCER, read
from support.pooler import ADMIN, running_pooler
from support.servers import psql, running_server

LIMIT = PGBOUNCER.plan.limit
STATS = "app_user"
LASTING = {"stats_users": STATS, "query_wait_timeout": "30"}


@pytest.fixture(scope="module")
def backing():
    """One major is enough: it is the pooler that talks."""
    with running_server(15) as server:
        psql(server, "ALTER SYSTEM SET max_connections = 100")
        server.stop()
        server.start()
        yield server


@pytest.fixture
def pooler(backing):
    with running_pooler(backing, **LASTING) as pooler:
        yield pooler
    backing.start()


def plan_of(address: str) -> TargetPlan:
    probe = ProbePlan(interval=5.0, timeout=1.0, limit=LIMIT, address=Secret(address))
    return TargetPlan(
        name="t", dsn=Secret("postgresql://u@h/d"), probes={"pgbouncer": probe}
    )


async def look(pooler, *, user=STATS, **dsn):
    address = pooler.dsn(user=user, database="pgbouncer", **dsn)
    return await PGBOUNCER.goes(plan_of(address), 10.0)


def words(seen):
    return PGBOUNCER.weighs(seen, 0.01, LIMIT)


@contextlib.asynccontextmanager
async def client(pooler, *questions):
    """A client that has asked *questions*, and is still there."""
    wire = await Wire.connect(pooler.dsn(), settings={})
    try:
        for sql in questions:
            await wire.query(sql)
        yield wire
    finally:
        wire.abort()


async def until(pooler, condition):
    async with asyncio.timeout(10):
        while True:
            seen = await look(pooler)
            if condition(seen):
                return seen
            await asyncio.sleep(0.05)


async def test_idle(pooler):
    """Its own console is no pool, and we who ask are no client."""
    seen = await look(pooler)

    assert seen["pools"] == ()
    assert seen["pooler_waiting"] == seen["pooler_maxwait_seconds"] == 0
    assert (seen["pooler_clients"], seen["pooler_client_limit"]) == (0, 100)
    assert seen["pooler_client_ratio"] == 0
    assert (seen["pooler_paused"], seen["pooler_disabled"]) == (0, 0)
    assert seen["pooler_queries"] == 0
    assert words(seen) is None


async def test_served_clients(pooler):
    async with client(pooler, "SELECT 1"):
        seen = await look(pooler)

    (pool,) = seen["pools"]
    assert (pool["database"], pool["user"]) == ("app", "app_user")
    assert (pool["active"], pool["waiting"]) == (1, 0)
    assert pool["server_idle"] + pool["server_used"] == 1
    assert seen["pooler_clients"] == 1
    assert words(seen) is None


async def test_clients_that_wait(pooler):
    async with (
        client(pooler, "BEGIN"),
        client(pooler) as one,
        client(pooler) as two,
    ):
        waiting = [asyncio.create_task(w.query("SELECT 1")) for w in (one, two)]
        seen = await until(pooler, lambda seen: seen["pooler_maxwait_seconds"] > LIMIT)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

    (pool,) = seen["pools"]
    assert (pool["active"], pool["waiting"], pool["server_active"]) == (1, 2, 1)
    assert (seen["pooler_waiting"], seen["pooler_names"]) == (2, "app/app_user")
    assert words(seen) == (
        f"clients of app/app_user wait for {pool['maxwait_seconds']:.1f} s"
        " for a server connection (limit 1.0 s), 2 wait"
    )


@pytest.mark.parametrize(
    ("command", "fact", "sentence"),
    [
        ("PAUSE app", "pooler_paused", "pgbouncer has paused app"),
        ("KILL app", "pooler_paused", "pgbouncer has paused app"),
        ("DISABLE app", "pooler_disabled", "pgbouncer has disabled app"),
    ],
)
async def test_stopped_databases(pooler, command, fact, sentence):
    await asyncio.to_thread(pooler.tell, command)

    seen = await look(pooler)

    assert seen[fact] == 1
    assert words(seen) == sentence


async def test_server_behind_is_gone(backing, pooler):
    """The console answers, and clients wait for what cannot come."""
    backing.stop("immediate")
    asking = asyncio.create_task(Wire.connect(pooler.dsn(), settings={}))
    seen = await until(pooler, lambda seen: seen["pooler_waiting"])
    asking.cancel()
    await asyncio.wait([asking])

    (pool,) = seen["pools"]
    assert pool["server_active"] == pool["server_idle"] == 0


async def test_many_pools_are_capped(backing):
    databases = "".join(
        f"\n[databases]\nd{n} = host=127.0.0.1 port={backing.port} dbname=app"
        for n in range(60)
    )
    # What follows the settings of pgbouncer itself.
    more = {"server_check_delay": "30" + databases}
    with running_pooler(backing, max_client_conn="200", **LASTING, **more) as pooler:
        async with contextlib.AsyncExitStack() as clients:
            for n in range(60):
                dsn = pooler.dsn(database=f"d{n}")
                wire = await Wire.connect(dsn, settings={})
                clients.callback(wire.abort)
            seen = await look(pooler)

    *worst, rest = seen["pools"]
    assert len(worst) == 20
    assert (rest["database"], rest["user"]) == ("other", "other")
    assert sum(pool["active"] for pool in seen["pools"]) == 60
    assert seen["pooler_clients"] == 60


async def test_no_more_clients(backing):
    """The console lets us in all the same, and we do not count ourselves."""
    with running_pooler(backing, max_client_conn="3", **LASTING) as pooler:
        async with client(pooler), client(pooler):
            assert words(await look(pooler)) is None
            async with client(pooler):
                seen = await look(pooler)
                with pytest.raises(ServerError, match="no more connections allowed"):
                    async with client(pooler):
                        pass

    assert seen["pooler_client_ratio"] == 1
    assert words(seen) == "pgbouncer takes no more clients: it has 3 of 3"


async def test_strangers_are_not_let_in(pooler):
    for dsn in ({"password": "wrong"}, {"user": "nobody"}):
        with pytest.raises(ServerError) as caught:
            await look(pooler, **dsn)

        finding, _ = read_failure(caught.value, probe="pgbouncer", connecting=True)
        assert finding is Finding.AUTH


async def test_user_without_the_console(backing):
    with running_pooler(backing) as pooler:
        assert (await look(pooler, user=ADMIN))["pools"] == ()
        with pytest.raises(ServerError) as caught:
            await look(pooler)

    finding, _ = read_failure(caught.value, probe="pgbouncer", connecting=True)
    assert finding is Finding.AUTH


async def test_gone(pooler):
    pooler.stop()

    with pytest.raises(ConnectionRefusedError):
        await look(pooler)


async def test_silent_console():
    hung_up = asyncio.Event()

    async def listen(reader, writer):
        await reader.read()  # until the probe hangs up
        writer.close()
        hung_up.set()

    async with await asyncio.start_server(listen, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        plan = plan_of(f"postgresql://u@127.0.0.1:{port}/pgbouncer")
        with pytest.raises(TimeoutError, match="console gave no answer within 100 ms"):
            await PGBOUNCER.goes(plan, 0.1)
        await asyncio.wait_for(hung_up.wait(), 5)


# -- Other versions ----------------------------------------------------------------

CONFIG = [{"key": "max_client_conn", "value": "100", "changeable": "yes"}]
LISTS = [{"list": "used_clients", "items": "7"}]


def told(**tables):
    answers = {
        "POOLS": [],
        "DATABASES": [],
        "CONFIG": CONFIG,
        "LISTS": LISTS,
        "STATS": [],
    }
    return read(answers | tables)


def test_missing_columns_are_values_not_seen():
    """1.8 has no sv_tested of ours to miss, but may lack what later ones have."""
    pools = [{"database": "a", "user": "u", "cl_active": "1", "cl_waiting": "0"}]

    seen = told(POOLS=pools, STATS=[{"database": "a", "total_requests": "5"}])

    assert seen["pools"] == (
        {
            "database": "a",
            "user": "u",
            "maxwait_seconds": None,
            "waiting": 0,
            "active": 1,
        },
    )
    assert seen["pooler_queries"] is None
    assert words(seen) is None


def test_pause_of_all_is_seen_where_the_console_tells_it():
    """Before 1.19 it does not, and only waiting clients show it."""
    state = [{"key": "active", "value": "no"}, {"key": "paused", "value": "yes"}]
    databases = [{"name": "a", "paused": "0"}, {"name": "pgbouncer", "paused": "0"}]

    seen = told(STATE=state, DATABASES=databases)

    assert seen["pooler_paused"] == 1
    assert words(seen) == "pgbouncer has paused all databases"


def test_names_do_not_fill_the_sentence():
    databases = [{"name": f"d{n}", "paused": "1"} for n in range(9)]

    assert (
        words(told(DATABASES=databases)) == "pgbouncer has paused d0, d1, d2 and 6 more"
    )


def test_waiting_goes_into_seconds_and_parts():
    pools = [
        {
            "database": "a",
            "user": "u",
            "cl_waiting": "14",
            "maxwait": "3",
            "maxwait_us": "200000",
        },
        {
            "database": "b",
            "user": "u",
            "cl_waiting": "1",
            "maxwait": "0",
            "maxwait_us": "9",
        },
    ]

    assert words(told(POOLS=pools)) == (
        "clients of a/u wait for 3.2 s for a server connection (limit 1.0 s), 14 wait"
    )


def test_values_have_a_series_each():
    seen = told(
        POOLS=[{"database": "a", "user": "u", "cl_waiting": "0", "maxwait": "0"}]
    )
    columns = {*seen["pools"][0], "server_active", "server_idle", "server_used"}
    columns |= {"server_tested", "server_login"}

    for shown in PGBOUNCER.shows:
        assert shown.value in (columns if shown.rows else seen)
