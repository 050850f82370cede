"""For shells and readers: completion, the manual page."""

from collections.abc import Iterator

import click
from click.shell_completion import get_completion_class

from pgbreaker import __version__
from pgbreaker.cli import options


@click.command(
    epilog=options.examples(
        "pgbreaker completion bash > /etc/bash_completion.d/pgbreaker"
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what has a shell complete commands."""
    from pgbreaker.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    # Not `source`, which for bash starts one to look at its version: what is printed
    # may be for another machine.
    made = kind(cli, {}, "pgbreaker", "_PGBREAKER_COMPLETE")
    click.echo(kind.source_template % made.source_vars())


@click.command(
    epilog=options.examples("pgbreaker man > /usr/local/share/man/man1/pgbreaker.1")
)
def man() -> None:
    """Print the manual page."""
    click.echo("\n".join(manual()))


def manual() -> Iterator[str]:
    """The manual page, as man(7) wants it."""
    from pgbreaker.cli import cli

    top = click.Context(cli, info_name="pgbreaker")
    yield f'.TH PGBREAKER 1 "" "pgbreaker {__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"pgbreaker \\- {_text(cli.help).rstrip('.')}"
    yield ".SH SYNOPSIS"
    yield ".B pgbreaker\n.I COMMAND\n[\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]"
    yield ".SH COMMANDS"
    for name, command, context in _commands(cli, top):
        yield f".SS {_text(name)}"
        pieces = " ".join(command.collect_usage_pieces(context))
        yield f".B pgbreaker {_text(name)}\n{_text(pieces)}\n.PP"
        yield "\n.PP\n".join(map(_text, (command.help or "").split("\n\n")))
        for option, says in _options(command, context):
            yield f".TP\n\\fB{_text(option)}\\fR\n{_text(says)}"
        if command.epilog:
            lines = command.epilog.removeprefix("\b\n").splitlines()
            yield "\n".join((".PP", ".nf", *map(_text, lines), ".fi"))
    yield ".SH EXIT STATUS"
    yield _text((cli.epilog or "").removeprefix("Exit codes: "))
    yield ".SH ENVIRONMENT"
    for name, says in _VARIABLES.items():
        yield f".TP\n.B {name}\n{_text(says)}"
    yield ".SH FILES"
    yield ".TP\n.I /etc/pgbreaker/pgbreaker.yaml\nThe configuration, by convention."
    yield ".TP\n.I /run/pgbreaker/pgbreaker.sock\nWhere commands find the daemon."


_VARIABLES = {
    "PGBREAKER_CONFIG": "The configuration file, for --config.",
    "PGBREAKER_DSN": "The one server to watch, for --dsn.",
    "PGBREAKER_URL": "Where the daemon listens, for --url.",
    "PGBREAKER_CA": "Certificates to trust the daemon by, for --ca.",
    "PGBREAKER_USER": "Who logs in at the daemon.",
    "PGBREAKER_PASSWORD_FILE": "File of the password for that.",
    "PGBREAKER_PASSWORD": "The password itself; a file is seen by fewer.",
    "PGBREAKER_TOKEN": "A token, instead of both.",
    "NO_COLOR": "Anything: no colours.",
}
"""What the environment may say."""


def _commands(
    group: click.Group, context: click.Context, before: str = ""
) -> Iterator[tuple[str, click.Command, click.Context]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, parent=context, info_name=name)
        if isinstance(command, click.Group):
            yield from _commands(command, inner, f"{before}{name} ")
        else:
            yield f"{before}{name}", command, inner


def _options(
    command: click.Command, context: click.Context
) -> Iterator[tuple[str, str]]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in record[0]:
            yield record


def _text(text: str | None) -> str:
    """Text for roff: one line, without what it would take for a request."""
    line = " ".join((text or "").replace("\b", "").split())
    line = line.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{line}" if line.startswith((".", "'")) else line
