"""What must not be in a recording is not, whoever said it and wherever."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbreaker.core.plan import PausePlan, ProbePlan, RecordPlan, TargetPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Cause, Evidence, State, Transition
from pgbreaker.core.text import tidy
from pgbreaker.sinks.record import Heard, Recorder, read
from pgbreaker.sinks.record.discreet import discreet
from support.boards import Scene
from support.taping import lines

# What is secret begins like nothing else here does.
WORDS = st.text("abcdefgh0123-._~ß'\"\\@: /%", min_size=1, max_size=9)
PASSWORDS = WORDS.map("Pw0{}".format)
USERS = st.text("abcdef_", min_size=1, max_size=9).map("Us0{}".format)
HOSTS = st.text("abcdef0123", min_size=1, max_size=9).map("ho0{}.example".format)
QUERIES = st.lists(USERS, min_size=1, max_size=40).map(
    lambda names: "SELECT\n  Qu0 FROM " + " JOIN ".join(names)
)


def plan_of(
    password: str, user: str, host: str, query: str = "SELECT 1", name: str = "main"
) -> TargetPlan:
    probes = {
        "ping": ProbePlan(interval=1.0, timeout=0.5),
        "custom.orders": ProbePlan(interval=30.0, timeout=1.0, query=query),
    }
    dsn = Secret(f"postgresql://{quote(user)}:{quote(password, safe='')}@{host}/app")
    return TargetPlan(name=name, dsn=dsn, probes=probes)


def recorded(folder: Path, plans: list[TargetPlan], *events) -> Path:
    """Record what is said of the first of *plans*."""
    path = folder / "readings.jsonl"
    recorder = Recorder(RecordPlan(path=path), plans, Scene().clock, "1.2.3")
    recorder.start()
    for event in events:
        recorder(event)
    recorder.close()
    return path


def said(told: str, name: str = "ping") -> list[Reading | Transition]:
    """Events that say *told* wherever something can be said."""
    seen = Evidence("auth", told, "28P01", name)
    row = {"query": told, "key": f"of {told}", "value": 1.0}
    values = {"blocker": told, "rows": (row, {"odd": told})}
    reading = Reading("main", name, 1.0, 0.1, Finding.AUTH, evidence=seen)
    return [
        reading,
        replace(reading, finding=Finding.OK, values=values, evidence=None),
        Transition(
            *("main/read", State.CLOSED, State.OPEN, Cause.CONFIRMED, told),
            *(1.0, 1, 1.0, seen),
        ),
    ]


def texts(told: object) -> list[str]:
    """Every text in what a line says."""
    if isinstance(told, str):
        return [told]
    parts = told.values() if isinstance(told, dict) else told
    return [t for p in parts for t in texts(p)] if isinstance(told, dict | list) else []


@given(
    password=PASSWORDS,
    user=USERS,
    host=HOSTS,
    query=QUERIES,
    between=st.sampled_from([" ", "\n", '" "', "@", "://", " (", "='"]),
)
@settings(max_examples=60, deadline=None)
def test_no_secret_is_in_a_recording_whatever_is_said(
    password, user, host, query, between
):
    told = between.join(["", password, user, host, tidy(query), host, query, ""])
    plan = plan_of(password, user, host, query)

    with TemporaryDirectory() as folder:
        path = recorded(Path(folder), [plan], *said(told), *said(told, "custom.orders"))
        whole = "\n".join(t for line in lines(path) for t in texts(line))

    for secret in (password, quote(password, safe=""), user, host, "Qu0"):
        assert secret not in whole
    assert whole.count("…") >= 6


@pytest.mark.parametrize(
    "plan",
    [
        replace(
            plan_of("x", "me", "db"),
            pause=PausePlan(
                address=Secret("postgresql://Us0:Pw0@ho0.example/pgbouncer"),
                database="app",
            ),
        ),
        replace(
            plan_of("x", "me", "db"),
            probes={
                "pgbouncer": ProbePlan(
                    interval=1.0,
                    timeout=1.0,
                    address=Secret("postgresql://Us0:Pw0@ho0.example/pgbouncer"),
                )
            },
        ),
        replace(
            plan_of("x", "me", "db"),
            dsn=Secret("postgresql:///app?host=ho0.example&user=Us0&password=Pw0"),
        ),
        plan_of("Pw0", "Us0", "ho0.example", name="another"),
    ],
    ids=["pause", "pooler", "parameters", "another-target"],
)
def test_every_address_is_looked_at(tmp_path, plan):
    told = "password Pw0 of Us0 at ho0.example"

    path = recorded(tmp_path, [plan_of("x", "me", "db"), plan], *said(told))

    assert not {"Pw0", "Us0", "ho0"} & set(path.read_text("utf-8").split())
    for secret in ("Pw0", "Us0", "ho0.example"):
        assert secret not in path.read_text("utf-8")


def test_a_password_in_a_file_is_not_in_it_either(tmp_path):
    file = tmp_path / "password"
    file.write_text("Pw0\n", "utf-8")
    plan = replace(plan_of("x", "me", "db"), password_file=file)

    path = recorded(tmp_path, [plan], *said("it was Pw0"))

    assert "Pw0" not in path.read_text("utf-8")


def test_what_only_looks_like_a_name_is_left_as_it_is():
    """Users and hosts are words of their own; a password is none of anybody's."""
    told = discreet([plan_of("secret", "me", "db")])

    assert told("some time, mydb, db_2") == "some time, mydb, db_2"
    assert told('user "me" at db') == 'user "…3" at …2'
    assert told("xsecretx") == "x…1x"


def test_two_hosts_by_which_slots_are_called_stay_two(tmp_path):
    plans = [plan_of("x", "me", host, name=host) for host in ("db1", "db2")]
    rows = ({"slot": "db1", "retained_bytes": 1}, {"slot": "db2", "retained_bytes": 2})
    reading = Reading("db1", "slots", 1.0, 0.1, Finding.OK, values={"slots": rows})

    path = recorded(tmp_path, plans, reading)

    (event,) = [event for event in read(path) if isinstance(event, Heard)]
    assert event.reading.target == "db1"  # what a target is called is the user's word
    slots = [row["slot"] for row in event.reading.values["slots"]]
    assert len(set(slots)) == 2
    assert not {"db1", "db2"} & set(slots)


def test_an_address_that_leads_nowhere_hides_what_it_holds():
    plan = replace(
        plan_of("x", "me", "db"), dsn=Secret("postgresql://Us0:Pw0@ho0:port/app")
    )

    told = discreet([plan])("Us0 with Pw0 at ho0")

    assert not any(secret in told for secret in ("Us0", "Pw0", "ho0"))
