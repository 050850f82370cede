"""`pgbreaker backtest`: what forecasts would have said of a recording, and whether it
would have been worth listening."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pgbreaker.cli import options
from pgbreaker.cli.table import table
from pgbreaker.core.forecast.warning import FAILURE, KINDS
from pgbreaker.core.units import Seconds, counted, lasting, percent
from pgbreaker.core.wall import moment

if TYPE_CHECKING:
    from pgbreaker.core.forecast.score import Score
    from pgbreaker.core.units import Share
    from pgbreaker.monitor.backtest import Backtested, Result, TargetRecord, Told

_HEAD: Final = (
    *("TARGET", "OF", "BY", "DAYS", "FAILURES", "IN TIME", "LATE", "MISSED"),
    *("WARNINGS", "FALSE", "PRECISION", "FALSE A DAY", "LEAD", "9 OF 10 HAD"),
)
_HOUR: Final[Seconds] = 3600.0
_NONE: Final = "-"


class _Share(click.ParamType[float]):
    """A share, as configurations write it."""

    name = "share"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        from pgbreaker.config.units import share

        try:
            found = share(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not found:
            self.fail("a threshold of nothing is always passed", param, ctx)
        return found


@click.command(
    epilog=options.examples(
        "pgbreaker backtest /var/lib/pgbreaker/readings.jsonl",
        "pgbreaker backtest recordings/ --config pgbreaker.yaml --target primary",
    )
)
@click.argument(
    "recording", metavar="RECORDING|DIR", type=click.Path(exists=True, path_type=Path)
)
@click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Take capacities of disks, and how far replicas may be behind, from here"
    " instead of from the recording.",
)
@click.option("--target", metavar="NAME", help="Look at this one alone.")
@click.option(
    "--threshold",
    metavar="SHARE",
    type=_Share(),
    default="80%",
    show_default=True,
    help="What the forecasts are compared to: a warning while so large a share is taken.",
)
@options.form("table", "json")
def backtest(
    recording: Path,
    path: Path | None,
    target: str | None,
    threshold: "Share",
    form: str,
) -> None:
    """Say whether forecasts would have been worth listening to.

    RECORDING is what the daemon wrote by its key record, or a directory with several. The
    readings go through the forecasts, which begin to learn with the first one, beside
    what breakers really did. Shown is which failures they were right about, how long
    before, and how often they were wrong; and the same of a plain threshold.

    A warning counts when it came at least a minute before the failure. It is false when
    nothing came of it within an hour of its end, whatever somebody did to avert it.
    Failures within a maintenance count: a recording does not tell of it.
    """
    from pgbreaker import config
    from pgbreaker.monitor.backtest import backtest as test
    from pgbreaker.sinks.record import read_all

    plans = None if path is None else config.load(path).targets
    done = test(read_all(recording), plans, only=target, threshold=threshold)
    if target is not None and target not in done.targets:
        there_are = ", ".join(sorted(done.left_out)) or "none"
        raise click.UsageError(
            f"no target is called {target!r} in {recording}; there are {there_are}"
        )
    if form == "json":
        click.echo(json.dumps(_as_json(done, threshold), indent=2))
        return
    for line in shown(done, threshold):
        click.echo(line)


# -- For people --------------------------------------------------------------------


def shown(done: "Backtested", threshold: "Share") -> Iterator[str]:
    """What came of a recording, for people."""
    if not done.readings:
        yield "nothing was recorded"
        return
    yield (
        f"{moment(done.began)} to {moment(done.ended)}"
        f" ({lasting(done.ended - done.began)}),"
        f" {counted(done.readings, 'reading')}"
        f" of {counted(len(done.targets), 'target')}"
    )
    yield from (part.text for part in done.unread)
    if done.overridden:
        times = counted(done.overridden, "time")
        yield f"somebody's word went before a breaker's {times}: that is no failure"
    yield ""
    rows = [
        _row(name, tested, result, threshold)
        for name, tested in done.targets.items()
        for result in tested.results
        if result.is_scored or result.warnings
    ]
    yield from table(_HEAD, rows)
    yield ""
    for name, tested in done.targets.items():
        yield from _remarks(name, tested)
    yield from _calibration(done)
    if done.told:
        yield ""
        yield from table(
            ("TIME", "TARGET", "OF", "BY", "WHAT", "CAME", "WHY"),
            [_event(told, threshold) for told in done.told],
        )


def _row(
    name: str, tested: "TargetRecord", result: "Result", threshold: "Share"
) -> tuple[str, ...]:
    from pgbreaker.monitor.backtest import DAY, tenth_lead

    begin = (name, result.of, _by(result.by, threshold), f"{tested.seen / DAY:.2f}")
    if not result.is_scored:
        unknown = (_NONE,) * 4
        return (*begin, *unknown, str(result.warnings), *unknown, _NONE)
    score = result.score
    recall = "" if score.recall is None else f" ({percent(score.recall)})"
    false = _false_a_day(tested, score)
    return (
        *begin,
        str(result.failures),
        f"{score.came}{recall}",
        str(score.late),
        str(score.missed),
        str(result.warnings),
        str(score.false),
        _NONE if score.precision is None else percent(score.precision),
        _NONE if false is None else f"{false:.2f}",
        _lead(score.lead),
        _lead(tenth_lead(score)),
    )


def _by(by: str, threshold: "Share") -> str:
    from pgbreaker.monitor.backtest import FORECAST

    return by if by == FORECAST else f"{percent(threshold)} taken"


def _lead(lead: Seconds | None) -> str:
    return _NONE if lead is None else lasting(lead)


def _false_a_day(tested: "TargetRecord", score: "Score") -> float | None:
    """None: nobody has looked long enough for one to be false."""
    from pgbreaker.monitor.backtest import DAY

    return score.false * DAY / tested.seen if tested.seen >= _HOUR else None


def _remarks(name: str, tested: "TargetRecord") -> Iterator[str]:
    """What the table cannot say of a target."""
    from pgbreaker.monitor.backtest import FORECAST

    long = lasting(tested.seen)
    ours = [one for one in tested.results if one.by == FORECAST and one.is_scored]
    if not tested.is_known:
        yield f"{name}: it is not in the configuration; what only that tells is unknown"
    if tested.seen < _HOUR:
        yield (
            f"{name}: seen for {long}: too short for a warning to be false, which takes"
            " an hour after its end"
        )
    if not any(one.failures for one in ours):
        yield f"{name}: no failure in {long}: recall cannot be told"
    if not any(one.warnings for one in ours):
        yield f"{name}: no warning in {long}: precision cannot be told"
    untold = sum(one.untold for one in ours)
    if untold:
        yield (
            f"{name}: of {counted(untold, 'warning')} it cannot be told what came:"
            " neither true nor false"
        )
    if any(one.warnings and not one.is_scored for one in tested.results):
        yield (
            f"{name}: of what has days to be averted nobody counts what came of the"
            " warnings"
        )
    if tested.silent_because is not None:
        yield f"{name}: the model of failures is silent at the end: {tested.silent_because}"
    if tested.not_looked_at:
        needs: dict[str, list[str]] = {}
        for of, takes in tested.not_looked_at.items():
            needs.setdefault(takes, []).append(of)
        parts = [f"{', '.join(ofs)} ({takes})" for takes, ofs in needs.items()]
        yield f"{name}: not looked at, for want of what it needs: {'; '.join(parts)}"


def _calibration(done: "Backtested") -> Iterator[str]:
    rows = [
        (
            name,
            f"{one.low * 100:.0f} to {percent(one.high)}",
            str(one.minutes),
            percent(one.said),
            percent(one.share),
        )
        for name, tested in done.targets.items()
        for one in tested.bins
    ]
    if rows:
        yield ""
        within = KINDS[FAILURE].within
        yield f"what the model said, and how often a breaker opened in {lasting(within)}"
        yield from table(("TARGET", "PROBABILITY", "MINUTES", "SAID", "CAME"), rows)


def _event(told: "Told", threshold: "Share") -> tuple[str, ...]:
    from pgbreaker.monitor.backtest import Came

    came = "" if told.came is Came.UNSCORED else told.came.value
    if told.lead is not None:
        came += f", {lasting(told.lead)} {'after' if told.is_failure else 'before'}"
    if not told.is_failure and told.lead is None and told.ended is None:
        came = f"{came}, stands" if came else "stands"
    return (
        moment(told.at),
        told.target,
        told.of,
        _by(told.by, threshold),
        "failure" if told.is_failure else "warning",
        came or _NONE,
        told.reason,
    )


# -- For programs ------------------------------------------------------------------


def _as_json(done: "Backtested", threshold: "Share") -> dict[str, Any]:
    return {
        "began": moment(done.began),
        "ended": moment(done.ended),
        "readings": done.readings,
        "overridden": done.overridden,
        "threshold": threshold,
        "unread": [{"where": one.where, "lines": one.lines} for one in done.unread],
        "targets": {name: _target(tested) for name, tested in done.targets.items()},
        "events": [_as_event(told) for told in done.told],
    }


def _target(tested: "TargetRecord") -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {}
    for result in tested.results:
        kinds.setdefault(result.of, {})[result.by] = _numbers(tested, result)
    return {
        "seen_seconds": round(tested.seen, 3),
        "readings": tested.readings,
        "in_configuration": tested.is_known,
        "kinds": kinds,
        "not_looked_at": tested.not_looked_at,
        "model": {
            "silent_because": tested.silent_because,
            "bins": [
                {
                    "from": one.low,
                    "to": one.high,
                    "minutes": one.minutes,
                    "said": round(one.said, 6),
                    "came": round(one.share, 6),
                }
                for one in tested.bins
            ],
        },
    }


def _numbers(tested: "TargetRecord", result: "Result") -> dict[str, Any]:
    from pgbreaker.monitor.backtest import tenth_lead

    if not result.is_scored:
        return {"scored": False, "warnings": result.warnings}
    score = result.score
    return {
        "scored": True,
        "warnings": result.warnings,
        "failures": result.failures,
        "in_time": score.came,
        "late": score.late,
        "missed": score.missed,
        "false": score.false,
        "untold": result.untold,
        "precision": score.precision,
        "recall": score.recall,
        "false_a_day": _false_a_day(tested, score),
        "lead_seconds": {"median": score.lead, "nine_of_ten": tenth_lead(score)},
    }


def _as_event(told: "Told") -> dict[str, Any]:
    return {
        "time": moment(told.at),
        "target": told.target,
        "of": told.of,
        "by": told.by,
        "what": "failure" if told.is_failure else "warning",
        "came": told.came.value,
        "lead_seconds": None if told.lead is None else round(told.lead, 3),
        "ended": None if told.ended is None else moment(told.ended),
        "reason": told.reason,
    }
