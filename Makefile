# Everything happens in this checkout: .venv, target, target-py, .cache. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
SOAK_SECONDS ?= 600
FUZZ_CASES ?= 20000
BENCH ?= default

export PATH := $(PATH):$(HOME)/.cargo/bin
export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# One interpreter for every build of the bindings, or PyO3 is rebuilt at every turn.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python

RUST_SOURCES := $(shell find rust Cargo.toml Cargo.lock -name '*.rs' -o -name 'Cargo.*')

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z/-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: demo
demo: build ## Serve a RAM drive, attach to it, verify it, measure it
	@$(BIN)/nvmet-vdev demo

.PHONY: test
test: build ## Run every test: Rust, Python, and real Linux guests in QEMU
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --locked && cargo test --locked --doc; else cargo test --locked; fi
	@$(BIN)/python -m tests.vm.setup || echo "make: no guest rig: pytest skips the cases that need it, or fails where CI is set" >&2
	@$(BIN)/python -m pytest

.PHONY: check
check: build ## Formatting, lints, types, stubs, docs, architecture; benches compile
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
	$(BIN)/ruff check python tests benches
	$(BIN)/ruff format --check python tests benches
	$(BIN)/mypy python tests benches
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/stubtest --mypy-config-file pyproject.toml nvmet_vdev._nvmet
	$(BIN)/python -m pytest -q tests/test_architecture.py
	cargo bench --locked --no-run
	$(BIN)/python benches/instructions.py --check
	@$(MAKE) model

.PHONY: model
model: need ## Model-check the sleep and wake hand-shake of the workers (loom)
	@RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom CARGO_PROFILE_TEST_DEBUG=0 cargo test --locked -p nvmet-core --lib worker::handshake

.PHONY: sanitize
sanitize: need ## The Rust tests under ThreadSanitizer and AddressSanitizer (see CONTRIBUTING)
	@$(PYTHON) tests/sanitize.py

.PHONY: bench
bench: build ## Benchmarks beside fio and the floor: BENCH=quick, default, full; BENCH_ONLY=disk/ a part; writes docs/performance.md
	@$(BIN)/python -m benches.matrix --size $(BENCH) $(if $(BENCH_ONLY),--only $(BENCH_ONLY))
	@$(if $(BENCH_ONLY)$(filter quick,$(BENCH)),,$(BIN)/python benches/startup.py)

# The core's tests in every wait mode and with 1, 2 and 4 workers, and the guests in the two that differ most.
.PHONY: modes
modes: build ## The core's and the guests' tests again, in every wait mode and with 1, 2 and 4 workers (half an hour)
	@for wait in poll adaptive event; do for workers in 1 2 4; do \
		echo "== --wait $$wait --workers $$workers"; \
		NVMET_TEST_WAIT=$$wait NVMET_TEST_WORKERS=$$workers cargo test --locked --quiet -p nvmet-core --tests || exit 1; \
	done; done
	@for options in "--wait event --workers 4" "--wait poll --workers 2"; do \
		echo "== guests: $$options"; NVMET_TEST_RUN="$$options" $(BIN)/python -m pytest -q tests/vm || exit 1; \
	done

.PHONY: soak
soak: build ## Load, verify and kill clients for SOAK_SECONDS (600); memory and descriptors must not grow
	@$(BIN)/python tests/soak.py --seconds $(SOAK_SECONDS)

.PHONY: fuzz
fuzz: need ## Property tests of every parser and state machine with FUZZ_CASES (20000) cases each
	@PROPTEST_CASES=$(FUZZ_CASES) cargo test --locked --release

.PHONY: build
build: .venv/.built ## Build the package into .venv

.PHONY: venv
venv: .venv/.tools ## Make .venv with the development tools

.PHONY: clean
clean: ## Remove everything that was built or downloaded
	rm -rf .venv .cache target target-py dist .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find python tests benches -name __pycache__ -prune -exec rm -rf {} +
	rm -f python/nvmet_vdev/*.so

# What a fresh machine lacks, each in one line.
.PHONY: need
need:
	@missing() { echo "make: $$1" >&2; exit 1; }; \
	command -v $(PYTHON) >/dev/null || missing "$(PYTHON) is missing; apt install python3 python3-venv"; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || missing "$$($(PYTHON) --version) is too old; Python 3.11 or later is needed: make PYTHON=python3.x"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing "Python's venv module is missing; apt install python3-venv"; \
	command -v cc >/dev/null || missing "a C compiler (cc) is missing; apt install gcc"; \
	command -v cargo >/dev/null || missing "cargo is missing; install Rust 1.88 or later with rustup (see README)"; \
	$(PYTHON) -c 'import sys; sys.exit(tuple(map(int, sys.argv[1].split(".")[:2])) < (1, 88))' "$$(cargo --version | cut -d' ' -f2)" \
		|| missing "$$(cargo --version) is too old; Rust 1.88 or later is needed: rustup update"

.venv/.tools: pyproject.toml | need
	@echo "setting up .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

.venv/.built: .venv/.tools pyproject.toml $(RUST_SOURCES) | need
	@echo "building (the first time takes minutes)"
	@VIRTUAL_ENV="$(CURDIR)/.venv" CARGO_TARGET_DIR="$(CURDIR)/target-py" $(BIN)/maturin develop --release --locked --quiet
	@touch $@
