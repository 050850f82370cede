"""Where we listen: an address, and a Unix socket for those on this machine."""

import asyncio
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from pgbreaker.core.plan import HttpPlan
from pgbreaker.errors import PgbreakerError

log = logging.getLogger(__name__)

_MODE = 0o660
_BACKLOG = 1024  # a burst that is not taken at once waits, or is lost for a second


@asynccontextmanager
async def listening_on(
    plan: HttpPlan,
    make: Callable[[], asyncio.Protocol],
    env: Mapping[str, str] = os.environ,
) -> AsyncIterator[int]:
    """Listen for the time of the block.

    Yields:
        The port that was really taken.

    Raises:
        PgbreakerError: It cannot be listened on.
    """
    async with AsyncExitStack() as stack:
        listening = await _on_address(make, *plan.listen)
        stack.callback(listening.close)
        path = socket_path(plan, env)
        if path is not None:
            try:
                await stack.enter_async_context(_on_socket(make, path))
            except PgbreakerError as error:
                if plan.socket is not None:
                    raise
                # Nobody has asked for it: the directory may be that of another service
                # which has started us.
                log.warning("no Unix socket: %s", error)
        yield listening.sockets[0].getsockname()[1]


def socket_path(plan: HttpPlan, env: Mapping[str, str] = os.environ) -> Path | None:
    """The Unix socket to listen on; None: none.

    A service manager that makes a directory for us (``RuntimeDirectory=``) names it.
    """
    if plan.socket is not None:
        return plan.socket
    made = env.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(made) / "pgbreaker.sock" if made else None


async def _on_address(
    make: Callable[[], asyncio.Protocol], host: str, port: int
) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(
            make, host, port, reuse_address=True, backlog=_BACKLOG
        )
    except OSError as error:
        # asyncio's own text repeats the address, a name's failure has no errno.
        raise PgbreakerError(
            f"cannot listen on {host}:{port}: {_said(error)} (http.listen, or --listen, say where)"
        ) from None


@asynccontextmanager
async def _on_socket(
    make: Callable[[], asyncio.Protocol], path: Path
) -> AsyncIterator[None]:
    bound, made = await asyncio.to_thread(_bind, path)
    try:
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(make, sock=bound, backlog=_BACKLOG)
        try:
            yield
        finally:
            server.close()
    finally:
        bound.close()
        await asyncio.to_thread(_remove, path, made)


def _bind(path: Path) -> tuple[socket.socket, int]:
    """Make the socket; nobody can connect to it before it listens.

    Returns:
        The socket, and the number of its file.

    Raises:
        PgbreakerError: It cannot be made, or another daemon listens on it.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        bound.bind(str(path))
        path.chmod(_MODE)
        made = path.stat().st_ino
    except OSError as error:
        bound.close()
        raise PgbreakerError(
            f"cannot listen on {path}: {_said(error)} (http.socket says where)"
        ) from None
    except PgbreakerError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound, made


def _remove(path: Path, made: int) -> None:
    """Remove the file that we made; another daemon may have put its own there since."""
    with suppress(OSError):
        if path.stat().st_ino == made:
            path.unlink()


def _remove_stale(path: Path) -> None:
    """Remove what a daemon that was killed has left; never what is in use."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return  # a file of somebody else: binding says so
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise PgbreakerError(
                f"cannot listen on {path}: another daemon does (http.socket says where)"
            )


def _said(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
