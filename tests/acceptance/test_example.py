"""The example of the README, run as it stands there."""

import asyncio
import os
import time
from pathlib import Path

import httpx
import pytest

from pgbreaker import registry
from support.servers import psql

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(fresh_server, monkeypatch):
    """What the README's code defines, with a server of two players."""
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
    text = (ROOT / "README.md").read_text("utf-8")
    code = text.partition("<!-- example -->\n```python\n")[2].partition("```")[0]
    names: dict[str, object] = {}
    registry.clear()
    exec(compile(code, "README.md", "exec"), names)
    yield names
    registry.clear()


async def test_it_answers_through_an_outage_and_recovers(example, fresh_server):
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
