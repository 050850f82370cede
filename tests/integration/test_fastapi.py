"""Outages of the database as clients of a FastAPI application see them."""

import asyncio
import contextlib
import socket
import time
from typing import Annotated, Any

import httpx
import psycopg
import pytest
import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse, StreamingResponse
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from pgbreaker.core.states import State
from pgbreaker.errors import BulkheadFullError, CallTimeoutError, CircuitOpenError
from pgbreaker.fastapi import install, session
from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig
from pgbreaker.guard.registry import REGISTRY
from pgbreaker.psycopg import AsyncConnectionPool
from pgbreaker.sqlalchemy import CircuitBreakerIntegratedSessionManager
from support.servers import psql

RULES = PostgreSQLCircuitBreakerConfig(
    failure_threshold=5,
    success_threshold=1,
    timeout=0.3,
    max_timeout=0.5,
    slow_call=0.5,
)


@pytest.fixture(autouse=True)
def main():
    """The target called main, which nobody else uses meanwhile."""
    REGISTRY.clear()
    yield REGISTRY.target("main", RULES)
    REGISTRY.clear()


def client_of(app):
    """A client of the application, to which a bug of it is a 500."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@contextlib.asynccontextmanager
async def players(server, *, size=2):
    """An application with a pool of psycopg."""
    pool = AsyncConnectionPool(
        server.dsn(),
        min_size=size,
        max_size=size,
        timeout=0.5,
        reconnect_timeout=0.3,
        open=False,
    )
    await pool.open(wait=True)

    async def connected():
        async with pool.connection() as connection:
            yield connection

    Connected = Annotated[Any, Depends(connected, scope="function")]
    app = FastAPI()
    install(app)
    app.state.pool = pool

    @app.get("/players/{number}")
    async def read(number: int, db: Connected):
        found = await db.execute("SELECT 'Secret ' || %s WHERE %s < 9", (number,) * 2)
        row = await found.fetchone()
        if row is None:
            raise HTTPException(404)
        return {"name": row[0]}

    @app.get("/stream")
    async def stream():
        async def rows():
            async with pool.connection() as connection, connection.cursor() as cursor:
                # Long rows, for the server sends no less than 8 KiB at a time.
                sql = (
                    "SELECT i, pg_sleep(0.05), repeat('x', 9000)"
                    " FROM generate_series(1, 600) AS i"
                )
                async for row in cursor.stream(sql):
                    yield f"{row[0]}\n"

        return StreamingResponse(rows())

    try:
        yield app
    finally:
        await pool.close()


@contextlib.asynccontextmanager
async def orders(server):
    """An application with sessions of SQLAlchemy."""
    engine = create_async_engine(
        server.dsn().replace("postgresql:", "postgresql+asyncpg:"),
        connect_args={"timeout": 1.0, "command_timeout": 1.0},
    )
    manager = CircuitBreakerIntegratedSessionManager(async_sessionmaker(engine))
    Reading = Annotated[Any, session(manager)]
    Writing = Annotated[Any, session(manager, "write", transaction=True)]
    app = FastAPI()
    install(app)

    @app.get("/players/{number}")
    async def read(number: int, db: Reading):
        found = await db.execute(
            text("SELECT 'Secret ' || :n WHERE :n < '9'"), {"n": str(number)}
        )
        name = found.scalar()
        if name is None:
            raise HTTPException(404)
        return {"name": name}

    @app.post("/orders/{number}")
    async def order(number: int, db: Writing):
        await db.execute(text("INSERT INTO orders VALUES (:n)"), {"n": number})
        return {"ok": True}

    async def by_default():
        async with manager.transaction() as db:
            yield db

    @app.post("/by-default/{number}")
    async def too_late(number: int, db: Annotated[Any, Depends(by_default)]):
        await db.execute(text("INSERT INTO orders VALUES (:n)"), {"n": number})
        return {"ok": True}

    try:
        yield app
    finally:
        await engine.dispose()


def raising(error):
    """An application that raises *error*."""
    app = FastAPI()
    install(app)

    @app.get("/")
    async def fail():
        raise error

    return app


async def until(holds, within=5.0):
    """Wait for *holds*, a function or a coroutine function, to say so."""
    deadline = time.monotonic() + within
    while True:
        said = holds()
        if await said if asyncio.iscoroutine(said) else said:
            return
        assert time.monotonic() < deadline, f"not within {within} s"
        await asyncio.sleep(0.01)


def check_problem(response, server):
    """Whether it is what RFC 9457 asks for, and nobody's secret."""
    assert response.status_code == 503
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    body = response.json()
    assert body["status"] == 503
    assert body["type"].startswith("urn:pgbreaker:")
    assert body["title"]
    assert body["detail"]
    assert int(response.headers["Retry-After"]) >= 1
    assert body["retry_after_seconds"] == int(response.headers["Retry-After"])
    for secret in ("SELECT", "Secret", "127.0.0.1", str(server.port), "postgres"):
        assert secret not in response.text
    return body


def counted(breaker="main"):
    totals = REGISTRY.breaker(breaker).snapshot()["totals"]
    return {name: number for name, number in totals.items() if number}


# An outage, from its first call to its last.


@pytest.mark.parametrize(
    ("make", "breaker"), [(players, "main"), (orders, "main/read")]
)
async def test_an_outage_is_503_from_its_first_call_to_its_last(
    fresh_server, make, breaker
):
    async with make(fresh_server) as app, client_of(app) as client:
        assert (await client.get("/players/1")).json() == {"name": "Secret 1"}
        assert (await client.get("/health/db")).json()["status"] == "pass"

        await asyncio.to_thread(fresh_server.stop, "fast")
        gets = [client.get("/players/1") for _ in range(10)]
        first = [check_problem(r, fresh_server) for r in await asyncio.gather(*gets)]
        assert "urn:pgbreaker:database-unavailable" in {b["type"] for b in first}
        await until_refused(client, fresh_server)

        answer = await client.get("/health/db")
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["breakers"][breaker]["state"] != "closed"

        await asyncio.to_thread(fresh_server.start)
        await until_well(client)
        answer = await client.get("/health/db")
        assert answer.status_code == 200


async def until_refused(client, server):
    async def is_refused():
        body = check_problem(await client.get("/players/1"), server)
        return body["type"] == "urn:pgbreaker:circuit-open"

    await until(is_refused)
    body = check_problem(await client.get("/players/1"), server)
    assert body["breaker"] in ("main", "main/read", "main/connect")
    assert body["state"] in ("open", "half_open")


async def until_well(client, within=8.0):
    async def is_well():
        return (await client.get("/players/1")).status_code == 200

    await until(is_well, within)


async def test_what_the_application_answers_itself_never_counts(server):
    async with players(server) as app, client_of(app) as client:
        for _ in range(20):
            assert (await client.get("/players/9")).status_code == 404
            assert (await client.get("/players/x")).status_code == 422
        assert (await client.get("/players/1")).status_code == 200

    # Of the 422s nobody asked the server anything.
    assert counted() == {"success": 21, "released": 20}


async def test_404s_of_sessions_never_count(server):
    async with orders(server) as app, client_of(app) as client:
        for _ in range(20):
            assert (await client.get("/players/9")).status_code == 404
        assert (await client.get("/players/1")).status_code == 200

    assert "failure" not in counted("main/read")
    assert REGISTRY.breaker("main/read").state is State.CLOSED


async def test_a_commit_that_fails_reaches_the_client_and_does_not_count(server):
    psql(
        server,
        "DROP TABLE IF EXISTS orders; CREATE TABLE orders"
        " (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
    )
    async with orders(server) as app, client_of(app) as client:
        assert (await client.post("/orders/1")).json() == {"ok": True}
        for _ in range(10):
            assert (await client.post("/orders/1")).status_code == 500
        assert (await client.post("/orders/2")).json() == {"ok": True}

        # What the scope of the dependency is for: by default the commit is too late.
        told = await client.post("/by-default/1")
        assert told.json() == {"ok": True}

    assert psql(server, "SELECT count(*) FROM orders") == "2"
    assert "failure" not in counted("main/write")
    assert REGISTRY.breaker("main/write").state is State.CLOSED


# Which errors are an outage.


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError(),
        httpx.ConnectTimeout("another service"),
        psycopg.errors.UniqueViolation("duplicate key"),
        ValueError(),
    ],
    ids=repr,
)
async def test_errors_that_are_not_the_databases_stay_a_500(error):
    async with client_of(raising(error)) as client:
        assert (await client.get("/")).status_code == 500


async def test_refusals_say_who_and_when(server):
    error = CircuitOpenError("main", State.OPEN, "5 of 7 failed: Secret", 2.2, 0.0)
    async with client_of(raising(error)) as client:
        body = check_problem(await client.get("/"), server)
    assert body == {
        "type": "urn:pgbreaker:circuit-open",
        "title": "Database calls are suspended",
        "status": 503,
        "detail": "The database cannot be asked now; try again in 3 s.",
        "breaker": "main",
        "state": "open",
        "retry_after_seconds": 3,
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BulkheadFullError("main", 5, 0.1), "bulkhead-full"),
        (CallTimeoutError("main", 0.8), "database-unavailable"),
        (psycopg.OperationalError("connection refused"), "database-unavailable"),
        (psycopg.errors.AdminShutdown("Secret"), "database-unavailable"),
    ],
    ids=repr,
)
async def test_other_outages_are_one_too(server, error, kind):
    async with client_of(raising(error)) as client:
        body = check_problem(await client.get("/"), server)
    assert body["type"] == f"urn:pgbreaker:{kind}"


async def test_a_refusal_within_an_error_of_the_applications_own_is_found(server):
    refusal = CircuitOpenError("main", State.OPEN, "because", 5.0, 0.0)
    error = RuntimeError("no player")
    error.__cause__ = refusal
    async with client_of(raising(error)) as client:
        body = check_problem(await client.get("/"), server)
    assert body["retry_after_seconds"] == 5


async def test_a_handler_of_the_application_goes_first():
    app = raising(CircuitOpenError("main", State.OPEN, "because", 5.0, 0.0))

    @app.exception_handler(CircuitOpenError)
    async def answer(request, error):
        return PlainTextResponse("short and stout", 418)

    async with client_of(app) as client:
        assert (await client.get("/")).status_code == 418


async def test_an_outage_in_the_middleware_of_the_application_is_one(server):
    app = FastAPI()

    @app.middleware("http")
    async def authenticate(request, call_next):
        raise psycopg.OperationalError("connection refused")

    install(app)
    async with client_of(app) as client:
        check_problem(await client.get("/"), server)


@pytest.mark.parametrize("order", ["before", "after"])
async def test_the_middleware_of_the_application_sees_the_answer(order):
    app = FastAPI()
    if order == "before":
        app.add_middleware(CORSMiddleware, allow_origins=["*"])
    install(app)
    if order == "after":
        app.add_middleware(CORSMiddleware, allow_origins=["*"])

    @app.get("/")
    async def fail():
        raise CircuitOpenError("main", State.OPEN, "because", 5.0, 0.0)

    async with client_of(app) as client:
        response = await client.get("/", headers={"Origin": "http://elsewhere"})

    assert response.status_code == 503
    assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_an_answer_that_has_begun_is_not_begun_again():
    app = FastAPI()
    install(app)

    @app.get("/")
    async def fail_later():
        async def parts():
            yield "one"
            raise CircuitOpenError("main", State.OPEN, "because", 5.0, 0.0)

        return StreamingResponse(parts())

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        with pytest.raises(CircuitOpenError):
            await client.get("/")


# Health.


async def test_health_passes_where_there_is_no_breaker_yet():
    REGISTRY.clear()
    app = FastAPI()
    registry = install(app, path="/db")
    assert registry is REGISTRY

    async with client_of(app) as client:
        answer = await client.get("/db")
    assert (answer.status_code, answer.json()["status"]) == (200, "pass")
    assert "/db" not in app.openapi()["paths"]


async def test_health_warns_while_some_work_goes_on(main):
    read, write = main.breaker("read"), main.breaker("write")
    app = FastAPI()
    install(app)
    async with client_of(app) as client:
        write.force(State.FORCED_OPEN, "migration of Secret", lasting="90s")
        answer = await client.get("/health/db")
        assert (answer.status_code, answer.json()["status"]) == (200, "warn")
        assert answer.json()["breakers"]["main/write"]["status"] == "fail"
        assert answer.json()["breakers"]["main/read"]["status"] == "pass"
        assert "Secret" not in answer.text

        read.force(State.FORCED_OPEN, "likewise", lasting="30s")
        answer = await client.get("/health/db")
        assert (answer.status_code, answer.json()["status"]) == (503, "fail")
        assert 29 <= int(answer.headers["Retry-After"]) <= 30


async def test_health_lets_the_call_in_that_would_be_the_trial(main):
    """Or a load balancer that looks there would never let it recover."""
    breaker = main.breaker()
    app = FastAPI()
    install(app)
    for _ in range(5):
        breaker.record(breaker.acquire(), ConnectionRefusedError())
    async with client_of(app) as client:
        assert (await client.get("/health/db")).status_code == 503
        await until(lambda: breaker.retry_after() == 0)

        answer = await client.get("/health/db")
        assert (answer.status_code, answer.json()["status"]) == (200, "warn")
        assert breaker.state is State.OPEN  # looking changes nothing


async def test_health_fails_when_the_whole_server_does(main):
    main.breaker("read")
    for _ in range(10):
        main.connect.record(main.connect.acquire(), ConnectionRefusedError())
    app = FastAPI()
    install(app)
    async with client_of(app) as client:
        assert (await client.get("/health/db")).status_code == 503


# End to end.


@contextlib.asynccontextmanager
async def calling(app):
    """A client of *app* over real HTTP."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        serving = asyncio.create_task(server.serve([listening]))
        await until(lambda: server.started)
        address = f"http://127.0.0.1:{port}"
        try:
            async with httpx.AsyncClient(base_url=address) as client:
                yield client
        finally:
            server.should_exit = True
            await serving


async def test_a_client_that_disconnects_is_neutral_and_frees_its_connection(server):
    async with players(server, size=1) as app, calling(app) as client:
        pool = app.state.pool
        for number in range(1, 7):
            async with client.stream("GET", "/stream") as response:
                async for line in response.aiter_lines():
                    assert line == "1"
                    break
            await until(lambda n=number: counted().get("released") == n)
            await until(lambda: pool.get_stats()["pool_available"] == 1)
        assert (await client.get("/players/1")).status_code == 200

    assert counted() == {"released": 6, "success": 1}


async def test_a_client_that_disconnects_gives_its_trial_back(server, main):
    breaker = main.breaker()
    async with players(server) as app, calling(app) as client:
        for _ in range(5):
            breaker.record(breaker.acquire(), ConnectionResetError())
        check_problem(await client.get("/players/1"), server)
        await until(lambda: breaker.retry_after() == 0)

        async with client.stream("GET", "/stream") as response:
            async for _ in response.aiter_lines():
                break
            assert breaker.state is State.HALF_OPEN
            check_problem(await client.get("/players/1"), server)

        await until_well(client)
    assert breaker.state is State.CLOSED


async def test_an_outage_over_real_http(fresh_server):
    async with players(fresh_server) as app, calling(app) as client:
        assert (await client.get("/players/1")).status_code == 200

        fresh_server.kill()
        gets = [client.get("/players/1") for _ in range(10)]
        for response in await asyncio.gather(*gets):
            check_problem(response, fresh_server)
        await until_refused(client, fresh_server)
        began = time.monotonic()
        assert (await client.get("/health/db")).status_code == 503
        assert time.monotonic() - began < 0.2

        await asyncio.to_thread(fresh_server.start)
        await until_well(client)
