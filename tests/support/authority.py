"""Authorities of our own, and the certificates of servers that they sign."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pgbreaker.demo.server import Server
from support.servers import psql
from support.tools import need

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Authority:
    """An authority that signs certificates for ``localhost``.

    Attributes:
        home: Directory of its files.
    """

    home: Path

    @property
    def root(self) -> Path:
        """The certificate that says it can be trusted."""
        return self.home / "root.crt"

    @classmethod
    def found(cls, home: Path) -> "Authority":
        """A new one, with everything in *home*."""
        home.mkdir()
        authority = cls(home)
        _openssl(
            *("req", "-x509", *_CURVE, "-days", "2", "-subj", f"/CN={home.name}"),
            *("-keyout", str(home / "root.key"), "-out", str(authority.root)),
        )
        _openssl(
            *("req", "-new", *_CURVE, "-subj", "/CN=localhost"),
            *("-keyout", str(home / "server.key"), "-out", str(home / "server.csr")),
        )
        wanted = home / "server.ext"
        wanted.write_text("subjectAltName=DNS:localhost", "ascii")
        _openssl(
            *("x509", "-req", "-days", "2", "-in", str(home / "server.csr")),
            *("-CA", str(authority.root), "-CAkey", str(home / "root.key")),
            *("-CAcreateserial", "-extfile", str(wanted)),
            *("-out", str(home / "server.crt")),
        )
        return authority

    def certify(self, server: Server) -> None:
        """Have *server* show a certificate of ours from now on."""
        owner = os.stat(server.data)
        for name in ("server.crt", "server.key"):
            there = server.data / name
            shutil.copy(self.home / name, there)
            there.chmod(0o600)
            os.chown(there, owner.st_uid, owner.st_gid)
        psql(server, "ALTER SYSTEM SET ssl = on")
        psql(server, "SELECT pg_reload_conf()")


def _openssl(*words: str) -> None:
    program = need("openssl", "openssl")
    subprocess.run([program, *words], check=True, capture_output=True)
