# The two that matter: `make demo` and `make test`. Both install what is missing (Debian, Ubuntu).
CARGO ?= cargo
# 1: a test that cannot run because a server or a tool is missing fails. 0: it says that it was skipped.
export TIDEMARK_REQUIRE_ALL ?= 1
# Tests mostly wait for servers: two for each core.
NEXTEST_TEST_THREADS ?= $(shell expr 2 '*' $$(nproc))
export NEXTEST_TEST_THREADS

.PHONY: help setup demo test test-only test-postgres soak fmt fmt-check lint doc build release bench ci

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## install what is missing
	@scripts/setup

demo: setup ## a vendor database, a CRM, live changes and the daemon, for about two minutes (SOURCE=mysql|mariadb|sqlserver, ARGS="--keep")
	@$(CARGO) build --quiet -p tidemark $(if $(filter sqlserver,$(SOURCE)),-p tidemark-sqlserver-sim)
	@target/debug/tidemark demo $(if $(SOURCE),--source $(SOURCE)) $(ARGS)

test: setup test-only ## every test, on real servers

test-only:
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	    $(CARGO) nextest run --workspace --no-tests=fail --no-fail-fast $(ARGS) && $(CARGO) test --workspace --doc --quiet; \
	else \
	    $(CARGO) test --workspace --no-fail-fast $(ARGS); \
	fi

# The connector's own tests, the battery, kill -9 and the types, on another version than the machine's.
test-postgres: setup ## what depends on PostgreSQL's version, on another one (PG=17|18)
	@bin=$$(scripts/postgres-server $(PG)) && export TIDEMARK_PG_BIN=$$bin && \
	if $(CARGO) nextest --version >/dev/null 2>&1; then \
	    $(CARGO) nextest run -p tidemark-postgres -p tidemark --no-tests=fail --no-fail-fast $(ARGS) \
	        -E 'package(tidemark-postgres) + (binary(it) & (test(=postgres::conformance) + test(=scenarios::kills::random_changes_and_kills) + test(/^scenarios::types::/)))'; \
	else \
	    $(CARGO) test -p tidemark-postgres --no-fail-fast && \
	    $(CARGO) test -p tidemark --test it --no-fail-fast -- --exact postgres::conformance scenarios::kills::random_changes_and_kills; \
	fi

soak: setup ## the long versions of the random tests: kill -9, faults, large tables
	@TIDEMARK_SOAK=1 $(MAKE) --no-print-directory test-only

fmt: ## format the sources
	@$(CARGO) fmt --all

fmt-check:
	@$(CARGO) fmt --all --check

lint: ## clippy, warnings are errors
	@$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings

doc: ## the documentation of the code, warnings are errors
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --quiet

build:
	@$(CARGO) build

release: ## the program as it is shipped, in target/release
	@$(CARGO) build --release

bench: setup ## rows/s of snapshot and tail beside psql and pg_recvlogical (ARGS="--rows 200000 --markdown")
	@$(if $(findstring sqlserver,$(ARGS)),$(CARGO) build --quiet --release -p tidemark-sqlserver-sim)
	@$(CARGO) bench --quiet --bench throughput -- $(ARGS)

ci: ## what continuous integration runs
	@.ci/run
