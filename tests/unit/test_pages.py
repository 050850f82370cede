"""What pages claim can be looked up: by a link, a measurement, a test."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "daemon/docs"
TEST = re.compile(r"\[`(test_\w+)`\]\(([\w./-]+\.py)\)")
POSTURES = {
    "robust_to_untrusted_downstream",
    "robust_to_untrusted_upstream",
    "robust_to_untrusted_downstream_and_upstream",
    "requires_trusted_downstream_and_upstream",
    "data_plane_agnostic",
}


def tables(page: str) -> list[list[list[str]]]:
    """Every table of a page, as rows of cells, without what is below its head."""
    found, rows = [], []
    for line in [*page.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            found.append([rows[0], *rows[2:]])
            rows = []
    return found


@cache
def functions(path: Path) -> set[str]:
    own = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, own)}


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda p: p.name)
def test_every_test_that_a_page_names_is_there(page):
    for name, link in TEST.findall(page.read_text("utf-8")):
        assert name in functions((page.parent / link).resolve()), (
            f"{page.name}: {link}::{name}"
        )


def test_every_threat_has_something_done_about_it_and_a_test():
    page = (DOCS / "threat-model.md").read_text("utf-8")
    threats = [
        t for t in tables(page) if t[0] == ["threat", "what is done", "shown by"]
    ]

    assert len(threats) >= 8
    for row in (row for table in threats for row in table[1:]):
        assert TEST.search(row[2]), row
        assert row[1]


def test_every_component_has_a_tag_and_a_section():
    page = (DOCS / "threat-model.md").read_text("utf-8")
    (tags,) = (t for t in tables(page) if t[0] == ["component", "tag"])
    tagged = [name for row in tags[1:] for name in re.findall(r"\[([^]]+)\]", row[0])]
    sections = re.findall(r"^### (.+)$", page, flags=re.MULTILINE)

    assert {row[1].strip("`") for row in tags[1:]} <= POSTURES
    assert sorted(name.lower() for name in tagged) == sorted(
        s.lower() for s in sections
    )


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    bare = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in bare)
    return {heading.replace(" ", "-") for heading in plain}


def references(page: str) -> dict[str, str]:
    return dict(re.findall(r"^\[([^]]+)\]: (\S+)$", page, flags=re.MULTILINE))


def test_every_cell_of_the_comparison_is_measured_or_cited():
    page = (DOCS / "comparison.md").read_text("utf-8")
    known = references(page)

    found = tables(page)
    assert len(found) == 2
    for table in found:
        for row in table[1:]:
            assert len(row) == len(table[0]), row[0]
            for cell in row[1:]:
                cited = re.findall(r"\[(?:measured\]\[)?([^]]+)\]", cell)
                assert cited, f"{row[0]}: {cell}"
                assert set(cited) <= known.keys(), f"{row[0]}: {cell}"


def test_every_source_of_the_comparison_is_used_and_names_its_revision():
    page = (DOCS / "comparison.md").read_text("utf-8")

    for name, address in references(page).items():
        assert f"[{name}]" in page.replace(f"[{name}]: ", ""), name
        if "github.com" in address:
            assert re.search(r"/blob/[0-9a-f]{40}/|/issues/\d+$", address), address


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda p: p.name)
def test_headings_that_a_page_leads_to_are_there(page):
    text = page.read_text("utf-8")
    inline = re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", text)
    for link in [*inline, *references(text).values()]:
        path, _, heading = link.partition("#")
        there = page.parent / path if path else page
        if "://" not in link and heading and there.suffix == ".md":
            assert heading in anchors(there), f"{page.name}: {link}"
