"""The file that ``pgbreaker init`` writes: short, commented, and good as it is."""

from typing import Final

from pgbreaker.config.dsn import has_password, wrong_with
from pgbreaker.config.load import name_of
from pgbreaker.config.show import redacted, to_yaml
from pgbreaker.errors import ConfigError

_TEXT: Final = """\
# yaml-language-server: $schema=./pgbreaker.schema.json
# The schema: `pgbreaker schema > pgbreaker.schema.json`. What is wrong with this file:
# `pgbreaker check-config FILE`. Every key: `config/README.md` of the distribution.
version: 1

# What every target starts from; each may say otherwise.
defaults:
  interval: 1s # of the ping; slower probes have intervals of their own
  timeout: 500ms
  breaker:
    failure_rate: 50% # of the answers within the window, from which a breaker opens
    window: 10s
    failure_threshold: 3 # or so many failures in a row
    timeout: 1s # how long an opening lasts at least
    max_timeout: 60s # and at most, while the server flaps

targets:
  - name: {name}
    dsn: {dsn}
{password}    # labels: {{env: prod}}
    # operations: [connect, read, write] # a breaker each; of a replica, without write
    # probes:
    #   latency: {{query: SELECT 1, slow: 250ms}} # a canary of your own
    #   replication: {{max_lag: 30s}}
    # pgbouncer: {{dsn: "postgresql://stats@db1:6432/pgbouncer"}}

# Further targets, each in a file of its own.
# include: [conf.d/*.yaml]

http:
  listen: 127.0.0.1:9432
  # web_config: web.yml # certificates and users; needed beyond this machine
  # allowed_hosts: [pgbreaker.example.net]

# History, decisions and states that outlive a restart.
# store: {{path: /var/lib/pgbreaker/state.db, max_size: 256MB}}

# log: {{format: auto, level: INFO}}
# otlp: {{endpoint: "http://127.0.0.1:4318"}}
# alertmanager: {{urls: ["http://127.0.0.1:9093"]}}
"""

_ASKED: Final = """\
    # The password is looked for in password_file, in $CREDENTIALS_DIRECTORY/{name}, in
    # PGPASSWORD, and in ~/.pgpass.
    # password_file: /etc/pgbreaker/{name}.password
"""
_TAKEN_OUT: Final = """\
    # The password that stood in the DSN is not written here. Put it in a file that only
    # the daemon can read, and name that file:
    # password_file: /etc/pgbreaker/{name}.password
"""


def starter(dsn: str | None = None) -> str:
    """Write a configuration to begin with.

    Args:
        dsn: The server to watch; its password is left out. None: one that stands for it.

    Raises:
        ConfigError: The DSN is none.
    """
    given = dsn or "postgresql://pgbreaker@db1:5432/app?sslmode=verify-full"
    wrong = wrong_with(given)
    if wrong is not None:
        raise ConfigError((f"--dsn: {wrong}",))
    name = "primary" if dsn is None else name_of(dsn)
    password = _TAKEN_OUT if has_password(given) else _ASKED
    return _TEXT.format(
        name=to_yaml(name, flow=True),
        dsn=to_yaml(redacted(given), flow=True),
        password=password.format(name=name),
    )
