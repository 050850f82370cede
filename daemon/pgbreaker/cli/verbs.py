"""The verbs, each imported when it is asked for.

``pgbreaker version`` has to answer at once, and ``healthcheck`` runs every few seconds
in a container: neither is to wait for what the others need.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from pgbreaker.cli.ending import FAILED, UNCONFIGURED, EndError
from pgbreaker.errors import ConfigError, PgbreakerError


class Verbs(click.Group):
    """A group of commands, from a table of where each is.

    Args:
        table: Verb -> ``module:command`` below this package, in the order that
            ``--help`` shows.
    """

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - click's
        table: Mapping[str, str],
        **more: Any,  # noqa: ANN401 - click's
    ) -> None:
        super().__init__(*args, **more)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, in the order of the table."""
        return [*self._table, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of a verb. None: there is no such verb."""
        if cmd_name not in self._table:
            return super().get_command(ctx, cmd_name)
        module, _, name = self._table[cmd_name].partition(":")
        command = getattr(import_module(f"pgbreaker.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is asked for; of one that there is not, say what was
        probably meant."""
        name, there_are = args[0], self.list_commands(ctx)
        is_option = name.startswith("-") or ctx.resilient_parsing
        if not is_option and name not in there_are:
            near = get_close_matches(name, there_are, n=1)
            helps = f"did you mean {near[0]!r}?" if near else "--help lists them"
            raise click.UsageError(f"no command is called {name!r}; {helps}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what we complain about ourselves is a line and a code."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise EndError(str(error), UNCONFIGURED) from None
        except PgbreakerError as error:
            raise EndError(str(error), FAILED) from None
