"""A scene that is served as the daemon serves it, and a client of it."""

from contextlib import asynccontextmanager

import aiohttp

from pgbreaker.core.plan import HttpPlan
from pgbreaker.monitor.desk import Desk
from pgbreaker.sinks.history import History
from pgbreaker.sinks.metrics import Metrics
from pgbreaker.sinks.store import Store
from pgbreaker.web.api.advising import Advising
from pgbreaker.web.api.stream import Stream
from pgbreaker.web.inside import Inside
from pgbreaker.web.server import serve
from pgbreaker.web.views import Views
from support.boards import Scene


class Served:
    """A scene that is served, and a client of it.

    Attributes:
        inside: What the addresses show and change.
        port: Where it is served.
        client: Asks it.
    """

    def __init__(self, *names: str, store: Store | None = None) -> None:
        self.scene = Scene(names, labels={"env": "<prod>"})
        scene = self.scene
        self.metrics = Metrics(scene.board, "1.2.3")
        self.history = History(scene.board, scene.clock)
        scene.also(self.metrics, self.history)
        self.desk = Desk(scene.board, scene.hub, self.history, scene.clock)
        self.health: str | None = None
        self.ready: str | None = None
        views = Views(scene.board, scene.clock, "e1")
        stream = Stream(self.history, views, scene.clock)
        self.inside = Inside(
            board=scene.board,
            views=views,
            stream=stream,
            advising=Advising(
                scene.board, self.history, scene.clock, 1, also=stream.advise
            ),
            metrics=self.metrics,
            history=self.history,
            desk=self.desk,
            clock=scene.clock,
            version="1.2.3",
            health=lambda: self.health,
            ready=lambda: self.ready,
            store=store,
        )
        self.port = 0
        self.client: aiohttp.ClientSession

    async def get(self, path: str, **more):
        """Get *path*: the answer, and its JSON or text."""
        async with self.client.get(path, **more) as answer:
            is_json = "json" in answer.headers.get("Content-Type", "")
            return answer, await (answer.json() if is_json else answer.text())


@asynccontextmanager
async def serving(
    *names: str, plan: HttpPlan | None = None, store: Store | None = None
):
    """Serve a scene with targets of *names* for the time of the block."""
    served = Served(*(names or ("main",)), store=store)
    plan = plan or HttpPlan(listen=("127.0.0.1", 0))
    async with serve(plan, served.inside) as (host, port):
        served.port = port
        async with aiohttp.ClientSession(f"http://{host}:{port}") as client:
            served.client = client
            yield served
