"""Daemon: does the watcher itself work?"""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from . import board as boards
from . import links, panels
from .board import Line, Section
from .limits import LATENESS, LOOP_LATE, PROBE_STALE
from .panels import Column, Panel
from .queries import ANY, TARGET, by, grown, lately, overdue, pick, rate, top

_NONE: Final = "no daemon reports"
_IS_DAEMON: Final = f"on (job, instance) {pick('pgbreaker_build_info', ANY)}"


def board() -> Dashboard:
    return boards.page(
        links.DAEMON,
        "Daemon",
        "Does the watcher itself work?",
        [
            Section("Is it there?", [Line(4, _now())]),
            Section(
                "What it remembers, and who is served",
                [Line(4, _kept())],
            ),
            Section("Is it in time?", [Line(8, _punctual())]),
            Section("Does it get through?", [Line(8, _told())]),
            Section("What it takes", [Line(8, _resources())]),
            Section("Its probes", [Line(9, _probes(), spans=(10, 14))], is_open=False),
        ],
        [boards.daemons(), boards.targets()],
    )


def _own(metric: str) -> str:
    """The series of *metric* that are of a daemon, and of no application."""
    return f'({metric}{{job=~"$job"}} and {_IS_DAEMON})'


def _now() -> list[Panel]:
    started = _own("process_start_time_seconds")
    return [
        panels.number(
            "Daemons up",
            "Daemons that Prometheus reaches, of those that it should; Down fires when none"
            " answers for 2 minutes.",
            'sum(up{job=~"$job"})',
            none="Prometheus has none to scrape",
            steps=((None, "red"), (1, "green")),
        ),
        panels.fact(
            "Version",
            "What runs. Several only during an upgrade.",
            by("version", pick("pgbreaker_build_info", ANY), "max"),
            "{{version}}",
            none=_NONE,
        ),
        panels.number(
            "Up for",
            "Time since the daemon that started last did. Short again and again is one"
            " that crashes: journalctl -u pgbreaker.",
            f"min(time() - {started})",
            none=_NONE,
            unit="s",
            decimals=0,
            steps=((None, "yellow"), (300, "green")),
        ),
        panels.number(
            "Configuration",
            "OLD: the file was changed and is wrong; the daemon goes on by the one before."
            " ConfigReloadFailed fires; pgbreaker check-config says why.",
            f"min({pick('pgbreaker_config_last_reload_successful', ANY)})",
            none=_NONE,
            steps=((None, "text"),),
            words=panels.words({0: ("OLD", "red"), 1: ("IN USE", "green")}),
        ),
        panels.number(
            "Targets",
            "Servers that it watches. One that vanished from the file is TargetVanished.",
            f"sum({pick('pgbreaker_targets', ANY)})",
            none=_NONE,
            steps=((None, "blue"),),
        ),
        panels.number(
            "Probe overdue",
            "Time beyond three intervals that some probe has not run; 0 is good."
            f" {PROBE_STALE.alert} fires at {PROBE_STALE.value:g} s: restart the daemon and"
            " report it.",
            f"clamp_min(max({overdue(TARGET)}), 0)",
            none=_NONE,
            unit="s",
            decimals=0,
            steps=((None, "green"), (15, "yellow"), *panels.above(PROBE_STALE)[1:]),
        ),
    ]


def _kept() -> list[Panel]:
    return [
        panels.number(
            "Store",
            "CANNOT WRITE: the disk is full, or the file is read-only or broken: overrides"
            " are refused, and what happens is forgotten with the next start. StoreDegraded"
            " fires; the daemon's log says why.",
            f"max({pick('pgbreaker_store_degraded', ANY)})",
            none=_NONE,
            steps=((None, "text"),),
            words=panels.words({0: ("WRITES", "green"), 1: ("CANNOT WRITE", "red")}),
        ),
        panels.number(
            "Engine",
            "ALONE: the engine that daemons share does not answer: each goes by what it sees"
            " itself and watches every target. EngineLost fires; the daemon's log says why.",
            f"min({pick('pgbreaker_engine_up', ANY)})",
            none="none is shared",
            steps=((None, "text"),),
            words=panels.words({0: ("ALONE", "orange"), 1: ("JOINED", "green")}),
        ),
        panels.number(
            "Size of the store",
            "What it takes on disk; it stays below store.max_size. 0 where there is none.",
            f"max({pick('pgbreaker_store_size_bytes', ANY)})",
            none=_NONE,
            unit="bytes",
            steps=((None, "blue"),),
        ),
        panels.number(
            "Not kept",
            "Entries of the history that were told and could not be written down. 0 is good.",
            f"sum({grown('pgbreaker_store_lost_total', ANY)})",
            none=_NONE,
            decimals=0,
            steps=((None, "green"), (1, "red")),
        ),
        panels.number(
            "By hand",
            "Breakers that an operator's word stands before; of one that stands there for a"
            " day, OverrideLong fires.",
            f"sum({pick('pgbreaker_overrides', ANY)})",
            none=_NONE,
            steps=((None, "green"), (1, "blue")),
        ),
        panels.number(
            "Streams",
            "Pages and programs that follow what happens; 200 are the most.",
            f"sum({pick('pgbreaker_streams', ANY)})",
            none=_NONE,
            steps=((None, "blue"),),
        ),
        panels.number(
            "Followers",
            "Processes of applications that follow the advice; advice.followers says how"
            " many there may be.",
            f"sum({pick('pgbreaker_followers', ANY)})",
            none=_NONE,
            steps=((None, "blue"),),
        ),
        panels.number(
            "Turned away",
            "Requests that were not let in, of a second: nobody known, not allowed, too many"
            " or malformed. A few are mistakes; many are somebody who tries.",
            f"sum({rate('pgbreaker_http_refused_total', ANY)})",
            none=_NONE,
            unit="reqps",
            decimals=1,
            steps=((None, "green"), (1, "yellow")),
        ),
    ]


def _punctual() -> list[Panel]:
    late = "pgbreaker_schedule_lateness_seconds_bucket"
    lost = {
        "pgbreaker_schedule_skipped_total": "runs left out",
        "pgbreaker_events_dropped_total": "events dropped",
        "pgbreaker_followers_dropped_total": "followers hung up on",
        "pgbreaker_recording_dropped_total": "not recorded",
        "pgbreaker_log_dropped_total": "lines of the log",
        "pgbreaker_clock_steps_total": "clock steps",
    }
    return [
        panels.graph(
            "Lateness of probes, p99",
            "Time by which 99 % of runs begin after they are due, at most."
            f" {LATENESS.alert} fires above {LATENESS.value:g} s: the machine is too busy,"
            " or there are too many targets for it.",
            (
                f"histogram_quantile(0.99, {by('instance, le', rate(late, ANY))})",
                "{{instance}}",
            ),
            none=_NONE,
            unit="s",
            limits=(LATENESS,),
        ),
        panels.graph(
            "Lateness of the loop",
            "Share of the time by which the daemon's loop ran late; no deadline counts it,"
            f" so no server is blamed. {LOOP_LATE.alert} fires above"
            f" {LOOP_LATE.value:.0%}.",
            (
                by("instance", rate("pgbreaker_loop_late_seconds_total", ANY)),
                "{{instance}}",
            ),
            none=_NONE,
            unit="percentunit",
            limits=(LOOP_LATE,),
        ),
        panels.graph(
            "Left out and dropped",
            "What was not done: runs whose predecessor had not ended, events that a"
            " listener could not take, applications that took no advice, readings and"
            " moves that the recording lacks, lines that the log lacks; and jumps of the"
            " clock. 0 is good.",
            *((f"sum({lately(metric, ANY)})", name) for metric, name in lost.items()),
            none=_NONE,
            unit="none",
        ),
    ]


def _told() -> list[Panel]:
    def grew(metric: str) -> str:
        return f"sum({lately(metric, ANY)})"

    notified = "alertmanager_notifications_failed_total[$__rate_interval]"
    return [
        panels.graph(
            "Alerts to Alertmanager",
            "Alerts that an Alertmanager took from the daemon itself, and posts that none"
            " took. PushFailing fires on the latter: look at alertmanager.urls.",
            (grew("pgbreaker_alerts_pushed_total"), "taken"),
            (grew("pgbreaker_alerts_push_failures_total"), "failed"),
            none=_NONE,
            unit="none",
            colors={"taken": "green", "failed": "red"},
        ),
        panels.graph(
            "Notifications that failed",
            "Messages that Alertmanager could not deliver, by where to. NotificationsFailing"
            " fires on it, and goes another way than Slack.",
            (f"sum by (integration) (rate({notified}))", "{{integration}}"),
            none="no Alertmanager is scraped",
            unit="ops",
        ),
        panels.graph(
            "Spans",
            "Spans that the collector of traces took, and those that did not reach it. They"
            " are for looking back; nothing fires on them.",
            (grew("pgbreaker_spans_sent_total"), "sent"),
            (grew("pgbreaker_spans_failed_total"), "failed"),
            none=_NONE,
            unit="none",
            colors={"sent": "green", "failed": "red"},
        ),
    ]


def _resources() -> list[Panel]:
    cpu = 'rate(process_cpu_seconds_total{job=~"$job"}[$__rate_interval])'
    return [
        panels.graph(
            "Processor",
            "Share of one processor. It grows with targets; near 100 % probes are late.",
            (f"{cpu} and {_IS_DAEMON}", "{{instance}}"),
            none=_NONE,
            unit="percentunit",
        ),
        panels.graph(
            "Memory",
            "Resident memory. It is flat after some minutes; growth for hours is a fault of"
            " ours, report it.",
            (_own("process_resident_memory_bytes"), "{{instance}}"),
            none=_NONE,
            unit="bytes",
        ),
        panels.graph(
            "Open files",
            "Files and sockets, and how many there may be (dashed). Each target takes a"
            " few.",
            (_own("process_open_fds"), "{{instance}}"),
            (f"min({_own('process_max_fds')})", "limit"),
            none=_NONE,
            unit="none",
            dashed="/^limit$/",
        ),
        panels.graph(
            "Scrape",
            "Time that writing the last scrape took. Near Prometheus' timeout, series are"
            " too many.",
            (pick("pgbreaker_scrape_duration_seconds", ANY), "{{instance}}"),
            none=_NONE,
            unit="s",
        ),
    ]


def _probes() -> list[Panel]:
    runs = by("probe", rate("pgbreaker_probes_total", TARGET))
    bad = by("probe", rate("pgbreaker_probes_total", TARGET, 'outcome!="ok"'))
    ran = pick("pgbreaker_probe_last_run_timestamp_seconds", TARGET)
    spent = by("probe", rate("pgbreaker_probe_seconds_total", TARGET))
    return [
        panels.graph(
            "Time in probes",
            "Seconds that probes take within a second, by probe, the dearest: what it costs"
            " the servers. ping, login and commit have histograms, see Target.",
            (top(10, spent), "{{probe}}"),
            none=_NONE,
            unit="none",
            stacked=True,
        ),
        panels.table_of(
            "Probes",
            "One line a probe, over all targets: how often it runs, how it ends, and how"
            " old its oldest run is.",
            [
                Column("Runs", runs, unit="ops", decimals=2),
                Column("Not ok", bad, unit="ops", decimals=2),
                Column(
                    "Oldest run",
                    by("probe", f"time() - ({ran} > 0)", "max"),
                    unit="s",
                    decimals=0,
                ),
                Column(
                    "Longest interval",
                    by(
                        "probe", pick("pgbreaker_probe_interval_seconds", TARGET), "max"
                    ),
                    unit="s",
                    decimals=0,
                ),
                Column(
                    "Overdue",
                    f"clamp_min({by('probe', overdue(TARGET), 'max')}, 0)",
                    unit="s",
                    decimals=0,
                    steps=panels.above(PROBE_STALE),
                ),
            ],
            none=_NONE,
            labels={"probe": "Probe"},
            first="Oldest run",
        ),
    ]
