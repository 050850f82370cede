"""The examples of the documents, through an outage."""

import asyncio
import os
import time
from pathlib import Path

import httpx
import pytest

from pgbreaker import CircuitOpenError, registry
from support.servers import psql

ROOT = Path(__file__).parents[2]


def run(page: str, name: str, here: dict[str, str] | None = None) -> dict[str, object]:
    """What the code defines that stands between the marks *name* of *page*.

    Args:
        here: What is called otherwise here.
    """
    text = (ROOT / page).read_text("utf-8")
    part = text.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]
    code = part.partition("```python\n")[2].partition("```")[0]
    for there, ours in (here or {}).items():
        code = code.replace(there, ours)
    names: dict[str, object] = {}
    exec(compile(code, page, "exec"), names)
    return names


@pytest.fixture
def address(fresh_server, monkeypatch):
    """Where a server of two players is, for SQLAlchemy; `DATABASE_URL` says it, too."""
    psql(
        fresh_server,
        "DROP TABLE IF EXISTS player; CREATE TABLE player (id int, name text);"
        "INSERT INTO player VALUES (1, 'Ada'), (2, 'Bob');"
        "GRANT SELECT ON player TO app_user",
        database="app",
    )
    dsn = fresh_server.dsn(user="app_user", database="app")
    url = dsn.replace("postgresql://", "postgresql+asyncpg://")
    monkeypatch.setitem(os.environ, "DATABASE_URL", url)
    registry.clear()
    yield url
    registry.clear()


async def test_ten_lines_answer_from_before_and_refuse_the_rest(address, fresh_server):
    """Of the README."""
    names = run("README.md", "ten", {"postgresql+asyncpg://shop@db1/app": address})
    name_of = names["name_of"]
    assert await name_of(1) == "Ada"
    fresh_server.kill()

    async with asyncio.timeout(20):
        while not await _is_refused(name_of, 2):
            assert await name_of(1) == "Ada"
    begun = time.perf_counter()

    assert await name_of(1) == "Ada"
    assert await _is_refused(name_of, 2)
    assert time.perf_counter() - begun < 0.2
    await names["engine"].dispose()


async def _is_refused(name_of, player: int) -> bool:
    """Whether a breaker has refused the call; any other failure is the outage's own."""
    try:
        await name_of(player)
    except CircuitOpenError:
        return True
    except Exception:
        return False
    raise AssertionError("nobody can have answered")


async def test_it_answers_through_an_outage_and_recovers(address, fresh_server):
    """Of the page on SQLAlchemy and FastAPI."""
    example = run("daemon/docs/how-to/fastapi.md", "example")
    transport = httpx.ASGITransport(app=example["app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
        assert (await http.get("/players/1")).json() == "Ada"
        assert (await http.get("/health/db")).status_code == 200
        fresh_server.kill()

        for _ in range(15):
            assert (await http.get("/players/1")).json() == "Ada"
        begun = time.perf_counter()
        assert (await http.get("/players/1")).json() == "Ada"
        took = time.perf_counter() - begun
        unknown = await http.get("/players/2")
        health = await http.get("/health/db")

        assert took < 0.2
        assert unknown.status_code == 503
        assert unknown.headers["content-type"] == "application/problem+json"
        assert int(unknown.headers["retry-after"]) >= 1
        assert health.status_code == 503

        fresh_server.start()
        begun = time.monotonic()
        while (await http.get("/players/2")).status_code != 200:
            assert time.monotonic() - begun < 20
            await asyncio.sleep(0.05)
    await example["engine"].dispose()
