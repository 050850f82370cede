#!/bin/sh
# What other services of docker-compose.yml need before they start: alerts, dashboards,
# and a password for the daemon's page. Runs once at each `up`, as root and without a
# network; the password is drawn at the first and stays.
set -eu

set -- --force \
  --grafana-url="http://127.0.0.1:${GRAFANA_PORT:-3000}" \
  --runbook-url="http://127.0.0.1:${PGBREAKER_PORT:-9432}/runbooks"
pgbreaker export alerts /alerts "$@"
pgbreaker export dashboards /dashboards "$@"

umask 077
if [ ! -s /login/web.yml ]; then
  python3 -c 'import secrets; print(secrets.token_urlsafe(9))' >/login/password
  cat >/login/web.yml <<EOF
basic_auth_users: {demo: "$(pgbreaker hash-password </login/password)"}
pgbreaker: {roles: {demo: admin}, anonymous: viewer}
EOF
fi
chown -R 65532:65532 /login /var/lib/pgbreaker

cat <<EOF
pgbreaker     http://127.0.0.1:${PGBREAKER_PORT:-9432}    to change things: demo, password $(cat /login/password)
Slack         http://127.0.0.1:${SLACK_PORT:-9095}    what Slack would show
shop          http://127.0.0.1:${SHOP_PORT:-9096}    what its customers get
Grafana       http://127.0.0.1:${GRAFANA_PORT:-3000}
Prometheus    http://127.0.0.1:${PROMETHEUS_PORT:-9090}
Alertmanager  http://127.0.0.1:${ALERTMANAGER_PORT:-9093}
EOF
