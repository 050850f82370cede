"""How a command ends that did not come to what it was for: one line, one exit code."""

from typing import IO, Any, Final

import click

FAILED: Final = 1
UNREACHABLE: Final = 69  # EX_UNAVAILABLE: no daemon answers
TEMPORARY: Final = 75  # EX_TEMPFAIL: it would work a little later
UNAUTHORISED: Final = 77  # EX_NOPERM
UNCONFIGURED: Final = 78  # EX_CONFIG


class EndError(click.ClickException):
    """Ends the command with a line, or a few, for a person to read.

    Attributes:
        exit_code: What the process exits with.
    """

    def __init__(self, text: str, exit_code: int = FAILED) -> None:
        super().__init__(text)
        # click has one for all of a class.
        self.exit_code = exit_code  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line to stderr, with nothing before it."""
        click.echo(self.message, err=True)
