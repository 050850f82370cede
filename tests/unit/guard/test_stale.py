"""Answers from before, for when there are no others."""

import asyncio
import functools
import logging

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgbreaker import CircuitOpenError, State, answered_by, stale, stale_age
from pgbreaker.guard.decorator import Layers
from unit.guard.driving import make, refused, run


class Server:
    def __init__(self):
        self.is_down = False
        self.calls = []

    async def get(self, *args, **kwargs):
        self.calls.append(args)
        number = len(self.calls)
        await asyncio.sleep(0.01)
        if self.is_down:
            raise refused()
        return (*args, number)


@pytest.fixture
def server():
    return Server()


def guard(server, time, cache, breaker=None, **layers):
    async def get(*args, **kwargs):
        return await server.get(*args, **kwargs)

    breaker = breaker or make(time)
    return Layers(breaker=breaker, cache=cache, **layers).around(get)


def test_while_all_is_well_every_call_asks(server, time):
    get = guard(server, time, stale("5m"))

    answers = [run(time, get(7)) for _ in range(3)]

    assert answers == [(7, 1), (7, 2), (7, 3)]


def test_in_an_outage_the_last_answer_is_given(server, time):
    cache, breaker = stale("5m"), make(time)
    get = guard(server, time, cache, breaker)
    run(time, get(7))
    server.is_down = True
    time.passes(60.0)

    assert run(time, get(7)) == (7, 1)
    assert (cache.hits, breaker.stale_answers) == (1, 1)


def test_a_refusal_is_answered_from_before(server, time):
    breaker, cache = make(time), stale("5m")

    async def get(n):
        return n

    guarded = Layers(breaker=breaker, cache=cache).around(get)
    run(time, guarded(7))
    breaker.force(State.FORCED_OPEN, "test")

    assert run(time, guarded(7)) == 7
    with pytest.raises(CircuitOpenError):
        run(time, guarded(8))
    assert (cache.hits, cache.misses) == (1, 1)


def test_an_answer_that_is_too_old_is_not_given(server, time):
    cache = stale("5m")
    get = guard(server, time, cache)
    run(time, get(7))
    server.is_down = True
    time.passes(300.1)

    with pytest.raises(ConnectionRefusedError):
        run(time, get(7))
    assert len(cache) == 0


def test_an_answer_is_given_up_to_its_last_moment(server, time):
    get = guard(server, time, stale(300.0))
    run(time, get(7))
    server.is_down = True
    time.passes(300.0 - 0.011)

    assert run(time, get(7)) == (7, 1)


def test_the_answer_not_used_for_longest_goes_first(server, time):
    cache = stale("5m", size=2)
    get = guard(server, time, cache)
    run(time, get(1))
    run(time, get(2))
    run(time, get(1))
    run(time, get(3))
    server.is_down = True

    kept = []
    for n in (1, 2, 3):
        try:
            run(time, get(n))
            kept.append(n)
        except ConnectionRefusedError:
            pass

    assert kept == [1, 3]
    assert len(cache) == 2


def test_errors_of_the_caller_are_not_answered(time):
    calls = 0

    async def get(n):
        nonlocal calls
        calls += 1
        if calls > 1:
            raise KeyError(n)
        return n

    guarded = Layers(breaker=make(time), cache=stale("5m")).around(get)
    run(time, guarded(7))

    with pytest.raises(KeyError):
        run(time, guarded(7))


def test_what_is_stale_comes_before_the_fallback(server, time):
    get = guard(server, time, stale("5m"), fallback=lambda n: "fallback")
    run(time, get(7))
    server.is_down = True

    assert run(time, get(7)) == (7, 1)
    assert run(time, get(8)) == "fallback"


def test_what_a_fallback_gave_is_not_kept(server, time):
    cache = stale("5m")
    get = guard(server, time, cache, default=0)
    server.is_down = True

    run(time, get(7))

    assert len(cache) == 0


def test_who_answered_and_how_old_it_is(server, time):
    get = guard(server, time, stale("5m"), default=0)

    async def work():
        told = []
        for is_down, n in ((False, 7), (True, 7), (True, 8), (False, 7)):
            server.is_down = is_down
            time.passes(60.0)
            await get(n)
            told.append((answered_by(), stale_age()))
        return told

    first, second, third, fourth = run(time, work())

    assert first == ("call", None)
    assert second == ("stale", pytest.approx(60.01, abs=0.001))
    assert third == ("fallback", None)
    assert fourth == ("call", None)


def test_tasks_do_not_hear_of_each_others_answers(server, time):
    get = guard(server, time, stale("5m"), default=0)

    async def ask(n):
        await get(n)
        await asyncio.sleep(1)
        return answered_by()

    async def work():
        await get(7)
        server.is_down = True
        return await asyncio.gather(ask(7), ask(8))

    assert run(time, work()) == ["stale", "fallback"]


# Keys.


def test_keyword_arguments_tell_calls_apart_in_any_order(time):
    calls = 0

    async def get(**kwargs):
        nonlocal calls
        calls += 1
        if calls > 2:
            raise refused()
        return calls

    guarded = Layers(breaker=make(time), cache=stale("5m")).around(get)
    run(time, guarded(a=1, b=2))
    run(time, guarded(a=1, b=3))

    assert run(time, guarded(b=2, a=1)) == 1
    assert run(time, guarded(b=3, a=1)) == 2


def test_functions_that_share_a_cache_do_not_mix(time):
    cache, breaker = stale("5m"), make(time)
    is_down = False

    def guarded(answer):
        async def get(n):
            if is_down:
                raise refused()
            return answer

        return Layers(breaker=breaker, cache=cache).around(get)

    one, other = guarded("one"), guarded("other")
    run(time, one(7))
    run(time, other(7))
    is_down = True

    assert (run(time, one(7)), run(time, other(7))) == ("one", "other")


def test_a_method_has_to_say_what_tells_its_calls_apart():
    class Store:
        async def get(self, player_id):
            return player_id

        @classmethod
        async def find(cls, player_id):
            return player_id

    for method in (Store.get, Store.find.__func__):
        with pytest.raises(TypeError) as caught:
            stale("5m").check(method)
        assert str(caught.value) == (
            f"{method.__qualname__} is a method: say what tells its calls apart, as in"
            " stale('5m', key=lambda self, player_id: player_id)"
        )


def test_a_method_that_says_so_is_kept_by_it(time):
    cache = stale("5m", key=lambda self, player_id: player_id)

    class Store:
        is_down = False

        async def get(self, player_id):
            if self.is_down:
                raise refused()
            return id(self)

    get = Layers(breaker=make(time), cache=cache).around(Store.get)
    one, other = Store(), Store()
    run(time, get(one, 7))
    other.is_down = True

    assert run(time, get(other, 7)) == id(one)


def test_arguments_that_make_no_key_are_told_before_the_call(server, time):
    get = guard(server, time, stale("5m"))

    with pytest.raises(TypeError) as caught:
        run(time, get([1, 2]))

    assert str(caught.value) == (
        "the arguments of guard.<locals>.get make no key (unhashable type: 'list'):"
        " say what tells its calls apart, as in"
        " stale('5m', key=lambda session, player_id: player_id)"
    )
    assert server.calls == []


def test_arguments_of_a_partial_that_make_no_key_are_told_too(server, time):
    get = Layers(breaker=make(time), cache=stale("5m")).around(
        functools.partial(server.get)
    )

    with pytest.raises(TypeError, match="make no key"):
        run(time, get([1, 2]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_age": 0}, "max_age is a time above 0 s, got 0"),
        ({"max_age": "old"}, "max_age: 'old' is no duration"),
        ({"max_age": "5m", "size": 0}, "size is a count of 1 or more, got 0"),
    ],
)
def test_wrong_values_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        stale(**arguments)


# One call for all that ask the same at once.


def test_calls_that_are_the_same_share_one(server, time):
    get = guard(server, time, stale("5m"))

    async def work():
        return await asyncio.gather(*(get(7) for _ in range(100)), get(8))

    answers = run(time, work())

    assert len(server.calls) == 2
    assert answers == [(7, 1)] * 100 + [(8, 2)]


def test_they_share_its_error_too(server, time):
    server.is_down = True
    get = guard(server, time, stale("5m"))

    async def work():
        return await asyncio.gather(*(get(7) for _ in range(9)), return_exceptions=True)

    answers = run(time, work())

    assert len(server.calls) == 1
    assert {type(answer) for answer in answers} == {ConnectionRefusedError}


def test_each_calls_for_itself_where_that_is_wanted(server, time):
    get = guard(server, time, stale("5m", single_flight=False))

    async def work():
        return await asyncio.gather(*(get(7) for _ in range(9)))

    run(time, work())

    assert len(server.calls) == 9


def test_calls_one_after_the_other_share_nothing(server, time):
    get = guard(server, time, stale("5m"))

    async def work():
        return [await get(7), await get(7)]

    assert run(time, work()) == [(7, 1), (7, 2)]


def test_when_the_first_is_cancelled_another_calls_itself(server, time):
    get = guard(server, time, stale("5m"))

    async def work():
        tasks = [asyncio.create_task(get(7)) for _ in range(10)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, *others = run(time, work())

    assert isinstance(first, asyncio.CancelledError)
    assert others == [(7, 2)] * 9
    assert len(server.calls) == 2


def test_one_of_the_others_that_is_cancelled_harms_nobody(server, time):
    get = guard(server, time, stale("5m"))

    async def work():
        tasks = [asyncio.create_task(get(7)) for _ in range(10)]
        await asyncio.sleep(0)
        tasks[5].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = run(time, work())

    assert isinstance(answers.pop(5), asyncio.CancelledError)
    assert answers == [(7, 1)] * 9


def test_all_of_them_can_be_cancelled_at_once(server, time):
    """As a group of tasks does when one of it fails."""
    get = guard(server, time, stale("5m"))

    async def work():
        tasks = [asyncio.create_task(get(7)) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = run(time, work())

    assert {type(answer) for answer in answers} == {asyncio.CancelledError}
    assert len(server.calls) == 1


# What belongs to a session.


def test_a_row_of_an_orm_is_warned_of_once(time, caplog):
    class Base(DeclarativeBase):
        pass

    class Player(Base):
        __tablename__ = "players"
        id: Mapped[int] = mapped_column(primary_key=True)

    async def get(n):
        return Player(id=n)

    guarded = Layers(breaker=make(time), cache=stale("5m")).around(get)
    with caplog.at_level(logging.WARNING, logger="pgbreaker"):
        for n in range(5):
            run(time, guarded(n))

    (record,) = caplog.records
    assert "Player, which belongs to a session" in record.getMessage()
    assert "expire_on_commit=False" in record.getMessage()


def test_what_was_kept_can_be_forgotten(server, time):
    cache = stale("5m")
    get = guard(server, time, cache)
    run(time, get(7))

    cache.clear()

    assert len(cache) == 0
