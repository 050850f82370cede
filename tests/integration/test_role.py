"""`config/role.sql` on each supported major: what it makes suffices, and is no more."""

import os
import subprocess
from pathlib import Path

import asyncpg
import pytest

from pgbreaker.config.load import USUAL
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.reading import Finding
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import State
from pgbreaker.monitor.doctor import ask
from support.servers import psql, running_server
from support.watching import Watching

ROLE = Path(__file__).parents[2] / "config/role.sql"
PASSWORD = "it's \\odd"
# Where a role with too much would be of use to whoever has its password.
FORBIDDEN = (
    "SELECT * FROM public.orders",
    "INSERT INTO public.orders VALUES (1)",
    "UPDATE public.orders SET id = 1",
    "DELETE FROM public.orders",
    "TRUNCATE public.orders",
    "DO 'BEGIN LOCK TABLE public.orders; END'",
    "DROP TABLE public.orders",
    "CREATE TABLE public.mine (i int)",
    "CREATE TEMPORARY TABLE mine (i int)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION hstore",
    "CREATE DATABASE mine",
    "CREATE ROLE mine",
    "ALTER ROLE app_user PASSWORD 'mine'",
    "ALTER ROLE pgbreaker SUPERUSER",
    "ALTER ROLE pgbreaker CONNECTION LIMIT 100",
    "GRANT pg_read_all_data TO pgbreaker",
    "SET ROLE app_user",
    "SELECT rolpassword FROM pg_authid",
    "ALTER SYSTEM SET fsync = off",
    "SELECT pg_reload_conf()",
    "SELECT pg_switch_wal()",
    "SELECT pg_read_file('PG_VERSION')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT lo_from_bytea(0, 'x')",
)
# What everybody may, unless it is taken from everybody: the file names the lines.
FROM_PUBLIC = (
    "REVOKE TEMPORARY ON DATABASE app FROM PUBLIC",
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    "REVOKE EXECUTE ON FUNCTION lo_creat(int), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC",
)


def make(server, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the file as the superuser, as it says itself."""
    command = [
        *("psql", "-X", "-q", "-h", server.socket_dir, "-p", str(server.port)),
        *("-U", "postgres", "-d", "app", "-f", ROLE),
    ]
    return subprocess.run(
        command,
        env={**os.environ, "PGBREAKER_PASSWORD": "", **variables},
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.fixture(scope="module", params=(14, 15, 16, 17, 18), ids="pg{}".format)
def made(request):
    """A server with an application's table, and the role as the file makes it."""
    loaded = {"shared_preload_libraries": "pg_stat_statements"}
    with running_server(request.param, **loaded) as server:
        psql(server, "DROP ROLE pgbreaker")
        psql(server, "CREATE TABLE orders AS SELECT 1 AS id", database="app")
        psql(server, "ALTER TABLE orders OWNER TO app_user", database="app")
        psql(server, "CREATE EXTENSION pg_stat_statements", database="app")
        done = make(server, PGBREAKER_PASSWORD=PASSWORD)
        assert (done.returncode, done.stderr) == (0, "")
        yield server


def dsn(server) -> str:
    """Of the role, without its password."""
    return f"postgresql://pgbreaker@127.0.0.1:{server.port}/app"


@pytest.fixture(autouse=True)
def _password(monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)


async def test_every_probe_is_answered(made):
    async with Watching(dsn(made)) as watching:
        await watching.until(
            lambda: all(watching.readings(probe) for probe in USUAL), within=20
        )

        found = {probe: watching.findings(probe) for probe in USUAL}
        assert found == {probe: {Finding.OK} for probe in USUAL}
        assert set(watching.states.values()) == {State.CLOSED}


async def test_the_doctor_has_nothing_to_say_about_it(made):
    plan = TargetPlan(name="main", dsn=Secret(dsn(made)), probes=USUAL)

    found = await ask(plan)

    assert [one.text for one in found if "our role" in one.text] == []
    assert not [one for one in found if one.code.endswith("_failed")]


async def test_nothing_of_an_applications_can_be_read_and_nothing_written(made):
    text = " ".join(ROLE.read_text("utf-8").replace("--", " ").split())
    for sql in FROM_PUBLIC:
        assert f"{sql};" in text
        psql(made, sql, database="app")
    connection = await asyncpg.connect(dsn(made), timeout=10)
    allowed = []
    for sql in FORBIDDEN:
        try:
            await connection.execute(sql)
        except asyncpg.InsufficientPrivilegeError:
            continue
        allowed.append(sql)
    await connection.close()

    assert allowed == []


async def test_its_limits_hold_for_whoever_logs_in_with_its_password(made):
    connection = await asyncpg.connect(dsn(made), timeout=10)

    names = ("statement_timeout", "lock_timeout", "search_path")
    found = [await connection.fetchval(f"SHOW {name}") for name in names]
    await connection.close()

    assert found == ["10s", "200ms", "pg_catalog"]


async def test_a_role_that_is_read_only_has_commit_say_that_writes_are_refused(made):
    """Which is why the file leaves that line out."""
    psql(made, "ALTER ROLE pgbreaker SET default_transaction_read_only = on")
    try:
        async with Watching(dsn(made)) as watching:
            await watching.until(lambda: watching.readings("commit"), within=10)
            assert watching.findings("commit") == {Finding.WRONG_ROLE}
    finally:
        psql(made, "ALTER ROLE pgbreaker RESET default_transaction_read_only")


async def test_made_again_it_has_another_password_and_all_else_is_mended(made):
    psql(
        made,
        "ALTER ROLE pgbreaker CONNECTION LIMIT 1; REVOKE pg_monitor FROM pgbreaker",
    )

    done = make(made, PGBREAKER_PASSWORD="another")

    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(dsn(made), password=PASSWORD, timeout=10)
    plan = TargetPlan(
        name="main",
        dsn=Secret(dsn(made).replace("@", ":another@")),
        probes=USUAL,
    )
    assert [one for one in await ask(plan) if "our role" in one.text] == []


def test_without_a_password_nothing_is_made(made):
    before = psql(made, "SELECT count(*) FROM pg_roles")

    done = make(made)

    assert done.returncode == 3
    assert "there is no password" in done.stderr
    assert psql(made, "SELECT count(*) FROM pg_roles") == before
