"""The history: written down before it is told, and read as far back as it goes."""

import asyncio
from random import Random

import pytest

from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.states import Outcome, Override, State
from pgbreaker.sinks.history import KEPT, PATIENCE, History, NotKeptError, NotReadError
from pgbreaker.sinks.hub import Notice
from support.boards import Scene
from support.storing import entry, override, storing, until


class Paper:
    """A ledger that a test can hold up, or fill."""

    def __init__(self) -> None:
        self.written: list[Entry] = []
        self.full = False
        self.free = asyncio.Event()
        self.free.set()

    async def record(self, entries) -> None:
        await self.free.wait()
        if self.full:
            raise NotKeptError("no space left on device")
        self.written += entries


class Ash:
    """An archive that cannot be read."""

    async def _burnt(self, *_):
        raise NotReadError("it burnt")

    entries = course = audit = _burnt


class Witness:
    """A scene, its history, and what was told of it."""

    def __init__(self, ledger=None, **more) -> None:
        self.scene = Scene()
        self.history = History(self.scene.board, self.scene.clock, ledger, **more)
        self.scene.also(self.history)
        self.told: list[Entry] = []
        self.history.follow(self.told.append)

    def notice(self, text: str) -> None:
        now = self.scene.time.now
        self.scene.hub.publish(Notice("main", "restarted", text, now))

    @property
    def texts(self) -> list[str]:
        return [e.text for e in self.told]


def test_without_a_ledger_it_is_told_at_once():
    witness = Witness()

    witness.notice("one")
    witness.scene.open()

    assert [e.kind for e in witness.told] == [Kind.NOTICE, Kind.TRANSITION]
    assert witness.told[1].details["to"] == "open"
    assert list(witness.history.entries) == witness.told


async def test_what_came_about_is_on_disk_before_it_is_told():
    paper = Paper()
    witness = Witness(paper)
    on_disk = []
    witness.history.follow(lambda e: on_disk.append(e in paper.written))

    witness.notice("one")
    witness.scene.open()
    assert witness.told == []
    await witness.history.close()

    assert on_disk == [True, True]
    assert witness.told == paper.written


async def test_a_disk_that_hangs_holds_what_came_about_back_for_a_moment_only():
    """
    It is told in its order, and written once that can be; a decision is not told before
    it is on disk.
    """
    paper = Paper()
    witness = Witness(paper)
    paper.free.clear()
    loop = asyncio.get_running_loop()
    begun = loop.time()

    witness.notice("one")
    decision = asyncio.create_task(
        witness.history.decide(Kind.NOTE, "decided", author="mia")
    )
    await asyncio.sleep(0)
    witness.notice("two")
    await until(lambda: len(witness.told) == 2)

    assert loop.time() - begun >= PATIENCE
    assert witness.texts == ["one", "two"]
    assert paper.written == []
    paper.free.set()
    await decision
    assert witness.texts == ["one", "two", "decided"]
    assert [e.text for e in paper.written] == ["one", "decided", "two"]
    # Its id says that it was first, and so it stands.
    assert [e.text for e in witness.history.entries] == ["one", "decided", "two"]


async def test_a_decision_that_is_not_kept_is_told_to_nobody():
    paper = Paper()
    witness = Witness(paper)
    paper.full = True

    with pytest.raises(NotKeptError):
        await witness.history.decide(Kind.NOTE, "decided", author="mia")

    assert witness.told == []


async def test_what_came_about_is_told_where_it_is_not_kept(caplog):
    paper = Paper()
    witness = Witness(paper)
    paper.full = True

    witness.notice("one")
    await witness.history.decide(Kind.OVERRIDE, "the override ran out")

    assert witness.texts == ["one", "the override ran out"]
    assert "the override ran out (cannot be written down" in caplog.text
    assert "one" not in caplog.text.replace("one left", "").replace("none", "")


async def test_a_decision_stands_behind_what_came_about_before():
    paper = Paper()
    witness = Witness(paper)

    witness.notice("one")
    await witness.history.decide(Kind.NOTE, "decided", author="mia")

    assert witness.texts == ["one", "decided"]
    assert paper.written == witness.told


async def test_what_came_about_before_a_decision_is_told_before_it():
    """Also where its writer has not come back with the news by then."""

    class Slow(Paper):
        async def record(self, entries) -> None:
            if entries[0].author is None:
                await self.free.wait()
            self.written += entries

    paper = Slow()
    paper.free.clear()
    witness = Witness(paper)

    witness.notice("one")
    await witness.history.decide(Kind.NOTE, "decided", author="mia")

    assert witness.texts == ["one", "decided"]
    paper.free.set()
    await witness.history.close()
    assert witness.texts == ["one", "decided"]


def test_what_a_target_does_that_was_removed_is_told_by_nobody(caplog):
    witness = Witness()
    breaker = witness.scene.board.targets["main"].breakers["read"]
    witness.scene.board.remove("main")

    for move in breaker.observe(Outcome.FAILURE, 101.0, confirmed=True):
        witness.scene.hub.publish(move)

    assert breaker.state is State.OPEN
    assert witness.told == []
    assert caplog.text == ""


async def test_ids_go_on_after_a_restart_and_a_clock_that_went_back(tmp_path):
    late = 10**15  # by a clock that was far ahead
    async with storing(tmp_path / "state.db") as store:
        await store.record([entry(late)])
    async with storing(tmp_path / "state.db") as store:
        found = store.restored()
        witness = Witness(store, last=found.last_id, entries=found.entries)

        witness.notice("one")
        await witness.history.close()

    assert witness.told[0].id == late + 1
    assert [e.id for e in witness.history.entries] == [late, late + 1]


# What is read.


async def test_pages_go_back_further_than_memory(tmp_path):
    many = [entry(n) for n in range(1, KEPT + 1001)]
    async with storing(tmp_path / "state.db") as store:
        for first in range(0, len(many), 500):
            await store.record(many[first : first + 500])
    async with storing(tmp_path / "state.db") as store:
        found = store.restored()
        history = Witness(store, archive=store, entries=found.entries).history

        async def ids(**wanted):
            return [e.id for e in await history.page(**wanted)]

        assert history.entries[0].id == 1001
        assert await ids(limit=2) == [2999, 3000]
        assert await ids(before=1002, limit=3) == [999, 1000, 1001]
        assert await ids(after=998, limit=3) == [999, 1000, 1001]
        assert await ids(after=2998) == [2999, 3000]
        assert await ids(text="MOVE 17", limit=2) == [1798, 1799]
        assert await ids(since=2.999) == [2999, 3000]
        assert await ids(since=0.998, limit=KEPT * 2) == [*range(998, 3001)]
        assert await ids(kinds=[Kind.NOTE]) == []


async def test_a_page_shows_what_was_told_and_is_not_written_yet(tmp_path):
    paper = Paper()
    async with storing(tmp_path / "state.db") as store:
        await store.record([entry(1)])
        witness = Witness(paper, archive=store, last=1)
        paper.full = True
        witness.notice("untold")
        await witness.history.close()

        found = await witness.history.page(before=2**60)

    assert [e.text for e in found] == ["move 1", "untold"]


async def test_where_the_archive_cannot_be_read_memory_has_to_do(caplog):
    witness = Witness(archive=Ash())
    witness.scene.open()
    await witness.history.decide(Kind.NOTE, "a note", author="mia")

    assert len(await witness.history.page()) == 2
    assert len((await witness.history.incidents(0.0)).told) == 1
    assert len(await witness.history.audit()) == 1
    assert "as far as memory goes: it burnt" in caplog.text


async def test_an_incident_lasts_until_calls_pass_again_and_has_its_notes():
    witness = Witness()
    scene, history = witness.scene, witness.history
    scene.open()
    begun = witness.told[-1]
    await history.decide(Kind.NOTE, "the disk", author="mia", details={"of": begun.id})
    breaker = scene.board.targets["main"].breakers["connect"]

    [incident] = (await history.incidents(0.0)).told

    assert incident.id == begun.id
    assert incident.ended is None
    assert incident.breaker == "main/connect"
    assert incident.sqlstate == "53300"
    assert [note.text for note in incident.notes] == ["the disk"]
    scene.time.now += 60
    scene.hub.publish(breaker.force(Override(State.CLOSED, "x", "mia"), scene.time.now))
    await history.decide(
        Kind.OVERRIDE,
        "closed",
        breaker="main/connect",
        author="mia",
        details={"state": "closed"},
    )
    [incident] = (await history.incidents(0.0)).told
    assert incident.seconds(scene.clock.wall()) == pytest.approx(60, abs=0.01)
    assert (await history.incidents(scene.clock.wall() + 1)).told == []


async def test_incidents_begin_before_the_time_that_is_asked_for(tmp_path):
    def moved(number, before, after, **more):
        details = {"from": before, "to": after, "cause": "failure_run"} | more
        return entry(number, details=details)

    written = [
        moved(1000, "closed", "open"),
        moved(1500, "half_open", "closed"),
        moved(2000, "closed", "open"),
        moved(3000, "open", "half_open"),
        moved(4000, "half_open", "open"),
        override(4200, breaker="main/write"),
        override(6000, None, breaker="main/write"),
        moved(7000, "half_open", "closed"),
    ]
    async with storing(tmp_path / "state.db") as store:
        await store.record(written)
        history = Witness(store, archive=store).history

        found = (await history.incidents(5.0)).told

    assert [(i.breaker, i.began, i.ended) for i in found] == [
        ("main/read", 2.0, 7.0),
        ("main/write", 4.2, 6.0),
    ]


@pytest.mark.parametrize("seed", range(20))
async def test_pages_of_incidents_are_all_of_them_once(seed, tmp_path):
    """Those under way where a page ends, too, with the beginning and the end they have."""
    luck = Random(seed)
    states = dict.fromkeys(("main/read", "main/write", "main/connect"), "closed")
    after = {
        "closed": ("open",),
        "open": ("half_open",),
        "half_open": ("open", "closed", "closed"),
    }
    written, words = [], {}
    for number in range(1000, 1300):
        breaker = luck.choice(list(states))
        if luck.random() < 0.15:
            words[breaker] = luck.choice(("forced_open", "closed", None))
            written.append(override(number, words[breaker], breaker=breaker))
            continue
        before, states[breaker] = states[breaker], luck.choice(after[states[breaker]])
        details = {"from": before, "to": states[breaker], "cause": "failure_run"}
        details["override"] = words.get(breaker)
        written.append(entry(number, breaker=breaker, details=details))
    async with storing(tmp_path / "state.db") as store:
        await store.record(written)
        history = Witness(store, archive=store, entries=written[-20:]).history
        everything = await history.incidents(1.05)
        pages, page = [], await history.incidents(1.05, limit=3)
        while page.before is not None:
            pages.append(page.told)
            page = await history.incidents(1.05, before=page.before, limit=3)
        pages.append(page.told)

    assert everything.before is None
    assert len(everything.told) > 10
    assert {len(told) for told in pages} <= {0, 1, 2, 3}
    assert [one for told in reversed(pages) for one in told] == everything.told


async def test_no_more_is_read_than_incidents_are_told(tmp_path):
    """A month of them would be tens of megabytes that the heap keeps."""
    written = [
        entry(1000 + 2 * n + is_over, details={"from": before, "to": to})
        for n in range(500)
        for is_over, (before, to) in enumerate((("closed", "open"), ("open", "closed")))
    ]
    async with storing(tmp_path / "state.db") as store:
        await store.record(written)
        excerpt = await store.course(0.0, None, 10)

    assert (len(excerpt.entries), excerpt.before) == (21, written[-20].id)


async def test_without_a_store_memory_has_pages_too():
    moves = [entry(n, details={"from": "closed", "to": "open"}) for n in (1, 3, 5)]
    ends = [entry(n, details={"from": "open", "to": "closed"}) for n in (2, 4, 6)]
    together = sorted((*moves, *ends), key=lambda one: one.id)
    history = Witness(entries=together).history

    last = await history.incidents(0.0, limit=2)
    first = await history.incidents(0.0, before=last.before, limit=2)

    assert ([one.id for one in last.told], last.before) == ([3, 5], 3)
    assert ([one.id for one in first.told], first.before) == ([1], None)


async def test_an_incident_that_a_restart_forgot_is_over():
    """The breaker is closed, and nobody has seen it close."""
    witness = Witness(entries=[entry(1000), entry(2000, details={"to": "half_open"})])

    [incident] = (await witness.history.incidents(0.0)).told

    assert (incident.began, incident.ended) == (1.0, 2.0)


async def test_a_note_of_later_makes_no_incident_longer():
    note = entry(9_000_000, kind=Kind.NOTE, author="mia", details={"of": 1000})
    opened = [entry(1000), entry(2000, details={"to": "half_open"})]
    witness = Witness(entries=[*opened, note])

    [incident] = (await witness.history.incidents(0.0)).told

    assert incident.ended == 2.0


async def test_an_incident_whose_end_is_not_told_yet_goes_on():
    paper = Paper()
    witness = Witness(paper)
    scene, history = witness.scene, witness.history
    scene.open()
    await history.close()
    paper.free.clear()
    breaker = scene.board.targets["main"].breakers["connect"]
    while not breaker.passes:
        scene.time.now += 1.0
        for move in breaker.observe(Outcome.SUCCESS, scene.time.now):
            scene.hub.publish(move)

    [before] = (await history.incidents(0.0)).told
    paper.free.set()
    await history.close()
    [after] = (await history.incidents(0.0)).told

    assert before.ended is None
    assert after.ended == scene.clock.wall()


async def test_without_a_store_the_audit_log_is_what_memory_has():
    witness = Witness()
    witness.scene.open()
    await witness.history.decide(Kind.NOTE, "one", author="mia")
    await witness.history.decide(Kind.RELOAD, "two")

    lines = await witness.history.audit()

    assert [(line.entry.text, line.number) for line in lines] == [
        ("one", None),
        ("two", None),
    ]
    assert [line.entry.text for line in await witness.history.audit(1)] == ["two"]


async def test_what_another_daemon_saw_is_kept_with_its_moment_and_told_as_our_own():
    paper = Paper()
    witness = Witness(paper)
    details = {"to": "open", "daemon": "b", "of": 17}

    witness.history.copy(
        Kind.TRANSITION, "it opened", at=12.5, breaker="main/read", details=details
    )
    witness.notice("one")
    await witness.history.close()

    first, second = witness.told
    assert (first.at, first.target, first.breaker) == (12.5, "main", "main/read")
    assert (first.text, first.author, first.details) == ("it opened", None, details)
    assert first.id < second.id
    assert paper.written == witness.told


def test_of_a_breaker_that_is_not_here_nothing_is_kept():
    witness = Witness()

    with pytest.raises(KeyError):
        witness.history.copy(
            Kind.TRANSITION, "it opened", at=1.0, breaker="no/read", details={}
        )

    assert witness.told == []
