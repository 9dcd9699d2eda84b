# Everything on a fresh Debian machine, as root, with nothing but Rust, git and make.
PG_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config
PGRX := 0.18.1
PACKAGES := postgresql-15 postgresql-server-dev-15 libclang-dev pkg-config gcc
# Clients of the tests, what unpacks PostgreSQL's source, and extensions that keep what they know of a database or run
# code of their own.
TEST_PACKAGES := pgbouncer python3 python3-psycopg2 nodejs bzip2 xz-utils xfsprogs procps \
  postgresql-plpython3-15 postgresql-15-cron postgresql-15-postgis-3
# node-postgres is Debian's; npm's where a Node.js that is not Debian's keeps Debian's modules away.
NODE_CLIENTS := target/node
export NODE_PATH := $(CURDIR)/$(NODE_CLIENTS)/node_modules
HAS_NODE_PG := node -e "require('pg')" 2>/dev/null
NO_CLUSTER := /etc/postgresql-common/createcluster.d/pg_fork.conf
POLICY := /usr/sbin/policy-rc.d
# `dpkg -s` also knows packages that were removed.
INSTALLED = [ "$$(dpkg-query -W -f '$${db:Status-Status}\n' $(1) 2>/dev/null | grep -cx installed)" -ge $(words $(1)) ]
export DEBIAN_FRONTEND := noninteractive
export PG_CONFIG

.PHONY: deps test-deps install test soak lint demo bench bench-quick

# Installs what is missing. No cluster is made when PostgreSQL is installed for it.
deps:
	@if [ ! -x $(PG_CONFIG) ] || [ ! -f "$$($(PG_CONFIG) --includedir-server)/postgres.h" ] || ! $(call INSTALLED,$(PACKAGES)); then \
	  apt-get update -q && apt-get install -qy --no-install-recommends postgresql-common && \
	  mkdir -p $(dir $(NO_CLUSTER)) && echo 'create_main_cluster = false' > $(NO_CLUSTER) && \
	  { apt-get install -qy --no-install-recommends $(PACKAGES); status=$$?; rm -f $(NO_CLUSTER); exit $$status; }; fi
	@cargo pgrx --version 2>/dev/null | grep -q ' $(PGRX)$$' || cargo install --locked cargo-pgrx --version $(PGRX)
	@grep -qs 'pg15' $${PGRX_HOME:-$$HOME/.pgrx}/config.toml || cargo pgrx init --pg15 $(PG_CONFIG)

# No service of a package that is installed is started: invoke-rc.d and deb-systemd-invoke ask POLICY.
test-deps: deps
	@$(call INSTALLED,$(TEST_PACKAGES)) || { apt-get update -q && \
	  { [ -e $(POLICY) ] || { trap 'rm -f $(POLICY)' EXIT && printf '#!/bin/sh\nexit 101\n' > $(POLICY) && chmod 755 $(POLICY); }; } && \
	  apt-get install -qy --no-install-recommends $(TEST_PACKAGES); }
	tests/get-regression-suite
	@$(HAS_NODE_PG) || apt-get install -qy --no-install-recommends node-pg || npm install --no-save --prefix $(NODE_CLIENTS) pg@8

# A release build into the server that PG_CONFIG belongs to.
install: deps
	cargo pgrx install --release --pg-config $(PG_CONFIG)

lint: deps
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

# The pure core without a server, then real servers, of a private copy of PostgreSQL.
test: test-deps
	cargo test -p pg_fork_core --lib
	tests/with-private-postgresql tests/run-cluster-tests

# Kill -9 at random moments, and random steps against twins, as long as asked.
ROUNDS ?= 200
SEED ?= 1
soak: test-deps
	PG_FORK_ROUNDS=$(ROUNDS) PG_FORK_STEPS=$$(($(ROUNDS) * 50)) PG_FORK_SEED=$(SEED) tests/with-private-postgresql \
	  cargo test -p pg_fork_tests --test cluster_crash --test cluster_model -- --nocapture

demo: install
	cargo run -q -p pg_fork_tests --bin demo

# All rows; BENCH takes options (`make bench BENCH="--rows create,fork --seconds 5"`, --help names them).
RUN_BENCH := PG_FORK_FEATURES= tests/with-private-postgresql cargo run -q --release -p pg_fork_tests --bin bench --
bench: deps
	$(RUN_BENCH) $(BENCH)

# The rows that no change may make worse, in three minutes.
bench-quick: deps
	$(RUN_BENCH) --quick $(BENCH)
