# The front door. `make help` lists the rooms.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/portolan/tools
DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
# Suites that need a cluster and leave each other alone; those that change what the others stand on, count all that is written, or are
# about seconds; and what of `failure` is run every time, the rest by `make test-failure`.
CLUSTER_SUITES := admission_cluster rbac servers canaries scaling hpa remote_cluster gateway toolsets bad_input fields_server fields_gateway
LONE_SUITES := reconcile asleep quiet handover disruption upgrade
FAILURE_SHORT := a_rolling_update a_gateway_replica an_eviction operations_in_any_order
# Suites that need third-party servers and clients but no cluster.
LOCAL_SUITES := dev_local remote_dev canaries_dev scenario conformance conformance_client instructions hostile

# Every suite and every test of a crate is built with the features of all, and linted while it is compiled: nothing is
# compiled once for each.
LINTED := env RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/hack/clippy-rustc
TESTS := $(LINTED) cargo test --workspace --all-features --locked

# The fuzz targets are a workspace of their own.
FUZZ := --manifest-path fuzz/Cargo.toml --target-dir target/fuzz

export CARGO_TERM_COLOR ?= auto

.PHONY: help
help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

.PHONY: demo
demo: ## Build, then serve examples/quickstart at http://127.0.0.1:8080
	@hack/deps demo
	cargo build -p portolan
	PATH="$(CURDIR)/target/debug:$$PATH" portolan dev -f examples/quickstart

.PHONY: demo-cluster
demo-cluster: static images cluster ## The whole story on a real cluster: install, apply, call, break, mend
	tests/kube/run hack/demo-cluster

.PHONY: test
test: ## Everything: formatting, lints, unit, golden, chart, local and cluster suites
	@hack/test

.PHONY: deps
deps: ## Install the Debian packages that the suites need (root), or list them
	hack/deps

.PHONY: lint
lint: ## Formatting, clippy, licences and bans, shell scripts, generated files, documents
	cargo fmt --all --check
	$(TESTS) --no-run
	$(TESTS) --no-run --test '*'
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	$(LINTED) cargo test $(FUZZ) --locked --no-run
	$(MAKE) --no-print-directory deny
	hack/lint-shell
	$(MAKE) --no-print-directory drift

.PHONY: deny
deny: $(TOOLS)/bin/cargo-deny-$(DENY_VERSION)
	$< --log-level error check bans licenses sources

$(TOOLS)/bin/cargo-deny-$(DENY_VERSION):
	cargo install cargo-deny --version $(DENY_VERSION) --locked --debug --root $(TOOLS)
	mv $(TOOLS)/bin/cargo-deny $@

.PHONY: generate
generate: ## Write the CRDs from their types, into crds/ and the chart
	cargo run -q -p portolan-crds --bin crdgen -- --out crds/generated
	hack/chart-crds
	hack/rooms

.PHONY: drift
drift: ## Fail when generated files differ from their source, or documents name fields and tests that are not there
	hack/chart-crds --check
	hack/rooms --check
	$(TESTS) --quiet --test fields --test crds

.PHONY: unit
unit: ## Tests of every crate, without a cluster
	$(TESTS)

.PHONY: crowds
crowds: ## Gateway tests of crowds and of callers who share a server, at full size (half an hour; CROWD, ROUNDS and BODIES say otherwise)
	cargo build --locked -p portolan -p portolan-bridge
	CROWD=$(or $(CROWD),100000) ROUNDS=$(or $(ROUNDS),62500) BODIES=$(or $(BODIES),17500) \
		cargo test --locked -p portolan-gateway --test it -- crowds tenants memory --nocapture --test-threads 1

.PHONY: fuzz-replay
fuzz-replay: ## Fuzz targets on the stable compiler: their corpora and FUZZ_RUNS seeded changes of each
	$(LINTED) cargo test $(FUZZ) --locked

.PHONY: fuzz
fuzz: $(TOOLS)/bin/cargo-fuzz-$(CARGO_FUZZ_VERSION) ## Fuzz with libFuzzer (nightly), FUZZ_SECONDS a target (600)
	CARGO_FUZZ=$< hack/fuzz

$(TOOLS)/bin/cargo-fuzz-$(CARGO_FUZZ_VERSION):
	cargo install cargo-fuzz --version $(CARGO_FUZZ_VERSION) --locked --root $(TOOLS)
	mv $(TOOLS)/bin/cargo-fuzz $@

.PHONY: static
static: ## Static release binaries in target/dist (PORTOLAN_LTO=off is quicker, as make test does)
	hack/build-static

.PHONY: images
images: ## Image archives in target/images
	hack/images

.PHONY: thirdparty
thirdparty: ## Install third-party MCP servers and clients into target/thirdparty
	tests/thirdparty/install

.PHONY: local
local: ## Suites of `portolan dev` and the command line, on the static binaries
	$(TESTS) $(LOCAL_SUITES:%=--test %)

.PHONY: cluster
cluster: ## Start the real single-node cluster of the tests
	tests/kube/up

.PHONY: cluster-check
cluster-check: ## Show that the cluster keeps the promises that the suites stand on; ends and restarts it
	tests/kube/test
	tests/kube/check --restart

.PHONY: cluster-down
cluster-down: ## Stop it and remove what it left
	tests/kube/down

.PHONY: cluster-test
cluster-test: ## Suites on the running cluster
	hack/cluster-install
	$(TESTS) --no-run $(CLUSTER_SUITES:%=--test %) $(LONE_SUITES:%=--test %) --test failure
	tests/kube/run hack/cluster-suites 2 $(CLUSTER_SUITES) 1 $(LONE_SUITES)
	tests/kube/run $(TESTS) --test failure -- --test-threads 1 $(FAILURE_SHORT)
	tests/kube/run hack/no-panics

.PHONY: test-failure
test-failure: ## What fails or is changed under load, at full length, and servers of others at two versions, on the running cluster (an hour)
	tests/kube/run $(TESTS) --test versions -- --nocapture
	FAILURE=long tests/kube/run $(TESTS) --test failure -- --nocapture --test-threads 1
	tests/kube/run hack/no-panics

.PHONY: test-upgrade
test-upgrade: ## From the release before to this one and back under calls, on the running cluster; PREVIOUS names another commit than the last tag's
	hack/previous
	hack/cluster-install
	tests/kube/load target/previous/images/*.tar
	tests/kube/run $(TESTS) --test upgrade_versions -- --nocapture
	hack/cluster-install

.PHONY: chart-test
chart-test: ## Lint and template tests of the charts
	charts/tests/run

.PHONY: bench
bench: static thirdparty ## Figures: data path, time from apply to first call, writes at rest, memory
	hack/bench
