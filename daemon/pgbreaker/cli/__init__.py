"""The command line: one verb a function, exit codes as documented.

Nothing heavy is imported before a verb needs it: ``pgbreaker version`` answers at
once, and ``healthcheck`` runs every few seconds in a container.
"""

import os
import signal
import sys
from collections.abc import Mapping
from typing import Final

import click

from pgbreaker.cli.verbs import Verbs

VERBS: Final[Mapping[str, str]] = {
    "run": "serving:run",
    "demo": "serving:demo",
    "init": "starting:init",
    "check-config": "files:check_config",
    "schema": "files:schema",
    "config": "files:config_",
    "doctor": "asking:doctor",
    "probe": "asking:probe",
    "status": "looking:status",
    "watch": "watching:watch",
    "explain": "looking:explain",
    "events": "looking:events",
    "open": "orders:open_",
    "close": "orders:close",
    "disable": "orders:disable",
    "auto": "orders:auto",
    "maintenance": "orders:maintenance",
    "reload": "serving:reload",
    "healthcheck": "serving:healthcheck",
    "check": "looking:check",
    "export": "files:export",
    "alerts": "alerting:alerts",
    "simulate": "replaying:simulate",
    "backtest": "backtesting:backtest",
    "support-bundle": "bundling:support_bundle",
    "hash-password": "files:hash_password",
    "completion": "shells:completion",
    "man": "shells:man",
    "version": "serving:version",
}
"""Every verb, and where it is: ``module:command`` below this package."""


@click.group(
    cls=Verbs,
    table=VERBS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 failure, 2 usage, 69 no daemon answers, 75 try again"
    " later, 77 not allowed, 78 the configuration cannot be used.",
)
@click.version_option(package_name="pgbreaker", message="%(prog)s %(version)s")
def cli() -> None:
    """Watch PostgreSQL from outside, and break the circuit before it hurts."""


def main() -> None:
    """Run the command line; every error is one clear line and an exit code."""
    if os.getpid() == 1:
        # The first process of a container has no default action: until the daemon takes
        # signals itself, one would be lost, and the container killed after ten seconds.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        cli(prog_name="pgbreaker")
    except BrokenPipeError:  # who read us has seen enough
        sys.exit(0)
