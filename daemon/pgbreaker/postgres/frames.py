"""Whose code raised an error: read off its traceback, for those without a name on.

A bare `TimeoutError` may be the database's, a pool's or that of an HTTP client in the
same function. The frames below tell, in the error itself or in the cancellation that
it was made of.
"""

from collections.abc import Iterable
from enum import Enum, auto
from functools import lru_cache
from types import TracebackType
from typing import Final

from pgbreaker.postgres.answers import Phase


class Place(Enum):
    """Whose code raised an error."""

    DRIVER = auto()
    CONNECT = auto()  # a driver, while it connects
    POOL = auto()  # a pool, while one waits for it
    ELSEWHERE = auto()  # another network client


_DRIVERS: Final = frozenset(
    {
        "aiopg",
        "asyncpg",
        "pg8000",
        "psycopg",
        "psycopg2",
        "psycopg2cffi",
        "psycopg_binary",
        "psycopg_c",
        "psycopg_pool",
        "sqlalchemy",
    }
)
# What else a guarded function may talk to: the errors of these are not the database's.
_CLIENTS: Final = frozenset(
    {
        *("aiobotocore", "aiohttp", "aiokafka", "aiomysql", "aioredis", "aiormq"),
        *("aio_pika", "aiosmtplib", "aiosqlite", "amqp", "azure", "boto3", "botocore"),
        *("cassandra", "clickhouse_connect", "clickhouse_driver", "confluent_kafka"),
        *("consul", "coredis", "curl_cffi", "elastic_transport", "elasticsearch"),
        *("etcd3", "ftplib", "google", "grpc", "hiredis", "http", "httpcore", "httpx"),
        *("httpx_ws", "imaplib", "kafka", "kombu", "ldap3", "memcache", "minio"),
        *("motor", "mysql", "nats", "neo4j", "opensearchpy", "oracledb", "paho"),
        *("paramiko", "pika", "poplib", "pycurl", "pymemcache", "pymongo", "pymssql"),
        *("pymysql", "pyodbc", "redis", "requests", "s3transfer", "smtplib"),
        *("snowflake", "sqlite3", "stripe", "subprocess"),
        *("urllib", "urllib3", "valkey", "websocket", "websockets", "xmlrpc", "zmq"),
    }
)
_CONNECTERS: Final = (
    "asyncpg.connect_utils",
    "psycopg._conninfo_attempts",
    "psycopg2._psycopg:connect",
    "sqlalchemy.engine.create:connect",
    "sqlalchemy.engine.default:connect",
    "sqlalchemy.pool.base:__connect",
    "asyncpg.connection:connect",
    "psycopg.connection:connect",
    "psycopg.connection_async:connect",
    "psycopg2:connect",
    "pg8000.core:__init__",
)
_WAITING_ROOMS: Final = (
    "asyncpg.pool:_acquire",
    "asyncpg.pool:__aenter__",
    "psycopg_pool.",
    "sqlalchemy.pool.impl:_do_get",
    "sqlalchemy.util.queue",
)
# Called by a driver to wait, which says nothing about what for.
_UTILITIES: Final = ("asyncpg._asyncio_compat", "asyncpg.compat", "sqlalchemy.util._")


def is_client(module: str) -> bool:
    """Whether *module* belongs to a client of something that is no PostgreSQL."""
    # aiohttp is a server, too, and a handler may raise its errors for any reason.
    is_server = module.startswith(("aiohttp.web", "http.server"))
    return module.partition(".")[0] in _CLIENTS and not is_server


@lru_cache(maxsize=4096)
def _owner(module: str, function: str) -> Place | None:
    if is_client(module):
        return Place.ELSEWHERE
    if module.partition(".")[0] not in _DRIVERS or module.startswith(_UTILITIES):
        return None
    frame = f"{module}:{function}"
    if frame.startswith(_CONNECTERS):
        return Place.CONNECT
    return Place.POOL if frame.startswith(_WAITING_ROOMS) else Place.DRIVER


# Modules of whoever else there is, which are most of them. Asked for each frame of each
# error, so that it is not asked twice.
_NOBODYS: Final[set[object]] = set()
_MANY: Final = 4096


def _belongs_to_nobody(module: object) -> bool:
    if not isinstance(module, str):
        return True
    if is_client(module) or module.partition(".")[0] in _DRIVERS:
        return False
    if len(_NOBODYS) < _MANY:
        _NOBODYS.add(module)
    return True


def deepest(
    traceback: TracebackType | None, found: Place | None = None
) -> Place | None:
    """Find the deepest frame that belongs to somebody we know.

    Args:
        found: What was found further out.
    """
    while traceback is not None:
        frame = traceback.tb_frame
        traceback = traceback.tb_next
        name = frame.f_globals.get("__name__")
        if name in _NOBODYS or _belongs_to_nobody(name):
            continue
        place = _owner(name, frame.f_code.co_name)
        # Connecting takes several steps, of which the later ones do not say so.
        if place and not (place is Place.DRIVER and found is Place.CONNECT):
            found = place
    return found


def place_of(chain: Iterable[BaseException]) -> Place | None:
    """Find it in a chain of errors."""
    found = None
    for error in chain:  # from the outside in: later ones were raised deeper
        found = deepest(error.__traceback__, found)
    return found


PHASES: Final = {Place.CONNECT: Phase.CONNECT, Place.POOL: Phase.ACQUIRE}
"""What the place says of the phase; a driver's other frames say nothing."""


def phase_at(chain: list[BaseException]) -> Phase | None:
    """The phase that the frames show for certain."""
    place = place_of(chain)
    return None if place is None else PHASES.get(place)
