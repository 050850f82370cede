"""Turned away at the doors: raised inside them, answered as a problem."""

from aiohttp import web

from pgbreaker.web.problems import problem


class TurnedAwayError(Exception):
    """A request that goes no further.

    Attributes:
        status: Of HTTP.
    """

    def __init__(self, status: int, title: str, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self._title = title
        self._headers = headers

    def answer(self) -> web.Response:
        """The answer to it."""
        answer = problem(self.status, self._title, str(self))
        answer.headers.update(self._headers)
        return answer
