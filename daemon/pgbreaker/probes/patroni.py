"""What Patroni thinks of its node, asked of its REST API.

It knows what the server itself cannot say: whether the cluster is paused, and when it
last reached the store that it keeps its leader in.

https://patroni.readthedocs.io/en/latest/rest_api.html#monitoring-endpoint
"""

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

from pgbreaker.core.metric import gauge
from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.reading import Finding, Seen
from pgbreaker.core.text import tidy
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.probes.probe import Place, Probe

_NAME: Final = "patroni"
_PORT: Final = 8008
_MOST: Final = 1 << 20
_NO_ADDRESS: Final = "the address of Patroni is of the form http://db1:8008"
_NO_PATRONI: Final = "what answered there is not Patroni's REST API"

# Before 4.0 the primary was called master.
_ROLES: Final = {"master": "primary"}


async def _go(plan: TargetPlan, within: Seconds) -> Seen:
    address = plan.probes[_NAME].address
    if address is None:
        raise ValueError("patroni needs an address, such as http://db1:8008")
    try:
        async with asyncio.timeout(within):
            body = await _get(address.reveal())
    except TimeoutError as error:
        if error.errno is not None:
            raise  # the kernel's word, not ours
        raise TimeoutError(f"Patroni gave no answer within {lasting(within)}") from None
    return read(body, time.time())


async def _get(address: str) -> bytes:
    """Fetch ``/patroni``, whatever its status: 503 is how a sick node says so.

    Raises:
        OSError: The network, or TLS.
        ValueError: The answer is not HTTP, or is no answer of Patroni's.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or _PORT
    except ValueError:  # which shows what it took for a port: half a password, say
        raise ValueError(_NO_ADDRESS) from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(_NO_ADDRESS)
    context = _context() if parts.scheme == "https" else None
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=_MOST)
    try:
        path = parts.path.rstrip("/") + "/patroni"
        named = f"[{host}]" if ":" in host else host
        # Version 1.0: the body ends with the connection, and is never in chunks.
        writer.write(
            f"GET {path} HTTP/1.0\r\nHost: {named}:{port}\r\n"
            "Accept: application/json\r\nUser-Agent: pgbreaker\r\n\r\n".encode()
        )
        return _body_of(await _read_all(reader))
    finally:
        writer.transport.abort()


@cache
def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    while len(answer) <= _MOST:
        part = await reader.read(1 << 16)
        if not part:
            break
        answer += part
        if not b"HTTP/".startswith(answer[:5]):
            raise ValueError(_NO_PATRONI)
        if _is_whole(answer):
            break
    if len(answer) > _MOST:
        raise ValueError(f"{_NO_PATRONI}: it says more than {_MOST} bytes")
    if not answer:
        raise EOFError("Patroni hung up without a word")
    return bytes(answer)


def _is_whole(answer: bytearray) -> bool:
    """Whether all is there that the head announced; not all announce it."""
    head, ended, body = bytes(answer).partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n")[1:] if ended else ():
        name, _, value = line.partition(b":")
        if name == b"content-length" and value.strip().isdigit():
            return len(body) >= int(value)
    return False


def _body_of(answer: bytes) -> bytes:
    head, ended, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if not ended or not status or not status[0].isdigit():
        raise ValueError(_NO_PATRONI)
    return body


def read(body: bytes, now: float) -> Seen:
    """Turn an answer into what was seen.

    Args:
        now: Wall time, as Patroni dates its own news; clocks of two machines differ,
            so that small ages are no more exact than these clocks.

    Raises:
        ValueError: It is no answer of Patroni's.
    """
    said = _document(body)
    role = said["role"]
    seen_at = said.get("dcs_last_seen")
    timeline = said.get("timeline")
    return {
        "patroni_state": tidy(said["state"]),
        "patroni_role": tidy(_ROLES.get(role, role)),
        "patroni_timeline": timeline if isinstance(timeline, int) else None,
        # Absent means no.
        "patroni_paused": said.get("pause") is True,
        "patroni_pending_restart": said.get("pending_restart") is True,
        "patroni_dcs_age_seconds": (
            max(0.0, now - seen_at) if isinstance(seen_at, int | float) else None
        ),
        "patroni_is_running": said["state"] == "running",
        "patroni_is_primary": _ROLES.get(role, role) == "primary",
    }


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError(f"{_NO_PATRONI}: it does not say JSON") from None
    if not _is_patronis(said):
        raise ValueError(f"{_NO_PATRONI}: it says neither state nor role")
    document: Mapping[str, Any] = said
    return document


def _is_patronis(said: object) -> bool:
    return isinstance(said, dict) and all(
        isinstance(said.get(name), str) for name in ("state", "role")
    )


PATRONI: Final = Probe(
    name=_NAME,
    says="role, timeline and pause of the node, and when its store was reached",
    needs="the address of its REST API",
    plan=ProbePlan(interval=10.0, timeout=2.0),
    goes=_go,
    place=Place.APART,
    beyond=Finding.SLOW,
    is_usual=False,
    shows=(
        gauge(
            "pgbreaker_patroni_running",
            "1 while Patroni says that its server runs.",
            "patroni_is_running",
        ),
        gauge(
            "pgbreaker_patroni_primary",
            "1 where Patroni says that its server is the primary.",
            "patroni_is_primary",
        ),
        gauge(
            "pgbreaker_patroni_timeline",
            "Timeline of the server, as Patroni sees it.",
            "patroni_timeline",
        ),
        gauge(
            "pgbreaker_patroni_paused",
            "1 while the cluster is paused: Patroni would not fail over.",
            "patroni_paused",
        ),
        gauge(
            "pgbreaker_patroni_dcs_last_seen_age_seconds",
            "Seconds since Patroni last reached its store, by the clocks of both machines.",
            "patroni_dcs_age_seconds",
        ),
    ),
)
