"""The doors from outside: a web configuration, raw requests, certificates."""

import asyncio
import base64
import subprocess
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import yaml

from pgbreaker.core.plan import HttpPlan
from pgbreaker.web.doors.limits import DEFAULT
from pgbreaker.web.server import serve
from support.authority import Authority
from support.site import Served
from support.tools import need

BEYOND = ("127.1", 0)
"""Loopback by a name that is not known to be loopback: as if it were beyond."""


def scrypt_of(password: str) -> str:
    """A hash that takes no time, which nobody should use."""
    import hashlib

    found = hashlib.scrypt(password.encode(), salt=b"salt", n=2, r=8, p=1, dklen=32)
    salt, right = (
        base64.b64encode(raw).decode().rstrip("=") for raw in (b"salt", found)
    )
    return f"$scrypt$1$8$1${salt}${right}"


def write(path: Path, **config) -> Path:
    """Write a web configuration."""
    path.write_text(yaml.safe_dump(config), "utf-8")
    return path


def basic(name: str, password: str | None = None) -> dict[str, str]:
    """The header that logs *name* in; the password is the name, unless it is given."""
    said = f"{name}:{name if password is None else password}".encode()
    return {"Authorization": f"Basic {base64.b64encode(said).decode()}"}


@asynccontextmanager
async def doors(plan: HttpPlan | None = None, *, limits=DEFAULT, names=("main",)):
    """Serve a scene by *plan* for the time of the block, with a client that has no cookies."""
    served = Served(*names)
    plan = plan or HttpPlan(listen=("127.0.0.1", 0))
    async with serve(plan, served.inside, limits) as (_host, port):
        served.port = port
        jar = aiohttp.DummyCookieJar()
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession(url, cookie_jar=jar) as client:
            served.client = client
            yield served


async def raw(
    port: int, said: bytes, *, host: str = "127.0.0.1", within: float = 5.0
) -> bytes:
    """Say it on a connection of its own; returns all that came back until its end."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(said)
        async with asyncio.timeout(within):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def client_certificate(
    authority: Authority, name: str, san: str | None = None
) -> tuple[Path, Path]:
    """A certificate of a client that *authority* has signed, and its key."""
    home, openssl = authority.home, need("openssl", "openssl")
    crt, key, csr = (home / f"{name}.{end}" for end in ("crt", "key", "csr"))
    subprocess.run(
        [
            *(openssl, "req", "-new", "-newkey", "ec", "-nodes"),
            *("-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={name}"),
            *("-keyout", str(key), "-out", str(csr)),
        ],
        check=True,
        capture_output=True,
    )
    wanted = home / f"{name}.ext"
    wanted.write_text(f"subjectAltName={san or f'DNS:{name}'}", "ascii")
    subprocess.run(
        [
            *(openssl, "x509", "-req", "-days", "2", "-in", str(csr)),
            *("-CA", str(authority.root), "-CAkey", str(home / "root.key")),
            *("-CAcreateserial", "-extfile", str(wanted), "-out", str(crt)),
        ],
        check=True,
        capture_output=True,
    )
    return crt, key
