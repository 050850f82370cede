"""`@circuit_breaker`: fallback(retry(breaker(timeout(bulkhead(call)))))."""

import asyncio
import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pgbreaker import (
    Bulkhead,
    BulkheadFullError,
    CallTimeoutError,
    CircuitOpenError,
    State,
    answered_by,
    circuit_breaker,
    registry,
    stale,
)
from pgbreaker.guard.deadline import left_behind
from pgbreaker.guard.decorator import Layers, retrying
from unit.guard.driving import (
    CONFIG,
    duplicate,
    fail,
    lost,
    make,
    opened,
    refused,
    run,
    starved,
    succeed,
    timed_out,
)

# Three retries without a wait, and a breaker that never opens.
RETRIES = CONFIG.replace(
    max_retry_attempts=3,
    base_backoff_delay=0.0,
    failure_threshold=None,
    minimum_calls=1_000_000_000,
)


class Server:
    """Raises what it is told to, then answers."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0

    def ask(self, n=1):
        self.calls += 1
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return n

    async def aask(self, n=1):
        return self.ask(n)


def call(guarded, *args, **kwargs):
    """What it comes to, whichever kind it is."""
    answer = guarded(*args, **kwargs)
    return asyncio.run(answer) if asyncio.iscoroutine(answer) else answer


KINDS = pytest.mark.parametrize("kind", ["ask", "aask"])


# Names.


def test_functions_that_name_the_same_share_a_breaker():
    one = circuit_breaker("players", config=CONFIG)(Server(*[refused()] * 5).ask)
    other = circuit_breaker("players")(Server().ask)
    for _ in range(5):
        with pytest.raises(ConnectionRefusedError):
            one()

    with pytest.raises(CircuitOpenError):
        other()

    assert [breaker.name for breaker in registry.breakers()] == ["players"]


def test_functions_that_name_others_do_not():
    one = circuit_breaker("players", config=CONFIG)(Server(*[refused()] * 5).ask)
    other = circuit_breaker("orders")(Server().ask)
    for _ in range(5):
        with pytest.raises(ConnectionRefusedError):
            one()

    assert other() == 1


def test_bare_it_guards_with_the_defaults():
    guarded = circuit_breaker("players")(Server().aask)

    assert call(guarded, 7) == 7
    assert registry.breaker("players").core.totals["success"] == 1


def test_a_name_with_a_slash_is_an_operation_of_a_target():
    circuit_breaker("main/read")(Server().ask)()

    (target,) = {breaker.target for breaker in registry.breakers()}
    assert target == "main"
    assert registry.breaker("main/read").above is registry.breaker("main/connect")


@KINDS
def test_the_function_keeps_its_name_and_its_doc(kind):
    async def aget():
        """Get it."""

    def get():
        """Get it."""

    function = get if kind == "ask" else aget

    guarded = circuit_breaker("players", default=1, bulkhead=3, idempotent=True)(
        function
    )

    assert (guarded.__name__, guarded.__doc__) == (function.__name__, "Get it.")
    assert asyncio.iscoroutinefunction(guarded) == (kind == "aask")


# Fallback.


async def afrom_cache(n=1):
    return -n


def from_cache(n=1):
    return -n


@pytest.mark.parametrize(
    "fallback",
    [
        from_cache,
        afrom_cache,
        functools.partial(from_cache),
        functools.partial(afrom_cache),
        lambda n: afrom_cache(n),
    ],
)
def test_a_refusal_is_answered_by_the_fallback_with_the_same_arguments(fallback, time):
    breaker, server = opened(time), Server()
    guarded = Layers(breaker=breaker, fallback=fallback).around(server.aask)

    assert call(guarded, 7) == -7
    assert server.calls == 0
    assert breaker.fallbacks == 1


def test_a_fallback_may_give_whatever_can_be_awaited(time):
    async def work():
        def in_a_thread(n):
            return asyncio.get_running_loop().run_in_executor(None, from_cache, n)

        guarded = Layers(breaker=opened(time), fallback=in_a_thread).around(
            Server().aask
        )
        return await guarded(7)

    assert asyncio.run(work()) == -7


@KINDS
def test_a_refusal_is_answered_by_the_default(kind, time):
    breaker, server = opened(time), Server()

    guarded = Layers(breaker=breaker, default=None).around(getattr(server, kind))

    assert call(guarded, 7) is None
    assert (server.calls, breaker.fallbacks) == (0, 1)


@KINDS
@pytest.mark.parametrize(
    "error", [refused(), lost(), timed_out(), starved(), TimeoutError()], ids=repr
)
def test_an_outage_is_answered_by_the_fallback(kind, error, time):
    breaker = make(time)
    guarded = Layers(breaker=breaker, fallback=from_cache).around(
        getattr(Server(error), kind)
    )

    assert call(guarded, 7) == -7
    assert call(guarded, 7) == 7


@KINDS
@pytest.mark.parametrize("error", [ValueError("no"), KeyError(1), duplicate()], ids=str)
@pytest.mark.parametrize("other", ["fallback", "default"])
def test_errors_of_the_caller_are_not_answered(kind, error, other, time):
    """They would come from any server; hiding them hides a bug."""
    breaker = make(time)
    others = {"fallback": from_cache} if other == "fallback" else {"default": 0}
    guarded = Layers(breaker=breaker, **others).around(getattr(Server(error), kind))

    with pytest.raises(type(error)) as caught:
        call(guarded)

    assert caught.value is error
    assert breaker.fallbacks == 0


def test_a_cancelled_call_is_not_answered(time):
    guarded = Layers(breaker=make(time), default=0).around(
        Server(asyncio.CancelledError()).aask
    )

    async def work():
        with pytest.raises(asyncio.CancelledError):
            await guarded()

    run(time, work())


@KINDS
def test_an_error_of_the_fallback_is_raised_with_what_it_was_for(kind, time):
    def fallback(n=1):
        raise KeyError("not in the cache")

    error = refused()
    guarded = Layers(breaker=make(time), fallback=fallback).around(
        getattr(Server(error), kind)
    )

    with pytest.raises(KeyError) as caught:
        call(guarded)

    assert caught.value.__context__ is error


@KINDS
def test_a_full_bulkhead_is_answered_by_the_fallback(kind, time):
    bulkhead = Bulkhead(1)
    guarded = Layers(breaker=make(time), bulkhead=bulkhead, fallback=from_cache).around(
        getattr(Server(), kind)
    )
    bulkhead.enter_blocking("somebody")

    assert call(guarded, 7) == -7


@KINDS
def test_who_answered_is_known_afterwards(kind, time):
    guarded = Layers(breaker=make(time), fallback=from_cache).around(
        getattr(Server(refused()), kind)
    )

    async def work():
        sources = []
        for _ in range(2):
            answer = guarded()
            if asyncio.iscoroutine(answer):
                await answer
            sources.append(answered_by())
        return sources

    assert run(time, work()) == ["fallback", "call"]


# Retry.


@KINDS
def test_a_call_that_never_reached_the_server_is_tried_again(kind):
    server = Server(refused(), refused(), refused())

    guarded = circuit_breaker("players", config=RETRIES)(getattr(server, kind))

    assert call(guarded, 7) == 7
    breaker = registry.breaker("players")
    assert server.calls == 4
    assert breaker.retries == 3
    # Each attempt is news of the server.
    assert breaker.core.totals["failure"] == 3
    assert breaker.core.totals["success"] == 1


@KINDS
def test_after_the_last_retry_its_error_is_raised(kind):
    errors = [refused() for _ in range(4)]
    server = Server(*errors)

    guarded = circuit_breaker("players", config=RETRIES)(getattr(server, kind))

    with pytest.raises(ConnectionRefusedError) as caught:
        call(guarded)
    assert server.calls == 4
    assert caught.value is errors[-1]


@KINDS
@pytest.mark.parametrize("error", [lost(), timed_out(), TimeoutError()], ids=repr)
def test_what_may_have_been_done_is_not_tried_again(kind, error):
    server = Server(error)

    guarded = circuit_breaker("players", config=RETRIES)(getattr(server, kind))

    with pytest.raises(type(error)):
        call(guarded)
    assert server.calls == 1


@KINDS
@pytest.mark.parametrize("error", [lost(), TimeoutError()], ids=repr)
def test_what_may_be_done_twice_is(kind, error):
    server = Server(error)

    guarded = circuit_breaker("players", config=RETRIES, idempotent=True)(
        getattr(server, kind)
    )

    assert call(guarded, 7) == 7
    assert server.calls == 2


@KINDS
@pytest.mark.parametrize("error", [ValueError("no"), duplicate()], ids=repr)
def test_errors_of_the_caller_are_never_tried_again(kind, error):
    server = Server(error)

    guarded = circuit_breaker("players", config=RETRIES, idempotent=True)(
        getattr(server, kind)
    )

    with pytest.raises(type(error)):
        call(guarded)
    assert server.calls == 1


@KINDS
def test_a_refusal_is_never_tried_again(kind):
    server = Server()
    guarded = circuit_breaker("players", config=RETRIES, idempotent=True)(
        getattr(server, kind)
    )
    registry.breaker("players").force(State.FORCED_OPEN, "test")

    with pytest.raises(CircuitOpenError):
        call(guarded)
    breaker = registry.breaker("players")
    assert (server.calls, breaker.retries) == (0, 0)
    assert breaker.core.totals["rejected"] == 1


@KINDS
def test_retries_end_when_the_breaker_opens(kind):
    """At once, and with the error of the call that was made."""
    error = refused()
    server = Server(*[refused()] * 4, error)
    config = RETRIES.replace(failure_threshold=5, max_retry_attempts=9)
    guarded = circuit_breaker("players", config=config)(getattr(server, kind))

    with pytest.raises(ConnectionRefusedError) as caught:
        call(guarded)

    assert server.calls == 5
    assert caught.value is error


@KINDS
def test_retries_come_before_the_fallback(kind):
    """A fallback within would have them silenced."""
    server, fallen = Server(refused(), refused(), lost()), []

    def fallback(n=1):
        fallen.append(server.calls)
        return -n

    guarded = circuit_breaker("players", config=RETRIES, fallback=fallback)(
        getattr(server, kind)
    )

    assert call(guarded, 7) == -7
    assert fallen == [3]


@KINDS
def test_no_retries_where_none_are_wanted(kind):
    server = Server(refused())

    guarded = circuit_breaker("players", config=RETRIES, retry=False)(
        getattr(server, kind)
    )

    with pytest.raises(ConnectionRefusedError):
        call(guarded)
    assert server.calls == 1


@KINDS
def test_a_full_outage_is_made_worse_by_a_fifth_at_the_most(kind):
    """A thousand calls that may be tried again three times each."""
    server = Server(*[refused()] * 5000)
    guarded = circuit_breaker("players", config=RETRIES)(getattr(server, kind))

    async def work():
        for _ in range(1000):
            try:
                answer = guarded()
                if asyncio.iscoroutine(answer):
                    await answer
            except ConnectionRefusedError:
                pass

    asyncio.run(work())

    assert 1050 < server.calls <= 1200
    assert registry.breaker("players").budget.denied > 0


def test_no_retry_begins_after_the_deadline(time):
    config = RETRIES.replace(base_backoff_delay=1.0)
    server = Server(*[refused()] * 9)
    rules = retrying(config, "1500ms")
    breaker = make(time, max_retry_attempts=3, failure_threshold=None)
    begun = time()

    guarded = Layers(breaker=breaker, retrying=rules).around(server.aask)
    with pytest.raises(ConnectionRefusedError):
        run(time, guarded())

    assert time() - begun <= 1.5


# Timeout.


def test_a_call_is_cut_when_its_time_is_over_and_counts(time):
    breaker, ended = make(time), []

    async def hang():
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(time())

    begun = time()
    guarded = Layers(breaker=breaker, timeout=0.8).around(hang)
    with pytest.raises(CallTimeoutError) as caught:
        run(time, guarded())

    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.call, caught.value.after) == ("orders", 0.8)
    assert str(caught.value) == "a call of 'orders' did not come back within 800 ms"
    assert ended == [pytest.approx(begun + 0.8)]
    assert breaker.core.totals["cut"] == 1
    assert breaker.core.counts().failed == 1


def test_timeouts_open(time):
    breaker = make(time)

    async def hang():
        await asyncio.Event().wait()

    guarded = Layers(breaker=breaker, timeout=0.1).around(hang)
    for _ in range(5):
        with pytest.raises(CallTimeoutError):
            run(time, guarded())

    assert breaker.state is State.OPEN


def test_a_call_that_ignores_being_cancelled_is_left_behind(time):
    """Drivers clean up when they are cancelled; on a dead server that takes long."""
    breaker = make(time)

    async def stubborn():
        while time() < begun + 60.0:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                await asyncio.sleep(10)

    async def work():
        with pytest.raises(CallTimeoutError):
            await guarded()
        took = time() - begun
        (task,) = left_behind
        while not task.done():
            task.cancel()
            await asyncio.sleep(5)
        await asyncio.sleep(0)
        return took

    begun = time()
    guarded = Layers(breaker=breaker, timeout=0.8).around(stubborn)

    assert run(time, work()) <= 0.8 + 0.25
    assert not left_behind
    assert breaker.core.flights.out == 0


def test_a_caller_who_cancels_a_stubborn_call_is_not_held_either(time):
    breaker = make(time)

    async def stubborn():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    async def work():
        task = asyncio.create_task(guarded())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        took = time() - begun
        await asyncio.wait(left_behind)
        return took

    begun = time()
    guarded = Layers(breaker=breaker, timeout=30.0).around(stubborn)

    assert run(time, work()) <= 0.1 + 0.25
    assert breaker.core.totals["released"] == 1


def test_an_answer_that_comes_while_cleaning_up_is_given(time):
    async def late():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
        return "after all"

    guarded = Layers(breaker=make(time), timeout=0.8).around(late)

    assert run(time, guarded()) == "after all"


def test_an_error_that_comes_while_cleaning_up_is_the_cause(time):
    error = lost()

    async def late():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise error from None

    guarded = Layers(breaker=make(time), timeout=0.8).around(late)

    with pytest.raises(CallTimeoutError) as caught:
        run(time, guarded())
    assert caught.value.__cause__ is error


def test_a_timeout_is_answered_by_the_fallback(time):
    async def hang(n):
        await asyncio.Event().wait()

    breaker = make(time)
    guarded = Layers(breaker=breaker, timeout=0.8, fallback=from_cache).around(hang)

    assert run(time, guarded(7)) == -7
    assert breaker.core.totals["cut"] == 1


def test_each_attempt_has_its_own_time(time):
    server = Server()

    async def hang_once():
        server.ask()
        if server.calls == 1:
            await asyncio.Event().wait()
        return "well"

    breaker = make(time)
    rules = retrying(RETRIES, idempotent=True)
    guarded = Layers(breaker=breaker, timeout=0.8, retrying=rules).around(hang_once)

    assert run(time, guarded()) == "well"
    assert (breaker.core.totals["cut"], breaker.core.totals["success"]) == (1, 1)


def test_a_timeout_is_read_from_text():
    async def hang():
        await asyncio.Event().wait()

    guarded = circuit_breaker("players", config=CONFIG, timeout="10ms")(hang)

    with pytest.raises(CallTimeoutError, match="within 10 ms"):
        asyncio.run(guarded())


# Bulkhead.


async def gathered(*calls):
    return await asyncio.gather(*calls, return_exceptions=True)


def test_what_is_beyond_the_bulkhead_is_refused_and_blames_nobody(time):
    breaker, bulkhead = make(time), Bulkhead(3)

    async def work():
        await asyncio.sleep(1.0)

    guarded = Layers(breaker=breaker, bulkhead=bulkhead).around(work)
    ended = run(time, gathered(*(guarded() for _ in range(10))))

    refusals = [end for end in ended if isinstance(end, BulkheadFullError)]
    assert len(refusals) == 7
    assert (refusals[0].bulkhead, refusals[0].limit, refusals[0].waited) == (
        "orders",
        3,
        0.0,
    )
    assert breaker.core.totals["unreached"] == 7
    assert breaker.state is State.CLOSED
    assert bulkhead.taken == 0


def test_who_waits_has_its_turn_in_order(time):
    order, bulkhead = [], Bulkhead(2, wait="1m")

    async def work(n):
        order.append(n)
        await asyncio.sleep(1.0)

    guarded = Layers(breaker=make(time), bulkhead=bulkhead).around(work)
    begun = time()
    run(time, gathered(*(guarded(n) for n in range(10))))

    assert order == list(range(10))
    assert time() - begun == pytest.approx(5.0)
    assert bulkhead.taken == 0


def test_patience_ends(time):
    bulkhead = Bulkhead(1, wait=0.5)

    async def work(seconds):
        await asyncio.sleep(seconds)
        return seconds

    guarded = Layers(breaker=make(time), bulkhead=bulkhead).around(work)
    first, second, third = run(time, gathered(guarded(0.4), guarded(0.4), guarded(0)))

    assert (first, second) == (0.4, 0.4)
    assert isinstance(third, BulkheadFullError)
    assert bulkhead.taken == 0


def test_a_cancelled_waiter_gives_its_turn_on(time):
    bulkhead, order = Bulkhead(1, wait="1m"), []

    async def work(n):
        order.append(n)
        await asyncio.sleep(1.0)

    guarded = Layers(breaker=make(time), bulkhead=bulkhead).around(work)

    async def begin():
        tasks = [asyncio.create_task(guarded(n)) for n in range(4)]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        tasks[0].cancel()
        await gathered(*tasks)

    run(time, begin())

    assert order == [0, 2, 3]
    assert bulkhead.taken == 0


def test_threads_take_turns_too(time):
    bulkhead, at_once, most = Bulkhead(2, wait="1m"), 0, 0
    lock, barrier = threading.Lock(), threading.Barrier(2)

    def work():
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        barrier.wait(timeout=5.0)
        with lock:
            at_once -= 1

    guarded = Layers(breaker=make(time), bulkhead=bulkhead).around(work)
    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(guarded) for _ in range(8)]:
            future.result()

    assert (most, bulkhead.taken) == (2, 0)


def test_a_thread_that_will_not_wait_is_refused(time):
    bulkhead = Bulkhead(1)
    bulkhead.enter_blocking("somebody")
    guarded = Layers(breaker=make(time), bulkhead=bulkhead).around(Server().ask)

    with pytest.raises(BulkheadFullError):
        guarded()
    bulkhead.give_back()

    assert guarded() == 1
    assert bulkhead.taken == 0


def test_a_bulkhead_may_be_shared(time):
    bulkhead = Bulkhead(1)

    async def work():
        await asyncio.sleep(1.0)

    one = circuit_breaker("players", bulkhead=bulkhead)(work)
    other = circuit_breaker("orders", bulkhead=bulkhead)(work)
    first, second = run(time, gathered(one(), other()))

    assert first is None
    assert isinstance(second, BulkheadFullError)


def test_who_waits_for_the_bulkhead_in_vain_blames_no_server(time):
    """Though the call's own time is over before its patience is."""
    breaker, bulkhead = make(time), Bulkhead(1, wait="1m")
    bulkhead.enter_blocking("somebody")
    server = Server()

    guarded = Layers(breaker=breaker, timeout=0.5, bulkhead=bulkhead).around(
        server.aask
    )
    ended = run(time, gathered(*(guarded() for _ in range(10))))

    assert {type(end) for end in ended} == {BulkheadFullError}
    assert breaker.core.totals["unreached"] == 10
    assert server.calls == 0


@pytest.mark.parametrize("limit", [0, -1])
def test_a_bulkhead_of_no_place_is_refused(limit):
    with pytest.raises(
        ValueError, match=rf"limit is a count of 1 or more, got {limit}"
    ):
        circuit_breaker("players", bulkhead=limit)


# What does not go together.


def sync(n=1):
    return n


def items():
    yield 1


async def aitems():
    yield 1


class AsyncCache:
    async def __call__(self, n=1):
        return -n


@pytest.mark.parametrize(
    ("layers", "function", "message"),
    [
        (
            {"fallback": sync, "default": 1},
            sync,
            "give a fallback or a default, not both",
        ),
        (
            {"timeout": 1.0},
            sync,
            (
                "timeout= needs a coroutine function: a function cannot be interrupted;"
                " set statement_timeout instead"
            ),
        ),
        (
            {"timeout": 1.0},
            aitems,
            (
                "timeout= needs a coroutine function: a async generator cannot be"
                " interrupted; set statement_timeout instead"
            ),
        ),
        (
            {"cache": stale("5m")},
            sync,
            "cache= needs a coroutine function, not a function",
        ),
        (
            {"cache": stale("5m")},
            items,
            "cache= needs a coroutine function, not a generator",
        ),
        (
            {"fallback": sync},
            items,
            "a generator takes neither a fallback nor a bulkhead",
        ),
        (
            {"bulkhead": 3},
            items,
            "a generator takes neither a fallback nor a bulkhead",
        ),
        (
            {"fallback": afrom_cache},
            sync,
            "an asynchronous fallback needs a coroutine function",
        ),
        (
            {"fallback": functools.partial(afrom_cache)},
            sync,
            "an asynchronous fallback needs a coroutine function",
        ),
        (
            {"fallback": AsyncCache()},
            sync,
            "an asynchronous fallback needs a coroutine function",
        ),
        ({}, staticmethod(sync), "put the breaker below @staticmethod, next to the"),
    ],
)
def test_what_does_not_go_together_is_refused_at_once(layers, function, message):
    with pytest.raises(TypeError) as caught:
        circuit_breaker("players", **layers)(function)

    assert str(caught.value).startswith(message)


def test_the_bare_decorator_asks_for_a_name():
    with pytest.raises(TypeError) as caught:

        @circuit_breaker
        def get():
            pass

    assert str(caught.value) == (
        "say which breaker: @circuit_breaker('name'), not @circuit_breaker"
    )


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"timeout": 0}, "timeout is a time above 0 s, got 0"),
        ({"timeout": "soon"}, "timeout: 'soon' is no duration"),
        ({"deadline": "-1s"}, "deadline: '-1s' is no duration"),
    ],
)
def test_wrong_durations_are_refused_at_once(layer, message):
    with pytest.raises(ValueError, match=message):
        circuit_breaker("players", **layer)


@pytest.mark.parametrize("kind", [items, aitems])
def test_generators_are_guarded_and_no_more(kind):
    guarded = circuit_breaker("players")(kind)

    async def work():
        if kind is items:
            return list(guarded())
        return [item async for item in guarded()]

    assert asyncio.run(work()) == [1]
    assert registry.breaker("players").core.totals["success"] == 1


def test_of_a_function_that_returns_an_awaitable_the_fallback_answers_too(time):
    """Or else it is refused: a fallback that is never asked helps nobody."""

    async def work():
        guarded = Layers(breaker=make(time), default=0).around(
            lambda n: Server(refused()).aask(n)
        )
        return await guarded(7)

    assert run(time, work()) == 0


def test_counts_of_a_breaker_survive_its_decorators(time):
    breaker = make(time)
    guarded = [Layers(breaker=breaker, default=0).around(Server().ask) for _ in "abc"]

    for function in guarded:
        function()
    succeed(breaker)
    fail(breaker)

    assert breaker.core.totals["success"] == 4
    assert breaker.core.totals["failure"] == 1
