"""Guards around every kind of function that Python has."""

import asyncio
import functools
import inspect
import re
from contextlib import suppress

import pytest

from pgbreaker import CircuitOpenError, State
from pgbreaker.guard.wrap import kind_of
from unit.guard.driving import cooled, make, refused


def named(value: object) -> str:
    """What *value* is, without where it lies: the same in each process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


async def coroutine(n=1):
    """Give it back."""
    return n


def function(n=1):
    """Give it back."""
    return n


def generator(n=1):
    """Give some."""
    yield n


async def async_generator(n=1):
    """Give some."""
    yield n


class Callable:
    def __call__(self, n=1):
        return n

    def method(self, n=1):
        return n


class AsyncCallable:
    async def __call__(self, n=1):
        return n

    async def method(self, n=1):
        return n


# Kinds.


@pytest.mark.parametrize(
    ("guarded", "kind"),
    [
        (coroutine, "coroutine"),
        (functools.partial(coroutine, 2), "coroutine"),
        (functools.partial(functools.partial(coroutine), 2), "coroutine"),
        (AsyncCallable(), "coroutine"),
        (AsyncCallable().method, "coroutine"),
        (AsyncCallable.method, "coroutine"),
        (function, "function"),
        (functools.partial(function, 2), "function"),
        (Callable(), "function"),
        (Callable().method, "function"),
        (lambda: coroutine(), "function"),
        (len, "function"),
        (generator, "generator"),
        (functools.partial(generator, 2), "generator"),
        (async_generator, "async generator"),
        (functools.partial(async_generator, 2), "async generator"),
    ],
    ids=named,
)
def test_kinds_are_told_apart(guarded, kind):
    assert kind_of(guarded) == kind


@pytest.mark.parametrize(
    "guarded",
    [coroutine, functools.partial(coroutine), AsyncCallable(), AsyncCallable().method],
    ids=named,
)
def test_what_can_be_awaited_is_guarded_until_it_is_back(guarded, time):
    breaker = make(time)
    waiting = breaker(guarded)(7)

    before = breaker.core.totals["success"]
    answer = asyncio.run(waiting)

    assert (before, answer) == (0, 7)
    assert breaker.core.totals["success"] == 1


@pytest.mark.parametrize("kind", [Callable, AsyncCallable, int, type])
def test_a_class_is_refused(kind, time):
    with pytest.raises(TypeError, match=r"a breaker guards functions; .* is none"):
        make(time)(kind)


def test_the_refusal_of_a_class_says_what_helps(time):
    with pytest.raises(TypeError, match=r"\(guard the methods that call the server\)"):
        make(time)(Callable)


@pytest.mark.parametrize("wrapper", [staticmethod, classmethod])
def test_a_method_is_guarded_below_its_wrapper(wrapper, time):
    with pytest.raises(TypeError) as caught:
        make(time)(wrapper(function))

    assert str(caught.value) == (
        f"put the breaker below @{wrapper.__name__}, next to the function"
    )


@pytest.mark.parametrize("nothing", [None, 5, "name"], ids=repr)
def test_what_cannot_be_called_is_refused(nothing, time):
    with pytest.raises(TypeError, match="a breaker guards functions"):
        make(time)(nothing)


def test_methods_of_every_kind_are_guarded(time):
    breaker = make(time)

    class Store:
        @breaker
        async def get(self, n):
            return self, n

        @staticmethod
        @breaker
        async def there(n):
            return n

        @classmethod
        @breaker
        def make(cls, n):
            return cls, n

    store = Store()

    assert asyncio.run(store.get(1)) == (store, 1)
    assert asyncio.run(Store.there(2)) == 2
    assert Store.make(3) == (Store, 3)
    assert breaker.core.totals["success"] == 3


# What tools see.


@pytest.mark.parametrize(
    "guarded", [coroutine, function, generator, async_generator], ids=named
)
def test_a_guard_looks_like_its_function(guarded, time):
    around = make(time)(guarded)

    assert around.__name__ == guarded.__name__
    assert around.__qualname__ == guarded.__qualname__
    assert around.__module__ == guarded.__module__
    assert around.__doc__ == guarded.__doc__
    assert around.__wrapped__ is guarded
    assert inspect.signature(around) == inspect.signature(guarded)


@pytest.mark.parametrize(
    ("guarded", "is_kind"),
    [
        (coroutine, inspect.iscoroutinefunction),
        (functools.partial(coroutine), inspect.iscoroutinefunction),
        (generator, inspect.isgeneratorfunction),
        (async_generator, inspect.isasyncgenfunction),
        (function, inspect.isfunction),
    ],
    ids=named,
)
def test_a_guard_is_of_the_kind_of_its_function(guarded, is_kind, time):
    """Frameworks look, to know whether to await it."""
    assert is_kind(make(time)(guarded))


# Functions that return what is to be awaited.


def test_of_a_function_that_returns_an_awaitable_the_awaiting_is_guarded(time):
    breaker = make(time)

    @breaker
    def begin(n):
        async def work():
            time.passes(0.25)
            return n

        return work()

    async def run():
        waiting = begin(3)
        return breaker.core.totals["success"], await waiting

    before, answer = asyncio.run(run())

    assert (before, answer) == (0, 3)
    assert breaker.core.totals["success"] == 1
    assert breaker.core.flights.out == 0
    assert breaker.durations()[7] == 1  # from 0.1 up to 0.25 s


def test_a_function_that_returns_an_awaitable_is_one_call(time):
    breaker = make(time)

    async def run():
        for _ in range(10):
            await breaker(lambda: coroutine())()

    asyncio.run(run())

    totals = breaker.core.totals
    assert (totals["success"], totals["released"]) == (10, 0)


def test_awaitables_that_wait_for_their_turn_are_no_trials(time):
    """Five are made before the first is awaited, as `asyncio.gather` does."""
    breaker = cooled(time, success_threshold=1)

    class Answer:
        def __await__(self):
            yield from ()
            return 1

    async def run():
        begin, waiting = breaker(lambda: Answer()), []
        for _ in range(5):
            with suppress(CircuitOpenError):
                waiting.append(begin())
        return await asyncio.gather(*waiting, return_exceptions=True)

    answers = asyncio.run(run())

    assert 1 in answers
    assert breaker.state is State.CLOSED


def test_an_awaitable_that_fails_is_a_failure(time):
    breaker, error = make(time), refused()

    @breaker
    def begin():
        async def work():
            raise error

        return work()

    async def run():
        await begin()

    with pytest.raises(ConnectionRefusedError) as caught:
        asyncio.run(run())

    assert caught.value is error
    assert breaker.core.totals["failure"] == 1


def test_a_future_is_awaited_too(time):
    breaker = make(time)

    async def run():
        coming = asyncio.get_running_loop().create_future()
        waiting = breaker(lambda: coming)()
        coming.set_result(4)
        return await waiting

    assert asyncio.run(run()) == 4
    assert breaker.core.totals["success"] == 1


# Generators.


def echo(time, ends):
    """A generator that gives back what it is sent."""
    given = "first"
    try:
        while given is not None:
            time.passes(0.01)
            try:
                given = yield given
            except KeyError as error:
                given = f"caught {error}"
        return "last"
    finally:
        ends.append("ended")


async def aecho(time, ends):
    given = "first"
    try:
        while given is not None:
            time.passes(0.01)
            try:
                given = yield given
            except KeyError as error:
                given = f"caught {error}"
    finally:
        await asyncio.sleep(0)
        ends.append("ended")


def test_a_generator_is_sent_thrown_and_returned_through(time):
    breaker, ends = make(time), []
    items = breaker(echo)(time, ends)

    given = [next(items), items.send("a"), items.throw(KeyError("b")), items.send("c")]
    with pytest.raises(StopIteration) as stop:
        items.send(None)

    assert given == ["first", "a", "caught 'b'", "c"]
    assert stop.value.value == "last"
    assert ends == ["ended"]
    assert breaker.core.totals["success"] == 1


def test_an_async_generator_is_sent_and_thrown_through(time):
    breaker, ends = make(time), []

    async def run():
        items = breaker(aecho)(time, ends)
        given = [
            await anext(items),
            await items.asend("a"),
            await items.athrow(KeyError("b")),
            await items.asend("c"),
        ]
        with pytest.raises(StopAsyncIteration):
            await items.asend(None)
        return given

    assert asyncio.run(run()) == ["first", "a", "caught 'b'", "c"]
    assert ends == ["ended"]
    assert breaker.core.totals["success"] == 1


def test_an_error_thrown_into_a_generator_that_lets_it_out_is_judged(time):
    breaker, ends = make(time), []
    items = breaker(echo)(time, ends)
    next(items)

    with pytest.raises(ConnectionRefusedError):
        items.throw(refused())

    assert ends == ["ended"]
    assert breaker.core.totals["failure"] == 1


def test_an_error_thrown_into_an_async_generator_that_lets_it_out_is_judged(time):
    breaker, ends = make(time), []

    async def run():
        items = breaker(aecho)(time, ends)
        await anext(items)
        await items.athrow(refused())

    with pytest.raises(ConnectionRefusedError):
        asyncio.run(run())

    assert ends == ["ended"]
    assert breaker.core.totals["failure"] == 1


@pytest.mark.parametrize("patience", [0.0, 3600.0])
def test_a_generator_closed_early_is_released(patience, time):
    """However long its consumer took to have seen enough."""
    breaker, ends = make(time), []
    items = breaker(echo)(time, ends)
    next(items)
    time.passes(patience)

    items.close()

    assert ends == ["ended"]
    assert breaker.core.totals["released"] == 1
    assert breaker.core.flights.out == 0


@pytest.mark.parametrize("patience", [0.0, 3600.0])
def test_an_async_generator_closed_early_is_released(patience, time):
    breaker, ends = make(time), []

    async def run():
        items = breaker(aecho)(time, ends)
        await anext(items)
        time.passes(patience)
        await items.aclose()

    asyncio.run(run())

    assert ends == ["ended"]
    assert breaker.core.totals["released"] == 1
    assert breaker.core.flights.out == 0


def test_a_trial_that_is_a_generator_closed_early_gives_its_place_back(time):
    breaker, ends = cooled(time), []
    items = breaker(echo)(time, ends)
    next(items)
    items.close()

    with breaker, breaker:
        pass
    with breaker:
        pass

    assert breaker.state is State.CLOSED


def test_the_time_of_a_generators_consumer_is_not_the_servers(time):
    breaker, ends = make(time), []

    for _ in range(2):
        items = breaker(echo)(time, ends)
        next(items)
        for _ in range(9):
            time.passes(60.0)
            items.send("more")
        time.passes(60.0)
        with pytest.raises(StopIteration):
            items.send(None)

    assert breaker.core.totals["slow"] == 0
    assert sum(breaker.durations()[:8]) == 2  # at most 250 ms: ten steps of 10 ms each


def test_the_time_of_an_async_generators_consumer_is_not_the_servers(time):
    breaker, ends = make(time), []

    async def run():
        items = breaker(aecho)(time, ends)
        await anext(items)
        for _ in range(9):
            time.passes(60.0)
            await items.asend("more")
        time.passes(60.0)
        with pytest.raises(StopAsyncIteration):
            await items.asend(None)

    asyncio.run(run())

    assert breaker.core.totals["slow"] == 0
    assert sum(breaker.durations()[:8]) == 1


def test_the_time_of_a_consumer_who_has_seen_enough_is_not_the_servers(time):
    breaker, ends = make(time), []
    items = breaker(echo)(time, ends)
    next(items)
    time.passes(60.0)

    items.close()

    assert breaker.durations()[-1] == 0


def test_a_generator_at_rest_is_not_expected_back(time):
    """A hundred cursors that are read slowly do not hang."""
    breaker = make(time)
    for _ in range(100):
        with breaker:
            time.passes(0.01)

    open_ones = [breaker(echo)(time, []) for _ in range(100)]
    for items in open_ones:
        next(items)
    for _ in range(100):
        time.passes(0.1)
        breaker.snapshot()
    with breaker:
        pass

    assert breaker.state is State.CLOSED
    for items in open_ones:
        items.close()


def test_a_generator_that_was_never_begun_is_no_call(time):
    breaker = make(time)

    breaker(echo)(time, [])
    breaker(aecho)(time, [])

    assert breaker.core.flights.out == 0
    assert breaker.core.totals["released"] == 0
