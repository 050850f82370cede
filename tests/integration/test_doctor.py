"""`pgbreaker doctor` on real servers: is what is missing found, and only that?"""

import asyncio
import socket
import time
from contextlib import contextmanager
from dataclasses import replace

import asyncpg
import pytest

from pgbreaker.clock import Clock
from pgbreaker.config.load import USUAL
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.secret import Secret
from pgbreaker.monitor.doctor import Complaint, Level, ask
from support.servers import one_breakable_server, psql

TIMEOUTS = (
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
)


def plan_of(server, user: str = "pgbreaker", **more) -> TargetPlan:
    dsn = Secret(server.dsn(user=user, database="app"))
    return TargetPlan(name="main", dsn=dsn, probes=USUAL, **more)


def codes(found: list[Complaint]) -> dict[str, Complaint]:
    return {complaint.code: complaint for complaint in found}


def alter(server, **settings: str) -> None:
    for name, value in settings.items():
        psql(server, f"ALTER SYSTEM SET {name} = '{value}'")
    psql(server, "SELECT pg_reload_conf()")


async def test_what_a_fresh_server_lacks_is_named_with_what_would_help(server):
    found = codes(await ask(plan_of(server)))

    assert {"fsync", "full_page_writes", *TIMEOUTS} <= found.keys()
    assert found["statement_timeout"].level is Level.WRONG
    assert found["statement_timeout"].helps == (
        "ALTER ROLE app_user SET statement_timeout = '30s';",
    )
    assert not [code for code in found if code.endswith("_failed")]


@one_breakable_server
async def test_what_is_mended_as_it_says_is_no_longer_complained_of(fresh_server):
    """Every line that is said to help is typed, and helps."""
    server = fresh_server
    lines = [line for one in await ask(plan_of(server)) for line in one.helps]
    typed = [line for line in lines if not line.endswith("needs a restart")]
    for line in typed:
        psql(server, line, database="app")

    left = codes(await ask(plan_of(server)))

    psql(server, "ALTER ROLE app_user RESET ALL")
    psql(server, "DROP EXTENSION pg_stat_statements", database="app")
    assert len(typed) > 10
    # What a restart would need stays.
    assert {one.code for one in left.values()} <= {"pg_stat_statements"}


@one_breakable_server
@pytest.mark.parametrize(
    ("whose", "helps"),
    [
        ("ROLE pgbreaker", "ALTER ROLE pgbreaker RESET {};"),
        (
            "ROLE pgbreaker IN DATABASE app",
            "ALTER ROLE pgbreaker IN DATABASE app RESET {};",
        ),
        ("DATABASE app", None),
    ],
)
async def test_a_role_that_is_read_only_alone_is_told(whose, helps, fresh_server):
    """Its probe `commit` would say of a server that takes writes that it does not; where
    applications are read-only as well, it is right."""
    name = "default_transaction_read_only"
    psql(fresh_server, f"ALTER {whose} SET {name} = on")

    found = codes(await ask(plan_of(fresh_server)))

    psql(fresh_server, f"ALTER {whose} RESET {name}")
    told = found["read_only_role"].helps if "read_only_role" in found else None
    assert told == (None if helps is None else (helps.format(name),))


@one_breakable_server
async def test_limits_of_a_database_or_of_the_server_are_limits_too(fresh_server):
    alter(fresh_server, lock_timeout="2s")
    psql(fresh_server, "ALTER DATABASE app SET statement_timeout = '7s'")

    found = codes(await ask(plan_of(fresh_server)))

    psql(fresh_server, "ALTER DATABASE app RESET ALL")
    assert "lock_timeout" not in found
    assert "statement_timeout" not in found
    assert "idle_in_transaction_session_timeout" in found


@one_breakable_server
async def test_a_role_with_too_few_or_too_many_rights_is_told_how_to_mend_it(
    fresh_server,
):
    server = fresh_server
    psql(server, f"CREATE ROLE blind LOGIN PASSWORD '{server.password}' CREATEDB")
    psql(server, "ALTER ROLE blind CONNECTION LIMIT 2")
    psql(server, "GRANT pg_read_all_data TO blind")
    psql(server, f"CREATE ROLE boss LOGIN SUPERUSER PASSWORD '{server.password}'")

    blind = await ask(plan_of(server, "blind"))
    boss = codes(await ask(plan_of(server, "boss")))
    lines = [line for one in blind for line in one.helps if "blind" in line]
    for line in lines:
        psql(server, line)
    mended = codes(await ask(plan_of(server, "blind")))

    psql(server, "DROP ROLE blind; DROP ROLE boss")
    assert {"pg_monitor", "too_many_rights", "connection_limit"} <= codes(blind).keys()
    assert len([one for one in blind if one.code == "too_many_rights"]) == 2
    assert boss["superuser"].level is Level.WRONG
    assert not {"pg_monitor", "too_many_rights", "connection_limit"} & mended.keys()


@one_breakable_server
async def test_a_server_that_is_nearly_full_is_told_of(fresh_server):
    alter(fresh_server, superuser_reserved_connections="3")
    psql(fresh_server, "ALTER ROLE pgbreaker CONNECTION LIMIT 30")
    sessions = [
        await asyncpg.connect(fresh_server.dsn(user="app_user")) for _ in range(15)
    ]

    found = codes(await ask(plan_of(fresh_server)))

    for session in sessions:
        await session.close()
    psql(fresh_server, "ALTER ROLE pgbreaker CONNECTION LIMIT 4")
    assert "usable connections are taken" in found["nearly_full"].text


async def test_a_clock_that_is_off_is_told_with_how_much(server):
    ahead = Clock(wall=lambda: time.time() + 90)

    found = codes(await ask(plan_of(server), ahead))

    assert found["clock_skew"].text.startswith("its clock is 1 min ")
    assert "behind ours" in found["clock_skew"].text


async def test_our_own_clock_is_not_complained_of(server):
    assert "clock_skew" not in codes(await ask(plan_of(server)))


async def test_a_wrong_password_is_a_finding_without_the_password(server):
    dsn = Secret(server.dsn(user="pgbreaker").replace(server.password, "hunter2"))

    (found,) = await ask(replace(plan_of(server), dsn=dsn))

    assert (found.code, found.level) == ("login_failed", Level.WRONG)
    assert "hunter2" not in str(found)


async def test_nothing_of_the_server_is_changed(server):
    """The questions are asked of one that would refuse to be changed anyway."""
    before = psql(server, "SELECT count(*) FROM pg_db_role_setting")

    await ask(plan_of(server))

    assert psql(server, "SELECT count(*) FROM pg_db_role_setting") == before


@contextmanager
def silent_server():
    """Somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


async def test_a_server_that_is_silent_is_given_up():
    with silent_server() as port:
        dsn = Secret(f"postgresql://me@127.0.0.1:{port}/app")
        plan = TargetPlan(name="main", dsn=dsn, probes=USUAL)
        begun = asyncio.get_running_loop().time()

        (found,) = await ask(plan, within=0.2)

    assert found.code == "login_failed"
    assert asyncio.get_running_loop().time() - begun < 2
