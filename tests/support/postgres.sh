#!/bin/sh
# What the entrypoint of PostgreSQL's own image does, as far as docker-compose.yml counts
# on it. For the stand-in that tests/make-images makes.
set -eu
if [ "$(id -u)" = 0 ]; then
  install -d -o postgres -g postgres -m 0700 "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
  initdb --username=postgres --pwfile=/tmp/password --auth-host=scram-sha-256 \
    --auth-local=trust --no-sync >/dev/null
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
  # On its socket alone, until it is made; with what it is started with but for its name.
  pg_ctl --wait --silent -o "${*#postgres} -c listen_addresses=''" start
  createdb --username=postgres "$POSTGRES_DB"
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sql) psql -X -v ON_ERROR_STOP=1 -U postgres -d "$POSTGRES_DB" -f "$file" ;;
      *) "$file" ;;
    esac
  done
  pg_ctl --wait --silent --mode=fast stop
fi
exec "$@"
