"""Is what Patroni says of its node read rightly?

A stand-in says it: Patroni itself needs a store for its leader (etcd, Consul), which no
machine that runs these tests has. The documents are those of its own documentation,
https://patroni.readthedocs.io/en/latest/rest_api.html#monitoring-endpoint
"""

import asyncio
import contextlib
import ssl
import time

import pytest
from aiohttp import web

from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.reading import Finding
from pgbreaker.core.secret import Secret
from pgbreaker.postgres.failures import read_failure
from pgbreaker.probes.patroni import PATRONI, read

LEADER = {
    "state": "running",
    "postmaster_start_time": "2024-08-28 19:39:26.352526+00:00",
    "role": "primary",
    "server_version": 160004,
    "xlog": {"location": 67395656},
    "timeline": 1,
    "replication": [
        {
            "usename": "replicator",
            "application_name": "patroni2",
            "client_addr": "10.89.0.6",
            "state": "streaming",
            "sync_state": "async",
            "sync_priority": 0,
        }
    ],
    "dcs_last_seen": 1692356718,
    "tags": {"clonefrom": True},
    "database_system_identifier": "7268616322854375442",
    "patroni": {"version": "4.0.0", "scope": "demo", "name": "patroni1"},
}
REPLICA = {
    "state": "running",
    "postmaster_start_time": "2024-08-28 19:39:26.352526+00:00",
    "role": "replica",
    "server_version": 160004,
    "xlog": {
        "received_location": 67419744,
        "replayed_location": 67419744,
        "replayed_timestamp": None,
        "paused": False,
    },
    "timeline": 2,
    "replication_state": "streaming",
    "pending_restart": True,
    "dcs_last_seen": 1692356718,
    "patroni": {"version": "4.0.0", "scope": "demo", "name": "patroni1"},
}
SICK = {"state": "stopped", "role": "replica", "dcs_last_seen": 1692356718}


@contextlib.asynccontextmanager
async def serving(answer):
    """The address of something that gives *answer* to GET /patroni."""
    app = web.Application()
    app.router.add_get("/patroni", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def saying(document, status=200):
    async def answer(_request):
        return web.json_response(document, status=status)

    return answer


async def look(address, within=5.0):
    probe = ProbePlan(interval=10.0, timeout=2.0, address=Secret(address))
    plan = TargetPlan(
        name="t", dsn=Secret("postgresql://u@h/d"), probes={"patroni": probe}
    )
    return await PATRONI.goes(plan, within)


async def test_leader():
    seen_at = int(time.time()) - 3
    async with serving(saying(LEADER | {"dcs_last_seen": seen_at})) as address:
        seen = await look(address)

    assert 3 <= seen.pop("patroni_dcs_age_seconds") < 30
    assert seen == {
        "patroni_state": "running",
        "patroni_role": "primary",
        "patroni_timeline": 1,
        "patroni_paused": False,
        "patroni_pending_restart": False,
        "patroni_is_running": True,
        "patroni_is_primary": True,
    }


async def test_replica_that_has_to_restart():
    async with serving(saying(REPLICA)) as address:
        seen = await look(address + "/")

    assert (seen["patroni_role"], seen["patroni_timeline"]) == ("replica", 2)
    assert seen["patroni_pending_restart"] is True
    assert seen["patroni_is_primary"] is False


async def test_paused_cluster():
    async with serving(saying(LEADER | {"pause": True})) as address:
        assert (await look(address))["patroni_paused"] is True


async def test_sick_node_says_so_with_503():
    async with serving(saying(SICK, status=503)) as address:
        seen = await look(address)

    assert (seen["patroni_state"], seen["patroni_is_running"]) == ("stopped", False)
    assert seen["patroni_timeline"] is None


async def test_something_else_answers():
    async def page(_request):
        return web.Response(
            text="<html>Welcome to nginx!</html>", content_type="text/html"
        )

    async with serving(page) as address:
        with pytest.raises(
            ValueError, match="not Patroni's REST API: it does not say JSON"
        ):
            await look(address)


@pytest.mark.parametrize(
    "document", [[], "running", {}, {"state": "running", "role": None}]
)
async def test_json_of_somebody_else(document):
    async with serving(saying(document)) as address:
        with pytest.raises(ValueError, match="it says neither state nor role"):
            await look(address)


async def test_silent_node():
    async def sleep(_request):
        await asyncio.sleep(60)

    async with serving(sleep) as address:
        with pytest.raises(TimeoutError, match="Patroni gave no answer within 100 ms"):
            await look(address, within=0.1)


async def test_nobody_listens():
    with pytest.raises(ConnectionRefusedError):
        await look("http://127.0.0.1:1")


async def test_https_where_there_is_none():
    async with serving(saying(LEADER)) as address:
        with pytest.raises(ssl.SSLError) as caught:
            await look(address.replace("http:", "https:"))

    finding, _ = read_failure(caught.value, probe="patroni", connecting=True)
    assert finding is Finding.AUTH


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (b"", EOFError, "hung up without a word"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", ValueError, "not Patroni's REST API"),
        (b"HTTP/1.0 200 OK\r\n", ValueError, "not Patroni's REST API"),
        (
            b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * (1 << 20),
            ValueError,
            "more than 1048576",
        ),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 90\r\n\r\n{", ValueError, "not say JSON"),
    ],
)
async def test_rubbish(answer, error, words):
    async def listen(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(error, match=words):
            await look(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["db1:8008", "ftp://db1", "http://"])
async def test_address_that_is_none(address):
    with pytest.raises(ValueError, match="of the form http://db1:8008"):
        await look(address)


async def test_address_with_half_a_password_for_a_port():
    with pytest.raises(ValueError, match="of the form http://db1:8008") as caught:
        await look("http://monitor:s3/cret@db1:8008")

    assert "s3" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_older_word_for_the_primary():
    """Before 4.0."""
    seen = read(b'{"state": "running", "role": "master"}', now=0)

    assert (seen["patroni_role"], seen["patroni_is_primary"]) == ("primary", True)


def test_clock_that_is_behind_makes_no_negative_age():
    seen = read(b'{"state": "running", "role": "replica", "dcs_last_seen": 9}', now=8)

    assert seen["patroni_dcs_age_seconds"] == 0


def test_values_have_a_series_each():
    seen = read(b'{"state": "running", "role": "replica"}', now=8)

    assert {shown.value for shown in PATRONI.shows} <= seen.keys()
