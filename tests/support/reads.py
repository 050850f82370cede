"""Two daemons that are told the same; one of them is looked at all the time."""

import asyncio

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pgbreaker.core.plan import AlertmanagerPlan
from pgbreaker.core.reading import Finding
from pgbreaker.core.states import (
    OVERRIDES,
    Evidence,
    Outcome,
    Override,
    Permit,
    Transition,
)
from pgbreaker.monitor.desk import Desk
from pgbreaker.monitor.feed import Feed
from pgbreaker.sinks.history import History
from pgbreaker.sinks.metrics import Metrics
from pgbreaker.sinks.push import Alerts
from pgbreaker.web.views import Views
from support.boards import Scene

OPERATIONS = st.sampled_from(["connect", "read", "write"])
SEEN = Evidence("timeout", "no answer within 500 ms", probe="ping")
# Of the process and of the scrape itself, not of what is watched.
OTHERS = ("process_", "python_", "pgbreaker_series", "pgbreaker_scrape", "#")


class Daemon:
    """All that is looked at, without a network."""

    def __init__(self) -> None:
        self.scene = Scene(("main", "other"), labels={"env": "prod"})
        scene = self.scene
        self.metrics = Metrics(scene.board, "1.2.3")
        self.history = History(scene.board, scene.clock)
        self.views = Views(scene.board, scene.clock, "e1")
        self.moves: list[tuple] = []
        plan = AlertmanagerPlan(urls=("http://one",))
        self.alerts = Alerts(plan, scene.board, scene.clock)
        scene.also(self.metrics, self.history, self._note)
        self.target = scene.board.targets["main"]
        self.feed = Feed(self.target, scene.hub, scene.clock)
        self.desk = Desk(scene.board, scene.hub, self.history, scene.clock)

    def _note(self, event) -> None:
        if isinstance(event, Transition):
            self.alerts.take(event)
            self.moves.append((event.breaker, event.before, event.after, event.cause))
            self.moves.append((event.at, event.reason, event.era, event.retry_after))

    def tell(self, *moves: Transition | None) -> None:
        for move in moves:
            if move is not None:
                self.scene.hub.publish(move)


class Reads(RuleBasedStateMachine):
    """Whatever is read of one daemon, it does what the other does, which nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.read, self.unread = self.both = Daemon(), Daemon()
        self.tokens: list[tuple[str, int]] = []

    def teardown(self) -> None:
        """What each of them tells at the end is the same, too."""
        texts = [self._scraped(daemon) for daemon in self.both]
        self.loop.close()
        assert texts[0] == texts[1]
        assert self.read.views.status() == self.unread.views.status()
        assert list(self.read.history.entries) == list(self.unread.history.entries)

    def _scraped(self, daemon: Daemon) -> list[str]:
        text = self.loop.run_until_complete(daemon.metrics.render())
        return [line for line in text.splitlines() if not line.startswith(OTHERS)]

    # What happens.

    @rule(seconds=st.sampled_from([0.015625, 0.5, 1.0, 8.0, 70.0]))
    def time_goes_by(self, seconds: float) -> None:
        for daemon in self.both:
            daemon.scene.time.now += seconds

    @rule(
        finding=st.sampled_from([Finding.OK, Finding.TIMEOUT, Finding.REFUSED]),
        probe=st.sampled_from(["ping", "login"]),
        confirmed=st.booleans(),
    )
    def a_probe_comes_back(self, finding: Finding, probe: str, confirmed: bool) -> None:
        for daemon in self.both:
            is_bad = finding is not Finding.OK
            reading = daemon.scene.reading(
                probe,
                finding,
                confirmed=confirmed and is_bad,
                evidence=SEEN if is_bad else None,
            )
            daemon.feed.judge(reading)

    @rule(operation=OPERATIONS, outcome=st.sampled_from(Outcome), slow=st.booleans())
    def it_is_observed(self, operation: str, outcome: Outcome, slow: bool) -> None:
        for daemon in self.both:
            breaker, now = daemon.target.breakers[operation], daemon.scene.time.now
            daemon.tell(*breaker.observe(outcome, now, slow=slow))

    @rule(operation=OPERATIONS)
    def a_call_begins(self, operation: str) -> None:
        tokens = set()
        for daemon in self.both:
            answer = daemon.target.breakers[operation].admit(daemon.scene.time.now)
            daemon.tell(answer.move)
            tokens.add(answer.token if isinstance(answer, Permit) else None)
        (token,) = tokens
        if token is not None:
            self.tokens.append((operation, token))

    @rule(outcome=st.sampled_from(Outcome), slow=st.booleans())
    def a_call_ends(self, outcome: Outcome, slow: bool) -> None:
        if not self.tokens:
            return
        operation, token = self.tokens.pop()
        for daemon in self.both:
            breaker, now = daemon.target.breakers[operation], daemon.scene.time.now
            daemon.tell(breaker.settle(token, outcome, now, slow=slow))

    @rule(operation=OPERATIONS, state=st.sampled_from(OVERRIDES))
    def somebody_takes_over(self, operation: str, state) -> None:
        for daemon in self.both:
            now = daemon.scene.time.now
            override = Override(state, "a test", "mia", now + 60)
            daemon.tell(daemon.target.breakers[operation].force(override, now))

    @rule(operation=OPERATIONS)
    def it_is_handed_back(self, operation: str) -> None:
        for daemon in self.both:
            now = daemon.scene.time.now
            daemon.tell(daemon.target.breakers[operation].resume(now))

    @rule(operation=OPERATIONS)
    def time_moves_it(self, operation: str) -> None:
        for daemon in self.both:
            now = daemon.scene.time.now
            daemon.tell(daemon.target.breakers[operation].turn(now))

    # What is read, of one of them.

    @rule(operation=OPERATIONS, ahead=st.sampled_from([0.0, 0.5, 100.0]))
    def the_breaker_is_asked(self, operation: str, ahead: float) -> None:
        breaker = self.read.target.breakers[operation]
        now = self.read.scene.time.now
        for moment in (now, now + ahead):
            breaker.explain(moment)
            breaker.snapshot(moment)
            breaker.memory(moment)
            breaker.counts(moment)
            breaker.retry_after(moment)
            breaker.refusing_because(moment)
            breaker.is_due(moment)
        breaker.counts()
        repr(breaker)
        assert breaker.totals
        assert breaker.oldest_flight() is None
        assert (breaker.in_flight, breaker.passes, breaker.computed_passes) is not None

    @rule()
    def the_board_is_shown(self) -> None:
        self.read.views.status()
        self.read.views.breakers()
        for target in self.read.scene.board.targets.values():
            assert (target.reason, target.condition, target.is_up) is not None
            assert target.maintenance is None

    @rule()
    def it_is_scraped(self) -> None:
        self.loop.run_until_complete(self.read.metrics.render(openmetrics=True))

    @rule()
    def the_desk_and_the_feed_are_asked(self) -> None:
        desk, feed = self.read.desk, self.read.feed
        assert (desk.next, desk.overrides, desk.window_of("main")) is not None
        assert (feed.all_pass, feed.is_wanted("ping"), feed.is_nearly_full) is not None
        alerts = self.read.alerts
        alerts.written(alerts.names())

    @invariant()
    def they_do_the_same(self) -> None:
        assert self.read.moves == self.unread.moves
        for operation, breaker in self.read.target.breakers.items():
            other = self.unread.target.breakers[operation]
            now = self.read.scene.time.now
            assert (breaker.state, breaker.gate) == (other.state, other.gate)
            assert breaker.memory(now) == other.memory(now)
