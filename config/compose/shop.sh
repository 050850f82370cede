#!/bin/sh
# What the shop of docker-compose.yml lives on: a role, a table, some orders.
# PostgreSQL's image runs this once, when it makes the database.
set -eu
psql -X -v ON_ERROR_STOP=1 -v password="$SHOP_PASSWORD" -U postgres -d app <<'SQL'
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
CREATE ROLE shop LOGIN NOSUPERUSER PASSWORD :'password';
CREATE TABLE orders (id bigserial PRIMARY KEY, amount int NOT NULL);
INSERT INTO orders (amount) SELECT generate_series(1, 1000);
GRANT ALL ON orders TO shop;
SQL
