"""The console of a pgbouncer, told by one of its ``admin_users``.

What it does with a database that is paused (measured with 1.18): new queries wait, up to
its ``query_wait_timeout``, and those that run go on. ``PAUSE`` is in force at once and
answered when no query runs any more; whoever hangs up before that has not undone it; and
when somebody else sends ``RESUME`` meanwhile it is never answered. A second ``PAUSE``, and
a ``RESUME`` of what is not paused, are errors. A restart forgets it.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pgbreaker.core.secret import Secret
from pgbreaker.core.text import tidy, words_of
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.errors import PgbreakerError
from pgbreaker.postgres.dsn import password_in
from pgbreaker.postgres.wire import Rows, ServerError, Wire

WITHIN: Final[Seconds] = 1.0
"""How long the console may take: to let us in, and to answer."""

_SETTINGS: Final[Mapping[str, str]] = {"application_name": "pgbreaker/pause"}


class ConsoleError(PgbreakerError):
    """What was said to the console is not done, as far as we know."""


class NotSentError(ConsoleError):
    """The console cannot be reached, or lets us not in: it was told nothing."""


class RefusedError(ConsoleError):
    """The console has answered that it does not do that."""


class UnansweredError(ConsoleError):
    """The console was told, and has not answered: it may have done it, or do it yet."""


class Console:
    """The way to one console; each word to it takes a connection of its own.

    Attributes:
        place: Host and port of it, to tell one from another.
    """

    def __init__(
        self, address: Secret, password_file: Path | None, within: Seconds = WITHIN
    ) -> None:
        self._address = address
        self._password_file = password_file
        self._within = within
        self.place = urlsplit(address.reveal()).netloc.rpartition("@")[2]

    async def is_paused(self, database: str) -> bool | None:
        """Ask whether *database* is paused, by itself; not whether all are at once.
        None: there is none of that name.

        Raises:
            ConsoleError: That cannot be told.
        """
        rows = await self.tell("SHOW DATABASES")
        row = next((row for row in rows if row.get("name") == database), None)
        return None if row is None else row.get("paused") == "1"

    async def tell(self, command: str) -> Rows:
        """Have *command* done.

        Raises:
            NotSentError: It was not sent.
            RefusedError: It was answered with an error.
            UnansweredError: It was sent, and not answered in time.
        """
        wire = await self._enter()
        try:
            async with asyncio.timeout(self._within):
                rows = await wire.query(command)
        except ServerError as error:
            raise RefusedError(f"it says: {tidy(error.message)}") from None
        except TimeoutError:
            raise UnansweredError(f"no answer within {lasting(self._within)}") from None
        except (OSError, EOFError) as error:
            raise UnansweredError(words_of(error)) from None
        finally:
            # Politely, or a console that hangs would be waited for.
            wire.abort()
        return rows

    async def _enter(self) -> Wire:
        try:
            async with asyncio.timeout(self._within):
                return await Wire.connect(
                    self._address.reveal(),
                    password=password_in(self._password_file),
                    settings=_SETTINGS,
                )
        except ServerError as error:
            raise NotSentError(f"it says: {tidy(error.message)}") from None
        except TimeoutError:
            raise NotSentError(f"no answer within {lasting(self._within)}") from None
        except (OSError, EOFError, ValueError) as error:
            raise NotSentError(words_of(error)) from None


def named(database: str) -> str:
    """Write the name of a database as its commands take it."""
    quoted = database.replace('"', '""')
    return f'"{quoted}"'
