"""What the documents say is what the code says."""

import json
import re
from pathlib import Path

import pytest

from pgbreaker.config import reference as reference_of_keys
from pgbreaker.config import schema
from pgbreaker.core.diagram import mermaid
from pgbreaker.guard.reference import reference as reference_of_rules
from pgbreaker.metrics import LIBRARY
from pgbreaker.monitor.outlook import OUTLOOK
from pgbreaker.probes import PROBES
from pgbreaker.probes.reference import reference as reference_of_probes
from pgbreaker.sinks.exposition import reference, shown_families
from pgbreaker.sinks.metrics import FAMILIES, OWN

ROOT = Path(__file__).parents[2]
# Between colons it is part of what a rule records.
METRIC = re.compile(r"(?<![:\w])pgbreaker_[a-z][a-z0-9_]*(?![\w:])")
SUFFIXES = ("_bucket", "_sum", "_count")
SHOWN = [*(one for probe in PROBES.values() for one in probe.shows), *OUTLOOK]
DAEMON = {**FAMILIES, **shown_families(SHOWN), **OWN}

# What `make docs` writes: page and name of the part -> its text; with no name, the whole.
PARTS = {
    ("config/pgbreaker.schema.json", ""): json.dumps(schema(), indent=2) + "\n",
    ("README.md", "states"): mermaid(),
    ("config/README.md", "keys"): reference_of_keys(),
    ("config/README.md", "rules"): reference_of_rules(),
    ("daemon/METRICS.md", "metrics"): reference(DAEMON),
    ("daemon/METRICS.md", "library"): reference(LIBRARY),
    ("daemon/PROBES.md", "probes"): reference_of_probes(),
}


def between(path: str, name: str) -> str:
    text = (ROOT / path).read_text("utf-8")
    if not name:
        return text
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]


def known(metric: str) -> bool:
    names = DAEMON.keys() | LIBRARY.keys()
    stems = {metric.removesuffix(suffix) for suffix in SUFFIXES}
    return metric in names or bool(stems & names)


@pytest.mark.parametrize(("path", "name"), PARTS)
def test_what_is_made_from_the_code_is_up_to_date(path, name):
    assert between(path, name) == PARTS[path, name], "run make docs"


def test_both_pages_show_the_same_example():
    assert between("README.md", "example") == between("config/README.md", "example")


@pytest.mark.parametrize("folder", ["alerts", "dashboards", "config", "daemon"])
def test_every_metric_that_is_named_exists(folder):
    files = [
        path
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".md", ".yml", ".yaml", ".json", ".tmpl")
    ]
    named = {m for path in files for m in METRIC.findall(path.read_text("utf-8"))}
    # `pgbreaker_target_info` and friends apart, these are words of other kinds.
    strange = {m for m in named if not known(m)}

    assert strange == set()


@pytest.mark.parametrize(
    "folder", ["daemon", "dashboards", "alerts", "config", "tests"]
)
def test_every_folder_says_what_is_in_it_and_how_to_add_to_it(folder):
    text = (ROOT / folder / "README.md").read_text("utf-8")

    assert re.search(r"\badd\b", text)
    assert len(text) < 20_000


def test_links_between_documents_lead_somewhere():
    for path in ROOT.glob("**/*.md"):
        if ".venv" in path.parts:
            continue
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text("utf-8")):
            if "://" not in link:
                assert (path.parent / link).exists(), f"{path}: {link}"
