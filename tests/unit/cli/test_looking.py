"""What commands show of a daemon that serves a scene."""

import asyncio
import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pgbreaker.cli.looking import (
    _as_csv,
    _as_markdown,
    _performance,
    instant,
    why,
    written,
)
from pgbreaker.cli.looking import shown as table_of
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.reading import Finding
from pgbreaker.probes import PROBES
from pgbreaker.sinks.store import Bucket, Counts
from support.foretelling import (
    AGEING,
    CALM,
    CHANGE,
    LIKELY,
    REASON,
    TELLING,
    foretell,
)
from support.site import serving
from support.storing import storing


async def shown(command, served, *words: str, **env: str):
    """Run a command that asks the scene."""
    url = f"http://127.0.0.1:{served.port}"
    return await asyncio.to_thread(command, *words, "--url", url, **env)


async def test_a_status_is_a_table_of_states_with_their_age(command):
    async with serving() as served:
        served.scene.read()
        served.scene.time.now += 10
        served.scene.open("connect")
        served.scene.time.now += 65
        done = await shown(command, served, "status")

    head, *lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert head.split() == ["TARGET", "BREAKER", "STATE", "FOR", "WHY"]
    (line,) = [line for line in lines if " connect " in line]
    assert "○ open" in line
    assert "1 min 5 s" in line
    assert "sorry, too many clients already" in line
    # Columns stand below their heads.
    assert line.index("○ open") == head.index("STATE")


def test_what_the_daemon_cannot_do_is_said_before_the_rest():
    seen = {
        "time": "2026-11-26T03:12:00.000Z",
        "reload": {"ok": False, "problem": "a.yaml:1:1: this\na.yaml:2:1: that"},
        "store": {
            "degraded": True,
            "problem": "the disk is full",
            "audit_fault": "line 2 of the audit log was changed",
        },
        "targets": [],
    }

    assert list(table_of(seen))[:3] == [
        "the configuration on disk is not in force: a.yaml:1:1: this",
        "the store cannot be written to: the disk is full",
        "the audit log is not as it was written: line 2 of the audit log was changed",
    ]


async def test_where_glyphs_cannot_be_written_there_are_signs(command):
    async with serving() as served:
        served.scene.read()
        done = await shown(command, served, "status", PYTHONIOENCODING="ascii")

    assert "closed" in done.stdout


async def test_a_status_for_programs_is_the_daemons_own(command):
    async with serving() as served:
        served.scene.read()
        done = await shown(command, served, "status", "-o", "json")
        _, there = await served.get("/api/v1/status")

    assert json.loads(done.stdout) == there


async def test_a_status_for_a_text_file_collector_has_every_state(command):
    async with serving() as served:
        served.scene.open("connect")
        done = await shown(command, served, "status", "-o", "prom")

    lines = done.stdout.splitlines()
    ones = [line for line in lines if line.endswith(" 1")]
    assert lines[1] == "# TYPE pgbreaker_breaker_state gauge"
    assert (
        'pgbreaker_breaker_state{target="main",operation="connect",'
        'breaker="main/connect",state="open"} 1'
    ) in ones
    assert len(ones) == 3
    assert len(lines) == 2 + 3 * 6


@pytest.mark.parametrize(
    ("happens", "code"),
    [("nothing", 3), ("good", 0), ("bad", 1), ("open", 2)],
)
async def test_how_bad_it_is_is_the_exit_code(happens, code, command):
    async with serving() as served:
        if happens != "nothing":
            served.scene.read()
        if happens == "bad":
            served.scene.read("login", Finding.TIMEOUT)
        if happens == "open":
            served.scene.open("connect")
        done = await shown(command, served, "status", "--exit-code")
        nagios = await shown(command, served, "check", "main")

    assert done.exit_code == code
    assert nagios.exit_code == code


async def test_what_is_warned_of_is_below_the_table(command):
    async with serving("main", "other") as served:
        foretell(served.scene.board.targets["other"], TELLING)
        served.scene.read()
        table = await shown(command, served, "status")
        prom = await shown(command, served, "status", "-o", "prom")

    assert table.stdout.splitlines()[-2:] == [
        f"other: {REASON} (warned for 1 min 0 s)",
        f"other: {AGEING.reason} (warned for 1 min 30 s)",
    ]
    assert prom.stdout.splitlines()[-3:] == [
        "# TYPE pgbreaker_forecast_warning gauge",
        'pgbreaker_forecast_warning{target="other",of="connections"} 1',
        'pgbreaker_forecast_warning{target="other",of="xid"} 1',
    ]


# -- check -------------------------------------------------------------------------

# https://nagios-plugins.org/doc/guidelines.html: 'label'=value[UOM];[warn];[crit];[min];[max]
PERFORMANCE = re.compile(r"[\w-]+=-?[\d.]+(s|%)?(;[\d.]*){1,4}")


async def test_a_check_is_one_line_with_numbers(command):
    async with serving() as served:
        served.scene.read(values={"slots_ratio": 0.25})
        done = await shown(command, served, "check", "main")

    (line,) = done.stdout.splitlines()
    said, bar, numbers = line.partition(" | ")
    assert said.startswith("PGBREAKER OK - main: answered the last ping in ")
    assert bar
    for number in numbers.split():
        assert PERFORMANCE.fullmatch(number), number
    assert "slots_used=25.0%;80;90;0;100" in numbers
    assert "read=0;1;2;0;2" in numbers


async def test_a_check_of_what_is_open_says_which_and_why(command):
    async with serving() as served:
        served.scene.read()
        served.scene.open("connect")
        done = await shown(command, served, "check", "main")

    assert done.stdout.startswith("PGBREAKER CRITICAL - main: connect open: ")


async def test_a_check_warns_of_what_turns_callers_away_within_the_hour(command):
    """What has days wakes nobody, and is told all the same."""
    async with serving() as served:
        target = served.scene.board.targets["main"]
        served.scene.read()
        foretell(target, replace(TELLING, warnings=(AGEING,)))
        slow = await shown(command, served, "check", "main")
        foretell(target, TELLING)
        soon = await shown(command, served, "check", "main")
        graded = await shown(command, served, "status", "--exit-code")
        served.scene.open("connect")
        shut = await shown(command, served, "check", "main")

    assert (slow.exit_code, soon.exit_code, shut.exit_code) == (0, 1, 2)
    assert f"; forecast: {AGEING.reason} | " in slow.stdout
    assert soon.stdout.startswith(
        "PGBREAKER WARNING - main: answered the last ping in "
    )
    assert f"; forecast: {REASON}; forecast: " in soon.stdout
    assert graded.exit_code == 0


def test_no_number_of_a_check_comes_twice():
    """A probe is called slots, and the share of them that is taken is told as well."""
    last = {"outcome": "ok", "took_seconds": 0.001}
    seen = {
        "breakers": [],
        "probes": [
            {"name": name, "timeout_seconds": 1, "last": last} for name in PROBES
        ],
        "facts": {"slots_ratio": 0.25},
    }

    labels = re.findall(r"([\w-]+)=", _performance(seen))

    assert len(labels) == len(PROBES) + 1
    assert len(labels) == len(set(labels))


async def test_a_check_of_nobody_or_by_nobody_is_unknown_and_not_a_code_of_ours(
    command,
):
    async with serving() as served:
        nobody = await shown(command, served, "check", "mian")
    away = command("check", "main", "--url", "http://127.0.0.1:1")

    assert (nobody.exit_code, away.exit_code) == (3, 3)
    assert nobody.stdout.startswith("PGBREAKER UNKNOWN - no target is called 'mian'")
    assert away.stdout.startswith("PGBREAKER UNKNOWN - no daemon answers at ")
    assert nobody.stderr == away.stderr == ""


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        ("open", "breaker 'main/read' is open for 2.0 s: it failed", "it failed"),
        (
            "half_open",
            "breaker 'main/read' is half-open for 2.0 s: 1 of 2 trials succeeded",
            "1 of 2 trials succeeded",
        ),
        (
            "forced_open",
            (
                "breaker 'main/read' is forced_open by me (a test), for another 5 min 0 s;"
                " by itself it is open for 1.1 s: it failed"
            ),
            (
                "by me (a test), for another 5 min 0 s; by itself it is open for 1.1 s: it"
                " failed"
            ),
        ),
        ("closed", "something else: it says", "something else: it says"),
    ],
)
def test_what_stands_beside_is_not_said_again(state, reason, said):
    assert why({"name": "main/read", "state": state, "reason": reason}) == said


def test_why_a_target_is_down_is_not_said_again_where_its_breaker_says_it():
    reason = "breaker 'main/read' is open for 9.0 s: it failed; next trial in {} ms"
    read = {"name": "main/read", "operation": "read", "state": "open"}
    read |= {"reason": reason.format(919), "override": None}
    read |= {"since": "2026-11-26T03:11:51.000Z"}
    target = {"name": "main", "state": "down", "breakers": [read]}
    target |= {"reason": reason.format(920)}
    seen = {"time": "2026-11-26T03:12:00.000Z", "targets": [target]}

    assert "\n".join(table_of(seen)).count("it failed") == 1


# -- explain -----------------------------------------------------------------------


async def test_a_breaker_is_explained_with_what_it_goes_by(command):
    async with serving() as served:
        served.scene.read()
        served.scene.open("connect")
        done = await shown(command, served, "explain", "main/connect")

    assert done.exit_code == 0
    assert done.stdout.startswith("main/connect is ○ open: ")
    assert re.search(r"^  sqlstate\s+53300$", done.stdout, re.M)
    assert re.search(r"^  probe\s+login$", done.stdout, re.M)
    assert re.search(r"^  tried again in\s+1\.0 s$", done.stdout, re.M)


async def test_a_breaker_is_explained_with_what_applications_report_of_it(command):
    """The probe is fine, and applications fail: that is why somebody asks."""
    told = {
        "name": "orders",
        "follows": "main/read",
        "state": "open",
        "by": "calls",
        "reason": "12 of 20 calls failed",
    }
    async with serving() as served:
        silent = await shown(command, served, "explain", "main/read")
        for number in range(3):
            breakers = [told | {"state": "open" if number else "closed"}]
            report = {"instance": f"web-{number}", "breakers": breakers}
            async with served.client.post("/api/v1/reports", json=report) as answer:
                assert answer.status == 200
        done = await shown(command, served, "explain", "main/read")

    assert "applications" not in silent.stdout
    assert done.stdout.startswith("main/read is ● closed: ")
    said = "2 of 3 processes have it open, by their own calls: 12 of 20 calls failed"
    assert re.search(f"^  applications +{said}$", done.stdout, re.MULTILINE)


async def test_a_breaker_is_explained_with_what_is_foretold_of_its_target(command):
    async with serving() as served:
        target = served.scene.board.targets["main"]
        unwatched = await shown(command, served, "explain", "main/read")
        foretell(target, TELLING)
        warned = await shown(command, served, "explain", "main/read")
        foretell(target, replace(CALM, model=LIKELY))
        likely = await shown(command, served, "explain", "main/read")

    assert "may open" not in unwatched.stdout
    came = "3 of 4 such warnings came true, 1 failure came unannounced"
    lines = [re.sub(" {2,}", "  ", line) for line in warned.stdout.splitlines()[-4:]]
    assert lines == [
        f"  warned of  {REASON} (since 2027-01-15T08:00:40.000Z; {came})",
        f"  warned of  {AGEING.reason} (since 2027-01-15T08:00:10.000Z)",
        f"  not as usual  {CHANGE.text}",
        "  may open  the model is silent: has seen 2 of the 5 openings that it needs",
    ]
    assert re.search(
        r"^  may open +31 % likely within 15 min; waits for locks grow;"
        " statements take twice as long$",
        likely.stdout,
        re.MULTILINE,
    )


async def test_a_daemon_that_foretells_nothing_is_shown_without(command):
    """One of before there were forecasts."""
    async with serving() as served:
        foretell(served.scene.board.targets["main"], TELLING)
        served.scene.read()
        views = served.inside.views
        views.target = _without("forecast", views.target)
        views.status = _without("warnings", views.status)
        done = [
            await shown(command, served, *words)
            for words in (("explain", "main/read"), ("check", "main"), ("status",))
        ]

    assert [one.exit_code for one in done] == [0, 0, 0]
    assert not any("slots are full" in one.stdout for one in done)


def _without(key, show):
    return lambda *args: {k: v for k, v in show(*args).items() if k != key}


async def test_a_breaker_is_explained_with_its_past_where_a_store_knows_it(
    command, tmp_path
):
    minute, path = 1_800_000_000, tmp_path / "state.db"
    async with storing(path) as store:
        bucket = Bucket(minute, 60, 0.12, 0.004, 0)
        store.count(Counts({("main", minute): bucket}, {("main/read", minute): 3.0}))
    async with storing(path) as store, serving(store=store) as served:
        served.scene.read()
        known = await shown(command, served, "explain", "main/read")
    async with serving() as served:
        served.scene.read()
        unknown = await shown(command, served, "explain", "main/read")

    assert re.search(
        r"^  passed in 24h +95.00 % of 1 min 0 s seen$", known.stdout, re.M
    )
    assert known.stdout.count("passed in") == 3
    assert "passed" not in unknown.stdout
    assert unknown.exit_code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("--target", "mian"),
            (
                "no target is called 'mian' (did you mean 'main'?), now or in the"
                " history; there are main, other\n"
            ),
        ),
        (("--breaker", "main/raed"), "no breaker is called 'main/raed' (did you mean"),
    ],
)
async def test_events_of_nothing_that_there_is_are_a_failure(command, words, says):
    async with serving("main", "other") as served:
        done = await shown(command, served, "events", *words, "-o", "json")

    assert done.exit_code == 1
    assert done.stderr.startswith(says)
    assert done.stdout == ""


async def test_events_of_what_there_is_or_was_may_be_none(command):
    """The history knows a target that the configuration has no more."""
    async with serving("main") as served:
        past = served.scene.clock.wall()
        text, id_ = "a word on it", int(past * 1000)
        entry = Entry(id=id_, at=past, kind=Kind.NOTICE, text=text, target="gone")
        served.history.entries.append(entry)
        now = datetime.fromtimestamp(past + 3600, UTC)
        since = ("--since", written(now))
        is_there = await shown(command, served, "events", "--target", "main", *since)
        was = await shown(command, served, "events", "--target", "gone", *since)
        old = ("--since", "2020-01-01T00:00:00Z")
        shows = await shown(command, served, "events", "--target", "gone", *old)

    assert (is_there.exit_code, is_there.output) == (0, "")
    assert (was.exit_code, was.output) == (0, "")
    assert text in shows.stdout


async def test_a_breaker_that_there_is_not_is_said_with_those_there_are(command):
    async with serving() as served:
        done = await shown(command, served, "explain", "main/raed")

    assert done.exit_code == 1
    assert done.stderr.startswith("no operation is called 'raed'")
    assert done.stderr.endswith("there are connect, read, write\n")


async def test_what_was_then_is_listed_in_columns(command):
    async with serving() as served:
        served.scene.also(served.history)
        served.scene.read()
        served.scene.open("connect")
        at = written(datetime.fromtimestamp(served.scene.clock.wall(), UTC))
        done = await shown(command, served, "explain", "main/connect", "--at", at)

    values = re.findall(r"^  (\S+ +)\S", done.stdout, re.M)
    assert [value.strip() for value in values][:3] == ["since", "code", "sqlstate"]
    assert len({len(value) for value in values}) == 1


def test_what_is_no_name_of_a_breaker_is_a_wrong_usage(command):
    done = command("explain", "primary")

    assert done.exit_code == 2
    assert "they are named like primary/read" in done.stderr


# -- Lines of events ---------------------------------------------------------------

EVIL = {
    "details": {},
    "id": 1,
    "time": "2026-11-26T03:12:00.000Z",
    "kind": "notice",
    "target": "main",
    "breaker": None,
    "author": None,
    "text": '=cmd|"x" <b>a</b>\nb',
}


def test_a_spreadsheet_takes_nothing_for_a_formula():
    (told,) = _as_csv([EVIL])
    head, _, line = told.partition("\r\n")

    assert head == "id,time,kind,target,breaker,author,text"
    assert line.startswith("1,2026-11-26T03:12:00.000Z,notice,main,,,\"'=cmd|")


def test_markdown_takes_nothing_for_markup():
    (told,) = _as_markdown([EVIL])
    *_, line = told.splitlines()

    assert "<" not in line
    assert "cmd\\|" in line


@pytest.mark.parametrize("text", ["2h", "2026-11-26T03:12:00Z", "2026-11-26 03:12"])
def test_a_moment_is_how_long_ago_or_a_time(text):
    assert instant(text).tzinfo is not None


def test_what_is_no_moment_is_said_with_how_one_is_written(command):
    done = command("events", "--since", "yesterday")

    assert done.exit_code == 2
    assert "write 2h, or 2026-11-26T03:12:00Z" in done.stderr
