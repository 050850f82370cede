"""What the machine is like on which a page is followed: see reader.py."""

# `run` goes on in the background, as in another terminal, and is told where to listen;
# a second one takes the place of the first. One that has ended may be a zombie for as long
# as process 1 likes, but has no files.
PGBREAKER = """#!/bin/bash
if [ "$1 $2" = "export alerts" ]; then # files that name others are read here
  {program} "$@" || exit
  sed -i 's|/etc/prometheus|{root}/etc/prometheus|' "$3"/*.yml
  exit
fi
[ "$1" = run ] || exec {program} "$@"
if [ -e {root}/daemon.pid ]; then
  kill $(cat {root}/daemon.pid) || true
  while [ -e /proc/$(cat {root}/daemon.pid)/fd/0 ]; do sleep 0.05; done
fi
shift
RUNTIME_DIRECTORY={root}/run/pgbreaker {program} run --listen 127.0.0.1:{port} "$@" \\
  </dev/null >{root}/daemon.log 2>&1 &
pid=$!
echo $pid >{root}/daemon.pid
until grep -q 'listening on' {root}/daemon.log; do
  kill -0 $pid 2>/dev/null || {{ cat {root}/daemon.log; wait $pid; exit; }}
  sleep 0.05
done
"""
# What it does to the daemon alone, with the state and the credentials that the unit names.
SYSTEMCTL = """#!/bin/bash
credentials={root}/run/credentials
mkdir -p $credentials
for line in $(grep -hs ^LoadCredential= {root}/etc/systemd/system/pgbreaker.service.d/*); do
  line=${{line#*=}}
  cp ${{line#*:}} $credentials/${{line%%:*}}
done
case "$1" in
  enable | start | restart)
    CREDENTIALS_DIRECTORY=$credentials STATE_DIRECTORY={root}/var/lib/pgbreaker \\
      pgbreaker run --config {root}/etc/pgbreaker/pgbreaker.yaml ;;
  stop | disable)
    if [ -e {root}/daemon.pid ]; then
      kill $(cat {root}/daemon.pid)
      while [ -e /proc/$(cat {root}/daemon.pid)/fd/0 ]; do sleep 0.05; done
      rm {root}/daemon.pid
    fi ;;
  reload) pgbreaker reload ;;
  status) pgbreaker status ;;
  daemon-reload) ;;
  *) exit 1 ;;
esac
"""
# What `NOT_RUN` leaves out, should it be called in a way that is not seen there.
REFUSED = ("apt-get", "docker", "kubectl", "pip", "podman", "podman-compose")
# PostgreSQL does not run as root.
AS_OTHER = """#!/bin/bash
[ "$(id -u)" = 0 ] || exec {binaries}/{name} "$@"
exec setpriv --reuid={user} --regid={user} --clear-groups {binaries}/{name} "$@"
"""

SETUP = """
DROP ROLE IF EXISTS pgbreaker;
DROP ROLE IF EXISTS shop;
CREATE ROLE shop LOGIN NOSUPERUSER PASSWORD '{password}';
"""
# Of the page before; a role that is in use cannot be dropped.
ENDED = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE usename IN ('pgbreaker', 'shop')
"""
MONITOR = """
CREATE ROLE pgbreaker LOGIN NOSUPERUSER CONNECTION LIMIT 8 PASSWORD '{password}';
GRANT pg_monitor TO pgbreaker;
"""
TABLES = """
CREATE TABLE player (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO player VALUES (1, 'Ada'), (2, 'Bob');
CREATE TABLE jobs (id serial, created timestamptz NOT NULL DEFAULT now());
INSERT INTO jobs SELECT FROM generate_series(1, 3);
ALTER TABLE player OWNER TO shop;
ALTER TABLE jobs OWNER TO shop;
GRANT SELECT ON player, jobs TO PUBLIC;
"""
# What a page finds that says no word about how the daemon was started.
CONFIG = """version: 1
targets:
  - name: primary
    dsn: postgresql://pgbreaker@db1:5432/app
  - name: replica
    dsn: postgresql://pgbreaker@db2:5432/app
    operations: [connect, read]
store: {path: /var/lib/pgbreaker/state.db}
"""
USUAL = (9432, 9433, 9090, 9093, 9095, 8000, 5000, 5001, 5433)
"""Ports that pages name."""
PLACES = "etc|opt|run|usr/local|var"
"""Where pages write; below a reader's folder here."""
FOLDERS = (
    *("etc/pgbreaker", "etc/prometheus", "etc/haproxy", "etc/systemd/system"),
    *("var/lib/pgbreaker", "var/lib/grafana/dashboards", "var/backups"),
    *("run/pgbreaker", "bin", "home", "usr/local/bin"),
    *("opt/pgbreaker/bin", "opt/pgbreaker-new/bin"),
)
CHECKOUT = (
    *("Makefile", "pyproject.toml", "docker-compose.yml"),
    *("alerts", "config", "daemon", "dashboards"),
)
