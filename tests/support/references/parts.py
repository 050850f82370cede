"""The parts of the documents that are made from the code, and where they stand."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pgbreaker.config import reference as reference_of_keys
from pgbreaker.config import schema
from pgbreaker.core.diagram import mermaid
from pgbreaker.guard.reference import reference as reference_of_rules
from pgbreaker.metrics import LIBRARY
from pgbreaker.monitor.outlook import OUTLOOK
from pgbreaker.probes import PROBES
from pgbreaker.probes.reference import reference as reference_of_probes
from pgbreaker.sinks.exposition import reference as reference_of_metrics
from pgbreaker.sinks.exposition import shown_families
from pgbreaker.sinks.metrics import FAMILIES, OWN
from support.references import (
    commands,
    forecasts,
    house,
    library,
    routes,
    stable,
    verdicts,
    walks,
)

ROOT: Final = Path(__file__).parents[3]

SHOWN: Final = [*(one for probe in PROBES.values() for one in probe.shows), *OUTLOOK]
DAEMON: Final = {**FAMILIES, **shown_families(SHOWN), **OWN}

PARTS: Final[Mapping[tuple[str, str], Callable[[], str]]] = {
    ("config/pgbreaker.schema.json", ""): lambda: json.dumps(schema(), indent=2) + "\n",
    ("config/README.md", "keys"): reference_of_keys,
    ("config/README.md", "rules"): reference_of_rules,
    ("daemon/METRICS.md", "metrics"): lambda: reference_of_metrics(DAEMON),
    ("daemon/METRICS.md", "library"): lambda: reference_of_metrics(LIBRARY),
    ("daemon/PROBES.md", "probes"): reference_of_probes,
    ("daemon/docs/cli.md", "commands"): commands.commands,
    ("daemon/docs/cli.md", "asking"): commands.asking,
    ("daemon/docs/cli.md", "environment"): commands.variables,
    ("daemon/docs/cli.md", "exits"): commands.exits,
    ("daemon/docs/library.md", "names"): library.library,
    ("daemon/docs/library.md", "doors"): library.doors,
    ("daemon/docs/http.md", "programs"): lambda: routes.addresses(people=False),
    ("daemon/docs/http.md", "people"): lambda: routes.addresses(people=True),
    ("daemon/docs/http.md", "documents"): routes.documents,
    ("daemon/docs/explanation.md", "states"): mermaid,
    ("daemon/docs/explanation.md", "causes"): verdicts.causes,
    ("daemon/docs/explanation.md", "verdicts"): verdicts.verdicts,
    ("daemon/docs/explanation.md", "reading"): walks.walk_of_a_reading,
    ("daemon/docs/explanation.md", "call"): walks.walk_of_a_call,
    ("daemon/docs/explanation.md", "floors"): house.floors,
    ("daemon/docs/forecasts.md", "kinds"): forecasts.kinds,
    ("tests/stable.json", ""): lambda: stable.written(
        stable.grown(stable.read(), promised())
    ),
}
"""What `make docs` writes: page and name of the part -> what makes its text; with no name,
the whole of the page."""


def promised() -> stable.Promise:
    """All that is stable, as the code has it now."""
    ours = {f"library {name}": family for name, family in LIBRARY.items()}
    return stable.promise({**DAEMON, **ours})
