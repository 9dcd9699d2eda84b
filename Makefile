# Everything on a fresh Debian machine, as root, with nothing but Rust, git and make.
PG_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config
PGRX := 0.18.1
PACKAGES := postgresql-15 postgresql-server-dev-15 libclang-dev pkg-config gcc
export DEBIAN_FRONTEND := noninteractive
export PG_CONFIG

.PHONY: deps install test lint demo bench

# Installs what is missing. No cluster is made when PostgreSQL is installed for it.
deps:
	@if [ ! -x $(PG_CONFIG) ] || [ ! -f "$$($(PG_CONFIG) --includedir-server)/postgres.h" ] || ! dpkg -s $(PACKAGES) >/dev/null 2>&1; then \
	  apt-get update -q && apt-get install -qy --no-install-recommends postgresql-common && \
	  if [ ! -e /etc/postgresql-common/createcluster.conf ] || ! grep -q '^create_main_cluster' /etc/postgresql-common/createcluster.conf; then \
	    echo 'create_main_cluster = false' >> /etc/postgresql-common/createcluster.conf; fi && \
	  apt-get install -qy --no-install-recommends $(PACKAGES); fi
	@cargo pgrx --version 2>/dev/null | grep -q ' $(PGRX)$$' || cargo install --locked cargo-pgrx --version $(PGRX)
	@grep -qs 'pg15' $${PGRX_HOME:-$$HOME/.pgrx}/config.toml || cargo pgrx init --pg15 $(PG_CONFIG)

# A release build into the server that PG_CONFIG belongs to.
install: deps
	cargo pgrx install --release --pg-config $(PG_CONFIG)

lint: deps
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

# The pure core without a server, then real servers.
test: install
	cargo test -p pg_fork_core --lib
	cargo test -p pg_fork_tests --test cluster_fork --test cluster_life --test cluster_model --test cluster_recovery --test cluster_segments --test cluster_sql --test cluster_stop_points -- --test-threads 2

demo: install
	cargo run -q -p pg_fork_tests --bin demo

bench: install
	cargo run -q --release -p pg_fork_tests --bin bench
