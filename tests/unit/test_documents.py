"""What the documents say is what the code says."""

import re
import shlex
from pathlib import Path

import click
import pytest

from pgbreaker.cli import cli as program
from pgbreaker.metrics import LIBRARY
from support.documents import (
    NOT_RUN,
    PAGES,
    SHOWN,
    anchors,
    blocks,
    commands,
    left_out,
    links,
    missing,
)
from support.reader import KINDS
from support.references.parts import DAEMON, PARTS

ROOT = Path(__file__).parents[2]
# Between colons it is part of what a rule records; before a star, the name of several.
METRIC = re.compile(r"(?<![:\w])pgbreaker_[a-z][a-z0-9_]*(?![\w:*])")
SUFFIXES = ("_bucket", "_sum", "_count")


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
    assert between(path, name) == PARTS[path, name](), "run make docs"


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


MARKDOWN = sorted(
    path
    for path in ROOT.glob("**/*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)


@pytest.mark.parametrize(
    "page", MARKDOWN, ids=[str(p.relative_to(ROOT)) for p in MARKDOWN]
)
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page):
    lost = []
    for line, address in links(page):
        path, _, anchor = address.partition("#")
        there = (page.parent / path) if path else page
        if "://" in address or address.startswith("mailto:"):
            continue
        if not there.exists() or (
            anchor and (there.suffix != ".md" or anchor not in anchors(there))
        ):
            lost.append(f"{page.relative_to(ROOT)}:{line}: {address}")

    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_a_block_says_what_it_is(page):
    """Only then can it be run, or held to its kind (acceptance/test_documents.py)."""
    known = KINDS.keys() | SHOWN
    assert [block.where for block in blocks(page) if block.kind not in known] == []


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_a_command_that_is_shown_alone_is_one_that_is_understood(page):
    """As in the reference of the command line, where each verb has its examples."""
    for block in blocks(page):
        for line in block.text.splitlines() if block.kind in SHOWN else ():
            assert not TYPED.match(line), f"{block.where} is not run: {line}"
            if line.startswith("pgbreaker "):
                assert understands(line), f"{block.where}: {line}"


# What a reader would type, in a block of a kind that is not run.
TYPED = re.compile(r"(\$|make|curl|psql|docker|kubectl|pip) ")


def understands(command: str) -> bool:
    """Whether the command line takes these words; nothing is done."""
    words = shlex.split(command.partition(" > ")[0])[1:]
    group: click.Command = program
    context = click.Context(program)
    while isinstance(group, click.Group):
        _, found, words = group.resolve_command(context, words)
        assert found is not None
        context, group = click.Context(found, parent=context), found
    try:
        group.parse_args(context, words)
    except click.UsageError as error:
        return "does not exist" in str(error)  # a file that a reader would have
    return True


def test_what_is_left_out_is_there_to_be_left_out_and_shown_elsewhere():
    told = {
        left_out(command)
        for page in PAGES
        for block in blocks(page)
        if block.kind in ("sh", "console")
        for command in commands(block.text.replace("$ ", ""))
    }

    assert set(NOT_RUN) - told == set()
    assert [
        n.shown_by for n in NOT_RUN.values() if not (ROOT / n.shown_by).exists()
    ] == []


@pytest.mark.parametrize(
    ("expected", "said", "lacks"),
    [
        (["a 1"], "a 2", None),
        (["open for 490 ms"], "open for 14.9 s", None),
        (["a", "...", "c"], "a\nb\nc", None),
        (["from ... on"], "from here on", None),
        (["b", "a"], "a\nb", "a"),
        (["open"], "closed", "open"),
    ],
)
def test_an_answer_is_held_against_what_the_page_shows(expected, said, lacks):
    assert missing(expected, said) == lacks
