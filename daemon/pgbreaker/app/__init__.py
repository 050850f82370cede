"""From a configuration to a running daemon, and back in reverse.

running   what the daemon consists of, put together
fleet     the targets that are watched, which come and go
renewal   the configuration, read anew while the daemon runs
memories  what breakers remember, from one process to the next
life      the process: signals, the service manager
"""

from pgbreaker.app.life import run
from pgbreaker.app.running import Daemon, running

__all__ = ["Daemon", "run", "running"]
