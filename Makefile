# Two commands are all you need: `make run` and `make test`. Each does its own set-up on a machine that has Rust.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test bench bench-redis tools lint check demo clients clients-if-possible browser

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: tools ## Build, start a server with three example tenants, and show what it does
	cargo run --locked -- demo $(ARGS)

test: tools lint check demo clients-if-possible ## Everything: format, lints, tests, a demo whose account is checked, the published clients

bench: tools ## Measure how far from its limits it is, in under five minutes
	cargo bench --locked --bench limits -- $(ARGS)

bench-redis: tools ## Measure the cache and the queue beside a Redis server, installed where it is missing
	@command -v redis-server > /dev/null || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -q -y --no-install-recommends redis-server; }
	cargo bench --locked --bench limits -- --redis $(ARGS)

# What the build and the tests need beside cargo, installed only where it is missing.
tools:
	@command -v cargo > /dev/null || { echo "make: Rust is missing; https://rustup.rs installs it" >&2; exit 1; }
	@command -v cc > /dev/null || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -q -y gcc libc6-dev; }

lint:
	@cargo fmt --version > /dev/null 2>&1 || rustup component add rustfmt
	@cargo clippy --version > /dev/null 2>&1 || rustup component add clippy
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

check:
	cargo test --locked

# The demo checks every answer itself; this checks that it told all of its story.
ACCOUNT := '1. The operator provisions' \
           'demo-globex' \
           'a task was inserted with parameters, read back and closed' \
           'Wind Park Skagen, Battery Pilot Malmö' \
           '403 sql_denied' \
           '401 unauthenticated' \
           'three plain SQLite files' \
           'calls were answered as they should be' \
           'curl -s http://127.0.0.1:'

# The clients as they are published, from npm and PyPI, in folders that git ignores, and a browser.
clients: tools browser ## Run the published clients (Node, Python, a browser) against the server
	cargo build --locked
	node tests/clients/run.mjs target/debug/tenantry $(ARGS)

# The same, but what cannot be had here, for want of a program or of a registry, is told and skipped.
clients-if-possible: tools browser
	@if [ "$$(node -p 'process.versions.node.split(".")[0] >= 20' 2> /dev/null)" != true ]; then \
	  echo "make: the published clients are skipped: there is no node here, or one older than 20"; \
	elif ! command -v npm > /dev/null; then echo "make: the published clients are skipped: there is no npm here"; \
	else cargo build --locked && node tests/clients/run.mjs target/debug/tenantry --if-possible; fi

# For the clients' suite in a browser, which is skipped where there is none. On a machine that has none this takes half a
# minute.
browser:
	@for browser in chromium chromium-browser google-chrome; do if command -v "$$browser" > /dev/null; then exit 0; fi; done; \
	for tool in node apt-get timeout; do if ! command -v "$$tool" > /dev/null; then exit 0; fi; done; \
	$(SUDO) timeout 150 sh -c 'apt-get update -q && apt-get install -q -y --no-install-recommends chromium' > /dev/null 2>&1 \
	  || echo "make: apt-get cannot install chromium here"

demo:
	@dir="$$(mktemp -d)"; trap 'rm -rf "$$dir"' EXIT; \
	cargo run --quiet --locked -- demo --exit --data-dir "$$dir/tenants" --listen 127.0.0.1:0 | tee "$$dir/account"; \
	for line in $(ACCOUNT); do \
	  grep -qF -- "$$line" "$$dir/account" || { echo "make: the demo's account lacks: $$line" >&2; exit 1; }; \
	done; \
	echo; echo "make: the demo's account is complete"
