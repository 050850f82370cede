"""Replicas of a server of our own, by streaming."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pgbreaker.demo.server import Server, _free_port


@contextlib.contextmanager
def running_standby(
    primary: Server, *, name: str = "standby", **settings: str
) -> Iterator[Server]:
    """A hot standby of *primary* that streams as *name*, for the time of the block.

    Further *settings* as in postgresql.conf. It has the roles and passwords of its
    primary, and its primary may itself be a standby.
    """
    home = Path(tempfile.mkdtemp(prefix="pgbreaker-", dir="/tmp"))
    (home / "made-by").write_text(str(os.getpid()), encoding="ascii")
    home.chmod(0o755)
    sockets, data = home / "s", home / "data"
    for path in (sockets, data):
        path.mkdir(mode=0o700 if path == data else 0o755)
        primary._user.own(path)
    standby = Server(
        primary.binaries,
        home,
        data,
        str(sockets),
        _free_port(),
        primary.password,
        primary._user,
    )
    try:
        where = (
            f"host={primary.socket_dir} port={primary.port} user=postgres"
            f" application_name={name}"
        )
        _copy(primary, standby, where)
        _configure(standby, {"primary_conninfo": f"'{where}'", **settings})
        standby.start()
        yield standby
    finally:
        standby.close()


def _copy(primary: Server, standby: Server, where: str) -> None:
    copying = primary._user.popen(
        [
            str(primary.binaries / "pg_basebackup"),
            *("-d", where, "-D", str(standby.data)),
            *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
    )
    said, _ = copying.communicate(timeout=60)
    assert copying.returncode == 0, said.decode(errors="replace")


def _configure(standby: Server, settings: dict[str, str]) -> None:
    # In the file that has the last word, after what the primary had in it. What
    # pg_basebackup wrote there is for the libpq that it has itself, not the server.
    own = {
        "port": str(standby.port),
        "unix_socket_directories": f"'{standby.socket_dir}'",
        "wal_retrieve_retry_interval": "'200ms'",
        **settings,
    }
    with (standby.data / "postgresql.auto.conf").open("a", encoding="utf-8") as conf:
        conf.writelines(f"{key} = {value}\n" for key, value in own.items())
