"""Breakers: how do they behave?"""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from . import board as boards
from . import links, panels, shared
from .board import Line, Section
from .limits import DISAGREE, FAILURE_RATE, FLAPPING, RECOVERY
from .panels import Column, Panel
from .queries import (
    ANY,
    CHOSEN,
    EACH,
    by,
    grown,
    lately,
    or_zero,
    out_of_closed,
    pick,
    quantile,
    rate,
    state,
    top,
    worst,
)

_WHERE: Final = f'{CHOSEN},operation=~"$operation|"'
_DAEMON: Final = f'{CHOSEN},operation=~"$operation"'
_APPLICATIONS: Final = f'{_WHERE},operation=""'
# A series begins with the first opening of its kind, so that no growth is seen of it.
_NOTICED: Final = (
    "Time from the first bad reading to a daemon's breaker opening, within which 95 % of"
    " openings lie; the first of a kind since the daemon's start is not among them."
)
_LEGEND: Final = "{{breaker}} ({{job}})"


def board() -> Dashboard:
    return boards.page(
        links.BREAKERS,
        "Breakers",
        "How do the breakers behave?",
        [
            Section("Now, and in the time shown", [Line(4, _now())]),
            Section(
                "States",
                [Line(7, [_of_daemon()]), Line(7, [_of_applications(), _reported()])],
            ),
            Section("Why they move", [Line(8, _moves())]),
            Section("When they open, and for how long", [Line(8, _openings())]),
            Section("Each of them", [Line(10, [_each()])]),
            Section("Calls that got no answer from the server", [Line(8, _refused())]),
            Section(
                "Trials, retries, late results",
                [Line(8, _trials()), Line(8, _retries())],
                is_open=False,
            ),
        ],
        [boards.jobs(), boards.targets(), boards.operations(), boards.breakers()],
    )


def _now() -> list[Panel]:
    opened = grown(_MOVES, _WHERE, 'from="closed"', 'to="open"')
    closed = pick("pgbreaker_breaker_state", _WHERE, 'state="closed"')
    forced = pick(
        "pgbreaker_breaker_state", _WHERE, 'state=~"forced_open|disabled|metrics_only"'
    )
    return [
        shared.not_closed(_WHERE, None),
        shared.longest_out(_WHERE),
        panels.number(
            "Openings",
            "Times that breakers left closed in the time shown. 0 is good; see why below.",
            or_zero(f"sum({opened})"),
            none="no breaker reports",
            decimals=0,
            steps=((None, "green"), (0.5, "yellow")),
        ),
        panels.number(
            "Closed, on average",
            "Share of the time shown that breakers were closed, on average over all.",
            f"avg(avg_over_time({closed}[$__range]))",
            none="no breaker reports",
            unit="percentunit",
            decimals=2,
            steps=((None, "red"), (0.99, "yellow"), (0.999, "green")),
        ),
        panels.number(
            "Time to notice, p95",
            _NOTICED,
            "histogram_quantile(0.95, sum by (le) ("
            f"{grown('pgbreaker_detection_seconds_bucket', ANY)}))",
            none="none told",
            unit="s",
            steps=((None, "green"), (2.5, "yellow"), (10, "red")),
        ),
        panels.number(
            "Held by an operator",
            "Breakers that an operator opened, switched off or only measures with. Not 0"
            " for long is somebody who forgot: pgbreaker auto BREAKER hands it back.",
            or_zero(f"count({by(EACH, forced, 'max')} == 1)"),
            none="no breaker reports",
            steps=panels.from_one("purple"),
        ),
    ]


_MOVES: Final = "pgbreaker_breaker_transitions_total"


def _of_daemon() -> Panel:
    """One for each kind of work, beside each other."""
    panel = panels.timeline(
        "Daemon: $operation",
        "State of the daemon's breakers for this kind of work, one row a server. All red"
        " at once is the network, or the daemon's machine.",
        (state(_DAEMON), "{{target}}"),
        none="no breaker of this kind",
        words=panels.STATE_WORDS,
        path=links.to_target(links.SERIES_TARGET),
    )
    return panel.repeat("operation").repeat_direction("h").max_per_row(4)


def _of_applications() -> Panel:
    return panels.timeline(
        "Applications",
        "State of applications' breakers; of several processes the worst. An application"
        " that opens while the daemon's stay closed has trouble of its own: its pool, its"
        " network, its queries.",
        (state(_APPLICATIONS), _LEGEND),
        none=shared.NO_APPLICATION,
        words=panels.STATE_WORDS,
    )


def _reported() -> Panel:
    reported = by(EACH, pick("pgbreaker_application_processes", _DAEMON))
    opened = by(EACH, pick("pgbreaker_application_processes_open", _DAEMON))
    own = by(EACH, pick("pgbreaker_application_processes_open", _DAEMON, 'by="calls"'))
    return panels.graph(
        "Processes that have it open, of those that report",
        "Share of the processes that take a breaker's advice in which calls do not pass,"
        " and of these the share by their own calls, the five highest. By their own while"
        " the daemon's breaker is closed: applications fail where the probe does not."
        f" {DISAGREE.alert} fires at the line then; pgbreaker explain BREAKER says why.",
        (
            top(5, f"{by('breaker', f'{opened} / {reported}', 'max')} > 0"),
            "{{breaker}}",
        ),
        (
            top(5, f"{by('breaker', f'{own} / {reported}', 'max')} > 0"),
            "{{breaker}} by own calls",
        ),
        none="no process reports, or none has it open",
        unit="percentunit",
        most=1,
        limits=(DISAGREE,),
    )


def _moves() -> list[Panel]:
    moved = lately(_MOVES, _WHERE)
    opened = lately(_MOVES, _WHERE, 'to="open"')
    return [
        panels.graph(
            "Moves by state",
            "Moves of all breakers, by where they went. Open and half-open in turn is a"
            " server that stays away; every opening lasts longer than the one before.",
            (f"{by('to', moved)} > 0", "to {{to}}"),
            none="no breaker moved",
            unit="none",
            bars=True,
            colors={"to open": "red", "to half_open": "yellow", "to closed": "green"},
        ),
        panels.graph(
            "Openings by cause",
            "Why breakers opened. Failure rate and run: calls failed. Slow rate: they took"
            " long. Confirmed: a second sign agreed. Relapsed: a trial failed. Pool"
            " exhausted and hanging: the application's own side.",
            (f"{by('cause', opened)} > 0", "{{cause}}"),
            none="no breaker opened",
            unit="none",
            bars=True,
        ),
    ]


def _openings() -> list[Panel]:
    ratio = pick("pgbreaker_breaker_failure_ratio", _WHERE)
    opens_at = pick("pgbreaker_breaker_failure_ratio_threshold", _WHERE)
    left = pick("pgbreaker_breaker_left_closed_timestamp_seconds", _WHERE)
    openings = by("job, breaker", f"changes({left}[30m])", "max")
    return [
        panels.graph(
            "Failure ratio of the window",
            "Failed share of each breaker's own window, the five worst, and the lowest share"
            f" at which one opens (dashed). {FAILURE_RATE.alert} goes by 2 minutes, and"
            " has its line on Overview.",
            (worst(5, ratio, "job, breaker"), _LEGEND),
            (f"min({opens_at})", "opens at"),
            none="no breaker reports",
            unit="percentunit",
            most=1,
            dashed="/^opens at$/",
        ),
        panels.graph(
            "Openings in 30 minutes",
            "Breakers that left closed more than once within 30 minutes."
            f" {FLAPPING.alert} fires above {FLAPPING.value:g}: the server comes back and"
            " goes again, or the rule is too sharp.",
            (f"{openings} > 1", _LEGEND),
            none="no breaker opened twice",
            unit="none",
            limits=(FLAPPING,),
        ),
        panels.graph(
            "Out of closed for",
            "How long breakers that are not closed have been so, the five longest; each peak is a time to"
            f" recover. {RECOVERY.alert} fires above {RECOVERY.value:g} s.",
            (top(5, by("job, breaker", out_of_closed(_WHERE), "max")), _LEGEND),
            none="every breaker was closed",
            unit="s",
            limits=(RECOVERY,),
        ),
    ]


def _each() -> Panel:
    key = "breaker, job"
    closed = pick("pgbreaker_breaker_state", _WHERE, 'state="closed"')
    opened = grown(_MOVES, _WHERE, 'from="closed"', 'to="open"')
    relapsed = grown(_MOVES, _WHERE, 'from="half_open"', 'to="open"')
    rejected = grown("pgbreaker_calls_total", _WHERE, 'outcome="rejected"')
    return panels.table_of(
        "Breakers in the time shown",
        "One line a breaker, the least closed first; click its name for it alone. Many"
        " relapses are trials against a server that is still away.",
        [
            Column("State", state(_WHERE, key), words=panels.STATE_WORDS),
            Column(
                "Closed",
                by(key, f"avg_over_time({closed}[$__range])", "min"),
                unit="percentunit",
                decimals=2,
                steps=((None, "red"), (0.99, "yellow"), (0.999, "green")),
            ),
            Column("Openings", by(key, opened), decimals=0),
            Column("Relapses", by(key, relapsed), decimals=0),
            Column("Rejected calls", by(key, rejected), unit="short", decimals=0),
        ],
        none="no breaker reports",
        labels={"breaker": "Breaker", "job": "Job"},
        first="Closed",
        descending=False,
        paths={"Breaker": links.to_breaker(links.CELL)},
    )


def _refused() -> list[Panel]:
    def outcome(name: str) -> str:
        calls = rate("pgbreaker_calls_total", _WHERE, f'outcome="{name}"')
        return f"{by('job, breaker', calls)} > 0"

    return [
        panels.graph(
            "Rejected",
            "Calls that an open breaker refused: nobody waited, and nobody got an answer"
            " unless there is a fallback.",
            (outcome("rejected"), _LEGEND),
            none="no call was refused",
            unit="reqps",
        ),
        panels.graph(
            "Answered otherwise",
            "Calls that a fallback or an older answer from the cache served in the place of"
            " the server. Much less than rejected: users see errors.",
            (outcome("fallback"), f"fallback {_LEGEND}"),
            (outcome("stale"), f"stale {_LEGEND}"),
            none="no call was answered otherwise",
            unit="reqps",
        ),
        panels.graph(
            "Slow or cut",
            "Calls that took longer than the breaker's threshold, and those that the caller"
            " gave up. They come before failures when a server gets slow.",
            (outcome("slow"), f"slow {_LEGEND}"),
            (outcome("cut"), f"cut {_LEGEND}"),
            none="no call was slow",
            unit="reqps",
        ),
    ]


def _trials() -> list[Panel]:
    trials = lately(_MOVES, _WHERE, 'from="half_open"')
    return [
        panels.graph(
            "Ends of half-open",
            "How trials ended. Recovered is good; relapsed, the server is still away;"
            " expired, a trial never came back.",
            (f"{by('cause', trials)} > 0", "{{cause}}"),
            none="no trial ended",
            unit="none",
            bars=True,
            colors={"recovered": "green", "relapsed": "red", "expired": "orange"},
        ),
        panels.graph(
            "Time to notice",
            f"{_NOTICED} By what was wrong; it is what the ping's interval and deadline"
            " allow.",
            (
                quantile(0.95, "pgbreaker_detection_seconds", ANY, "fault_class"),
                "{{fault_class}}",
            ),
            none="no breaker opened",
            unit="s",
            points=True,
        ),
    ]


def _retries() -> list[Panel]:
    again = by("job, breaker", rate("pgbreaker_retries_total", _WHERE))
    denied = by("job", rate("pgbreaker_retries_denied_total", _WHERE), "max")
    flying = by("job, breaker", pick("pgbreaker_calls_in_flight", _WHERE))
    late = by("job, breaker", rate("pgbreaker_late_results_total", _WHERE))
    return [
        panels.graph(
            "Retries",
            "Calls tried again, and retries not made for want of budget, the most of each."
            " Denied ones are good: an outage is not made worse by them.",
            (top(4, again), f"again {_LEGEND}"),
            (top(2, denied), "denied ({{job}})"),
            none=shared.NO_APPLICATION,
            unit="reqps",
        ),
        panels.graph(
            "In flight, and late",
            "Calls that have not come back, and those in a second that came back after the"
            " breaker had moved, the most of each. Calls in flight that only grow hang.",
            (top(4, flying), f"in flight {_LEGEND}"),
            (top(2, late), f"late {_LEGEND}"),
            none=shared.NO_APPLICATION,
            unit="none",
        ),
    ]
