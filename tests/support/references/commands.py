"""The command line, as its commands describe themselves."""

import re
from collections.abc import Iterator
from typing import Final

import click

from pgbreaker.cli import cli, shells

# Said once at the end, for nearly every command takes them.
_ASKING: Final = frozenset(("url", "path", "ca", "verbose"))


def commands() -> str:
    """A Markdown section for each command: what for, arguments, options, examples."""
    return "\n".join(_section(name, command) for name, command in verbs())


def verbs() -> Iterator[tuple[str, click.Command]]:
    """Every command by its name, those of groups with the group's before it."""
    top = click.Context(cli, info_name="pgbreaker")
    for name, command, _ in shells._commands(cli, top):
        yield name, command


def options(command: click.Command) -> list[click.Parameter]:
    """What a command takes, without ``--help``."""
    context = click.Context(command)
    return [p for p in command.get_params(context) if "--help" not in p.opts]


def asks(command: click.Command) -> bool:
    """Whether it asks a daemon, and so takes what says which."""
    return {parameter.name for parameter in command.params} >= _ASKING


def default_of(parameter: click.Parameter) -> str:
    """The default of an option, as it would be typed; empty where there is none."""
    default = parameter.to_info_dict().get("default")
    is_flag = getattr(parameter, "is_flag", False)
    return "" if default is None or is_flag or callable(default) else f"{default}"


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    pieces = " ".join(command.collect_usage_pieces(context))
    lines = [f"### `pgbreaker {name}`", "", f"`pgbreaker {name} {pieces}`", ""]
    lines += [" ".join(part.split()) + "\n" for part in _paragraphs(command)]
    ours = [p for p in options(command) if not (asks(command) and p.name in _ASKING)]
    rows = [_row(p) for p in ours if isinstance(p, click.Option)]
    if rows:
        lines += ["| option | default | meaning |", "|---|---|---|", *rows, ""]
    if asks(command):
        lines += ["Asks a daemon ([which one](#which-daemon-is-asked)).", ""]
    if command.epilog:
        examples = command.epilog.replace("\b\n", "").splitlines()[1:]
        lines += ["```text", *(line.strip() for line in examples), "```", ""]
    return "\n".join(lines)


def _paragraphs(command: click.Command) -> list[str]:
    return (command.help or "").replace("\b", "").split("\n\n")


def _row(option: click.Option) -> str:
    form = "" if option.is_flag else f" {_form(option)}"
    names = ", ".join(f"`{name}{form}`" for name in option.opts)
    told = (option.help or "").replace("|", "\\|")
    said = f" [env var: {option.envvar}]" if option.envvar else ""
    if isinstance(option.type, click.Choice):
        told = f"{told} One of {', '.join(f'`{c}`' for c in option.type.choices)}."
    if option.multiple:
        told = f"{told} May be given several times."
    default = default_of(option)
    cell = "required" if option.required else f"`{default}`" if default else "-"
    return f"| {names} | {cell} | {' '.join((told + said).split())} |"


def _form(option: click.Option) -> str:
    """What an option wants, as its help says it."""
    if isinstance(option.type, click.Choice):
        return "WORD"
    return option.metavar or option.type.name.upper()


def asking() -> str:
    """A Markdown table of what says which daemon is asked."""
    of_status = dict(verbs())["healthcheck"]
    rows = [_row(p) for p in options(of_status) if isinstance(p, click.Option)]
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows]) + "\n"


def variables() -> str:
    """A Markdown table of the environment."""
    rows = [f"| `{name}` | {says} |" for name, says in shells._VARIABLES.items()]
    return "\n".join(["| variable | says |", "|---|---|", *rows]) + "\n"


def codes() -> dict[str, str]:
    """Exit code -> what it means."""
    return dict(re.findall(r"(\d+) ([^,.]+)", (cli.epilog or "").partition(":")[2]))


def exits() -> str:
    """A Markdown table of what commands exit with."""
    rows = [f"| {code} | {says} |" for code, says in codes().items()]
    return "\n".join(["| code | meaning |", "|---|---|", *rows]) + "\n"
