"""`pgbreaker simulate`: what a recording would have come to by other thresholds."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgbreaker.cli import options
from pgbreaker.cli.table import stated, table
from pgbreaker.core.units import counted, lasting
from pgbreaker.core.wall import moment

if TYPE_CHECKING:
    from pgbreaker.core.states import Transition
    from pgbreaker.monitor.replay import Course, Replayed


@click.command(
    epilog=options.examples("pgbreaker simulate readings.jsonl --config stricter.yaml")
)
@click.argument(
    "recording", metavar="RECORDING|DIR", type=click.Path(exists=True, path_type=Path)
)
@click.option(
    "--config",
    "path",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="The configuration whose thresholds are tried.",
)
@click.option("--target", metavar="NAME", help="Look at this one alone.")
@options.form("table", "json")
def simulate(recording: Path, path: Path, target: str | None, form: str) -> None:
    """Replay RECORDING against other thresholds.

    RECORDING is what the daemon wrote by its key record, or a directory of such. The readings go through the
    same judgement and the same breakers, on the clock of then; shown is what would have
    opened when, beside what really did. Targets are found by their names.

    Other thresholds would also have had the daemon ask at other times, which no
    recording knows.
    """
    from pgbreaker import config
    from pgbreaker.monitor.replay import replay
    from pgbreaker.sinks.record import read_all

    plans = config.load(path).targets
    names = [plan.name for plan in plans]
    if target is not None and target not in names:
        raise click.UsageError(
            f"no target is called {target!r} in {path}; there are {', '.join(names)}"
        )
    done = replay(partial(read_all, recording), plans, only=target)
    if form == "json":
        click.echo(json.dumps(_as_json(done), indent=2))
        return
    for line in _told(done, path.name):
        click.echo(line)


def _told(done: "Replayed", name: str) -> Iterator[str]:
    if not done.readings:
        yield "nothing of these targets was recorded"
        return
    yield (
        f"{moment(done.began)} to {moment(done.ended)}"
        f" ({lasting(done.ended - done.began)}),"
        f" {counted(done.readings, 'reading')}"
    )
    yield from (part.text for part in done.unread)
    if done.goes_on:
        yield "the breakers had seen more before that, which is not recorded"
    if done.overridden:
        yield (
            f"somebody's word went before a breaker's {counted(done.overridden, 'time')};"
            " shown is what the breakers decided themselves"
        )
    for target in sorted(done.unknown):
        yield f"{target} was recorded, and {name} has no target of that name"
    yield ""
    rows = [
        (
            breaker,
            _course(done.really.get(breaker), done.ended),
            _course(done.simulated.get(breaker), done.ended),
        )
        for breaker in _breakers(done)
    ]
    yield from table(("BREAKER", "REALLY", f"BY {name}"), rows)
    moves = list(_moves(done))
    if moves:
        yield ""
        yield from table(("TIME", "BREAKER", "WHERE", "STATE", "WHY"), moves)


def _breakers(done: "Replayed") -> list[str]:
    return list(dict.fromkeys((*done.simulated, *done.really)))


def _course(course: "Course | None", until: float) -> str:
    if course is None:
        return "-"
    if not course.openings:
        return "stayed closed"
    shut = lasting(course.shut_for(until))
    return f"opened {counted(course.openings, 'time')}, not closed for {shut}"


def _moves(done: "Replayed") -> Iterator[tuple[str, str, str, str, str]]:
    """Every move of both, in order; what was the same in both is told once."""
    both: list[tuple[float, str, str, Transition]] = []
    for breaker in _breakers(done):
        really = done.really.get(breaker)
        simulated = done.simulated.get(breaker)
        left = list(really.moves) if really else []
        for move in simulated.moves if simulated else ():
            same = next((one for one in left if _is_same(one, move)), None)
            if same is not None:
                left.remove(same)
            where = "both" if same is not None else "simulated"
            both.append((move.at, breaker, where, move))
        both += [(one.at, breaker, "really", one) for one in left]
    for at, breaker, where, move in sorted(both, key=lambda row: row[:3]):
        yield moment(at), breaker, where, stated(move.after.value), move.reason


def _is_same(one: "Transition", other: "Transition") -> bool:
    return one.after is other.after and abs(one.at - other.at) < 0.05


def _as_json(done: "Replayed") -> dict[str, Any]:
    def told(course: "Course | None") -> dict[str, Any] | None:
        if course is None:
            return None
        return {
            "opened": course.openings,
            "not_closed_seconds": round(course.shut_for(done.ended), 3),
            "transitions": [
                {
                    "time": moment(move.at),
                    "from": move.before.value,
                    "to": move.after.value,
                    "cause": move.cause.value,
                    "reason": move.reason,
                }
                for move in course.moves
            ],
        }

    return {
        "began": moment(done.began),
        "ended": moment(done.ended),
        "readings": done.readings,
        "overridden": done.overridden,
        "unknown_targets": sorted(done.unknown),
        "unread": [part.text for part in done.unread],
        "breakers": {
            breaker: {
                "really": told(done.really.get(breaker)),
                "simulated": told(done.simulated.get(breaker)),
            }
            for breaker in _breakers(done)
        },
    }
