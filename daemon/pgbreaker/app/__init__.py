"""From a configuration to a running daemon, and back in reverse.

running    what the daemon consists of, put together
fleet      the targets that are watched, which come and go
renewal    the configuration, read anew while the daemon runs
alerting   the Alertmanagers that are told, which come and go, too
memories   what breakers remember, from one process to the next
works      what is done beside all else, and ought not to end
life       the process: signals, the service manager
onlooker   a thread that sees when the loop hangs
lookups    threads for names of hosts, which nobody waits for
"""

from pgbreaker.app.life import run
from pgbreaker.app.renewal import Source
from pgbreaker.app.running import Daemon, running, settle

__all__ = ["Daemon", "Source", "run", "running", "settle"]
