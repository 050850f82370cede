"""What is true now, and what happened."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import click

from pgbreaker.cli import options
from pgbreaker.cli.daemon import Asked
from pgbreaker.cli.ending import EndError
from pgbreaker.cli.table import GRADES, UNKNOWN, clip_line, grade, stated, table
from pgbreaker.core import wall
from pgbreaker.core.entry import Kind
from pgbreaker.core.forecast.warning import CONNECTIONS, FAILURE, KINDS
from pgbreaker.core.units import (
    Seconds,
    duration,
    hundredths,
    lasting,
    percent,
    roughly,
)

if TYPE_CHECKING:
    from pgbreaker.web.api.tables import Table

SILENCE: Final[Seconds] = 20.0
"""After so many seconds without a word a stream counts as lost: it has a heartbeat
every five."""

# -- status ------------------------------------------------------------------------


@click.command(
    epilog=options.examples("pgbreaker status", "pgbreaker status --exit-code -o json")
)
@options.form("table", "json", "prom")
@click.option(
    "--exit-code",
    "graded",
    is_flag=True,
    help="Exit 0 when all is closed, 1 half-open or degraded, 2 open, 3 unknown.",
)
@options.asks
def status(daemon: Asked, form: str, graded: bool) -> None:
    """Show every target and breaker of the daemon.

    Below the table is what forecasts warn of. They decide nothing: neither a breaker nor
    the exit code.
    """
    seen = daemon.get("/api/v1/status", "targets", "time")
    if form == "json":
        click.echo(json.dumps(seen, indent=2))
    else:
        lines = _prom(seen) if form == "prom" else shown(seen)
        click.echo("\n".join(lines))
    if graded:
        sys.exit(max(map(grade, seen["targets"]), default=0))


def shown(seen: Mapping[str, Any], *, width: int | None = None) -> Iterator[str]:
    """A status as a table, after what people have decided, before what is foretold."""
    now = moment(seen["time"])
    yield from _told(seen, now)
    rows = []
    for target in seen["targets"]:
        rows.append((target["name"], "", stated(target["state"]), "", _why(target)))
        rows += [
            (
                "",
                breaker["operation"],
                stated(breaker["state"]),
                _age(breaker["since"], now),
                why(breaker),
            )
            for breaker in target["breakers"]
        ]
    yield from table(("TARGET", "BREAKER", "STATE", "FOR", "WHY"), rows, width=width)
    for told in seen.get("warnings", ()):  # an older daemon has none
        age = _age(told["since"], now)
        yield clip_line(f"{told['target']}: {told['reason']} (warned for {age})", width)


def why(breaker: Mapping[str, Any]) -> str:
    """Why a breaker is as it is, without its name, its state and the time for which it
    has been so, which stand beside."""
    state = "half-open" if breaker["state"] == "half_open" else breaker["state"]
    said = f"breaker {breaker['name']!r} is {state}"
    reason = str(breaker["reason"]).removeprefix(said)
    return _FOR.sub("", reason).strip()


_FOR: Final = re.compile(r"^ for [^:;,]*: ")


def _why(target: Mapping[str, Any]) -> str:
    """Why a target is as it is; not again, where one of its breakers says it."""
    # Not word by word: each says how long it is until the next trial, a moment later.
    reason = str(target["reason"])
    names = (breaker["name"] for breaker in target["breakers"])
    return "" if any(reason.startswith(f"breaker {n!r} is ") for n in names) else reason


def _told(seen: Mapping[str, Any], now: datetime) -> Iterator[str]:
    """What a person has to know before the rest: somebody's word goes before it, and
    the daemon cannot do all that it should."""
    reload, store = seen.get("reload"), seen.get("store")
    if reload and not reload["ok"]:
        first = str(reload["problem"]).partition("\n")[0]
        yield f"the configuration on disk is not in force: {first}"
    if store and store["degraded"]:
        yield f"the store cannot be written to: {store['problem']}"
    if store and store.get("audit_fault"):
        yield f"the audit log is not as it was written: {store['audit_fault']}"
    peers = seen.get("peers")
    if peers and not peers["joined"]:
        yield f"the engine is lost, {peers['name']} goes on alone: {peers['problem']}"
    for target in seen["targets"]:
        window = target.get("maintenance")
        if window:
            left = _age(seen["time"], moment(window["ends"]))
            yield f"{target['name']} is in maintenance for {left}: {window['reason']}"
        for breaker in target["breakers"]:
            override = breaker["override"]
            if override is not None:
                ends = override["until"]
                until = (
                    "" if ends is None else f" for {_age(seen['time'], moment(ends))}"
                )
                yield (
                    f"{breaker['name']} is {override['state']}{until} by"
                    f" {override['author']}: {override['reason']}"
                    f" (it would be {breaker['computed_state']})"
                )


def _age(since: str, now: datetime) -> str:
    return lasting(max(0.0, (now - moment(since)).total_seconds()))


def moment(text: str) -> datetime:
    """Read a moment as the daemon writes it."""
    return datetime.fromisoformat(text)


def _prom(seen: Mapping[str, Any]) -> Iterator[str]:
    """States and warnings alone, for a node exporter's text file collector."""
    name = "pgbreaker_breaker_state"
    yield f"# HELP {name} 1 for the state that the breaker is in."
    yield f"# TYPE {name} gauge"
    for target in seen["targets"]:
        for breaker in target["breakers"]:
            labels = (
                f'target="{target["name"]}",operation="{breaker["operation"]}",'
                f'breaker="{breaker["name"]}"'
            )
            for state in GRADES:
                is_it = int(state == breaker["state"])
                yield f'{name}{{{labels},state="{state}"}} {is_it}'
    yield from _prom_warnings(seen.get("warnings", ()))


def _prom_warnings(warnings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not warnings:
        return
    name = "pgbreaker_forecast_warning"
    yield f"# HELP {name} 1 for what is warned of."
    yield f"# TYPE {name} gauge"
    for told in warnings:
        yield f'{name}{{target="{told["target"]}",of="{told["of"]}"}} 1'


# -- check -------------------------------------------------------------------------

_WORDS: Final = ("OK", "WARNING", "CRITICAL", "UNKNOWN")

_PRESSING: Final = frozenset((CONNECTIONS, "pool", FAILURE))
"""What is worth a WARNING when it is foretold: it turns callers away within the hour."""


@click.command(epilog=options.examples("pgbreaker check primary"))
@click.argument("target")
@options.asks
def check(daemon: Asked, target: str) -> None:
    """Say how TARGET is, by the protocol of Nagios.

    Exits 0 when all its breakers are closed, 1 when one is half-open or it is
    degraded, 2 when one is open, 3 when that is not known. In maintenance it is 0.
    It is 1, too, while it is warned that connection slots or a pool run out, or that a
    breaker opens. Other warnings, of what has days, are told and change no code.
    """
    # Whoever asks by this protocol knows four codes and reads stdout alone.
    try:
        answer = daemon.ask("GET", f"/api/v1/targets/{quote(target, safe='')}")
        if not answer.is_good:
            raise daemon.refused(answer)
        seen = daemon.read(answer, "state", "breakers", "probes", "facts")
    except EndError as error:
        click.echo(f"PGBREAKER UNKNOWN - {error.message.splitlines()[0]}")
        sys.exit(UNKNOWN)
    found = grade(seen)
    said = _said(seen)
    warnings = (seen.get("forecast") or {}).get("warnings", ())  # an older one has none
    if any(told["of"] in _PRESSING for told in warnings):
        found = max(found, 1)
    said = "; ".join((said, *(f"forecast: {told['reason']}" for told in warnings)))
    if seen.get("maintenance"):
        said = f"in maintenance ({seen['maintenance']['reason']}); {said}"
        found = 0
    # A bar begins the performance data.
    said = said.replace("|", "/")
    click.echo(f"PGBREAKER {_WORDS[found]} - {target}: {said} | {_performance(seen)}")
    sys.exit(found)


def _said(target: Mapping[str, Any]) -> str:
    shut = [b for b in target["breakers"] if GRADES.get(b["state"], UNKNOWN)]
    if not shut:
        return str(target["reason"])
    named = ", ".join(f"{b['operation']} {b['state']}" for b in shut)
    return f"{named}: {why(shut[0])}"


def _performance(target: Mapping[str, Any]) -> str:
    """Numbers as https://nagios-plugins.org/doc/guidelines.html has them."""
    parts = [
        f"{b['operation']}={GRADES.get(b['state'], UNKNOWN)};1;2;0;2"
        for b in target["breakers"]
    ]
    for probe in target["probes"]:
        last = probe["last"]
        if last is not None and last["outcome"] in ("ok", "slow"):
            limit = f"{probe['timeout_seconds']:g}"
            parts.append(f"{probe['name']}={last['took_seconds']:.6f}s;;{limit};0")
    ratio = target["facts"].get("slots_ratio")
    if isinstance(ratio, int | float):
        # Not "slots": a probe is called that, and labels may not come twice.
        parts.append(f"slots_used={ratio * 100:.1f}%;80;90;0;100")
    return " ".join(parts)


# -- explain -----------------------------------------------------------------------


@click.command(
    epilog=options.examples(
        "pgbreaker explain primary/read",
        "pgbreaker explain primary/read --at 2026-11-26T03:12:00Z",
    )
)
@click.argument("breaker")
@click.option(
    "--at",
    "at",
    metavar="TIME",
    help="As it was then: a time (RFC 3339), or how long ago, such as 2h.",
)
@options.asks
def explain(daemon: Asked, breaker: str, at: str | None) -> None:
    """Say what BREAKER does, why, and what it goes by."""
    seen = daemon.get(place_of(breaker), "state", "override")
    if at is not None:
        _explain_then(daemon, breaker, instant(at))
        return
    click.echo(f"{seen['name']} is {stated(seen['state'])}: {why(seen)}")
    facts: list[tuple[str, str]] = [("since", str(seen["since"]))]
    override = seen["override"]
    if override is not None:
        by = f"{override['author']} until {override['until'] or 'handed back'}"
        facts.append(("override", f"{override['state']} by {by}: {override['reason']}"))
        facts.append(("by itself", str(seen["computed_state"])))
    facts += _of_daemons(seen.get("fleet"))
    facts += [
        (name, str(value))
        for name, value in seen["cause"].items()
        if value is not None and name != "code"
    ]
    if seen["cause"]["code"] is not None:
        facts.append(("cause", str(seen["cause"]["code"])))
    if seen["retry_after_seconds"]:
        facts.append(("tried again in", lasting(seen["retry_after_seconds"])))
    if seen.get("applications") is not None:  # an older daemon hears none
        facts.append(("applications", str(seen["applications"]["text"])))
    window = seen.get("window") or {}
    facts += [(f"window {name}", _number(value)) for name, value in window.items()]
    facts += _passed(daemon, seen)
    facts += _foretold(daemon, seen)
    _list_facts(facts)


def _of_daemons(fleet: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """What several daemons think of a breaker; nothing where there is one."""
    if fleet is None or fleet["voters"] < 2:
        return
    said = f"{fleet['open']} of {fleet['voters']} see it open"
    yield "daemons", f"{said} ({fleet['needed']} needed)"
    for view in fleet["views"]:
        why_ = f": {view['reason']}" if view["opinion"] == "open" else ""
        yield f"  {view['daemon']}", f"{view['opinion']}{why_}"


def _passed(daemon: Asked, breaker: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """How much of the time a breaker let calls pass; nothing where no store knows it."""
    target = quote(breaker["target"], safe="")
    try:
        answer = daemon.ask("GET", f"/api/v1/targets/{target}/summary")
    except EndError:  # what it does now was told, and stands without its past
        return
    if not answer.is_good:
        return
    for span in daemon.read(answer, "spans")["spans"]:
        share = span["breakers"][breaker["operation"]]["passed_ratio"]
        if share is not None:
            said = f"{hundredths(share)} of {lasting(span['seen_seconds'])} seen"
            yield f"passed in {span['span']}", said


def _foretold(daemon: Asked, breaker: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is foretold of a breaker's target, warnings first; nothing where this daemon
    does not watch it, or is an older one."""
    target = quote(breaker["target"], safe="")
    try:
        answer = daemon.ask("GET", f"/api/v1/targets/{target}")
    except (
        EndError
    ):  # what the breaker does now was told, and stands without its future
        return
    seen = daemon.read(answer, "name").get("forecast") if answer.is_good else None
    if not seen:
        return
    for told in seen["warnings"]:
        record = seen["record"].get(told["of"])
        said = f"{told['reason']} (since {told['since']}"
        yield "warned of", f"{said}; {record['text']})" if record else f"{said})"
    for change in seen["changes"]:
        yield "not as usual", str(change["text"])
    if seen["failure_probability"] is not None:
        yield "may open", "; ".join((_odds(seen), *seen["reasons"]))
    elif seen["silent_because"] is not None:
        yield "may open", f"the model is silent: {seen['silent_because']}"


def _odds(seen: Mapping[str, Any]) -> str:
    likely = percent(seen["failure_probability"])
    return f"{likely} likely within {roughly(KINDS[FAILURE].within)}"


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _explain_then(daemon: Asked, breaker: str, at: datetime) -> None:
    """Tell the last move before a moment, and the next one after it."""
    # An id is the time of it, in milliseconds.
    then = int(at.timestamp() * 1000)
    chosen = {"breaker": breaker, "kind": "transition,override", "limit": 1}
    before = _page(daemon, {**chosen, "before": then + 1})
    after = _page(daemon, {**chosen, "after": then})
    if not before:
        oldest = f"the first that is known is of {after[0]['time']}" if after else ""
        raise EndError(
            f"what {breaker} was at {written(at)} is not known: no event of it is"
            f" that old; {oldest or 'there is none at all'}"
        )
    last = before[-1]
    details = last.get("details") or {}
    state = details.get("to") or details.get("state") or "deciding by itself"
    click.echo(f"{breaker} was {stated(state)} at {written(at)}: {last['text']}")
    facts = [("since", last["time"]), ("by", last.get("author"))]
    evidence = details.get("evidence") or {}
    facts += [(name, evidence.get(name)) for name in _EVIDENCE]
    if after:
        facts.append(("then", f"{after[0]['time']} {after[0]['text']}"))
    _list_facts([(name, str(value)) for name, value in facts if value])


_EVIDENCE: Final = ("code", "sqlstate", "probe", "text")


def _list_facts(facts: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        click.echo(f"  {name.ljust(width)}  {value}")


def place_of(breaker: str) -> str:
    """The address of a breaker that is named ``target/operation``.

    Raises:
        UsageError: That is no such name.
    """
    target, slash, operation = breaker.partition("/")
    if not slash or not target or not operation:
        raise click.UsageError(
            f"{breaker!r} is no breaker; they are named like primary/read"
        )
    return f"/api/v1/breakers/{quote(target, safe='')}/{quote(operation, safe='')}"


# -- events ------------------------------------------------------------------------


@click.command(
    epilog=options.examples(
        "pgbreaker events --since 24h -o md", "pgbreaker events --follow"
    )
)
@options.form("table", "json", "csv", "md")
@click.option(
    "--since",
    default="24h",
    show_default=True,
    metavar="TIME",
    help="From then on: how long ago, or a time (RFC 3339).",
)
@click.option("--target", metavar="NAME", help="Those of this target alone.")
@click.option("--breaker", metavar="NAME", help="Those of this breaker alone.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help=f"Of this kind alone: {', '.join(Kind)}. May be said several times.",
)
@click.option("--limit", type=click.IntRange(min=1), help="The last so many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with those to come.")
@options.asks
def events(
    daemon: Asked,
    form: str,
    since: str,
    target: str | None,
    breaker: str | None,
    kinds: Sequence[str],
    limit: int | None,
    follow: bool,
) -> None:
    """Show what happened, oldest first."""
    if follow and form in ("csv", "md"):
        raise click.UsageError(f"-o {form} has an end; --follow has none")
    chosen = {"target": target, "breaker": breaker}
    more = {name: value for name, value in chosen.items() if value is not None}
    found = list(_entries(daemon, since=instant(since), kinds=kinds, **more))
    if not found and more:
        _check_names(daemon, more)
    found = found[-limit:] if limit is not None else found
    if form == "json" and not follow:
        click.echo(json.dumps(found, indent=2))
    else:
        for line in _WRITERS["lines" if form == "json" else form](found):
            click.echo(line)
    if follow:
        after = str(found[-1]["id"]) if found else None
        _follow(daemon, after, form, kinds, more)


def _check_names(daemon: Asked, chosen: Mapping[str, str]) -> None:
    """Complain where nothing that there is, or that the history tells of, is called so.

    Raises:
        EndError: There is no such name.
    """
    breakers = [str(b["name"]) for b in daemon.get("/api/v1/breakers")]
    targets = list(dict.fromkeys(name.rpartition("/")[0] for name in breakers))
    for kind, name in chosen.items():
        there_are = targets if kind == "target" else breakers
        # The history may know it from before it was taken out of the configuration.
        if name in there_are or _page(daemon, {kind: name, "limit": 1}):
            continue
        near = get_close_matches(name, there_are, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        told = ", ".join(there_are[:_NAMED])
        if len(there_are) > _NAMED:
            told += f" and {len(there_are) - _NAMED} more"
        raise EndError(
            f"no {kind} is called {name!r}{meant}, now or in the history; there are"
            f" {told}"
        )


_NAMED: Final = 20
_PAGE: Final = 1000


def _entries(
    daemon: Asked, *, since: datetime, kinds: Sequence[str] = (), **chosen: str
) -> Iterator[dict[str, Any]]:
    """Every event since a moment, a page after the other."""
    after: int | None = None
    while True:
        asked: dict[str, Any] = {"since": written(since), "limit": _PAGE, **chosen}
        if kinds:
            asked["kind"] = ",".join(kinds)
        if after is not None:
            asked["after"] = after
        page = _page(daemon, asked)
        yield from page
        if len(page) < _PAGE or page[-1]["id"] == after:
            return
        after = page[-1]["id"]


def _page(daemon: Asked, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    answer = daemon.get("/api/v1/events?" + urlencode(asked), "events")
    found: list[dict[str, Any]] = answer["events"]
    return found


def _follow(
    daemon: Asked,
    after: str | None,
    form: str,
    kinds: Sequence[str],
    chosen: Mapping[str, str],
) -> None:
    """Print what comes, until interrupted; what is lost meanwhile is caught up with."""
    from pgbreaker.cli.following import follow

    write = _WRITERS["lines" if form == "json" else "told"]
    try:
        for told in follow(daemon, after, silence=SILENCE):
            if told.kind not in _KINDS:
                continue
            entry = told.json()
            is_meant = all(entry.get(name) == v for name, v in chosen.items())
            if is_meant and (not kinds or entry["kind"] in kinds):
                for line in write([entry]):
                    click.echo(line)
    except KeyboardInterrupt:
        click.echo()


_KINDS: Final = frozenset(kind.value for kind in Kind)


def _as_table(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not entries:
        return
    rows = [_row(entry) for entry in entries]
    yield from table(("TIME", "KIND", "WHAT", "WHY"), rows)


def _row(entry: Mapping[str, Any]) -> tuple[str, str, str, str]:
    of = entry.get("breaker") or entry.get("target") or ""
    text, details = str(entry["text"]), entry.get("details") or {}
    if entry["kind"] == "transition":
        text = f"{details['from']} -> {details['to']}: {text}"
    by = f" ({entry['author']})" if entry.get("author") else ""
    return str(entry["time"]), str(entry["kind"]), str(of), f"{text}{by}"


def _told_lines(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Lines of those that come one by one, for which no width is known beforehand."""
    for entry in entries:
        at, kind, of, text = _row(entry)
        yield f"{at}  {kind:<11}  {of:<20}  {text}".rstrip()


def _as_lines(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    return (json.dumps(entry, ensure_ascii=False) for entry in entries)


_COLUMNS: Final = ("id", "time", "kind", "target", "breaker", "author", "text")


def _as_csv(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    from pgbreaker.web.api.tables import as_csv

    yield as_csv(_columns(entries)).rstrip("\r\n")


def _as_markdown(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    from pgbreaker.web.api.tables import as_markdown

    yield as_markdown(_columns(entries)).rstrip("\n")


def _columns(entries: Sequence[Mapping[str, Any]]) -> "Table":
    """The table that the daemon itself writes, of more events than it does at once."""
    from pgbreaker.web.api.tables import Table

    rows = [
        [str(entry[name]) if entry[name] is not None else "" for name in _COLUMNS]
        for entry in entries
    ]
    return Table("Events", _COLUMNS, rows)


_WRITERS: Final = {
    "table": _as_table,
    "told": _told_lines,
    "lines": _as_lines,
    "csv": _as_csv,
    "md": _as_markdown,
}


def instant(text: str) -> datetime:
    """Read a moment: how long ago, or a time; without a zone it is this machine's.

    Raises:
        UsageError: It is neither.
    """
    try:
        return datetime.now(UTC) - timedelta(seconds=duration(text))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"{text!r} is no moment; write 2h, or 2026-11-26T03:12:00Z"
        ) from None
    return found.astimezone(UTC)


def written(at: datetime) -> str:
    """Write a moment as the daemon does."""
    return wall.moment(at.timestamp())
