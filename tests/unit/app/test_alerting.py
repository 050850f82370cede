"""Which Alertmanagers are told changes with the configuration."""

from contextlib import asynccontextmanager

from aiohttp import web

from pgbreaker.app.alerting import Alerting
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.maintenance import Window
from pgbreaker.core.plan import AlertmanagerPlan
from support.boards import Scene
from support.storing import until


class Taker:
    """An Alertmanager that takes what it is told."""

    def __init__(self) -> None:
        self.alerts: list[dict] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.alerts += await request.json()
        return web.Response()

    @property
    def breakers(self) -> set[str]:
        return {alert["labels"]["breaker"] for alert in self.alerts}


@asynccontextmanager
async def taking():
    taker = Taker()
    app = web.Application()
    app.router.add_post("/api/v2/alerts", taker.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    taker.url = "http://{}:{}".format(*runner.addresses[0][:2])
    try:
        yield taker
    finally:
        await runner.cleanup()


def alerting() -> tuple[Scene, Alerting]:
    scene = Scene()
    one = Alerting(scene.board, scene.clock)
    scene.also(one)
    return scene, one


async def test_others_are_told_of_what_is_open_and_those_before_no_more():
    scene, one = alerting()
    async with taking() as first, taking() as second:
        scene.open("connect")  # nobody is to be told yet
        await one.take(AlertmanagerPlan(urls=(first.url,)))
        await until(lambda: first.breakers == {"main/connect"} and one.pushed == 1)
        await one.take(AlertmanagerPlan(urls=(second.url,)))
        count = len(first.alerts)
        scene.open("read")
        await until(lambda: second.breakers == {"main/connect", "main/read"})
        await until(lambda: one.pushed == 3)
        await one.take(None)
        scene.open("write")
        await one.close()

    assert len(first.alerts) == count
    assert "main/write" not in second.breakers
    assert one.pushed == 3  # however often each was told
    assert one.failures == 0


async def test_the_same_plan_is_no_reason_to_begin_anew():
    _, one = alerting()
    plan = AlertmanagerPlan(urls=("http://127.0.0.1:9",))
    await one.take(plan)
    push = one._push

    await one.take(AlertmanagerPlan(urls=("http://127.0.0.1:9",)))

    assert one._push is push
    await one.close()


async def test_maintenance_ends_what_is_on():
    scene, one = alerting()
    async with taking() as taker:
        await one.take(AlertmanagerPlan(urls=(taker.url,)))
        scene.open("connect")
        await until(lambda: taker.alerts)
        now = scene.clock.wall()
        scene.board.windows[1] = Window(
            id=1,
            targets=("main",),
            reason="disk",
            author="mia",
            starts=now,
            ends=now + 60,
        )
        one.heed(Entry(id=1, at=now, kind=Kind.MAINTENANCE, text="maintenance of main"))
        await until(lambda: len(taker.alerts) > 1)
        await one.close()

    assert "endsAt" not in taker.alerts[0]
    assert "endsAt" in taker.alerts[-1]
