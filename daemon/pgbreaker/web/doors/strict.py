"""What aiohttp would take, and we do not: other versions, and odd expectations."""

from collections.abc import Callable
from typing import Any, Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import HttpVersion10, RawRequestMessage

from pgbreaker.web.problems import problem

_GO_ON: Final = "100-continue"
_SPOKEN: Final = (HttpVersion10, HttpVersion11)
_OTHER_VERSION = web.RequestKey("other_version", bool)


def be_strict(server: web.Server, dress: Callable[[web.StreamResponse], None]) -> None:
    """Have *server* refuse these before anything else is asked of a request.

    aiohttp repeats a version that it does not speak, ``HTTP/2.0 200 OK``, and falls over
    an expectation that is not UTF-8.

    Args:
        dress: Sets the headers that every answer carries.
    """
    handle, make = server.request_handler, server.request_factory

    def request_of(message: RawRequestMessage, *rest: Any) -> web.BaseRequest:  # noqa: ANN401 - handed on as it came
        if message.version in _SPOKEN:
            return make(message, *rest)
        request = make(message._replace(version=HttpVersion11), *rest)
        request[_OTHER_VERSION] = True
        return request

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.get(_OTHER_VERSION):
            refusal = problem(505, "version not supported", "only HTTP/1.1 is spoken")
        elif request.headers.get(hdrs.EXPECT, _GO_ON).lower() != _GO_ON:
            refusal = problem(417, "expectation failed", f"only {_GO_ON} is expected")
        else:
            return await handle(request)
        dress(refusal)
        refusal.force_close()
        return refusal

    server.request_handler, server.request_factory = answer, request_of
