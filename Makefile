# Coxswain's tasks. Bare `make` lists them.

CARGO ?= cargo
# Empty when we are root already.
SUDO := $(shell [ "$$(id -u)" -eq 0 ] || echo sudo)
# What `coxswain` should know of whoever calls sudo.
KEPT := KUBECONFIG,COXSWAIN_NAME,COXSWAIN_STATE_DIR,UPSTREAM_BIN,COXSWAIN_BENCH_LOGS
AS_ROOT := $(if $(SUDO),$(SUDO) --preserve-env=$(KEPT))
# The toolchain is that of whoever calls sudo.
CARGO_AS_ROOT := $(if $(SUDO),$(SUDO) --preserve-env env "PATH=$$PATH" "HOME=$$HOME") $(CARGO)
COXSWAIN := $(AS_ROOT) target/release/coxswain
NODES ?= 3
# Clusters are heavy; what is not a cluster runs on all cores.
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)

.DEFAULT_GOAL := help
.PHONY: help up down status build test test-unit lint fmt bench deps deps-test clean

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: deps build ## install what is missing, build, start a cluster and serve a page (NODES=3)
	$(COXSWAIN) up --nodes $(NODES)
	$(COXSWAIN) demo

down: ## take the cluster down and leave the machine as it was
	@if [ -x target/release/coxswain ]; then $(COXSWAIN) down; \
	elif [ -x target/debug/coxswain ]; then $(AS_ROOT) target/debug/coxswain down; \
	elif [ -e /var/lib/coxswain ]; then $(CARGO) build --release -p coxswain && $(COXSWAIN) down; \
	else echo "there is no cluster"; fi

status: ## show every process, its health, memory and log
	@$(COXSWAIN) status

build: ## build the release binaries
	$(CARGO) build --release --workspace --bins

# Everything is built at once: the binaries under test and the tests then share every library.
test: deps-test ## run all tests, whole clusters included (needs root)
	$(CARGO) build --workspace --all-targets
ifeq ($(NEXTEST),yes)
	$(CARGO_AS_ROOT) nextest run --workspace
else
	$(CARGO_AS_ROOT) test --workspace -- --test-threads=2
endif

test-unit: ## run the tests that need neither root nor a cluster
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --workspace --lib --bins
else
	$(CARGO) test --workspace --lib --bins
endif

lint: ## check formatting, clippy and the rules of the tree
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test -q -p cluster-tests --test tree
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check; \
	else echo "cargo-deny is not installed; licences and advisories were not checked"; fi

fmt: ## format the code
	$(CARGO) fmt --all

bench: deps-test ## measure every budget (needs root; ROWS="create get" for some, UPSTREAM_BIN=DIR to compare)
	$(CARGO) build --release --workspace --bins
	$(AS_ROOT) target/release/bench $(ROWS)

deps: ## install the system packages that building and running need
	@deploy/scripts/deps.sh build

deps-test: ## install the system packages that the tests need as well
	@deploy/scripts/deps.sh test

clean: ## remove what was built
	$(CARGO) clean
