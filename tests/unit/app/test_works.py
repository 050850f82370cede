"""What is done beside all else."""

import asyncio
from contextlib import AsyncExitStack

from pgbreaker.app.works import Works


async def for_ever() -> None:
    await asyncio.Event().wait()


async def fall() -> None:
    raise RuntimeError("nobody thought of this")


async def end() -> None:
    """What ends by itself is done no more, either."""


async def test_one_that_goes_on_is_no_trouble_and_ends_with_the_stack(caplog):
    works = Works()
    async with AsyncExitStack() as stack:
        works.begin(stack, "desk", for_ever())
        await asyncio.sleep(0)
        meanwhile = works.trouble

    assert meanwhile is None
    assert works.trouble is None
    assert caplog.text == ""


async def test_one_that_fell_is_told_once_and_is_trouble_from_then_on(caplog):
    works = Works()
    async with AsyncExitStack() as stack:
        works.begin(stack, "keeper", for_ever())
        works.begin(stack, "desk", fall())
        await asyncio.sleep(0.01)
        trouble = works.trouble

    assert trouble == "the desk fell"
    assert caplog.text.count("the desk fell, which is a fault of ours") == 1
    assert "nobody thought of this" in caplog.text


async def test_one_that_ended_by_itself_is_trouble_too():
    works = Works()
    async with AsyncExitStack() as stack:
        works.begin(stack, "renewal", end())
        await asyncio.sleep(0.01)

        assert works.trouble == "the renewal fell"


async def test_what_is_done_once_may_end_and_may_not_fall(caplog):
    works = Works()
    async with AsyncExitStack() as stack:
        works.do(stack, "look", end())
        await asyncio.sleep(0.01)
        ended = works.trouble
        works.do(stack, "second look", fall())
        await asyncio.sleep(0.01)
        fell = works.trouble

    assert ended is None
    assert fell == "the second look fell"
    assert "the second look fell, which is a fault of ours" in caplog.text
