"""Every alert: when it is told, in which words, and when not.

To add one: a row, with a good, a bad, an under and an over. Where there is a number, under
and over are just below and just above it; where there is none, the trouble of under is
just too short, and that of over just long enough.
"""

from typing import Final

from integration.rules.row import (
    BREAKER,
    JOB,
    LIBRARY,
    TARGET,
    Halted,
    Once,
    Rising,
    Row,
    Said,
    Series,
    clock,
    counter,
    gauge,
    histogram,
)

RATIOS: Final = (
    "FailureRateHigh",
    "QuerySlow",
    "ErrorBudgetBurnFast",
    "ErrorBudgetBurnSlow",
)
"""Alerts on a share: without traffic ("idle") and after one failed call ("once") they
tell nothing."""

_UP: Final = gauge("pgbreaker_target_up{$T}", 1)


def _seen(code: str, sqlstate: str, probe: str, **trouble: float) -> Series:
    about = f'code="{code}", sqlstate="{sqlstate}", probe="{probe}"'
    return gauge(f"pgbreaker_breaker_evidence{{$B, {about}}}", None, **trouble)


def _outcome(outcome: str, of: str = "$B") -> str:
    return f'pgbreaker_calls_total{{{of}, outcome="{outcome}"}}'


def _moves(cause: str, of: str = "$B", **trouble: Once) -> Series:
    about = f'from="closed", to="open", cause="{cause}"'
    return counter(f"pgbreaker_breaker_transitions_total{{{of}, {about}}}", **trouble)


_OWN_STATE: Final = (
    'pgbreaker_breaker_state{{job="pgbreaker", instance="$t", target="$t",'
    ' operation="read", breaker="$t/read", state="{}"}}'
)


# -- The daemon ------------------------------------------------------------------------

_DAEMON: Final = (
    Row(
        alert="Watchdog",
        series=(gauge('up{job="pgbreaker", instance="one"}', 1),),
        says={"bad": ()},
        labels={},
        severity="none",
        summary="Alerting works",
        description="Always firing. Whoever receives it has to raise the alarm when it"
        " stays away: then Prometheus, Alertmanager or the way from them is broken.",
        board="pgbreaker-overview",
        waits="0s",
        keeps=None,
        alone=True,
    ),
    *(
        Row(
            alert="Down",
            title=title,
            series=(gauge('up{job="pgbreaker", instance="one"}', 1, bad=up),),
            says={"bad": why},
            labels={"job": "pgbreaker"},
            severity="critical",
            summary="No pgbreaker answers Prometheus",
            description="Nobody watches the servers now, and breakers keep the state that"
            " applications last heard of. {0}",
            board="pgbreaker-daemon?var-job=pgbreaker",
            waits="2m",
            keeps="1m",
            alone=True,
        )
        for title, up, why in (
            ("of one that is gone", 0, "Prometheus scrapes one, and gets no answer."),
            (
                "of one that is not discovered",
                None,
                (
                    "Prometheus has nothing to scrape: no target of the job pgbreaker is"
                    " configured or discovered."
                ),
            ),
        )
    ),
    *(
        Row(
            alert="Down",
            title=title,
            series=(
                gauge('up{job="pgbreaker", instance="one"}', 1, bad=0),
                gauge('up{job="pgbreaker", instance="two"}', 1, bad=other),
            ),
            says={},
            labels={"job": "pgbreaker"},
            severity="critical",
            waits="2m",
            lasts=lasts,
            keeps="1m",
            alone=True,
        )
        for title, other, lasts in (
            ("while another one answers", 1, "5m"),
            ("for a moment", 0, "1m45s"),
        )
    ),
    Row(
        alert="ProbeStale",
        twice=True,
        series=(
            clock(
                'pgbreaker_probe_last_run_timestamp_seconds{$T, probe="login"}',
                bad=Halted(),
                under=Halted(),
                over=Halted(),
            ),
            # What is allowed: 90 s, 120 s, 117 s.
            gauge(
                'pgbreaker_probe_interval_seconds{$T, probe="login"}',
                5,
                under=15,
                over=14,
            ),
        ),
        says={"bad": "2m 30s", "over": "2m 30s"},
        labels={**TARGET, "probe": "login"},
        severity="critical",
        summary="Probe login of $t no longer runs",
        description="The daemon answers, but this probe has not run for {0}: what is shown"
        " of $t is old.",
        board="pgbreaker-daemon?var-target=$t",
        waits="30s",
        keeps="2m",
        sees="1m30s",
    ),
    Row(
        alert="ProbeStale",
        title="of one that has not run yet",
        series=(
            gauge('pgbreaker_probe_last_run_timestamp_seconds{$T, probe="login"}', 0),
            gauge('pgbreaker_probe_interval_seconds{$T, probe="login"}', 5),
        ),
        says={},
        labels={**TARGET, "probe": "login"},
        severity="critical",
        waits="30s",
        keeps="2m",
        alone=True,
    ),
    *(
        Row(
            alert="TargetVanished",
            title=title,
            series=(
                gauge("pgbreaker_target_up{$T}", 1, bad=None),
                gauge('up{job="pgbreaker", instance="one"}', 1),
                gauge(
                    "pgbreaker_config_last_reload_successful"
                    '{job="pgbreaker", instance="one"}',
                    is_good,
                ),
            ),
            labels=TARGET,
            says={"bad": why, "over": why},
            severity="warning",
            summary="Target $t is no longer watched",
            description="A daemon of the job pgbreaker answers, but tells nothing of $t any"
            " more, which it did 15 minutes ago. Its alerts have ended without being over."
            " {0}",
            board="pgbreaker-target?var-target=$t",
            begins="20m",
            waits="5m",
            keeps="5m",
        )
        for title, is_good, why in (
            (
                "",
                1,
                "Was it taken out of the configuration, or did its daemon go?",
            ),
            (
                "after a reload that failed",
                0,
                "The last reload of the configuration failed.",
            ),
        )
    ),
    Row(
        alert="TargetVanished",
        title="with its daemon",
        series=(
            gauge("pgbreaker_target_up{$T}", 1, bad=None),
            gauge('up{job="pgbreaker", instance="one"}', 1, bad=0),
        ),
        says={},
        labels=TARGET,
        severity="warning",
        begins="20m",
        waits="5m",
        keeps="5m",
        alone=True,
    ),
    Row(
        alert="LockedOut",
        twice=True,
        series=(
            gauge(
                'pgbreaker_target_state{$T, state="unknown"}', 0, bad=1, new=1, once=0
            ),
            counter(
                'pgbreaker_probes_total{$T, probe="ping", outcome="auth"}',
                bad=0.2,
                new=0,
                once=0.2,
            ),
            counter('pgbreaker_notices_total{$T, code="locked_out"}'),
            clock(
                'pgbreaker_probe_last_success_timestamp_seconds{$T, probe="ping"}',
                bad=Halted(),
            ),
        ),
        says={"bad": "45s", "over": "30s"},
        labels=TARGET,
        severity="critical",
        summary="pgbreaker is not let in at $t",
        description="$t answers, but refuses the monitor's login: role, password, database,"
        " pg_hba.conf or TLS. Its breakers keep their state, and nobody watches it. It was"
        " last let in {0} ago.",
        board="pgbreaker-target?var-target=$t",
        waits="15s",
        keeps="5m",
    ),
    Row(
        alert="LockedOut",
        title="by what was told of it",
        series=(
            gauge('pgbreaker_target_state{$T, state="unknown"}', 0, bad=1, new=1),
            counter('pgbreaker_probes_total{$T, probe="ping", outcome="auth"}'),
            counter(
                'pgbreaker_notices_total{$T, code="locked_out"}',
                bad=Once(1),
                new=Once(0),
            ),
        ),
        says={"bad": "", "over": ""},
        labels=TARGET,
        severity="critical",
        summary="pgbreaker is not let in at $t",
        description="$t answers, but refuses the monitor's login: role, password, database,"
        " pg_hba.conf or TLS. Its breakers keep their state, and nobody watches it. It was"
        " never let in since the daemon started.",
        board="pgbreaker-target?var-target=$t",
        waits="15s",
        keeps="5m",
    ),
    Row(
        alert="DaemonLate",
        twice=True,
        series=(
            *histogram(
                "pgbreaker_schedule_lateness_seconds{$J}",
                le_0_005={"bad": 0.5, "under": 0.5, "over": 0.5},
                le_0_5={"bad": 0.9, "under": 0.991, "over": 0.9899},
                le_2_5={},
                le_inf={},
            ),
            counter(
                "pgbreaker_loop_late_seconds_total{$J}", bad=0.2, under=0.09, held=0.11
            ),
        ),
        says={"bad": ("2.3", "20%"), "over": ("0.5", "0%"), "held": ("0.0", "11%")},
        labels=JOB,
        severity="warning",
        summary="The daemon of job $t runs late",
        description="Its machine is too busy, or it has too many targets: faults are seen"
        " later than configured. 1 % of the probes begin {0} s late or more. Its own loop is"
        " held up for {1} of the time.",
        board="pgbreaker-daemon?var-job=$t",
        waits="5m",
        keeps="5m",
        sees="30s",
        by="11m",
        lingers="4m30s",
        slack="30s",
    ),
    Row(
        alert="ConfigReloadFailed",
        twice=True,
        series=(gauge("pgbreaker_config_last_reload_successful{$J}", 1, bad=0),),
        labels=JOB,
        severity="warning",
        summary="The daemon of job $t did not take its new configuration",
        description="The file has a mistake, and the daemon goes on with what it had"
        " before. After a restart it would not come up. It is the one at one.",
        board="pgbreaker-daemon?var-job=$t",
        waits="1m",
        keeps="5m",
    ),
    Row(
        alert="StoreDegraded",
        twice=True,
        series=(gauge("pgbreaker_store_degraded{$J}", 0, bad=1),),
        labels=JOB,
        severity="warning",
        summary="The daemon of job $t cannot write its store",
        description="It goes on watching. Overrides and maintenance are refused, and what"
        " happens now is forgotten with the next start. It is the one at one.",
        board="pgbreaker-daemon?var-job=$t",
        waits="2m",
        keeps="5m",
    ),
    Row(
        alert="EngineLost",
        twice=True,
        series=(gauge("pgbreaker_engine_up{$J}", 1, bad=0),),
        labels=JOB,
        severity="warning",
        summary="A daemon of job $t goes on without the others",
        description="The engine that daemons share does not answer it. It goes by what it"
        " sees itself, and watches every target; what operators decide at one daemon does"
        " not reach the others. It is the one at one.",
        board="pgbreaker-daemon?var-job=$t",
        waits="1m",
        keeps="5m",
    ),
    Row(
        alert="PushFailing",
        series=(
            counter(
                "pgbreaker_alerts_push_failures_total{$J}",
                bad=0.1,
                under=Once(1),
                over=1 / 400,
            ),
        ),
        says={"bad": "30", "over": "1"},
        labels=JOB,
        severity="warning",
        summary="The daemon of job $t reaches no Alertmanager",
        description="About {0} of its posts within 5 minutes were taken by none of the"
        " configured Alertmanagers. What it tells them directly is lost; what Prometheus"
        " tells them is not, if they are there.",
        board="pgbreaker-daemon?var-job=$t",
        waits="5m",
        keeps="5m",
        by="6m",
        lingers="4m45s",
        slack="30s",
    ),
    Row(
        alert="NotificationsFailing",
        series=(
            counter(
                "alertmanager_notifications_failed_total"
                '{job="alertmanager", instance="one", integration="$t"}',
                bad=0.1,
                under=Once(1),
                over=1 / 400,
            ),
            counter(
                "alertmanager_notifications_total"
                '{job="alertmanager", instance="one", integration="$t"}',
                bad=0.2,
                under=0.2,
                over=1 / 400,
            ),
        ),
        says={"bad": "50%", "over": "100%"},
        labels={"job": "alertmanager", "integration": "$t"},
        severity="critical",
        summary="Alertmanager cannot deliver by $t",
        description="{0} of the messages by $t fail: alerts fire and nobody reads of them."
        " Too many at once (429 is not sent again), or the webhook was revoked.",
        board="pgbreaker-daemon?var-job=alertmanager",
        waits="5m",
        keeps="5m",
        by="6m",
        lingers="4m45s",
        slack="30s",
    ),
)

# -- Targets and their breakers --------------------------------------------------------

_BREAKERS: Final = (
    Row(
        alert="Maintenance",
        series=(gauge("pgbreaker_maintenance{$T}", None, bad=1, over=1, under=0),),
        labels=TARGET,
        severity="none",
        summary="PostgreSQL $t is in maintenance",
        description="Somebody works on $t: nothing else is told of it until 5 minutes after"
        " the end. Breakers go on as ever.",
        board="pgbreaker-target?var-target=$t",
        waits="0s",
        keeps="5m",
    ),
    Row(
        alert="OverrideLong",
        series=(
            gauge('pgbreaker_breaker_override{$B, state="disabled"}', None, bad=1),
            gauge('pgbreaker_breaker_computed_state{$B, state="open"}', None, bad=1),
        ),
        labels={**BREAKER, "state": "disabled"},
        severity="warning",
        summary="Breaker $t/read has been disabled by hand for a day",
        description="Somebody put disabled before what $t/read decides by itself, and may"
        " have forgotten it. By itself it would be open.",
        board="pgbreaker-breakers?var-breaker=$t/read",
        waits="1d",
        keeps="5m",
        step="1m",
        slack="2m",
    ),
    Row(
        alert="TargetDown",
        series=(
            gauge("pgbreaker_target_up{$T}", 1, bad=0),
            gauge('pgbreaker_target_state{$T, state="down"}', 0, bad=1),
            _seen("refused", "", "ping", bad=1),
        ),
        labels=TARGET,
        severity="critical",
        summary="PostgreSQL $t does not answer",
        description="Neither the connection that pgbreaker held to $t nor a new one answers."
        " Seen last: refused.",
        board="pgbreaker-target?var-target=$t",
        step="5s",
        slack="5s",
        waits="15s",
        keeps="2m",
    ),
    Row(
        alert="TargetDown",
        title="of one that is unknown",
        series=(gauge("pgbreaker_target_up{$T}", 1, bad=0),),
        labels=TARGET,
        severity="critical",
        summary="PostgreSQL $t does not answer",
        description="pgbreaker cannot tell how $t is: it is not let in, or has not seen it"
        " yet.",
        board="pgbreaker-target?var-target=$t",
        waits="15s",
        keeps="2m",
    ),
    Row(
        alert="TargetDown",
        title="while another daemon reaches it",
        series=(
            gauge("pgbreaker_target_up{$T}", 1, bad=0),
            gauge('pgbreaker_target_up{job="pgbreaker",instance="two",target="$t"}', 1),
        ),
        says={},
        labels=TARGET,
        severity="critical",
        waits="15s",
        keeps="2m",
        alone=True,
    ),
    Row(
        alert="BreakerOpen",
        twice=True,
        series=(
            gauge('pgbreaker_breaker_state{$B, state="open"}', 0, bad=1),
            gauge('pgbreaker_breaker_state{$B, state="half_open"}', 0, over=1),
            gauge('pgbreaker_breaker_state{$B, state="forced_open"}', 0, under=1),
            _seen("full", "53300", "login", bad=1, over=1),
            _moves("confirmed", bad=Once(1)),
        ),
        says={"bad": " It opened by the rule confirmed.", "over": ""},
        labels=BREAKER,
        severity="critical",
        summary="Breaker $t/read opened",
        description="Calls fail, so callers of $t/read are told at once instead of waiting."
        " Seen last: full (SQLSTATE 53300) by probe login.{0} It closes by itself when"
        " trial calls succeed.",
        board="pgbreaker-breakers?var-breaker=$t/read",
        waits="0s",
        keeps="2m",
    ),
    Row(
        alert="BreakerOpen",
        title="that opened and closed between two scrapes",
        series=(
            _moves(
                "failure_rate",
                bad=Once(1),
                under=Once(0),
                over=Once(1),
                trying=Once(1),
            ),
            gauge('pgbreaker_breaker_override{$B, state="metrics_only"}', 0, trying=1),
        ),
        labels=BREAKER,
        severity="critical",
        summary="Breaker $t/read opened",
        description="Calls fail, so callers of $t/read are told at once instead of waiting."
        " It opened by the rule failure_rate. It closes by itself when trial calls succeed.",
        board="pgbreaker-breakers?var-breaker=$t/read",
        waits="0s",
        keeps="2m",
        lasts="1m",
        slack="30s",
        by="15s",
    ),
    *(
        # Not scraped before its trouble either, so that what holds after it is what was
        # seen in it: by each of them, of itself.
        Row(
            alert="BreakerOpen",
            title=title,
            series=(
                gauge(_OWN_STATE.format("open"), None, bad=1, over=0, under=0),
                gauge(_OWN_STATE.format("half_open"), None, bad=0, over=1, under=0),
                gauge('up{job="pgbreaker", instance="$t"}', up, bad=1, over=1, under=1),
            ),
            labels=BREAKER,
            severity="critical",
            summary="Breaker $t/read opened",
            description="Calls fail, so callers of $t/read are told at once instead of"
            " waiting. It closes by itself when trial calls succeed.",
            board="pgbreaker-breakers?var-breaker=$t/read",
            waits="0s",
            keeps="2m",
            lingers=lingers,
        )
        for title, up, lingers in (
            ("that cannot be scraped any more", 0, "14m45s"),
            ("that is no longer to be scraped", None, "0s"),
        )
    ),
    Row(
        alert="BreakerOpen",
        title="of an application",
        series=(
            gauge('pgbreaker_breaker_state{$L, state="open"}', 0, bad=1),
            counter('pgbreaker_errors_total{$L, category="transient"}', bad=0.5),
            counter('pgbreaker_errors_total{$L, category="query"}', bad=0.1),
        ),
        says={"bad": ()},
        labels=LIBRARY,
        severity="critical",
        summary="Breaker $t opened",
        description="Calls fail, so callers of $t are told at once instead of waiting. Most"
        " of its errors are of the category transient. It closes by itself when trial calls"
        " succeed.",
        board="pgbreaker-breakers?var-breaker=$t",
        waits="0s",
        keeps="2m",
        alone=True,
    ),
    Row(
        alert="RecoverySlow",
        twice=True,
        series=(
            gauge(
                'pgbreaker_breaker_state{$B, state="half_open"}',
                0,
                bad=1,
                under=1,
                over=1,
            ),
            gauge(
                "pgbreaker_breaker_left_closed_timestamp_seconds{$B}",
                0,
                bad=300,
                under=330,
                over=315,
                back=300,
            ),
            _seen("timeout", "", "ping", bad=1, under=1, over=1),
        ),
        says={"bad": "5m 30s", "over": "5m 15s"},
        labels=BREAKER,
        severity="critical",
        summary="Breaker $t/read does not close again",
        description="$t/read has not been closed for {0}: this is no blip, it needs"
        " somebody. Seen last: timeout by probe ping.",
        board="pgbreaker-breakers?var-breaker=$t/read",
        waits="0s",
        keeps="2m",
        sees="5m15s",
    ),
    Row(
        alert="RecoverySlow",
        title="of another process than the one that left long ago",
        series=(
            gauge('pgbreaker_breaker_state{$L, state="open"}', 0, bad=1),
            gauge("pgbreaker_breaker_left_closed_timestamp_seconds{$L}", 0, bad=600),
            gauge(
                "pgbreaker_breaker_left_closed_timestamp_seconds"
                '{job="shop", instance="two", breaker="$t"}',
                30,
            ),
            gauge(
                'pgbreaker_breaker_state{job="shop",instance="two",breaker="$t",'
                'state="open"}',
                0,
            ),
        ),
        says={},
        labels=LIBRARY,
        severity="critical",
        begins="10m",
        waits="0s",
        keeps="2m",
        lasts="4m",
        alone=True,
    ),
    Row(
        alert="BreakerFlapping",
        twice=True,
        series=(
            _moves("confirmed", bad=Once(3), under=Once(1), over=Once(2)),
            _moves("failure_rate", bad=Once(1), under=Once(1), over=Once(1)),
        ),
        says={"bad": "4", "over": "3"},
        labels=BREAKER,
        severity="warning",
        summary="Breaker $t/read opens again and again",
        description="$t/read opened {0} times within 30 minutes, and recovered in between."
        " Mostly by the rule confirmed.",
        board="pgbreaker-breakers?var-breaker=$t/read",
        waits="0s",
        keeps="10m",
        # Less than a window of data: increase() makes a little more of it.
        begins="5m",
        lasts="15s",
        lingers="29m30s",
        slack="30s",
        by="30s",
    ),
    Row(
        alert="BreakerFlapping",
        title="of many processes that open once each",
        series=(
            _moves("failure_run", of="$L", bad=Once(1)),
            *(
                _moves(
                    "failure_run",
                    of=f'job="shop", instance="{instance}", breaker="$t"',
                    bad=Once(1),
                )
                for instance in ("two", "three", "four")
            ),
        ),
        says={},
        labels=LIBRARY,
        severity="warning",
        waits="0s",
        keeps="10m",
        lasts="15m",
        alone=True,
    ),
    Row(
        alert="FailureRateHigh",
        series=(
            counter(
                _outcome("success"),
                1,
                bad=0.1,
                under=0.31,
                over=0.29,
                cut=0.1,
                refused=0.1,
                seldom=0,
                often=0,
            ),
            counter(
                _outcome("failure"),
                bad=0.9,
                under=0.69,
                over=0.71,
                seldom=0.045,
                often=0.055,
            ),
            counter(_outcome("cut"), cut=0.9),
            counter(_outcome("rejected"), refused=0.9),
            _seen("query", "57014", "latency", bad=1),
        ),
        says={
            "bad": ("90%", " Seen last: query (SQLSTATE 57014) by probe latency."),
            "over": ("71%", ""),
            "cut": ("90%", ""),
            "often": ("100%", ""),
        },
        labels=BREAKER,
        severity="critical",
        summary="Most calls of $t/read fail",
        description="{0} of the calls that $t/read let through within 2 minutes failed.{1}",
        board="pgbreaker-breakers?var-breaker=$t/read",
        waits="15s",
        keeps="1m",
        sees="1m30s",
        by="3m",
        lingers="15s",
        slack="30s",
    ),
    Row(
        alert="ApplicationsDisagree",
        twice=True,
        series=(
            gauge("pgbreaker_application_processes{$B}", 40, few=3, four=4),
            gauge(
                'pgbreaker_application_processes_open{$B, by="calls"}',
                0,
                bad=12,
                under=9,
                over=10,
                few=3,
                four=1,
                open=40,
            ),
            gauge(
                'pgbreaker_application_processes_open{$B, by="advice"}',
                0,
                under=20,
                open=0,
            ),
            gauge('pgbreaker_breaker_state{$B, state="closed"}', 1, open=0),
        ),
        says={"bad": "30%", "over": "25%", "four": "25%"},
        labels=BREAKER,
        severity="warning",
        summary="Applications find that $t/read fails, the daemon does not",
        description="{0} of the processes that report have it open by their own calls,"
        " while the daemon's breaker $t/read is closed.",
        board="pgbreaker-breakers?var-breaker=$t/read",
        waits="2m",
        keeps="1m",
    ),
    Row(
        alert="FailureRateHigh",
        title="of hardly any calls",
        series=(
            counter(_outcome("success"), idle=0, once=0),
            counter(_outcome("failure"), idle=0, once=Once(1)),
        ),
        says={},
        labels=BREAKER,
        severity="critical",
        waits="15s",
        keeps="1m",
    ),
)

_SLOW: Final = {
    "le_0_1": {"bad": 0.0, "under": 0.0, "over": 0.0},
    "le_0_25": {"bad": 0.5, "under": 0.96, "over": 0.94},
    "le_0_5": {},
    "le_inf": {},
}
"""p95 of 475 ms, 248 ms and 292 ms."""


def _slow(title: str, **what: object) -> Row:
    common = {
        "says": {"bad": ("1.9", "475ms"), "over": ("1.2", "291.7ms")},
        "labels": TARGET,
        "summary": "Queries on $t are slow",
        "board": "pgbreaker-target?var-target=$t",
        "by": "10m30s",
        "sees": "30s",
        "lingers": "4m30s",
        "slack": "30s",
    }
    return Row(
        alert="QuerySlow",
        title=title,
        severity="warning",
        waits="5m",
        keeps="5m",
        **{**common, **what},
    )


_SLOWNESS: Final = (
    _slow(
        "of a canary",
        series=(
            *histogram("pgbreaker_canary_duration_seconds{$T}", **_SLOW),
            gauge('pgbreaker_probe_limit_seconds{$T, probe="latency"}', 0.25),
        ),
        description="{0} times as slow as it may be. The canary takes {1}."
        " (All but statements: 95 % take no longer.)",
    ),
    _slow(
        "of pings",
        series=(
            *histogram('pgbreaker_probe_duration_seconds{$T, probe="ping"}', **_SLOW),
            gauge("pgbreaker_slow_call_threshold_seconds{$T}", 0.25),
        ),
        description="{0} times as slow as it may be. A ping takes {1}."
        " (All but statements: 95 % take no longer.)",
    ),
    _slow(
        "of statements",
        twice=True,
        series=(
            gauge(
                "pgbreaker_statement_mean_seconds_ratio{$T}",
                1,
                bad=8,
                under=4,
                over=4.4,
                gone=8,
            ),
            gauge("pgbreaker_target_up{$T}", 1, gone=0),
        ),
        says={"bad": ("2.0", "8.0"), "over": ("1.1", "4.4")},
        description="{0} times as slow as it may be. Statements take {1} times their usual"
        " time. (All but statements: 95 % take no longer.)",
        sees="0s",
        by="5m30s",
        lingers="0s",
    ),
    _slow(
        "of an application's calls",
        series=(
            *histogram(
                "pgbreaker_call_duration_seconds{$L}",
                **{
                    bound: {
                        **shares,
                        "seldom": shares.get("bad", 1),
                        "often": shares.get("bad", 1),
                    }
                    for bound, shares in _SLOW.items()
                },
            ),
            gauge("pgbreaker_slow_call_threshold_seconds{$L}", 0.25),
            counter(_outcome("success", "$L"), 1, seldom=0.045, often=0.055),
        ),
        says={
            "bad": ("1.9", "475ms"),
            "over": ("1.2", "291.7ms"),
            "often": ("1.9", "475ms"),
        },
        labels=LIBRARY,
        summary="Calls of $t are slow",
        description="{0} times as slow as it may be. A call takes {1}."
        " (All but statements: 95 % take no longer.)",
        board="pgbreaker-breakers?var-breaker=$t",
    ),
    _slow(
        "of an application that hardly calls",
        series=(
            *histogram(
                "pgbreaker_call_duration_seconds{$L}",
                le_0_25={"good": 0},
                le_0_5={"good": 0, "once": Once(1), "idle": 0},
                le_inf={"good": 0, "once": Once(1), "idle": 0},
            ),
            gauge("pgbreaker_slow_call_threshold_seconds{$L}", 0.25),
            counter(_outcome("success", "$L"), once=Once(1)),
        ),
        says={},
        labels=LIBRARY,
    ),
    # A day ago p95 was 97.5 ms; now it is 487.5, 375 and 396 ms.
    _slow(
        "compared with the day before",
        series=(
            *histogram(
                "pgbreaker_call_duration_seconds{$L}",
                le_0_05={"good": 0},
                le_0_1={"bad": 0, "under": 0, "over": 0, "seldom": 0, "often": 0},
                le_0_25={
                    "bad": 0,
                    "under": 0.9,
                    "over": 0.88,
                    "seldom": 0,
                    "often": 0,
                },
                le_0_5={},
                le_inf={},
            ),
            counter(_outcome("success", "$L"), 1, seldom=0.045, often=0.055),
        ),
        says={
            "bad": ("1.2", "487.5ms"),
            "over": ("1.0", "395.8ms"),
            "often": ("1.2", "487.5ms"),
        },
        labels=LIBRARY,
        summary="Calls of $t are slow",
        description="{0} times as slow as it may be. A call takes {1}. A day ago it took"
        " 97.5ms. (All but statements: 95 % take no longer.)",
        board="pgbreaker-breakers?var-breaker=$t",
        begins="24h10m",
        step="1m",
        slack="2m",
        sees="1m",
        lingers="4m",
        by="11m",
    ),
    # A day ago p95 was 4.75 ms; now it is 97.5, 49.7 and 51.9 ms.
    _slow(
        "compared with a day on which all was quick",
        series=(
            *histogram(
                "pgbreaker_call_duration_seconds{$L}",
                le_0_005={"bad": 0, "under": 0, "over": 0},
                le_0_025={"bad": 0, "under": 0, "over": 0},
                le_0_05={"bad": 0, "under": 0.96, "over": 0.948},
                le_0_1={},
                le_inf={},
            ),
            counter(_outcome("success", "$L"), 1),
        ),
        says={"bad": ("5.1", "97.5ms"), "over": ("2.7", "51.92ms")},
        labels=LIBRARY,
        summary="Calls of $t are slow",
        description="{0} times as slow as it may be. A call takes {1}. A day ago it took"
        " 4.75ms. (All but statements: 95 % take no longer.)",
        board="pgbreaker-breakers?var-breaker=$t",
        begins="24h10m",
        step="1m",
        slack="2m",
        sees="1m",
        lingers="4m",
        by="11m",
    ),
)

# -- Pools and connections -------------------------------------------------------------


def _of_pool(state: str, good: float, **trouble: float | Rising) -> Series:
    name = f'pgbreaker_pool_connections{{$L, state="{state}"}}'
    return gauge(name, good, **trouble)


_POOLS: Final = (
    Row(
        alert="PoolExhausted",
        twice=True,
        series=(
            _of_pool("used", 4, bad=10, under=9, over=10, used=10),
            _of_pool("idle", 6, bad=0, under=1, over=0, used=0),
            gauge("pgbreaker_pool_max_connections{$L}", 10),
            gauge("pgbreaker_pool_waiters{$L}", 0, bad=3, under=3, over=1, used=0),
        ),
        says={"bad": "3", "over": "1"},
        labels=LIBRARY,
        severity="critical",
        summary="The pool of $t in shop is exhausted",
        description="Every connection of the pool (10) has been taken for a minute, and"
        " callers wait for one all the time, {0} or more in the worst process. They wait for"
        " the application's own pool, not for the server: connections are held too long, or"
        " leak.",
        board="pgbreaker-pools?var-breaker=$t",
        waits="30s",
        keeps="2m",
        sees="55s",
        by="1m35s",
        step="5s",
        slack="5s",
    ),
    Row(
        alert="PoolExhausted",
        title="of two processes, each with one half of the trouble",
        series=(
            _of_pool("used", 4, bad=10),
            gauge("pgbreaker_pool_max_connections{$L}", 10),
            gauge("pgbreaker_pool_waiters{$L}", 0),
            gauge(
                'pgbreaker_pool_connections{job="shop",instance="two",breaker="$t",'
                'state="used"}',
                4,
            ),
            gauge(
                'pgbreaker_pool_max_connections{job="shop",instance="two",breaker="$t"}',
                10,
            ),
            gauge(
                'pgbreaker_pool_waiters{job="shop",instance="two",breaker="$t"}',
                0,
                bad=3,
            ),
        ),
        says={},
        labels=LIBRARY,
        severity="critical",
        waits="30s",
        keeps="2m",
        lasts="5m",
        alone=True,
    ),
    Row(
        alert="PoolSaturated",
        twice=True,
        series=(
            _of_pool("used", 40, bad=96, under=90, over=91),
            gauge("pgbreaker_pool_max_connections{$L}", 100),
            gauge("pgbreaker_pool_waiters{$L}", 0, bad=2),
        ),
        says={"bad": ("96%", ", and 2 callers wait"), "over": ("91%", "")},
        labels=LIBRARY,
        severity="warning",
        summary="The pool of $t in shop is nearly full",
        description="{0} of its connections have been taken for 5 minutes{1}. The next wave"
        " of calls will wait for one.",
        board="pgbreaker-pools?var-breaker=$t",
        waits="5m",
        keeps="5m",
    ),
    Row(
        alert="PoolExhaustionPredicted",
        series=(
            # At 42 minutes: past the last in half an hour, but for under, which is so a
            # little later, and for low, which by then has not been above 60 % for long.
            gauge(
                'pgbreaker_pool_connections{$L, state="used"}',
                None,
                bad=Rising(62, 0.012),
                under=Rising(62, 0.0095),
                over=Rising(62, 0.0105),
                low=Rising(0, 0.03),
                level=95,
            ),
            gauge("pgbreaker_pool_max_connections{$L}", 100),
        ),
        says={"bad": "92.24%", "over": "88.46%"},
        labels=LIBRARY,
        severity="warning",
        summary="The pool of $t in shop will be full within half an hour",
        description="The number of its connections that are taken has grown for 30 minutes,"
        " to {0}. A line through it is past the last one in half an hour: more load, or"
        " connections that are not given back.",
        board="pgbreaker-pools?var-breaker=$t",
        waits="10m",
        keeps="10m",
        sees="22m30s",
        by="42m",
        lasts="43m",
    ),
    *(
        Row(
            alert="PoolerExhausted",
            title=title,
            twice=True,
            series=(
                gauge(
                    'pgbreaker_pgbouncer_pool_waiting{$T,database="shop",user="app"}',
                    0,
                    bad=7,
                    under=7,
                    over=1,
                    gone=7,
                ),
                gauge(
                    "pgbreaker_pgbouncer_pool_maxwait_seconds"
                    '{$T, database="shop", user="app"}',
                    0,
                    bad=3,
                    under=1,
                    over=1.1,
                    gone=3,
                ),
                clock(
                    "pgbreaker_probe_last_success_timestamp_seconds"
                    '{$T, probe="pgbouncer"}',
                    gone=Halted(),
                ),
                gauge("pgbreaker_pgbouncer_paused_databases{$T}", paused),
            ),
            says={"bad": ("7", "3s"), "over": ("1", "1.1s")},
            labels={**TARGET, "database": "shop", "user": "app"},
            severity="critical",
            summary="PgBouncer before $t has no connection for app at shop",
            description="For a minute clients of shop as app have waited for a server"
            f" connection, {{0}} or more at a time, the first of them {{1}} so far. {why}",
            board="pgbreaker-pools?var-target=$t",
            waits="30s",
            keeps="2m",
            sees="55s",
            by="1m35s",
            step="5s",
            slack="5s",
        )
        for title, paused, why in (
            (
                "",
                0,
                (
                    "Transactions that stay open hold them, or the pool is too small, or the"
                    " server refuses more."
                ),
            ),
            ("of one that is paused", 2, "2 databases are paused there."),
        )
    ),
    Row(
        alert="ConnectionsExhausted",
        twice=True,
        series=(
            gauge(
                'pgbreaker_connection_saturation_ratio{$T, kind="server"}',
                0.5,
                bad=1.03,
                under=0.99,
                over=1,
                gone=1.03,
            ),
            gauge("pgbreaker_target_up{$T}", 1, gone=0),
            gauge('pgbreaker_connections_by_user{$T, user="app"}', 80),
            gauge('pgbreaker_connections_by_user{$T, user="report"}', 20),
            gauge("pgbreaker_idle_in_transaction_connections{$T}", 0, bad=12),
        ),
        says={"bad": ("103%", " 12 are idle in a transaction."), "over": ("100%", "")},
        labels=TARGET,
        severity="critical",
        summary="$t has no connection slot left",
        description="Whoever is connected is served, new connections are refused (53300)."
        " Applications have taken {0} of the slots that are for them. Most are those of app"
        " (80).{1}",
        board="pgbreaker-target?var-target=$t",
        step="5s",
        slack="5s",
        waits="15s",
        keeps="2m",
    ),
    Row(
        alert="ConnectionsHigh",
        twice=True,
        series=(
            gauge(
                'pgbreaker_connection_saturation_ratio{$T, kind="server"}',
                0.5,
                bad=0.95,
                under=0.85,
                over=0.86,
                gone=0.95,
            ),
            gauge("pgbreaker_target_up{$T}", 1, gone=0),
            gauge('pgbreaker_connections_by_user{$T, user="app"}', 80),
            gauge("pgbreaker_idle_in_transaction_connections{$T}", 0, bad=12),
        ),
        says={"bad": ("95%", " 12 are idle in a transaction."), "over": ("86%", "")},
        labels=TARGET,
        severity="warning",
        summary="$t runs out of connection slots",
        description="{0} of the slots that applications can have are taken. Most are those"
        " of app (80).{1}",
        board="pgbreaker-target?var-target=$t",
        waits="5m",
        keeps="5m",
    ),
)

# -- The server itself -----------------------------------------------------------------

_SERVER: Final = (
    Row(
        alert="LocksPiledUp",
        twice=True,
        series=(
            gauge("pgbreaker_lock_waiters{$T}", 0, bad=12, under=4, over=5, gone=12),
            gauge("pgbreaker_target_up{$T}", 1, gone=0),
            gauge("pgbreaker_lock_wait_oldest_seconds{$T}", 0, bad=95, over=95),
            gauge("pgbreaker_lock_blockers{$T}", 0, bad=1, over=1),
            gauge("pgbreaker_idle_in_transaction_oldest_seconds{$T}", 0, bad=300),
        ),
        says={
            "bad": (
                "12",
                " A session has been idle in a transaction for 5m 0s: likely the one.",
            ),
            "over": ("5", ""),
        },
        labels=TARGET,
        severity="warning",
        summary="{0} sessions of $t wait for locks",
        description="Whoever needs the same rows or tables joins the queue, until the"
        " connections are used up. The first of them has waited for 1m 35s. 1 at the front"
        " hold up all others.{1}",
        board="pgbreaker-target?var-target=$t",
        waits="1m",
        keeps="2m",
    ),
    Row(
        alert="TransactionOld",
        twice=True,
        series=(
            gauge(
                "pgbreaker_transaction_oldest_seconds{$T}",
                60,
                bad=7260,
                under=3600,
                over=3601,
                gone=7260,
            ),
            gauge("pgbreaker_target_up{$T}", 1, gone=0),
            gauge("pgbreaker_idle_in_transaction_oldest_seconds{$T}", 0, bad=7200),
        ),
        says={
            "bad": (
                "2h 1m 0s",
                "It does nothing: its session has been idle in it for 2h 0m 0s.",
            ),
            "over": (
                "1h 0m 1s",
                "It is at work, or pauses only shortly: a report, a dump, a migration.",
            ),
        },
        labels=TARGET,
        severity="warning",
        summary="A transaction on $t has been open for {0}",
        description="While it is, vacuum removes no row that died since, in any table, and"
        " its locks stay. {1}",
        board="pgbreaker-target?var-target=$t",
        waits="5m",
        keeps="5m",
    ),
    Row(
        alert="ReplicaStale",
        twice=True,
        series=(
            gauge(
                "pgbreaker_replay_age_seconds{$T}",
                0,
                bad=900,
                under=300,
                over=301,
                gone=900,
            ),
            gauge("pgbreaker_target_up{$T}", 1, gone=0),
            gauge("pgbreaker_replay_paused{$T}", 0, bad=1),
        ),
        says={
            "bad": ("15m 0s", "Somebody has paused its replay."),
            "over": (
                "5m 1s",
                (
                    "Its replay is held up by a query, a lock or its disk, or its primary"
                    " writes more than it can take."
                ),
            ),
        },
        labels=TARGET,
        severity="warning",
        summary="Replica $t is {0} behind",
        description="Whoever reads there reads old data. {1}",
        board="pgbreaker-target?var-target=$t",
        waits="2m",
        keeps="5m",
    ),
    Row(
        alert="ReplicaStale",
        title="of one that is cut off",
        twice=True,
        series=(
            gauge("pgbreaker_replay_age_seconds{$T}", 0, bad=None),
            gauge("pgbreaker_wal_receiver_up{$T}", 1, bad=0),
            _UP,
        ),
        labels=TARGET,
        severity="warning",
        summary="Replica $t hears no primary",
        description="Whoever reads there reads old data. Its WAL receiver streamed within"
        " the last day and does no longer: its primary is gone, or refuses it, or has thrown"
        " away the WAL that it needs.",
        board="pgbreaker-target?var-target=$t",
        waits="2m",
        keeps="5m",
    ),
    Row(
        alert="ReplicaStale",
        title="of one that lives by an archive",
        series=(gauge("pgbreaker_wal_receiver_up{$T}", 0), _UP),
        says={},
        labels=TARGET,
        severity="warning",
        waits="2m",
        keeps="5m",
        alone=True,
    ),
    Row(
        alert="ArchiverFailing",
        twice=True,
        series=(
            counter(
                "pgbreaker_archiver_failed_total{$T}",
                bad=0.05,
                under=Once(1),
                over=1 / 800,
                gone=0.05,
            ),
            gauge("pgbreaker_target_up{$T}", 1, gone=0),
            gauge("pgbreaker_archiver_pending_segments{$T}", 0, bad=30),
        ),
        says={"bad": "30", "over": "0"},
        labels=TARGET,
        severity="warning",
        summary="$t cannot archive its WAL",
        description="archive_command or archive_library has failed for 10 minutes, and {0}"
        " segments wait. WAL is kept until it is archived, so the disk fills, and there is"
        " no point-in-time recovery to later than this.",
        board="pgbreaker-target?var-target=$t",
        waits="10m",
        keeps="10m",
        by="11m",
        lingers="9m45s",
        slack="30s",
    ),
    Row(
        alert="ServerCrashed",
        twice=True,
        series=(
            counter(
                'pgbreaker_notices_total{$T, code="crashed"}', bad=Once(2), over=Once(1)
            ),
            counter('pgbreaker_notices_total{$T, code="restarted"}', under=Once(1)),
            gauge("pgbreaker_target_up{$T}", 1, over=0),
        ),
        says={"bad": "It answers again.", "over": "It does not answer now."},
        labels=TARGET,
        severity="warning",
        summary="A process of $t crashed, and all its sessions were ended",
        description="One of the server's processes died (out of memory, kill -9, a bug in"
        " an extension), and the server began anew without being restarted: every session"
        " was cut, and every transaction that was open is lost. {0}",
        board="pgbreaker-target?var-target=$t",
        waits="0s",
        keeps="10m",
        by="15s",
        lasts="1m",
        lingers="8m45s",
        slack="30s",
    ),
)

# -- What is foretold ------------------------------------------------------------------

# Something came of most warnings of "bad", none of "over" has been seen to its end, and
# "gone" does not answer any more.
_NONE_SEEN: Final = "None of these warnings has been seen to its end so far."
_CAME_TRUE: Final = "So far 80% of these warnings came true."
_NO_END: Final = "No end is in sight any more; the warning stands for a while."
_FAILURE: Final = "By what its openings have taught, the probability is {}."


def _warned(of: str, **more: float) -> Series:
    """A warning that stands for "bad" and "over", and for "calm", who has no end in
    sight any more."""
    name = f'pgbreaker_forecast_warning{{$T, of="{of}"}}'
    return gauge(name, None, bad=1, over=1, calm=1, **more)


def _precision(of: str, **more: float) -> Series:
    name = f'pgbreaker_forecast_precision_ratio{{$T, of="{of}"}}'
    return gauge(name, None, bad=0.8, **more)


def _left(left: str, bound: str, of: str, scale: float) -> tuple[Series, ...]:
    """What is left: of "bad" with both ends, of "over" it may be never, of "calm" none."""
    sought = f', of="{of}"' if of else ""
    return (
        gauge(f"{left}{{$T{sought}}}", None, bad=600 * scale, over=1200 * scale),
        gauge(
            f'{bound}{{$T{sought}, bound="soonest"}}',
            None,
            bad=300 * scale,
            over=900 * scale,
        ),
        gauge(f'{bound}{{$T{sought}, bound="latest"}}', None, bad=900 * scale),
    )


_DOWN: Final = gauge("pgbreaker_target_up{$T}", 1, gone=0)


def _ends(
    what: str,
    bad: tuple[str, ...] = ("10m 0s", "5m 0s", "15m 0s"),
    over: tuple[str, ...] = ("20m 0s", "15m 0s"),
) -> dict[str, Said]:
    """What is told of each of them: when it ends, and what came of such warnings."""
    rate = f"At the present rate {what} in {{}}, at the soonest in {{}}"
    said = {
        "bad": f"{rate}, at the latest in {{}}.".format(*bad),
        "over": f"{rate}.".format(*over),
        "calm": _NO_END,
    }
    seen = {"bad": _CAME_TRUE}
    return {actor: (text, seen.get(actor, _NONE_SEEN)) for actor, text in said.items()}


def _runway(of: str, why: str, *beside: Series) -> Row:
    return Row(
        alert="RunwayShort",
        title=f"of {of}",
        twice=True,
        series=(
            _warned(of, gone=1),
            _DOWN,
            *_left(
                "pgbreaker_runway_seconds", "pgbreaker_runway_bound_seconds", of, 144
            ),
            gauge('pgbreaker_forecast_warning{$T, of="lag"}', None, under=1),
            *beside,
        ),
        says=_ends(
            "the end is",
            ("1d 0h 0m 0s", "12h 0m 0s", "1d 12h 0m 0s"),
            ("2d 0h 0m 0s", "1d 12h 0m 0s"),
        ),
        labels={**TARGET, "of": of},
        severity="warning",
        summary=f"$t will run out within ten days: {of}",
        description=f"{{0}} At the end {why}",  # of its record nothing: it has none
        board="pgbreaker-target?var-target=$t",
        waits="0s",
        keeps="30m",
    )


_FORECASTS: Final = (
    Row(
        alert="ConnectionExhaustionPredicted",
        twice=True,
        series=(
            _warned("connections", gone=1),
            _DOWN,
            *_left(
                "pgbreaker_connection_exhaustion_seconds",
                "pgbreaker_connection_exhaustion_bound_seconds",
                "",
                1,
            ),
            _precision("connections"),
            gauge('pgbreaker_forecast_warning{$T, of="pool"}', None, under=1),
            gauge('pgbreaker_connections_by_user{$T, user="app"}', 80),
        ),
        says=_ends("all are taken"),
        labels=TARGET,
        severity="warning",
        summary="$t will have no connection slot left within an hour",
        description="{0} Most are those of app (80). {1} Idle ones that grow in number are"
        " mostly a leak, active ones pile up behind locks or slow statements.",
        board="pgbreaker-target?var-target=$t",
        waits="0s",
        keeps="10m",
    ),
    Row(
        alert="PoolerExhaustionPredicted",
        twice=True,
        series=(
            _warned("pool"),
            clock(
                'pgbreaker_probe_last_success_timestamp_seconds{$T, probe="pgbouncer"}'
            ),
            *_left(
                "pgbreaker_runway_seconds", "pgbreaker_runway_bound_seconds", "pool", 1
            ),
            _precision("pool"),
            gauge('pgbreaker_forecast_warning{$T, of="connections"}', None, under=1),
            gauge(
                "pgbreaker_pgbouncer_pool_server_connections"
                '{$T, database="shop", user="app", state="active"}',
                18,
            ),
        ),
        says=_ends("every server connection of a pool is taken"),
        labels=TARGET,
        severity="warning",
        summary="PgBouncer before $t will have a pool without a free connection within"
        " half an hour",
        description="{0} The busiest is that of shop as app (18). {1} More load, statements"
        " that take longer, or transactions that stay open.",
        board="pgbreaker-target?var-target=$t",
        waits="0s",
        keeps="10m",
    ),
    Row(
        alert="PoolerExhaustionPredicted",
        title="of one that has not answered since long",
        series=(
            gauge('pgbreaker_forecast_warning{$T, of="pool"}', None, bad=1),
            gauge(
                'pgbreaker_probe_last_success_timestamp_seconds{$T, probe="pgbouncer"}',
                60,
            ),
        ),
        says={},
        labels=TARGET,
        severity="warning",
        waits="0s",
        keeps="10m",
        alone=True,
    ),
    *(
        Row(
            alert="ReplicaLagPredicted",
            title=title,
            twice=True,
            series=(
                _warned("lag", gone=1),
                _DOWN,
                *_left(
                    "pgbreaker_runway_seconds",
                    "pgbreaker_runway_bound_seconds",
                    "lag",
                    1,
                ),
                _precision("lag"),
                gauge('pgbreaker_forecast_warning{$T, of="disk"}', None, under=1),
                gauge("pgbreaker_replay_age_seconds{$T}", 120),
                gauge("pgbreaker_replay_paused{$T}", paused),
            ),
            says=_ends("it is at its limit"),
            labels=TARGET,
            severity="warning",
            summary="Replica $t will be further behind than it may within half an hour",
            description=f"{{0}} It is 2m 0s behind now.{why} {{1}}",
            board="pgbreaker-target?var-target=$t",
            waits="0s",
            keeps="10m",
        )
        for title, paused, why in (
            ("", 0, ""),
            ("of one that is paused", 1, " Somebody has paused its replay."),
        )
    ),
    *(
        _runway(
            of,
            f"its {of}s are used up, and it refuses to write; database app is at 80%."
            " Something keeps vacuum from freezing: an old transaction, a prepared one, a"
            " replication slot.",
            gauge(f'pgbreaker_{of}_age_ratio{{$T, database="app"}}', 0.8),
            gauge(f'pgbreaker_{of}_age_ratio{{$T, database="postgres"}}', 0.1),
        )
        for of in ("xid", "multixact")
    ),
    _runway(
        "sequence",
        "inserts fail; orders_id_seq is at 93%.",
        gauge('pgbreaker_sequence_used_ratio{$T, sequence="orders_id_seq"}', 0.93),
    ),
    _runway(
        "slot",
        "a replication slot is lost, and its consumer has to be made anew; most is held"
        " back by cdc (2GiB).",
        gauge('pgbreaker_slot_retained_bytes{$T, slot="cdc"}', 2 * 1024**3),
    ),
    _runway(
        "archiver",
        "WAL that is not archived has filled the disk, and the server stops; 40 segments"
        " wait.",
        gauge("pgbreaker_archiver_pending_segments{$T}", 40),
    ),
    _runway(
        "disk",
        "its disk is full, and the server stops; 91% is used.",
        gauge("pgbreaker_disk_used_ratio{$T}", 0.91),
    ),
    Row(
        alert="FailurePredicted",
        twice=True,
        series=(
            gauge(
                'pgbreaker_forecast_warning{$T, of="failure"}',
                None,
                bad=1,
                over=1,
                gone=1,
                out=1,
            ),
            gauge('pgbreaker_forecast_warning{$T, of="pool"}', None, under=1),
            gauge("pgbreaker_failure_probability{$T}", 0.02, bad=0.93, over=0.93),
            _precision("failure", over=0.8),
            gauge("pgbreaker_target_up{$T}", 1, gone=0),
            gauge('pgbreaker_breaker_state{$B, state="open"}', 0, out=1),
            gauge('pgbreaker_breaker_state{$B, state="half_open"}', 0),
            gauge(
                'pgbreaker_connection_saturation_ratio{$T, kind="server"}',
                0.4,
                bad=0.7,
                over=0.7,
            ),
            gauge("pgbreaker_lock_waiters{$T}", 0, bad=6, over=6),
        ),
        says={
            actor: (
                _FAILURE.format("93%"),
                seen,
                " 70% of its slots are taken. 6 sessions wait for locks.",
            )
            for actor, seen in (("bad", _CAME_TRUE), ("over", _CAME_TRUE))
        },
        labels=TARGET,
        severity="warning",
        summary="A breaker of $t will likely open within a quarter of an hour",
        description="{0} {1}{2} What weighs most is on its page at the daemon.",
        board="pgbreaker-target?var-target=$t",
        waits="0s",
        keeps="10m",
    ),
    Row(
        alert="FailurePredicted",
        title="of one whose model says nothing any more",
        series=(
            gauge('pgbreaker_forecast_warning{$T, of="failure"}', None, bad=1),
            _UP,
        ),
        says={"bad": ()},
        labels=TARGET,
        severity="warning",
        summary="A breaker of $t will likely open within a quarter of an hour",
        description="The model says nothing any more; the warning stands for a while."
        f" {_NONE_SEEN} What weighs most is on its page at the daemon.",
        board="pgbreaker-target?var-target=$t",
        waits="0s",
        keeps="10m",
        alone=True,
    ),
    Row(
        alert="FailurePredicted",
        title="of one that is on trial",
        series=(
            gauge('pgbreaker_forecast_warning{$T, of="failure"}', None, bad=1),
            _UP,
            gauge('pgbreaker_breaker_state{$B, state="half_open"}', 0, bad=1),
        ),
        says={},
        labels=TARGET,
        severity="warning",
        waits="0s",
        keeps="10m",
        alone=True,
    ),
    *(
        Row(
            alert="ModelStale",
            title=title,
            twice=True,
            series=(
                # So many seconds behind the clock, which is at 600 when it begins.
                gauge(
                    f"pgbreaker_forecast_model_{what}_timestamp_seconds{{$T}}",
                    None,
                    bad=Rising(600 - 30000, 1),
                    under=Rising(600 - 21600, 1),
                    over=Rising(600 - 21601, 1),
                    gone=Rising(600 - 30000, 1),
                ),
                _DOWN,
            ),
            says={"bad": "8h 20m 0s", "over": "6h 0m 1s"},
            labels=TARGET,
            severity="warning",
            summary="The model of $t learns no more",
            description="The server answers, but what its breakers do has taught the model"
            " nothing for {0}. Failures are foretold by what was learnt before that, or not"
            " at all.",
            board="pgbreaker-target?var-target=$t",
            waits="1h",
            keeps="10m",
            step="5m",
            slack="5m",
            begins="10m",
        )
        for title, what in (("", "learned"), ("of one that never learnt", "begun"))
    ),
    Row(
        alert="ModelStale",
        title="of one that began long ago, and learns",
        series=(
            gauge("pgbreaker_forecast_model_begun_timestamp_seconds{$T}", 0),
            clock("pgbreaker_forecast_model_learned_timestamp_seconds{$T}"),
            _UP,
        ),
        says={},
        labels=TARGET,
        severity="warning",
        waits="1h",
        keeps="10m",
        lasts="9h",
        step="5m",
        slack="5m",
        begins="10m",
        alone=True,
    ),
)

# -- The error budget: 0.1 % -----------------------------------------------------------


def _burn(alert: str, title: str, within: str, *series: Series, **what: object) -> Row:
    is_fast = alert.endswith("Fast")
    common = {
        "labels": BREAKER,
        "severity": "critical" if is_fast else "warning",
        "summary": "$t/read uses up its error budget "
        + ("within days" if is_fast else "before the month is over"),
        "description": "{0} of the calls of $t/read failed or were refused within "
        + within
        + ", where 0.1% may. At this pace the budget of 30 days lasts {1}.",
        "board": "pgbreaker-slo?var-breaker=$t/read",
        "waits": "2m" if is_fast else "15m",
        "keeps": "5m" if is_fast else "30m",
    }
    return Row(alert=alert, title=title, series=series, **{**common, **what})


_BUDGET: Final = (
    _burn(
        "ErrorBudgetBurnFast",
        "of an hour",
        "1 or 6 hours",
        counter(_outcome("success"), 1),
        counter(_outcome("failure"), bad=0.1 / 0.9, over=0.0145 / 0.9855, under=0.014),
        counter(_outcome("cut"), cut=0.1 / 0.9),
        counter(_outcome("rejected"), refused=0.1 / 0.9),
        says={
            "bad": ("10%", "7h 12m 0s"),
            "cut": ("10%", "7h 12m 0s"),
            "refused": ("10%", "7h 12m 0s"),
            "over": ("1.45%", "2d 1h 39m 0s"),
        },
        begins="2h30m",
        sees="8m",
        by="70m",
        # 6 hours and 30 minutes are over later than an hour and 5 minutes.
        lingers="27m",
        step="1m",
        slack="3m",
    ),
    _burn(
        "ErrorBudgetBurnFast",
        "of six hours",
        "1 or 6 hours",
        counter(_outcome("success"), 1),
        counter(
            _outcome("failure"),
            bad=0.012 / 0.988,
            under=0.0059 / 0.9941,
            over=0.0062 / 0.9938,
        ),
        says={
            "bad": ("1.2%", "2d 12h 0m 0s"),
            "over": ("0.62%", "4d 20h 8m 0s"),
        },
        begins="30m",
        sees="28m",
        by="6h30m",
        lingers="15m",
        step="2m",
        slack="4m",
    ),
    _burn(
        "ErrorBudgetBurnFast",
        "of seldom calls",
        "1 or 6 hours",
        counter(
            _outcome("failure"),
            bad=Once(20),
            over=Once(12),
            under=Once(9),
            once=Once(1),
            idle=0,
        ),
        counter(_outcome("success"), 0),
        says={"bad": ("100%", "43m 0s"), "over": ("100%", "43m 0s")},
        begins="1h",
        by="4m",
        lasts="1m",
        lingers="28m",
        step="1m",
        slack="2m",
    ),
    _burn(
        "ErrorBudgetBurnSlow",
        "of days",
        "1 or 3 days",
        counter(_outcome("success"), 1),
        counter(
            _outcome("failure"),
            bad=0.02 / 0.98,
            under=0.0009 / 0.9991,
            over=0.0011 / 0.9989,
        ),
        says={
            "bad": ("2%", "1d 12h 0m 0s"),
            "over": ("0.11%", "27d 6h 33m 0s"),
        },
        begins="3d",
        sees="3h30m",
        by="73h",
        lingers="5h30m",
        step="20m",
        slack="40m",
    ),
    _burn(
        "ErrorBudgetBurnSlow",
        "of seldom calls",
        "1 or 3 days",
        counter(
            _outcome("failure"),
            bad=Once(20),
            over=Once(12),
            under=Once(9),
            once=Once(1),
            idle=0,
        ),
        counter(_outcome("success"), 0),
        says={"bad": ("100%", "43m 0s"), "over": ("100%", "43m 0s")},
        begins="3d",
        by="40m",
        lasts="20m",
        lingers="5h30m",
        step="20m",
        slack="40m",
    ),
)

ROWS: Final = (
    *_DAEMON,
    *_BREAKERS,
    *_SLOWNESS,
    *_POOLS,
    *_SERVER,
    *_FORECASTS,
    *_BUDGET,
)
