#!/usr/bin/env bash
# PostgreSQL's regression suite in sessions that log in to `src` and attach to its fork `regression`.
#
# usage: tests/regress_attached.sh SOURCE [plain]
# SOURCE: a built source tree of the server's minor version (apt-get source postgresql-15; configure;
# make -C src/test/regress). `plain`: the same without attaching, to compare with: some tests do not
# pass when psql is given its script by -f, and those that reconnect come to `src`.
set -euo pipefail
source=$(realpath "$1")/src/test/regress
mode=${2:-attached}
bin=$("${PG_CONFIG:-pg_config}" --bindir)
dir=$(mktemp -d /tmp/pgfork-regress-XXXXXX)
cp -r "$source"/{sql,expected,data} "$source"/*schedule "$source"/*.so "$dir"
chown -R postgres "$dir"
as() { runuser -u postgres -- env -C "$dir" PGHOST="$dir" PGUSER=postgres "$@"; }
as "$bin/initdb" -D pgdata -A trust -U postgres -N --no-locale >/dev/null
printf '%s\n' "listen_addresses = ''" "unix_socket_directories = '$dir'" "fsync = off" \
  "shared_preload_libraries = 'pg_fork'" "pg_fork.isolation = off" "max_prepared_transactions = 2" \
  >>"$dir/pgdata/postgresql.conf"
as "$bin/pg_ctl" -D pgdata -l log -w start >/dev/null
trap 'as "$bin/pg_ctl" -D pgdata -m immediate stop >/dev/null; rm -rf "$dir"' EXIT
sql() { as "$bin/psql" -XAtq -d "$1" -c "$2"; }
sql postgres "CREATE DATABASE src TEMPLATE template0"
# What pg_regress sets for a database that it makes itself.
for set in lc_messages=C lc_monetary=C lc_numeric=C lc_time=C bytea_output=hex timezone_abbreviations=Default; do
  sql src "ALTER DATABASE src SET ${set%=*} = '${set#*=}'"
done
sql src "CREATE SCHEMA pgf; CREATE EXTENSION pg_fork SCHEMA pgf; GRANT USAGE ON SCHEMA pgf TO PUBLIC"
name=src
if [ "$mode" = attached ]; then
  sql src "SELECT pgf.fork_create('src', 'regression')"
  printf '%s\n' '\o /dev/null' "SELECT pgf.fork_attach('regression');" '\o' '\set ECHO all' >"$dir/first.sql"
else
  sql postgres "ALTER DATABASE src RENAME TO regression"
  name=regression
  echo '\set ECHO all' >"$dir/first.sql"
fi
# The one-line wrapper: another script first, and the message prefixes that -f adds taken away.
cat >"$dir/launch" <<'L'
#!/usr/bin/env bash
psql=$1; shift
"$psql" "$@" -v ECHO=none -f "$PGHOST/first.sql" -f - 2>&1 | sed -E 's/^psql:<stdin>:[0-9]+: //'
L
chmod 755 "$dir/launch" "$dir"
as "$source/pg_regress" --inputdir="$dir" --outputdir="$dir" --bindir="$bin" --dlpath="$dir" --use-existing \
  --dbname="$name" --host="$dir" --user=postgres --launcher="$dir/launch" \
  --schedule="$source/parallel_schedule" --max-connections=8 || true
! grep -E 'PANIC|TRAP|terminated by signal' "$dir/log"
