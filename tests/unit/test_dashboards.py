"""The dashboards are what their code makes, what Grafana reads, and what alerts go by."""

import copy
import json
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from boards import limits, links
from boards.files import written
from pgbreaker.core.forecast.warning import KINDS, LIKELY
from pgbreaker.metrics import LIBRARY
from pgbreaker.monitor.outlook import OUTLOOK
from pgbreaker.probes import PROBES
from pgbreaker.sinks.exposition import shown_families
from pgbreaker.sinks.metrics import FAMILIES, OWN
from support.grafana import drawn, expressions, faults, panels, selectors

ROOT = Path(__file__).parents[2]
HOME = ROOT / "dashboards"
BOARDS = {
    path.name: json.loads(path.read_text("utf-8")) for path in HOME.glob("*.json")
}
PANELS = {
    f"{name}: {panel['title']}": panel
    for name, board in BOARDS.items()
    for panel in panels(board)
}
DATA = {title: panel for title, panel in PANELS.items() if panel["type"] != "text"}

_RULES = yaml.safe_load((ROOT / "alerts/pgbreaker.rules.yml").read_text("utf-8"))
RULES = [rule for group in _RULES["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
LIMITS = [one for one in vars(limits).values() if isinstance(one, limits.Limit)]

SHOWN = [*(one for probe in PROBES.values() for one in probe.shows), *OUTLOOK]
DAEMON = {**FAMILIES, **shown_families(SHOWN), **OWN}
# Of Prometheus itself, of its client library, and of Alertmanager.
OTHERS = re.compile(r"up|ALERTS(_FOR_STATE)?|process_\w+|alertmanager_\w+")
# Of those that @grafana/data 13.2.2 knows; another would be shown as a suffix.
UNITS = ("none", "short", "string", "percentunit", "s", "bytes", "Bps", "ops", "reqps")
SUFFIXES = ("_bucket", "_sum", "_count")

SLOW = ("xid", "multixact", "sequence", "slot", "archiver", "disk")

# What alerts compare with beside the number that they are about.
GUARDS = {
    "PgbreakerProbeStale": {3},  # intervals, which panels take off beforehand
    "PgbreakerFailureRateHigh": {0.05},  # calls a second, below which nothing is said
    "PgbreakerApplicationsDisagree": {4},  # processes, below which nothing is said
    "PgbreakerQuerySlow": {0.05, 1},  # the same, seconds, and times the threshold
    "PgbreakerPoolExhaustionPredicted": {0.6},  # use below which nothing is said
    "PgbreakerPoolerExhausted": {60},  # seconds since pgbouncer last answered
    "PgbreakerPoolerExhaustionPredicted": {60},  # the same
    "PgbreakerErrorBudgetBurnFast": {10},  # bad calls below which nothing is said
    "PgbreakerErrorBudgetBurnSlow": {10},
}
# Where a panel shows by another metric what the alert goes by.
_RUNWAY = {"pgbreaker_runway_seconds"}
INSTEAD = {
    "PgbreakerConnectionExhaustionPredicted": {
        "pgbreaker_connection_exhaustion_seconds"
    },
    "PgbreakerPoolerExhaustionPredicted": _RUNWAY,
    "PgbreakerReplicaLagPredicted": _RUNWAY,
    "PgbreakerRunwayShort": _RUNWAY,
    "PgbreakerFailurePredicted": {"pgbreaker_failure_probability"},
    # Each opening from closed sets it, and it needs no window of a fixed length.
    "PgbreakerBreakerFlapping": {"pgbreaker_breaker_left_closed_timestamp_seconds"},
}


# Where the daemon decides, and no rule compares: what its warnings begin at.
_WITHIN = {of: {kind.within} for of, kind in KINDS.items()}
DECIDED = {
    "PgbreakerConnectionExhaustionPredicted": _WITHIN["connections"],
    "PgbreakerPoolerExhaustionPredicted": _WITHIN["pool"],
    "PgbreakerReplicaLagPredicted": _WITHIN["lag"],
    "PgbreakerRunwayShort": set().union(*map(_WITHIN.get, SLOW)),
    "PgbreakerFailurePredicted": {LIKELY},
}


def metrics(expr: str) -> set[str]:
    """Those that are asked for, and what recorded ones are made of."""
    found = {name for name, _ in selectors(expr)}
    for name in found & RECORDED.keys():
        found |= metrics(RECORDED[name])
    return found


def metrics_of(panel: dict) -> set[str]:
    return set().union(*map(metrics, expressions(panel)))


def numbers(expr: str) -> set[float]:
    """The numbers in an expression, products multiplied; no labels, no durations."""
    bare = re.sub(r"\{.*?\}|\[.*?\]|\b[a-z_]\w*(:\w+)*\b|\d+[smhd]\b", " ", expr)
    found = re.findall(r"(\d+(?:\.\d+)?)(?: \* (\d+(?:\.\d+)?))?", bare)
    return {float(one) * float(other or 1) for one, other in found}


def compared(expr: str) -> set[float]:
    """Of these, what something has to exceed, or to stay below."""
    text = " ".join(expr.split())
    found = re.findall(r"[<>]=? (\d+(?:\.\d+)?(?: \* \d+(?:\.\d+)?)?)", text)
    return {number for one in found for number in numbers(one)} - {0}


def links_of(thing: object) -> list[str]:
    """Every address in a dashboard."""
    if isinstance(thing, list):
        return [link for one in thing for link in links_of(one)]
    if not isinstance(thing, dict):
        return []
    mine = [thing["url"]] if thing.get("url") else []
    return mine + [link for one in thing.values() for link in links_of(one)]


# As files.


def test_the_files_are_what_the_code_makes():
    texts = {path.name: path.read_text("utf-8") for path in HOME.glob("*.json")}

    assert texts == written(), "run make docs"


@pytest.mark.parametrize("name", BOARDS)
def test_grafana_s_types_allow_all_of_it(name):
    assert faults(BOARDS[name]) == []


def misspell(thing: dict, key: str) -> None:
    thing[key + "x"] = thing.pop(key)


# What 13.2's types have to catch, or the check has rotted: name -> what is done to a
# dashboard and its first graph.
SPOILT = {
    "key of the dashboard": lambda b, p: misspell(b, "refresh"),
    "key of a panel": lambda b, p: misspell(p, "description"),
    "key of an option": lambda b, p: misspell(p["options"], "legend"),
    "key within an option": lambda b, p: misspell(p["options"]["legend"], "placement"),
    "key of a field": lambda b, p: misspell(p["fieldConfig"]["defaults"], "noValue"),
    "key of its drawing": lambda b, p: misspell(custom(p), "lineWidth"),
    "key of a query": lambda b, p: misspell(p["targets"][0], "legendFormat"),
    "bad enum in an option": lambda b, p: p["options"]["tooltip"].update(mode="most"),
    "bad enum in the drawing": lambda b, p: custom(p).update(showPoints="seldom"),
    "wrong type": lambda b, p: p["gridPos"].update(h="8"),
    "unknown panel": lambda b, p: p.update(type="graph"),
    "no place": lambda b, p: p.pop("gridPos"),
    "no title": lambda b, p: b.pop("title"),
}


def custom(panel: dict) -> dict:
    return panel["fieldConfig"]["defaults"]["custom"]


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_spoilt_is_noticed(name):
    board = copy.deepcopy(BOARDS["overview.json"])
    graph = next(panel for panel in panels(board) if panel["type"] == "timeseries")

    SPOILT[name](board, graph)

    assert len(faults(board)) >= 1


@pytest.mark.parametrize("name", BOARDS)
def test_each_can_be_provisioned_and_found_again(name):
    board = BOARDS[name]

    assert board["uid"] == f"pgbreaker-{name.removesuffix('.json')}"
    assert board["schemaVersion"] == 42
    assert board["refresh"] == "30s"
    assert board["graphTooltip"] == 1  # one crosshair for all
    assert "__inputs" not in board
    assert "${DS_" not in json.dumps(board)
    assert not board.get("id")


@pytest.mark.parametrize("name", BOARDS)
def test_what_can_be_chosen_is_asked_for_anew_and_all_stays_short(name):
    variables = BOARDS[name]["templating"]["list"]

    assert [v["name"] for v in variables][:3] == ["datasource", "job", "target"]
    for variable in variables[1:]:
        assert variable["refresh"] == 2
        assert bool(variable.get("includeAll")) == bool(variable.get("allValue"))


@pytest.mark.parametrize("name", BOARDS)
def test_panels_leave_no_gap_and_lie_on_no_other(name):
    for row in open_and_closed(BOARDS[name]):
        for y in sorted({panel["gridPos"]["y"] for panel in row}):
            line = [p["gridPos"] for p in row if p["gridPos"]["y"] == y]

            assert sum(place["w"] for place in line) == 24
            assert len({place["h"] for place in line}) == 1


def open_and_closed(board: dict) -> list[list[dict]]:
    """The panels below each row."""
    rows: list[list[dict]] = []
    for panel in board["panels"]:
        if panel["type"] == "row":
            rows.append(list(panel["panels"]))
        else:
            rows[-1].append(panel)
    return rows


@pytest.mark.parametrize("name", BOARDS)
def test_identifiers_of_panels_are_given_once(name):
    rows = [panel for panel in BOARDS[name]["panels"] if panel["type"] == "row"]
    given = [panel["id"] for panel in [*rows, *panels(BOARDS[name])]]

    assert len(set(given)) == len(given)


# As what people read.


@pytest.mark.parametrize("title", PANELS)
def test_each_panel_says_what_it_shows(title):
    assert len(PANELS[title]["description"]) > 30


@pytest.mark.parametrize("title", DATA)
def test_each_panel_has_a_unit_and_words_for_nothing(title):
    defaults = DATA[title]["fieldConfig"]["defaults"]

    assert defaults["unit"] in UNITS
    assert defaults["noValue"]


@pytest.mark.parametrize("title", DATA)
def test_each_query_is_one_that_prometheus_takes(title):
    panel = DATA[title]
    texts = expressions(panel)

    assert texts
    for text in texts:
        assert selectors(text)
        # Whatever the interval of scrapes is, there are samples within it.
        bare = re.sub(r'"[^"]*"', "", text)  # labels have parentheses of their own
        for window in re.findall(r"(?:rate|increase)\([^()]*\[([^\]]+)\]", bare):
            assert window in ("$__rate_interval", "$__range")
        assert "irate" not in text
    if panel["type"] == "timeseries":
        assert all(target["legendFormat"] for target in panel["targets"])
        assert panel["options"]["tooltip"]["mode"] == "multi"


@pytest.mark.parametrize("title", DATA)
def test_each_metric_exists(title):
    for text in expressions(DATA[title]):
        for metric, _ in selectors(text):
            assert is_known(metric), metric


def is_known(metric: str) -> bool:
    stems = {metric, *(metric.removesuffix(suffix) for suffix in SUFFIXES)}
    ours = DAEMON.keys() | LIBRARY.keys() | RECORDED.keys()
    return bool(stems & ours) or OTHERS.fullmatch(metric) is not None


@pytest.mark.parametrize("title", DATA)
def test_each_query_goes_by_what_was_chosen(title):
    for text in expressions(DATA[title]):
        for metric, matchers in selectors(text):
            if metric.startswith("pgbreaker_"):
                assert matchers["job"] == "$job"
                assert re.search(r'\btarget=~"\$target\|?"', text)


# As what alerts go by.


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_a_limit_is_the_number_of_its_alert(limit):
    rule = ALERTS[f"Pgbreaker{limit.alert}"]
    severity = {limits.CRITICAL: "critical", limits.WARNING: "warning"}[limit.color]

    assert rule["labels"]["severity"] == severity
    if rule["alert"] in DECIDED:
        assert DECIDED[rule["alert"]] == {limit.value}
    elif limit is limits.POOL_FULL:  # used >= most: 1, where it is a ratio
        assert ">= on (job, instance, breaker)" in " ".join(rule["expr"].split())
    else:
        assert limit.value in numbers(rule["expr"])


@pytest.mark.parametrize("name", ALERTS)
def test_each_number_of_an_alert_is_a_limit(name):
    known = {limit.value for limit in LIMITS if f"Pgbreaker{limit.alert}" == name}

    assert compared(ALERTS[name]["expr"]) <= known | GUARDS.get(name, set())


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_a_limit_is_drawn_where_its_metric_is(limit):
    name = f"Pgbreaker{limit.alert}"
    wanted = INSTEAD.get(name) or metrics(ALERTS[name]["expr"])
    places = [
        title
        for title, panel in DATA.items()
        if limit.value in drawn(panel) and metrics_of(panel) & wanted
    ]

    assert places


@pytest.mark.parametrize("name", sorted(ALERTS.keys() - {"PgbreakerWatchdog"}))
def test_each_alert_has_a_panel(name):
    wanted = metrics(ALERTS[name]["expr"])

    assert any(metrics_of(panel) & wanted for panel in DATA.values())


# As ways from one to the next.


def test_every_link_leads_to_a_page_that_there_is():
    uids = {board["uid"]: board for board in BOARDS.values()}
    for board in BOARDS.values():
        for link in links_of(board):
            if link.startswith("/d/"):
                check(link, uids)
            else:
                assert link.startswith(f"{links.RUNBOOKS}/")


def check(link: str, uids: dict[str, dict]) -> None:
    """That a page has the variables that a link sets."""
    path, _, query = link.removeprefix("/d/").partition("?")
    names = {v["name"] for v in uids[path]["templating"]["list"]}
    for part in query.split("&"):
        name = re.match(r"var-(\w+)=|\$\{(\w+):queryparam\}", part)
        if name is None:
            assert part == "${__url_time_range}"
        else:
            assert (name[1] or name[2]) in names


@pytest.mark.parametrize("name", ALERTS)
def test_the_button_of_each_alert_leads_to_a_page_that_there_is(name):
    uids = {board["uid"]: board for board in BOARDS.values()}
    url = ALERTS[name]["annotations"]["dashboard_url"]
    # One of two pages, by what the alert is about.
    for branch in re.findall(r"pgbreaker-\w+(?:\?[^{]*)?", url):
        page = urlsplit(f"/d/{branch}")
        names = {
            v["name"] for v in uids[page.path.split("/")[-1]]["templating"]["list"]
        }
        for key, _ in parse_qsl(page.query, keep_blank_values=True):
            assert key.removeprefix("var-") in names


def test_the_runbooks_of_alerts_are_where_the_table_of_alerts_leads():
    board = BOARDS["overview.json"]
    link = next(one for one in links_of(board) if one.startswith("http") and "$" in one)

    for name, rule in ALERTS.items():
        assert (
            link.replace("${__value.raw}", name) == (rule["annotations"]["runbook_url"])
        )


# As what Grafana is told of it.


def provisioned(path: str) -> dict:
    folder = ROOT / "config/grafana/provisioning"
    return yaml.safe_load((folder / path).read_text("utf-8"))


def test_grafana_finds_them_where_compose_mounts_them():
    (provider,) = provisioned("dashboards/pgbreaker.yaml")["providers"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))

    mounts = compose["services"]["grafana"]["volumes"]

    assert provider["options"]["path"] in [mount.split(":")[1] for mount in mounts]


def test_rates_span_four_of_the_longest_scrapes():
    (source,) = provisioned("datasources/prometheus.yaml")["datasources"]
    prometheus = yaml.safe_load((ROOT / "config/prometheus/prometheus.yml").read_text())

    longest = max(
        seconds(job.get("scrape_interval", prometheus["global"]["scrape_interval"]))
        for job in [prometheus["global"], *prometheus["scrape_configs"]]
    )

    assert seconds(source["jsonData"]["timeInterval"]) == longest


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))
