"""A systemd of this machine's release that is the first process of a system of its own.

Its files are this machine's below an overlay that goes with it, its processes and control
groups are its own; it shares the network, so that it reaches servers of a test. Of the
units that are enabled here it starts none.
"""

import contextlib
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pgbreaker
from support.tools import missing, need

_BOOTED_WITHIN = 30.0
_UNSHARE = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")

# What it changes of the kernel's settings would be changed for this machine, too: they
# can be read alone. The program stands where the unit looks for it, in the place of the
# installed one: our environment, our code, a Python outside of anybody's home.
_BOOT = """
set -e
room=$1 group=$2 venv=$3 package=$4 python=$5 library=$6
mount -t tmpfs tmpfs "$room"
cd "$room"
mkdir groups upper work root program program/upper program/work
mount -t cgroup2 cgroup2 groups
mkdir "groups/$group"
echo 0 >"groups/$group/cgroup.procs"
mount -t overlay overlay -o "lowerdir=/,upperdir=upper,workdir=work" root
cd root
rm -rf etc/systemd/system/* etc/fstab
find usr/lib/systemd/system/sysinit.target.wants \\
  usr/lib/systemd/system/network-online.target.wants \\
  ! -type d ! -name 'systemd-journald*' -delete 2>/dev/null || true
mkdir -p opt/pgbreaker opt/python
mount -t overlay overlay \\
  -o "lowerdir=$venv,upperdir=../program/upper,workdir=../program/work" opt/pgbreaker
mount --bind "$python" opt/python
rm -rf opt/pgbreaker/bin
mkdir -p opt/pgbreaker/bin "opt/pgbreaker/$library/pgbreaker"
echo 'home = /opt/python/bin' >opt/pgbreaker/pyvenv.cfg
ln -s /opt/python/bin/python3 opt/pgbreaker/bin/python3
cat >opt/pgbreaker/bin/pgbreaker <<'END'
#!/bin/sh
LD_LIBRARY_PATH=/opt/python/lib exec /opt/pgbreaker/bin/python3 -m pgbreaker "$@"
END
chmod 755 opt/pgbreaker opt/pgbreaker/bin/pgbreaker
mount --bind "$package" "opt/pgbreaker/$library/pgbreaker"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do
  touch dev/$node
  mount --bind /dev/$node dev/$node
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
exec unshare --cgroup sh -ec '
  mkdir -p sys/fs/cgroup .before
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  pivot_root . .before
  umount -l /.before
  mount --make-rshared /
  cd /
  exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    /lib/systemd/systemd --system --unit=sysinit.target'
"""

_LEAVE = """
mount -t cgroup2 cgroup2 "$1"
[ ! -d "$1/$2" ] || find "$1/$2" -depth -type d -exec rmdir {} +
"""


class Booted:
    """A system that runs.

    Attributes:
        root: Its files, seen from here.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.root = Path(f"/proc/{pid}/root")

    def run(
        self, *command: str, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in it, as its root."""
        done = subprocess.run(
            [
                *("nsenter", "--target", str(self._pid), "--mount", "--pid", "--ipc"),
                *("--uts", "--cgroup", "--root", "--wd=/", "--", *command),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file into it."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")
        place.chmod(mode)

    def shown(self, unit: str, key: str) -> str:
        """What systemd says of a unit."""
        return self.run("systemctl", "show", "-P", key, unit).stdout.strip()

    def until(
        self, unit: str, key: str, holds: Callable[[str], bool], within: float = 15.0
    ) -> str:
        """Wait until what systemd says of a unit is as it should be, and give it."""
        deadline = time.monotonic() + within
        while not holds(said := self.shown(unit, key)):
            assert time.monotonic() < deadline, (key, said, self.journal(unit))
            time.sleep(0.05)
        return said

    def journal(self, unit: str, *more: str) -> str:
        """What the journal has of a unit."""
        command = ("journalctl", "--no-pager", "-u", unit, *more)
        return self.run(*command, check=False).stdout


@contextmanager
def booted(folder: Path) -> Iterator[Booted]:
    """Boot it for the time of the block."""
    for program, package in (("unshare", "util-linux"), ("nsenter", "util-linux")):
        need(program, package)
    if not Path("/lib/systemd/systemd").exists():
        missing("/lib/systemd/systemd is missing: apt-get install systemd")
    if os.geteuid() != 0:
        missing("only root boots a systemd; its tests run where we are root")
    room, group = folder / "booted", f"pgbreaker-{os.getpid()}-{time.monotonic_ns()}"
    room.mkdir()
    library = Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    package = Path(pgbreaker.__file__).parent
    given = (room, group, sys.prefix, package, sys.base_prefix, library)
    log = folder / "boot.log"
    with log.open("wb") as told:
        outer = subprocess.Popen(
            [*_UNSHARE, "sh", "-c", _BOOT, "boot", *map(str, given)],
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
        )
    try:
        yield _running(outer, log)
    finally:
        # With its first process go all others of it, and what was mounted.
        outer.kill()
        outer.wait()
        leave = ("unshare", "--mount", "sh", "-ec", _LEAVE, "leave", str(room), group)
        _until_left(leave)


def _running(outer: "subprocess.Popen[bytes]", log: Path) -> Booted:
    deadline = time.monotonic() + _BOOTED_WITHIN
    said = ""
    while time.monotonic() < deadline:
        if outer.poll() is not None:
            missing(f"no systemd can be booted here: {log.read_text('utf-8').strip()}")
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text()
        for pid in children.split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                    system = Booted(int(pid))
                    command = ("systemctl", "is-active", "sysinit.target")
                    said = system.run(*command, check=False).stdout.strip()
                    if said == "active":
                        return system
        time.sleep(0.05)
    raise AssertionError(f"systemd does not come up: {said}; {log.read_text('utf-8')}")


def _until_left(command: tuple[str, ...]) -> None:
    """Remove its control groups, as soon as the kernel has counted its processes out."""
    deadline = time.monotonic() + 10
    while True:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.05)
