#!/bin/sh
# Creates the role that the daemon of docker-compose.yml logs in as.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$PGBREAKER_PASSWORD" -U postgres -d app <<'SQL'
CREATE ROLE pgbreaker LOGIN NOSUPERUSER CONNECTION LIMIT 4 PASSWORD :'password';
GRANT pg_monitor TO pgbreaker;
SQL
