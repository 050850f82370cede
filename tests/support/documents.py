"""The documents as a reader finds them: their blocks, and where their links lead."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = sorted(
    {
        *(ROOT / f"{folder}README.md" for folder in ("", "daemon/", "tests/")),
        *ROOT.glob("daemon/docs/**/*.md"),
        *ROOT.glob("config/**/README.md"),
        *ROOT.glob("alerts/README.md"),
        *ROOT.glob("dashboards/README.md"),
    }
)
"""The pages of which every block is run, or checked by its kind."""

SHOWN = frozenset({"text", "mermaid"})
"""Kinds of blocks that are looked at alone: what programs print, and drawings."""


@dataclass(frozen=True)
class NotRun:
    """Why a command of the documents is not run by their test.

    Attributes:
        why: What it needs that a machine for tests has not.
        shown_by: The test that shows the same in another way.
    """

    why: str
    shown_by: str


NOT_RUN = {
    "apt-get install": NotRun("it changes the machine", "tests/install-packages"),
    "python3 -m venv": NotRun("packages are there", "tests/acceptance/test_release.py"),
    "pip install": NotRun("it needs a network", "tests/acceptance/test_release.py"),
    "docker": NotRun("it needs Docker's engine", "tests/acceptance/test_container.py"),
    "kubectl": NotRun("it needs a cluster", "tests/unit/test_kubernetes.py"),
}
"""What commands of the documents begin with that their test does not run. (Of `make
TARGET` make is asked what it would do; `systemctl` is a stand-in, see reader.py.)"""


@dataclass(frozen=True)
class Block:
    """One block of code.

    Attributes:
        page: The file that it stands in.
        line: Of its first line of code, from 1.
        kind: The word behind its fence.
        text: What is in it, each line with its end.
    """

    page: Path
    line: int
    kind: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that it is, when its first line is a comment with its path alone."""
        found = re.match(r"(?:#|--) (~?[\w./-]*\w\.\w+)\n", self.text)
        return found.group(1) if found else None


def blocks(page: Path) -> list[Block]:
    """Every block of *page*, in order."""
    found: list[Block] = []
    lines = page.read_text("utf-8").splitlines(keepends=True)
    number = 0
    while number < len(lines):
        fence = re.match(r"( *)(```+) *(\S*)", lines[number])
        number += 1
        if fence is None:
            continue
        indent, ticks, kind = fence.groups()
        begun = number
        while lines[number].strip() != ticks:
            number += 1
        text = "".join(line.removeprefix(indent) for line in lines[begun:number])
        found.append(Block(page, begun + 1, kind, text))
        number += 1
    return found


def commands(text: str) -> Iterator[str]:
    """The commands of a shell's block, each with the lines that continue it."""
    for command in re.findall(r"(?:.*\\\n)*.*\n?", text):
        if command:
            yield command


def left_out(command: str) -> str | None:
    """What of `NOT_RUN` *command* begins with."""
    plain = re.sub(r"^(sudo |\w+=\S* )*(\S*/bin/)?", "", command.strip())
    return next((one for one in NOT_RUN if re.match(rf"{one}(\s|$)", plain)), None)


def runnable(command: str) -> str:
    """*command* as it is run: nothing when it is left out."""
    return ":\n" if left_out(command) else command


def dialogue(block: Block) -> Iterator[tuple[int, str, list[str]]]:
    """Line, command and what it answers, of each command of a `console` block."""
    command, said, begun, more = "", list[str](), block.line, False
    for number, line in enumerate(block.text.splitlines(), block.line):
        if more or line.startswith("> "):
            command += line.removeprefix("> ") + "\n"
        elif line.startswith("$ "):
            if command:
                yield begun, command, said
            command, said, begun = line[2:] + "\n", [], number
        else:
            said.append(line)
            continue
        more = line.endswith("\\")
    if command:
        yield begun, command, said


def missing(expected: list[str], output: str) -> str | None:
    """The first line of *expected* that *output* does not show in this order.

    Numbers and durations may differ, spaces too; ``...`` stands for anything, as a line
    for lines.
    """
    rest = iter([_plain(line) for line in output.splitlines()])
    for line in expected:
        if not line.strip() or line.strip() == "...":
            continue
        pattern = ".*".join(map(re.escape, _plain(line).split("...")))
        if not any(re.fullmatch(pattern, said) for said in rest):
            return line
    return None


def _plain(line: str) -> str:
    numbers = re.sub(r"\d+(?:[.,:]\d+)*", "0", line)
    spans = re.sub(r"\b0 (?:ms|s|min|h|d)\b(?: 0 (?:s|min|h)\b)?", "0 s", numbers)
    return re.sub(r"\s+", " ", spans).strip()


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Line and address of each link and picture of *page*, outside its blocks."""
    fenced = False
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            plain = re.sub(r"`[^`]*`", "", line)
            for address in re.findall(r"\]\(([^)\s]+)[^)]*\)", plain):
                yield number, address
            for address in re.findall(r'<(?:img|a)\s[^>]*(?:src|href)="([^"]+)"', line):
                yield number, address


def anchors(page: Path) -> set[str]:
    """What ``#`` may lead to in *page*: its headings, as GitHub calls them."""
    found: set[str] = set()
    fenced = False
    for line in page.read_text("utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        heading = None if fenced else re.match(r"#{1,6} +(.+?)\s*#*$", line)
        if heading:
            found.add(_unique(_slug(heading.group(1)), found))
        found.update(re.findall(r'<a (?:id|name)="([^"]+)"', line))
    return found


def _slug(heading: str) -> str:
    words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def _unique(slug: str, taken: set[str]) -> str:
    names = (slug, *(f"{slug}-{number}" for number in range(1, len(taken) + 1)))
    return next(name for name in names if name not in taken)
