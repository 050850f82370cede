-- The role that pgbreaker logs in as, with what it needs and nothing else.
-- PostgreSQL 14 to 18; for psql, once on each primary: replicas get it from there.
--
--   PGBREAKER_PASSWORD=... psql -X -d app -f role.sql
--
-- -d names the database that the daemon will connect to; whoever runs this may create
-- roles, and may grant pg_monitor. To run it again changes the password and mends the
-- rest. -v role=NAME names the role otherwise; -v password=... takes the place of the
-- variable, but can be read in the list of processes. In place of the password itself
-- its verifier will do (SCRAM-SHA-256$...), which is then all that the server's log can
-- show.

\set ON_ERROR_STOP on
\if :{?role}
\else
  \set role pgbreaker
\endif
\if :{?password}
\else
  \set password `printf %s "$PGBREAKER_PASSWORD"`
\endif
SELECT :'password' = '' AS no_password,
       NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') AS is_new \gset
\if :no_password
  DO $$ BEGIN RAISE 'there is no password: PGBREAKER_PASSWORD=... psql ...'; END $$;
\endif

BEGIN;
SET LOCAL password_encryption = 'scram-sha-256';

-- A role of its own, not an application's: what it does can be told apart, and it can be
-- shut out alone. Never a superuser, nor one with reserved connections: its logins would
-- succeed on the last slots, when those of applications fail.
\if :is_new
  CREATE ROLE :"role" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
\endif
ALTER ROLE :"role" PASSWORD :'password';

-- Up to 4 connections while something is wrong, else one or two. One more daemon that
-- watches the same servers: 4 more.
ALTER ROLE :"role" CONNECTION LIMIT 4;

-- Whose session waits for what, sizes, replication, WAL, every setting: all of that to
-- look at, and no table of an application.
GRANT pg_monitor TO :"role";

-- Everybody may connect, unless somebody took that away.
SELECT has_database_privilege(:'role', current_database(), 'CONNECT') AS may_connect \gset
\if :may_connect
\else
  GRANT CONNECT ON DATABASE :"DBNAME" TO :"role";
\endif

-- The daemon sets closer limits itself, for each session. These hold where it cannot,
-- behind a pooler that takes no settings, and for whoever else logs in with its password.
ALTER ROLE :"role" SET statement_timeout = '10s';
ALTER ROLE :"role" SET lock_timeout = '200ms';
ALTER ROLE :"role" SET idle_in_transaction_session_timeout = '10s';
-- Nobody slips it a function or a table of his own under a name of the system's.
ALTER ROLE :"role" SET search_path = pg_catalog;

-- Not default_transaction_read_only: the daemon sets it itself, for every session but
-- that of the probe commit, which asks whether applications could write. With the line
-- below its answer would be no, and the breaker for writes would stay open; so only
-- with `probes: {commit: false}`.
-- ALTER ROLE :"role" SET default_transaction_read_only = on;

COMMIT;

-- For the probe statements, in this database, with pg_stat_statements in
-- shared_preload_libraries; where its schema is closed to others, USAGE on it, too:
--   CREATE EXTENSION pg_stat_statements;
--   GRANT USAGE ON SCHEMA ... TO pgbreaker;
--
-- For a `custom` query or a canary (`latency.query`) over tables of an application: a
-- view with just these columns is less than SELECT on the table:
--   GRANT SELECT ON ... TO pgbreaker;
--
-- Everybody may create temporary tables and large objects; and on PostgreSQL 14, and in
-- databases that come from there, tables in the schema public. That cannot be taken from
-- one role alone, and applications may count on it; where none does:
--   REVOKE TEMPORARY ON DATABASE app FROM PUBLIC;
--   REVOKE CREATE ON SCHEMA public FROM PUBLIC;
--   REVOKE EXECUTE ON FUNCTION lo_creat(int), lo_create(oid), lo_from_bytea(oid, bytea)
--     FROM PUBLIC;
--
-- PgBouncer: `stats_users = pgbreaker` in pgbouncer.ini lets it ask the console.
--
-- pg_hba.conf, from the daemon's machine alone, by TLS and SCRAM:
--   hostssl  app  pgbreaker  192.0.2.10/32  scram-sha-256
