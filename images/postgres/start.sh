#!/bin/sh
# Starts PostgreSQL, after making what is not there: the cluster of databases when the volume is
# empty, then roles, databases and passwords as the environment says. Arguments go to the server.
#
# It may be killed anywhere and started again. A password that was changed in the Secret is the
# server's from the next start on.
set -eu

for name in POSTGRES_PASSWORD LEDGER_PASSWORD REGISTRY_PASSWORD; do
  eval "value=\${$name:-}"
  if [ -z "$value" ]; then
    echo "PostgreSQL is not started: $name is not set; it is a key of the Secret mlplatform-postgres" >&2
    exit 1
  fi
done

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # Made beside its place and moved there when it is whole.
  made="$PGDATA.making"
  rm -rf "$made"
  initdb --pgdata="$made" --username=postgres --encoding=UTF8 --locale=C.UTF-8 --data-checksums \
    --auth-local=peer --auth-host=scram-sha-256 >/dev/null
  mv "$made" "$PGDATA"
fi

# First for nobody but us: over a socket of its own, until roles and databases are as they should be.
sockets=$(mktemp -d)
server="-c hba_file=/opt/mlplatform/pg_hba.conf -c ident_file=/opt/mlplatform/pg_ident.conf"
pg_ctl start --silent --wait --timeout=3600 \
  --options="$server -c listen_addresses='' -c unix_socket_directories=$sockets -c log_checkpoints=off"
psql --quiet --no-psqlrc --output=/dev/null --set=ON_ERROR_STOP=1 --host="$sockets" \
  --username=postgres --dbname=postgres --file=/opt/mlplatform/setup.sql
pg_ctl stop --silent --wait --mode=fast
unset POSTGRES_PASSWORD LEDGER_PASSWORD REGISTRY_PASSWORD

# shellcheck disable=SC2086 (two options)
exec postgres $server -c listen_addresses='*' -c unix_socket_directories="$sockets" "$@"
