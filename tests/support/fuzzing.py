"""Schemathesis against the API, as it is served."""

import asyncio
import re
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pgbreaker.core.plan import HttpPlan
from pgbreaker.core.reload import Reloaded
from pgbreaker.sinks.hub import Notice
from pgbreaker.web.doors.limits import Limits
from pgbreaker.web.server import serve
from support.site import Served
from support.storing import storing

# What a schema cannot say: that a time is not in February's 30s, a reason more than
# blanks, a window shorter than a month. Such is refused, by 422, though it is described.
_CONFIG = """\
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 304, 404, 409, 422]

# An address, or a body, can be wrong by being too long.
[checks.negative_data_rejection]
expected-statuses = [400, 404, 405, 413, 414, 415, 422]

# That it may not be sent is an answer, and this is how load balancers want it.
[[operations]]
include-path = "/health/{target}/{operation}"
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 503]
checks.positive_data_acceptance.expected-statuses = ["2xx", 404, 503]
"""


@asynccontextmanager
async def fuzzed():
    """A scene in which things happen; its URL, and what it is made of."""
    served = Served("main", "other")
    served.scene.read()
    served.scene.open("read")

    async def reload(_author) -> Reloaded:
        return Reloaded(())

    def shown() -> dict:
        return {"targets": [{"name": "main"}]}

    # Nobody is slowed down: that is tested elsewhere, and here the clock stands still.
    limits = Limits(writes=10**9)
    plan = HttpPlan(listen=("127.0.0.1", 0))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        store = await stack.enter_async_context(storing(folder / "state.db"))
        inside = replace(served.inside, reload=reload, config=shown, store=store)
        host, port = await stack.enter_async_context(serve(plan, inside, limits))
        world = await stack.enter_async_context(asyncio.TaskGroup())
        going_on = world.create_task(_go_on(served))
        yield f"http://{host}:{port}", served
        going_on.cancel()


async def _go_on(served: Served) -> None:
    """Have something happen now and then, or who waits for that would wait long."""
    while True:
        await asyncio.sleep(0.2)
        now = served.scene.time.now
        served.scene.hub.publish(Notice("main", "role", "the world goes on", now))


async def fuzz(url: str, place: Path, *, examples: int, seed: int) -> str:
    """Ask what is described, and what is not, and have each answer looked at.

    Returns:
        What schemathesis says.

    Raises:
        AssertionError: It has found something.
    """
    config = place / "schemathesis.toml"
    config.write_text(_CONFIG, "utf-8")
    program = Path(sys.executable).with_name("schemathesis")
    process = await asyncio.create_subprocess_exec(
        program,
        *("--config-file", config, "run", f"{url}/openapi.json"),
        *("--checks", "all", "--mode", "all", "--seed", str(seed)),
        *("--max-examples", str(examples), "--workers", "1"),
        # It has no end, which schemathesis waits for; its own tests have it.
        *("--exclude-path", "/api/v1/stream"),
        *("--exclude-path", "/api/v1/advice/stream"),
        *("--generation-database", ":memory:", "--no-color", "--warnings", "off"),
        cwd=place,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    text = said.decode()
    assert process.returncode == 0, text
    return text


def cases(said: str) -> int:
    """How many cases schemathesis made."""
    found = re.search(r"([\d,]+) generated", said)
    assert found is not None, said
    return int(found[1].replace(",", ""))
