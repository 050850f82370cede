"""What type checkers make of the public names, theirs being the last word."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = ROOT / "tests" / "typing"
BIN = Path(sys.executable).parent

MYPY = [BIN / "mypy", "--strict", "--output", "json", FILES]
BASEDPYRIGHT = [
    *(BIN / "basedpyright", "--level", "error", "--outputjson"),
    *("--pythonpath", sys.executable, "--project", FILES),
]


def read_mypy(told):
    for line in told.splitlines():
        error = json.loads(line)
        if error["severity"] == "error":
            yield Path(error["file"]).name, error["line"], error["message"]


def read_basedpyright(told):
    for error in json.loads(told)["generalDiagnostics"]:
        line = error["range"]["start"]["line"] + 1
        yield Path(error["file"]).name, line, error["message"]


@pytest.fixture(scope="module")
def complaints():
    """What each checker complains of, as (file, line, message)."""
    runs = {
        read: subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for read, command in ((read_mypy, MYPY), (read_basedpyright, BASEDPYRIGHT))
    }
    return {read: list(read(run.communicate()[0])) for read, run in runs.items()}


CHECKERS = pytest.mark.parametrize("checker", [read_mypy, read_basedpyright])


@CHECKERS
def test_right_uses_have_the_types_that_one_expects(checker, complaints):
    found = [told for told in complaints[checker] if told[0] == "good.py"]

    assert found == []


@CHECKERS
def test_wrong_uses_are_errors_and_nothing_else_is(checker, complaints):
    text = (FILES / "bad.py").read_text().splitlines()
    wrong = {n: line for n, line in enumerate(text, 1) if re.search("# wrong$", line)}

    found = {line for file, line, _ in complaints[checker] if file == "bad.py"}

    assert [wrong[line] for line in sorted(wrong.keys() - found)] == []
    assert [told for told in complaints[checker] if told[1] not in wrong] == []
