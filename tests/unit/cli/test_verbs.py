"""Every verb there is to be, what it says of itself, and what shells make of it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pgbreaker.cli import VERBS, cli
from pgbreaker.cli.shells import _VARIABLES
from support.tools import need

# docs: contract, "Command line".
PROMISED = {
    *("run", "demo", "init", "check-config", "schema", "config", "doctor", "probe"),
    *("status", "watch", "explain", "events", "open", "close", "disable", "auto"),
    *("maintenance", "reload", "healthcheck", "check", "export", "simulate"),
    *("support-bundle", "version", "completion", "alerts", "hash-password", "backtest"),
}


def commands(group: click.Group, before: tuple[str, ...] = ()):
    """Every command, with the words that lead to it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*before, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))


ALL = dict(commands(cli))


def test_every_verb_that_is_promised_is_there():
    assert VERBS.keys() >= PROMISED
    assert {("config", "show"), ("alerts", "test")} <= ALL.keys()
    assert {("maintenance", verb) for verb in ("add", "list", "end")} <= ALL.keys()


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_verb_says_what_it_does_in_a_line(words, command):
    done = command(*words, "--help")

    first = ALL[words].help.splitlines()[0]
    assert done.exit_code == 0
    assert len(first) <= 66
    assert first.endswith(".")
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


def test_what_there_is_not_is_said_with_what_was_probably_meant(command):
    near, far = command("statsu"), command("xyzzy")

    assert (near.exit_code, far.exit_code) == (2, 2)
    assert "did you mean 'status'?" in near.stderr
    assert "--help lists them" in far.stderr


def test_the_version_is_printed_without_loading_what_others_need():
    code = (
        "import sys; sys.argv = ['pgbreaker', 'version']\n"
        "from pgbreaker.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({n.partition('.')[0] for n in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    version, modules = done.stdout.splitlines()
    assert version.startswith("pgbreaker ")
    for heavy in ("pydantic", "aiohttp", "asyncpg", "yaml", "apscheduler"):
        assert f"'{heavy}'" not in modules


# -- Shells ------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell, command):
    done = command("completion", shell)

    assert done.exit_code == 0
    assert f"_PGBREAKER_COMPLETE={shell}_complete" in done.stdout
    if shutil.which(shell):
        checked = subprocess.run(
            [shell, "-n"],
            input=done.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stderr


def test_bash_completes_a_verb(command, tmp_path):
    """The whole way: the script that is printed, and the program that it asks."""
    bash = need("bash", "bash")
    program = tmp_path / "pgbreaker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pgbreaker "$@"\n', "utf-8")
    program.chmod(0o755)
    script = command("completion", "bash").stdout
    ask = (
        f"PATH={tmp_path}:$PATH\n{script}\n"
        "COMP_WORDS=(pgbreaker supp) COMP_CWORD=1\n"
        "_pgbreaker_completion pgbreaker supp pgbreaker\n"
        'echo "${COMPREPLY[@]}"'
    )

    done = subprocess.run(
        [bash, "-c", ask], capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == "support-bundle", done.stderr


def test_the_manual_names_every_verb_and_every_variable(command):
    page = command("man").stdout

    for words in ALL:
        if not isinstance(ALL[words], click.Group):
            assert f".SS {' '.join(words)}".replace("-", "\\-") in page
    for name in _VARIABLES:
        assert f".B {name}" in page


def test_the_manual_is_right_for_who_reads_manuals(command, tmp_path):
    man = need("man", "man-db")
    page = tmp_path / "pgbreaker.1"
    page.write_text(command("man").stdout, "utf-8")

    done = subprocess.run(
        [man, "--warnings", "-E", "UTF-8", "-l", str(page)],
        capture_output=True,
        text=True,
        check=False,
        env={"MANROFFSEQ": "", "MANWIDTH": "80", "PATH": "/usr/bin:/bin"},
    )

    assert done.returncode == 0
    assert done.stderr == ""
    assert "support-bundle" in done.stdout


def test_every_variable_that_is_read_is_in_the_manual():
    """Those of the commands; the daemon's own stand in its configuration."""
    sources = Path(sys.modules["pgbreaker.cli"].__file__).parent.glob("*.py")
    read = {
        name
        for source in sources
        for name in re.findall(r"\bPGBREAKER_[A-Z_]+\b", source.read_text("utf-8"))
    }

    assert read - {"PGBREAKER_COMPLETE"} == _VARIABLES.keys() - {"NO_COLOR"}
