"""What a client may take: of lines, of time, of connections; and the Unix socket."""

import asyncio
import errno
import getpass
import os
import socket
import stat
import time
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

from pgbreaker.core.plan import HttpPlan
from pgbreaker.errors import PgbreakerError
from pgbreaker.web.doors.limits import Flow, Limits
from pgbreaker.web.doors.listening import listening_on, socket_path
from support.doors import BEYOND, basic, doors, raw, scrypt_of, write

LOOPBACK = ("127.0.0.1", 0)
ASK = b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n"


HASTY = Limits(header=0.3, body=0.3, linger=0.1, stalled=1.0)


# -- Sizes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET /" + b"a" * 8000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (ASK + b"X: " + b"a" * 8192 + b"\r\n\r\n", 431),
        (ASK + b"X: /" + b"a" * 8192 + b"\r\n\r\n", 431),
        (ASK + b"a" * 8192 + b": x\r\n\r\n", 431),
        (ASK + b"".join(b"X%d: y\r\n" % n for n in range(50)) + b"\r\n", 200),
        (ASK + b"".join(b"X%d: y\r\n" % n for n in range(80)) + b"\r\n", 400),
    ],
    ids=["URL", "long URL", "long field", "slash", "long name", "some", "many"],
)
async def test_lines_have_a_length(said, status):
    async with doors() as served:
        answer = await raw(
            served.port, said.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        )

    assert answer.split(b" ", 2)[:2] == [answer[:8], b"%d" % status]
    assert b"application/problem+json" in answer or status == 200


async def test_a_header_without_an_end_is_not_kept():
    async with doors() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(ASK)
        await writer.drain()
        said = b""
        for n in range(100):
            # Piece by piece, as the kernel would hand it over.
            with suppress(ConnectionError):
                writer.write(b"X%d: %s\r\n" % (n, b"a" * 1000))
                await writer.drain()
            with suppress(TimeoutError, ConnectionError):
                said += await asyncio.wait_for(reader.read(100), 0.005)
            if said or reader.at_eof():
                break
        writer.close()

    assert said.startswith(b"HTTP/1.1 431 ")
    assert n < 40


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET /-/healthy HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /-/healthy HTTP/0.9\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /-/healthy HTTP/1.0\r\n\r\n", 200),
        (ASK + b"Expect: the-unexpected\r\n\r\n", 417),
        (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nExpect: \xff\r\n\r\n", 417),
    ],
)
async def test_versions_and_expectations_that_we_do_not_know(said, status, caplog):
    async with doors() as served:
        answer = await raw(served.port, said)

    assert answer.startswith(b"HTTP/1.")
    assert int(answer.split(b" ", 2)[1]) == status
    assert b"Content-Security-Policy" in answer
    assert caplog.records == []


@pytest.mark.parametrize("path", ["/-/reload", "/metrics", "/nowhere"])
async def test_a_body_that_is_too_large_is_not_waited_for(path):
    method = "POST" if path == "/-/reload" else "GET"
    said = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json\r\nContent-Length: 100000000\r\n\r\n"
    )
    async with doors(limits=HASTY) as served:
        began = time.monotonic()
        answer = await raw(served.port, said.encode() + b"x" * 100_000)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - began < 3


async def test_a_body_without_a_length_is_cut_off():
    said = (
        b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    async with doors(limits=HASTY) as served:
        answer = await raw(served.port, said + chunk * 3)

    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_packed_body_is_not_unpacked():
    said = (
        b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    )
    async with doors(limits=HASTY) as served:
        answer = await raw(served.port, said)

    assert answer.startswith(b"HTTP/1.1 415 ")


async def test_nobody_is_told_to_go_on_with_too_large_a_body():
    said = (
        b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100000000\r\n\r\n"
    )
    async with doors(limits=HASTY) as served:
        answer = await raw(served.port, said)

    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_client_that_waits_to_be_told_is_told():
    said = (
        b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    )
    async with doors(limits=HASTY) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(said)
        first = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"{}")
        answer = await reader.read()
        writer.close()

    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 409 ")


# -- Time -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "dribbles"), [(b"", False), (ASK, False), (b"GET /", True), (ASK, True)]
)
async def test_a_header_has_to_come_in_time(said, dribbles):
    async with doors(limits=HASTY) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(said)
        began = time.monotonic()
        ended = asyncio.create_task(reader.read())
        while not ended.done() and time.monotonic() - began < 5:
            with suppress(ConnectionError):
                if dribbles:
                    writer.write(b"X")
                    await writer.drain()
            await asyncio.wait([ended], timeout=0.05)
        took = time.monotonic() - began
        writer.close()
        with suppress(ConnectionError):
            await ended

    assert 0.2 < took < 2


async def test_a_body_has_to_come_in_time():
    said = (
        b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
    )
    async with doors(limits=HASTY) as served:
        answer = await raw(served.port, said)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"within 0.3 s" in answer


async def test_a_reader_who_takes_nothing_is_dropped():
    names = tuple(f"t{n}" for n in range(300))
    async with doors(limits=HASTY, names=names) as served:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", served.port))
            # More than the kernel keeps for a client who does not read.
            ask = b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await loop.sock_sendall(client, ask * 30)
            began = time.monotonic()
            wrong = 0
            while not wrong and time.monotonic() - began < 10:
                await asyncio.sleep(0.05)
                wrong = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            took = time.monotonic() - began
        well, _ = await served.get("/-/healthy")

    assert wrong == errno.ECONNRESET
    assert 0.9 < took < 8
    assert well.status == 200


def test_who_takes_little_stands_and_who_takes_some_does_not():
    flow = Flow()
    stood = [flow.stands_for(60_000 - 100 * n, now=float(n)) for n in range(30)]
    assert stood[20] == 20.0

    flow = Flow()
    stood = [flow.stands_for(900_000 - 2_000 * n, now=float(n)) for n in range(300)]
    assert max(stood) <= 11.0


def test_who_has_taken_all_is_not_waited_for_any_more():
    flow = Flow()
    flow.stands_for(10, now=0.0)

    assert flow.stands_for(10, now=15.0) == 15.0
    assert flow.stands_for(0, now=16.0) == 0.0
    assert flow.stands_for(10, now=17.0) == 0.0
    flow.flows()
    assert flow.stands_for(10, now=30.0) == 0.0


def test_what_is_put_behind_it_does_not_look_like_a_reader():
    flow = Flow()
    sizes = (10_000 + 1_000 * n for n in range(30))

    stood = [flow.stands_for(size, now=float(n)) for n, size in enumerate(sizes)]

    assert stood[-1] == 29.0


# -- Connections ------------------------------------------------------------------------


@asynccontextmanager
async def opened(port: int, count: int, said: bytes = b"", by: str = "127.0.0.1"):
    """So many connections, from the address *by*, that say *said* and no more."""
    to = {"host": "127.0.0.1", "port": port, "local_addr": (by, 0)}
    both = [await asyncio.open_connection(**to) for _ in range(count)]
    for _, writer in both:
        writer.write(said)
    try:
        yield [reader for reader, _ in both]
    finally:
        for _, writer in both:
            writer.close()
        for _, writer in both:
            with suppress(ConnectionError):
                await writer.wait_closed()


async def test_who_opens_many_and_says_nothing_loses_the_oldest_and_nobody_waits():
    limits = Limits(connections=20)
    async with (
        doors(limits=limits) as served,
        opened(served.port, 30, b"GET / HT") as readers,
    ):
        began = time.monotonic()
        answer, _ = await served.get("/-/healthy")
        took = time.monotonic() - began
        await asyncio.sleep(0.05)
        ended = [reader.at_eof() or bool(reader.exception()) for reader in readers]

    assert answer.status == 200
    assert took < 0.5
    assert 20 <= ended.count(True) <= 22  # one address may have half of all
    assert not any(ended[25:])


async def test_those_at_work_are_not_dropped_for_new_ones():
    async with doors(limits=Limits(connections=8)) as served:
        # They wait for a body: at work, as far as the doors can see.
        said = (
            b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        )
        async with opened(served.port, 4, said) as readers:
            await asyncio.sleep(0.05)
            with pytest.raises(aiohttp.ClientError):
                await served.client.get("/-/healthy")
            ended = [reader.at_eof() for reader in readers]

    assert not any(ended)


async def test_all_addresses_together_have_so_many_and_no_more():
    said = (
        b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"
    )
    async with (
        doors(limits=Limits(connections=8)) as served,
        opened(served.port, 4, said, "127.0.0.2") as at_work,
        opened(served.port, 3, said, "127.0.0.3") as more,
    ):
        await asyncio.sleep(0.05)
        last, none = ASK + b"Connection: close\r\n\r\n", b""
        async with opened(served.port, 1, last, "127.0.0.4") as [reader]:
            answer = await reader.read()
        async with (
            opened(served.port, 1, said, "127.0.0.3"),
            opened(served.port, 1, last, "127.0.0.4") as [reader],
        ):
            with suppress(ConnectionError):
                none = await reader.read()
        ended = [reader.at_eof() for reader in (*at_work, *more)]

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert none == b""
    assert not any(ended)


# -- The Unix socket --------------------------------------------------------------------


def on_socket(path):
    return aiohttp.ClientSession(
        "http://whatever.example", connector=aiohttp.UnixConnector(str(path))
    )


async def test_our_own_user_is_an_admin_by_name_on_the_socket(tmp_path):
    config = write(tmp_path / "web.yml", basic_auth_users={"ada": scrypt_of("ada")})
    path = tmp_path / "pgbreaker.sock"
    async with doors(
        HttpPlan(listen=LOOPBACK, socket=path, web_config=config)
    ) as served:
        authors = []

        async def reload(author):
            authors.append(author)
            raise PgbreakerError

        object.__setattr__(served.inside, "reload", reload)
        mode = stat.S_IMODE(path.stat().st_mode)
        async with on_socket(path) as client:
            async with client.get("/api/v1/status") as read:
                assert read.status == 200
            async with client.post("/-/reload") as answer:
                assert answer.status == 500
        outside, _ = await served.get("/api/v1/status")

    assert authors == [getpass.getuser()]
    assert mode == 0o660
    assert outside.status == 401
    assert not path.exists()


async def test_others_on_the_socket_log_in_where_somebody_can(tmp_path):
    config = write(tmp_path / "web.yml", basic_auth_users={"ada": scrypt_of("ada")})
    path = tmp_path / "pgbreaker.sock"
    found = {}
    plan = HttpPlan(listen=LOOPBACK, socket=path, web_config=config)
    async with doors(plan), as_somebody_else(path) as client:
        for name, headers in (("nobody", {}), ("ada", basic("ada"))):
            async with client.get("/api/v1/status", headers=headers) as answer:
                found[name] = answer.status

    assert found == {"nobody": 401, "ada": 200}


@asynccontextmanager
async def as_somebody_else(path):
    """A client on the socket, of another user; the kernel says so, not the client."""
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    path.chmod(0o666)
    for above in path.parents:
        if not above.stat().st_mode & 0o001:  # pytest's own, and a worker's
            above.chmod(above.stat().st_mode | 0o011)
    async with on_socket(path) as client:
        # Who connects is who it was then: a file is opened by the effective user.
        os.seteuid(65534)
        try:
            async with client.get("/-/healthy") as answer:
                assert answer.status == 200
        finally:
            os.seteuid(0)
        yield client


async def test_without_logins_whoever_may_open_the_socket_is_an_admin(tmp_path):
    path = tmp_path / "pgbreaker.sock"
    async with doors(HttpPlan(listen=BEYOND, socket=path)) as served:
        async with on_socket(path) as client, client.post("/-/reload") as answer:
            inside = answer.status
        async with served.client.post("/-/reload") as answer:
            outside = answer.status

    assert (inside, outside) == (409, 403)


async def test_so_is_another_user_who_may_open_it(tmp_path):
    path = tmp_path / "pgbreaker.sock"
    plan = HttpPlan(listen=LOOPBACK, socket=path)
    async with (
        doors(plan),
        as_somebody_else(path) as client,
        client.post("/-/reload") as answer,
    ):
        found = answer.status

    assert found == 409


async def test_a_client_that_has_a_name_on_the_socket_is_on_the_socket_all_the_same(
    tmp_path,
):
    path = tmp_path / "pgbreaker.sock"
    async with doors(HttpPlan(listen=BEYOND, socket=path)):
        with socket.socket(socket.AF_UNIX) as client:
            client.bind(str(tmp_path / "client"))
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, str(path))
            ask = b"POST /-/reload HTTP/1.1\r\nHost: evil.example\r\n\r\n"
            await loop.sock_sendall(client, ask)
            said = await loop.sock_recv(client, 100)

    assert said.startswith(b"HTTP/1.1 409 ")


async def test_no_browser_reaches_the_socket_so_any_name_will_do(tmp_path):
    path = tmp_path / "pgbreaker.sock"
    async with doors(HttpPlan(listen=LOOPBACK, socket=path)), on_socket(path) as client:
        headers = {"Origin": "http://elsewhere.example"}
        async with client.post("/-/reload", headers=headers) as answer:
            found = answer.status

    assert found == 409


async def test_what_a_killed_daemon_has_left_is_taken_over(tmp_path):
    path = tmp_path / "pgbreaker.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert path.exists()

    plan = HttpPlan(listen=LOOPBACK, socket=path)
    async with doors(plan), on_socket(path) as client, client.get("/metrics") as answer:
        found = answer.status

    assert found == 200


async def test_the_socket_of_a_daemon_that_runs_is_left_alone(tmp_path):
    path = tmp_path / "pgbreaker.sock"
    plan = HttpPlan(listen=LOOPBACK, socket=path)
    async with doors(plan), on_socket(path) as client:
        with pytest.raises(PgbreakerError) as caught:
            async with doors(plan):
                pass
        async with client.get("/-/healthy") as answer:
            still = answer.status

    assert str(caught.value) == (
        f"cannot listen on {path}: another daemon does (http.socket says where)"
    )
    assert still == 200


async def test_a_file_of_somebody_is_not_replaced(tmp_path):
    path = tmp_path / "pgbreaker.sock"
    path.write_text("mine")

    with pytest.raises(PgbreakerError, match="address already in use"):
        async with doors(HttpPlan(listen=LOOPBACK, socket=path)):
            pass

    assert path.read_text() == "mine"


async def test_a_directory_that_is_not_there_is_one_clear_line(tmp_path):
    path = tmp_path / "none" / "pgbreaker.sock"

    with pytest.raises(PgbreakerError) as caught:
        async with doors(HttpPlan(listen=LOOPBACK, socket=path)):
            pass

    assert str(caught.value) == (
        f"cannot listen on {path}: no such file or directory (http.socket says where)"
    )


def test_the_service_managers_directory_is_used_unless_another_is_named(tmp_path):
    env = {"RUNTIME_DIRECTORY": f"{tmp_path}:/run/other"}

    assert socket_path(HttpPlan(), env) == tmp_path / "pgbreaker.sock"
    assert socket_path(HttpPlan(), {}) is None
    assert socket_path(HttpPlan(socket=tmp_path / "a"), env) == tmp_path / "a"


async def test_a_directory_that_nobody_asked_for_does_not_stop_us(tmp_path, caplog):
    env = {"RUNTIME_DIRECTORY": str(tmp_path / "none")}
    plan = HttpPlan(listen=LOOPBACK)

    async with listening_on(plan, asyncio.Protocol, env) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    assert "no Unix socket: cannot listen on" in caplog.text


async def test_the_service_managers_directory_has_the_socket(tmp_path):
    env = {"RUNTIME_DIRECTORY": str(tmp_path)}

    async with listening_on(HttpPlan(listen=LOOPBACK), asyncio.Protocol, env):
        made = [path.name for path in tmp_path.iterdir()]

    assert made == ["pgbreaker.sock"]
    assert list(tmp_path.iterdir()) == []
