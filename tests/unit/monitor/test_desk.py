"""The desk: what is asked is written down, done and told, in this order, or not at all."""

import asyncio

import pytest

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.states import Cause, Outcome, Override, State, Transition
from pgbreaker.monitor.desk import LONGEST, MOST_WINDOWS, Desk, RefusedError
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.sinks.history import History, NotKeptError
from support.boards import Scene
from support.storing import until

WHO = {"reason": "the disk is being changed", "author": "mia"}


class Paper:
    """A ledger that a test can hold up, or fill."""

    def __init__(self) -> None:
        self.written: list[Entry] = []
        self.full = False
        self.free = asyncio.Event()
        self.free.set()
        self.asked = asyncio.Event()

    async def record(self, entries) -> None:
        self.asked.set()
        await self.free.wait()
        if self.full:
            raise NotKeptError("no space left on device")
        self.written += entries


class Office:
    """A desk, and all that it works with."""

    def __init__(self, *names: str, labels: dict[str, str] | None = None) -> None:
        self.scene = Scene(names or ("main",), labels=labels)
        self.time, self.board = self.scene.time, self.scene.board
        self.paper = Paper()
        self.history = History(self.board, self.scene.clock, self.paper)
        self.moves: list[Transition] = []
        self.scene.also(self.history, self._note)
        self.desk = Desk(self.board, self.scene.hub, self.history, self.scene.clock)

    def _note(self, event) -> None:
        if isinstance(event, Transition):
            self.moves.append(event)

    @property
    def breaker(self) -> Breaker:
        return self.board.targets["main"].breakers["read"]

    @property
    def told(self) -> list[str]:
        return [entry.text for entry in self.history.entries]

    @property
    def kept(self) -> dict[str, str | None]:
        """What holds by what was written down: breaker -> state."""
        return {
            entry.breaker: entry.details["state"]
            for entry in self.paper.written
            if entry.kind is Kind.OVERRIDE and entry.breaker
        }

    def replaced(self) -> TargetBoard:
        """The target main, configured anew."""
        old = self.board.targets["main"]
        breakers = {
            o: Breaker(b.name, DAEMON, self.time.now) for o, b in old.breakers.items()
        }
        new = TargetBoard(old.plan, breakers, self.scene.clock)
        new.inherit(old)
        self.board.add(new)
        return new


# Overrides.


async def test_an_override_is_written_down_before_it_is_done():
    office = Office()
    office.paper.free.clear()

    order = asyncio.create_task(
        office.desk.override(office.breaker, State.DISABLED, **WHO)
    )
    await office.paper.asked.wait()

    assert office.breaker.state is State.CLOSED
    assert office.told == []
    office.paper.free.set()
    move = await order
    assert office.breaker.state is State.DISABLED
    assert office.moves == [move]
    assert office.told == [
        "main/read is disabled for 1 h 0 min: the disk is being changed"
    ]


async def test_what_cannot_be_written_down_is_not_done():
    office = Office()
    office.paper.full = True

    with pytest.raises(NotKeptError, match="no space left"):
        await office.desk.override(office.breaker, State.FORCED_OPEN, **WHO)
    with pytest.raises(NotKeptError):
        await office.desk.begin(["main"], ends=office.scene.clock.wall() + 60, **WHO)

    assert office.breaker.override is None
    assert (office.desk.windows, office.told, office.desk.next) == ({}, [], None)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"state": State.OPEN},
            "state: a breaker cannot be forced open; it can be closed, forced_open, disabled, metrics_only",
        ),
        ({"lasting": 0.0}, "for: 0 s is not between 0 and 7 d 0 h"),
        ({"lasting": LONGEST + 1}, "for: 604801 s is not between 0 and 7 d 0 h"),
        ({"lasting": 30 * 86400.0}, "for: 2592000 s is not between 0 and 7 d 0 h"),
        ({"lasting": float("nan")}, "for: nan s is not between 0 and 7 d 0 h"),
        ({"reason": " why "}, "reason: 3 characters are not 5 to 500"),
        ({"reason": "x" * 501}, "reason: 501 characters are not 5 to 500"),
        (
            {"reason": "a bell \a rings"},
            "reason: holds a character that cannot be shown: '\\x07'",
        ),
        ({"author": " \n"}, "author: 0 characters are not 1 to 100"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line(more, said):
    office = Office()

    with pytest.raises(RefusedError) as refused:
        await office.desk.override(
            office.breaker, **{"state": State.DISABLED, **WHO, **more}
        )

    assert str(refused.value) == said
    assert office.paper.written == []


async def test_an_override_ends_in_time_though_no_probe_runs():
    office = Office()
    await office.desk.override(office.breaker, State.FORCED_OPEN, lasting=60.0, **WHO)
    assert office.desk.next == office.time.now + 60

    office.time.now += 59.9
    await office.desk.look(office.time.now)
    assert office.breaker.state is State.FORCED_OPEN
    office.time.now += 0.1
    await office.desk.look(office.time.now)

    assert office.breaker.state is State.CLOSED
    assert [move.cause for move in office.moves] == [Cause.OVERRIDDEN, Cause.RESUMED]
    assert (
        office.told[-1]
        == "main/read decides by itself again: the override by mia ran out"
    )
    assert office.kept == {"main/read": None}
    assert office.desk.next is None


async def test_an_override_that_a_reading_ended_is_told_once():
    office = Office()
    await office.desk.override(office.breaker, State.FORCED_OPEN, lasting=60.0, **WHO)
    office.time.now += 61
    for move in office.breaker.observe(Outcome.SUCCESS, office.time.now):
        office.scene.hub.publish(move)

    await office.desk.look()
    await office.desk.look()

    assert len(office.told) == 2
    assert len(office.moves) == 2


async def test_a_full_disk_does_not_hold_an_override_up(caplog):
    office = Office()
    await office.desk.override(office.breaker, State.FORCED_OPEN, lasting=60.0, **WHO)
    office.paper.full = True
    office.time.now += 60

    await office.desk.look()

    assert office.breaker.state is State.CLOSED
    assert "ran out (cannot be written down: no space left on device)" in caplog.text


async def test_a_disk_that_hangs_holds_no_override_up_and_is_not_pressed():
    office = Office()
    other = office.board.targets["main"].breakers["write"]
    await office.desk.override(office.breaker, State.FORCED_OPEN, lasting=60.0, **WHO)
    await office.desk.override(other, State.FORCED_OPEN, lasting=60.0, **WHO)
    office.paper.free.clear()
    order = asyncio.create_task(
        office.desk.override(office.breaker, State.DISABLED, **WHO)
    )
    await asyncio.sleep(0)
    running = asyncio.create_task(office.desk.run())

    office.time.now += 60
    async with asyncio.timeout(5):
        while office.breaker.override or other.override:  # noqa: ASYNC110 - the claim
            await asyncio.sleep(0.005)
    assert office.desk.next is None
    office.paper.free.set()
    await order
    await office.desk.close()
    running.cancel()
    await asyncio.wait([running])

    assert office.breaker.state is State.DISABLED
    assert office.kept == {"main/read": "disabled", "main/write": None}


async def test_what_was_put_there_behind_the_desks_back_is_not_its_business():
    office = Office()
    await office.desk.override(office.breaker, State.FORCED_OPEN, lasting=60.0, **WHO)
    office.breaker.force(Override(State.DISABLED, "a test", "ana"), office.time.now)

    await office.desk.look()

    assert office.desk.next is None
    assert len(office.told) == 1
    assert office.breaker.state is State.DISABLED


async def test_a_jump_of_wall_time_ends_no_override_and_prolongs_none():
    office = Office()
    offset = 0.0
    clock = office.scene.clock
    jumping = Clock(clock.now, lambda: clock.wall() + offset)
    desk = Desk(office.board, office.scene.hub, office.history, jumping)
    await desk.override(office.breaker, State.DISABLED, lasting=60.0, **WHO)

    for offset in (3600.0, -3600.0):  # noqa: B007 - the clock reads it
        await desk.look()
        assert office.breaker.state is State.DISABLED
    office.time.now += 60
    await desk.look()

    assert office.breaker.override is None


async def test_of_two_at_once_the_last_written_down_holds():
    office = Office()
    office.paper.free.clear()
    orders = [
        asyncio.create_task(office.desk.override(office.breaker, state, **WHO))
        for state in (State.DISABLED, State.FORCED_OPEN, State.CLOSED)
    ]
    await office.paper.asked.wait()

    office.paper.free.set()
    await asyncio.gather(*orders)

    assert office.breaker.state is State.CLOSED
    assert office.kept == {"main/read": "closed"}
    assert [m.after for m in office.moves] == [
        State.DISABLED,
        State.FORCED_OPEN,
        State.CLOSED,
    ]


async def test_handing_back_waits_for_the_override_that_is_being_written():
    office = Office()
    office.paper.free.clear()
    order = asyncio.create_task(
        office.desk.override(office.breaker, State.DISABLED, **WHO)
    )
    await office.paper.asked.wait()
    back = asyncio.create_task(office.desk.hand_back(office.breaker, author="mia"))
    await asyncio.sleep(0)

    office.paper.free.set()
    await order
    move = await back

    assert move is not None
    assert move.reason == "handed back by mia"
    assert office.breaker.override is None
    assert office.kept == {"main/read": None}


async def test_who_takes_back_what_he_decided_takes_back_nothing_else():
    """Also where somebody else's word was still being written when he asked."""
    office = Office()
    mine = (await office.desk.override(office.breaker, State.FORCED_OPEN, **WHO)).after
    office.paper.free.clear()
    order = asyncio.create_task(
        office.desk.override(office.breaker, State.DISABLED, **WHO)
    )
    await asyncio.sleep(0)

    def still(there: Breaker) -> bool:
        return there.state is mine

    backs = [
        asyncio.create_task(
            office.desk.hand_back(office.breaker, author="ana", still=still)
        ),
        asyncio.create_task(
            office.desk.override(
                office.breaker, State.CLOSED, **WHO | {"author": "ana"}, still=still
            )
        ),
    ]
    await asyncio.sleep(0)
    office.paper.free.set()
    await order

    for back in backs:
        with pytest.raises(RefusedError, match="somebody has decided something else"):
            await back
    assert office.breaker.state is State.DISABLED
    assert office.kept == {"main/read": "disabled"}


async def test_who_does_not_wait_for_his_order_has_it_carried_out():
    """Else it would be on disk, not in force, and come to hold with the next start."""
    office = Office()
    office.paper.free.clear()
    order = asyncio.create_task(
        office.desk.override(office.breaker, State.DISABLED, **WHO)
    )
    await office.paper.asked.wait()

    order.cancel()
    await asyncio.wait([order])
    office.paper.free.set()
    await office.desk.close()

    assert office.breaker.state is State.DISABLED
    assert office.kept == {"main/read": "disabled"}


async def test_a_target_removed_meanwhile_leaves_nothing_on_disk_that_holds():
    office = Office("main", "other")
    office.paper.free.clear()
    order = asyncio.create_task(
        office.desk.override(office.breaker, State.DISABLED, **WHO)
    )
    await office.paper.asked.wait()

    office.board.remove("main")
    office.paper.free.set()

    with pytest.raises(RefusedError, match="main/read was removed meanwhile"):
        await order
    assert office.kept == {"main/read": None}
    assert office.desk.next is None


async def test_a_target_configured_anew_meanwhile_gets_the_override():
    office = Office()
    office.paper.free.clear()
    order = asyncio.create_task(
        office.desk.override(office.breaker, State.DISABLED, **WHO)
    )
    await office.paper.asked.wait()
    old = office.breaker

    office.replaced()
    office.paper.free.set()
    await order

    assert office.breaker is not old
    assert office.breaker.state is State.DISABLED


async def test_a_target_configured_anew_keeps_its_override_and_its_end():
    office = Office()
    await office.desk.override(office.breaker, State.FORCED_OPEN, lasting=60.0, **WHO)
    office.replaced()

    await office.desk.look()
    assert office.breaker.state is State.FORCED_OPEN
    office.time.now += 60
    await office.desk.look()

    assert office.breaker.override is None
    assert len(office.told) == 2


async def test_an_override_goes_with_its_target():
    office = Office("main", "other")
    breaker = office.breaker
    await office.desk.override(breaker, State.FORCED_OPEN, **WHO)
    office.board.remove("main")

    await office.desk.look()

    assert office.kept == {"main/read": None}
    assert office.told[-1] == "main/read: its target was removed"
    with pytest.raises(RefusedError, match="there is no main/read any more"):
        await office.desk.override(breaker, State.DISABLED, **WHO)


async def test_handing_back_what_nobody_holds_is_nothing():
    office = Office()

    assert await office.desk.hand_back(office.breaker, author="mia") is None
    assert office.paper.written == []


async def test_a_slip_of_the_hand_is_undone_without_a_reason():
    office = Office()
    await office.desk.override(office.breaker, State.FORCED_OPEN, **WHO)

    move = await office.desk.hand_back(office.breaker, reason=" ", author="mia")

    assert move is not None
    assert move.reason == "handed back by mia"
    assert office.told[-1] == "main/read decides by itself again: handed back"


async def test_an_override_that_is_shorter_than_a_look_ends_in_time():
    office = Office()
    running = asyncio.create_task(office.desk.run())
    await asyncio.sleep(0)  # it rests by now, for a second
    await office.desk.override(office.breaker, State.DISABLED, lasting=0.01, **WHO)

    office.time.now += 0.01
    async with asyncio.timeout(0.5):
        while office.breaker.override is not None:  # noqa: ASYNC110 - it is the claim
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.wait([running])


async def test_what_was_handed_back_is_not_told_to_have_run_out():
    office = Office()
    await office.desk.override(office.breaker, State.FORCED_OPEN, lasting=60.0, **WHO)
    await office.desk.hand_back(office.breaker, author="mia")

    await office.desk.look()
    office.time.now += 60
    await office.desk.look()

    assert office.told[1:] == ["main/read decides by itself again: handed back"]


async def test_an_order_that_waits_for_the_disk_holds_up_no_other_breaker():
    office = Office()
    other = office.board.targets["main"].breakers["write"]
    await office.desk.override(office.breaker, State.FORCED_OPEN, lasting=60.0, **WHO)
    await office.desk.override(other, State.FORCED_OPEN, lasting=61.0, **WHO)
    office.paper.free.clear()
    order = asyncio.create_task(
        office.desk.override(office.breaker, State.DISABLED, **WHO)
    )
    await asyncio.sleep(0)
    running = asyncio.create_task(office.desk.run())

    office.time.now += 60
    async with asyncio.timeout(5):
        while office.breaker.override:  # noqa: ASYNC110 - to have it told first
            await asyncio.sleep(0.005)
        office.time.now += 1
        while other.override:  # noqa: ASYNC110 - the claim
            await asyncio.sleep(0.005)
    running.cancel()
    office.paper.free.set()
    await asyncio.wait([running, order])
    await office.desk.close()


async def test_it_looks_by_itself_when_something_is_due():
    office = Office()
    running = asyncio.create_task(office.desk.run())
    await office.desk.override(office.breaker, State.DISABLED, lasting=60.0, **WHO)

    office.time.now += 60
    async with asyncio.timeout(5):
        while office.breaker.override is not None:  # noqa: ASYNC110 - it is the claim
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.wait([running])

    assert running.cancelled()


# Maintenance.


def at(office: Office, after: float = 0.0) -> float:
    return office.scene.clock.wall() + after


async def test_a_window_covers_targets_by_name_label_or_all_of_them():
    office = Office("main", "other", labels={"env": "staging"})
    one = await office.desk.begin(["main"], ends=at(office, 60), **WHO)
    assert office.desk.window_of("main") == one
    assert office.desk.window_of("other") is None
    await office.desk.end(one.id, author="mia")

    for named in ("*", "env=staging"):
        window = await office.desk.begin([named], ends=at(office, 60), **WHO)
        assert office.desk.window_of("main") == window
        assert office.desk.window_of("other") == window
        await office.desk.end(window.id, author="mia")

    assert office.desk.window_of("main") is None
    assert office.desk.window_of("nobody") is None


async def test_a_window_planned_ahead_begins_and_ends_in_time_and_says_so():
    office = Office()
    await office.desk.begin(
        ["main"], starts=at(office, 600), ends=at(office, 4200), **WHO
    )
    assert office.desk.next == pytest.approx(office.time.now + 600, abs=1e-3)

    spans = []
    for step in (599, 1, 1, 3598, 1):
        office.time.now += step
        await office.desk.look()
        spans.append(office.desk.window_of("main") is not None)

    assert spans == [False, True, True, True, False]
    assert office.told == [
        "maintenance of main in 10 min 0 s, for 1 h 0 min: the disk is being changed",
        "maintenance of main has begun: the disk is being changed",
        "maintenance of main is over: the disk is being changed",
    ]
    assert (office.desk.windows, office.desk.next) == ({}, None)


async def test_each_window_is_removed_alone():
    office = Office()
    first, second = [
        await office.desk.begin(["main"], ends=at(office, 60 * n), **WHO)
        for n in (1, 2)
    ]

    await office.desk.end(first.id, author="mia")

    assert office.desk.windows == {second.id: second}
    assert office.desk.window_of("main") == second
    with pytest.raises(
        RefusedError, match=f"id: no window of maintenance has the id {first.id}"
    ):
        await office.desk.end(first.id, author="mia")


async def test_a_window_ended_twice_at_once_is_ended_once():
    office = Office()
    window = await office.desk.begin(["main"], ends=at(office, 60), **WHO)

    ends = await asyncio.gather(
        *(office.desk.end(window.id, author="mia") for _ in range(2)),
        return_exceptions=True,
    )

    assert ends[0] == window
    assert isinstance(ends[1], RefusedError)
    assert office.told[1:] == [
        "maintenance of main has ended: the disk is being changed"
    ]


async def test_a_window_that_was_to_start_earlier_starts_now():
    office = Office()

    window = await office.desk.begin(
        ["main"], starts=at(office, -3600), ends=at(office, 60), **WHO
    )

    assert window.starts == at(office)


async def test_there_is_an_end_to_windows():
    office = Office()
    for _ in range(MOST_WINDOWS):
        await office.desk.begin(["main"], ends=at(office, 60), **WHO)

    with pytest.raises(RefusedError, match="500 windows are planned"):
        await office.desk.begin(["main"], ends=at(office, 60), **WHO)


async def test_a_note_is_of_an_entry_that_there_is():
    office = Office()
    window = await office.desk.begin(["main"], ends=at(office, 60), **WHO)

    note = await office.desk.note(window.id, "the disk came late", author="mia")
    for nothing in (window.id - 1, note.id + 1):
        with pytest.raises(RefusedError, match=f"no event has the id {nothing}"):
            await office.desk.note(nothing, "the disk came late", author="mia")

    assert (note.target, note.details) == ("main", {"of": window.id})


@pytest.mark.parametrize(
    ("targets", "starts", "ends", "said"),
    [
        ([], None, 60, "targets: no target none; there are main, env=prod, '*'"),
        (
            ["maim", "env=test"],
            None,
            60,
            "targets: no target 'maim', 'env=test'; there are main, env=prod, '*'",
        ),
        (["main"], None, 0, "ends: a window ends after it starts, and after now"),
        (["main"], 120, 60, "ends: a window ends after it starts, and after now"),
        (
            ["main"],
            None,
            float("nan"),
            "ends: a window ends after it starts, and after now",
        ),
        (["main"], None, 32 * 86400, "ends: a window lasts 31 d 0 h at most"),
        (
            ["main"],
            367 * 86400,
            368 * 86400,
            "starts: a window starts within 366 d 0 h",
        ),
    ],
)
async def test_a_window_that_is_none_is_refused(targets, starts, ends, said):
    office = Office(labels={"env": "prod"})
    starts = None if starts is None else at(office, starts)

    with pytest.raises(RefusedError) as refused:
        await office.desk.begin(targets, starts=starts, ends=at(office, ends), **WHO)

    assert str(refused.value) == said


# After a restart.


def written(office: Office, left: float, **more) -> dict:
    return {
        "state": "forced_open",
        "author": "mia",
        "reason": "why not",
        "at": at(office, -3600),
        "until": at(office, left),
        **more,
    }


async def test_what_was_decided_is_taken_up_and_nobody_is_told_of_a_move():
    office = Office()

    await office.desk.restore({"main/read": written(office, 60)}, [])

    override = office.breaker.override
    assert override is not None
    assert (override.state, override.author) == (State.FORCED_OPEN, "mia")
    assert override.until == pytest.approx(office.time.now + 60, abs=1e-3)
    assert (office.moves, office.told) == ([], [])


async def test_since_when_it_is_so_outlives_the_process():
    office = Office()

    await office.desk.restore({"main/read": written(office, 60)}, [])

    target = office.board.targets["main"]
    then = office.time.now - 3600
    assert target.moved["read"] == pytest.approx(at(office, -3600), abs=1e-3)
    assert target.left_closed["read"] == target.moved["read"]
    assert office.breaker.refusing_since == pytest.approx(then, abs=1e-3)
    assert office.breaker.left_closed == pytest.approx(then, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "more", "told"),
    [
        (
            "main/read",
            {"until": 1.0},
            "main/read decides by itself again: the override by mia ran out while nobody watched",
        ),
        ("gone/read", {}, "gone/read: there is no such breaker any more"),
        (
            "main/read",
            {"until": "soon"},
            "main/read decides by itself again: what was written down of its override cannot be read",
        ),
        (
            "main/read",
            {"state": "open"},
            "main/read decides by itself again: its override was open, which it cannot be",
        ),
    ],
)
async def test_what_does_not_hold_any_more_is_told(name, more, told):
    office = Office()

    await office.desk.restore({name: written(office, 60, **more)}, [])

    assert office.desk.overrides == {}
    assert office.told == [told]
    assert office.kept == {name: None}


async def test_a_clock_that_was_set_back_makes_no_override_last_for_years():
    office = Office()

    await office.desk.restore({"main/read": written(office, 9e8)}, [])

    assert office.breaker.override is not None
    assert office.breaker.override.until == office.time.now + LONGEST


async def test_windows_are_taken_up_and_what_is_over_is_told():
    office = Office()
    over = await office.desk.begin(["main"], ends=at(office, 60), **WHO)
    long = await office.desk.begin(["main"], ends=at(office, 6000), **WHO)
    ahead = await office.desk.begin(
        ["*"], starts=at(office, 3000), ends=at(office, 6000), **WHO
    )
    later = Office()
    later.time.now = office.time.now + 600
    broken = Entry(id=7, at=0.0, kind=Kind.MAINTENANCE, text="?", details={"ends": []})

    await later.desk.restore({}, [*office.paper.written, broken])

    assert later.desk.windows == {long.id: long, ahead.id: ahead}
    assert later.told == ["maintenance of main is over: the disk is being changed"]
    assert later.paper.written[0].details == {"ended": over.id}


# Words that were given to another daemon.


async def obeyed(office: Office, state: State | None, lasting: float = 60.0, **more):
    given = WHO | {"daemon": "b", "lasting": lasting} | more
    await office.desk.obey("main/read", state, **given)


async def test_a_word_that_another_daemon_was_given_holds_here_too():
    office = Office()

    await obeyed(office, State.FORCED_OPEN)

    override = office.breaker.override
    assert override is not None
    assert (override.state, override.author) == (State.FORCED_OPEN, "mia")
    assert override.until == office.time.now + 60
    assert [move.cause for move in office.moves] == [Cause.OVERRIDDEN]
    assert office.told == [
        "main/read is forced_open for 1 min 0 s: the disk is being changed (asked of b)"
    ]
    (kept,) = office.paper.written
    assert kept.details["daemon"] == "b"
    assert kept.details["until"] == office.scene.clock.wall() + 60
    assert kept.author == "mia"


async def test_that_it_was_taken_back_there_holds_here_too():
    office = Office()
    await obeyed(office, State.DISABLED)

    await obeyed(office, None, reason="as agreed")

    assert office.breaker.override is None
    assert office.moves[-1].cause is Cause.RESUMED
    assert (
        office.told[-1] == "main/read decides by itself again: as agreed (asked of b)"
    )
    assert office.kept == {"main/read": None}


async def test_what_stands_already_is_not_told_again():
    office = Office()
    await obeyed(office, None)
    await obeyed(office, State.DISABLED)
    office.time.now += 10

    await obeyed(office, State.DISABLED, 50.0)

    assert len(office.told) == len(office.moves) == 1


async def test_another_end_is_news():
    office = Office()
    await obeyed(office, State.DISABLED)

    await obeyed(office, State.DISABLED, 600.0)

    assert office.breaker.override is not None
    assert office.breaker.override.until == office.time.now + 600
    assert len(office.told) == 2


async def test_it_holds_here_though_it_cannot_be_written_down():
    """It was, where it was given."""
    office = Office()
    office.paper.full = True

    await obeyed(office, State.FORCED_OPEN)

    assert office.breaker.state is State.FORCED_OPEN
    assert office.paper.written == []


async def test_a_word_about_what_is_not_here_does_nothing():
    office = Office()

    await office.desk.obey("no/read", State.DISABLED, **WHO, daemon="b", lasting=1.0)

    assert office.told == []


async def test_nobody_elsewhere_is_obeyed_for_longer_than_anybody_here():
    office = Office()

    await obeyed(office, State.DISABLED, 10 * LONGEST)

    assert office.breaker.override is not None
    assert office.breaker.override.until == office.time.now + LONGEST


async def test_a_word_from_elsewhere_ends_by_itself_as_one_given_here():
    office = Office()
    await obeyed(office, State.FORCED_OPEN)
    office.time.now += 60

    running = asyncio.create_task(office.desk.run())
    await until(lambda: office.breaker.override is None)
    running.cancel()

    assert office.moves[-1].cause is Cause.RESUMED
