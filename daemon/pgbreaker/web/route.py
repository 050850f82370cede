"""An address, and who may use it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Role(IntEnum):
    """What somebody may do; each may what those before it may."""

    NOBODY = 0  # has not logged in
    VIEWER = 1  # looks
    OPERATOR = 2  # takes breakers over, plans maintenance
    ADMIN = 3  # changes the daemon itself


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks.

    Attributes:
        name: What the history calls them. None: they gave no name, and need none.
        role: What they may do.
    """

    name: str | None
    role: Role


WHO = web.RequestKey("who", Who)
"""Where the doors leave who asks, for the handler."""


@dataclass(frozen=True, slots=True)
class Route:
    """An address. There is none without a word on who may use it.

    Attributes:
        method: Of HTTP; ``GET`` serves ``HEAD``, too.
        path: Pattern, as aiohttp has it.
        role: The least that somebody has to be.
        handler: Answers.
        changes: Whether it changes anything, so that it has to come from where it
            seems to.
        tells: Whether programs tell something by it, again and again: it has a pace of
            its own, and changes nothing.
    """

    method: str
    path: str
    role: Role
    handler: Handler
    changes: bool = False
    tells: bool = False

    @property
    def takes_forms(self) -> bool:
        """Whether the page's forms are sent here, each with its token.

        What programs use takes JSON alone: no form of another site can send that.
        """
        return self.changes and not self.path.startswith(("/api/", "/-/"))
