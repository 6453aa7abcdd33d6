# Every verb of the project. People and machines use the same ones.
.DEFAULT_GOAL := help
SHELL := bash
export CARGO_TARGET_DIR := target

HOST := $(shell uname -r)
TIERS := unit kernel e2e vm
VM :=
FILTER :=
SCRIPTS = $(shell grep -rlE --exclude-dir={target,.cache,.git} '^\#!.*\b(bash|sh)$$' .)
BPF_SOURCES = $(shell find bpf -name '*.[ch]')
MACHINE := $(shell uname -m)
MACHINES := $(shell grep -v '^\#' scripts/machines | cut -d ' ' -f 1)

.PHONY: help
help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: deps
deps: ## install what building needs, where it is missing
	@scripts/need build
	@command -v cargo >/dev/null || { echo 'Rust is missing: see https://rustup.rs'; exit 1; }

.PHONY: build
build: deps ## build the release binary, target/release/ebpf-sidecar
	cargo build --release

.PHONY: run
run: build ## build, and run the daemon as root
	@echo 'Look at http://localhost:8080/ for a page, http://localhost:8080/metrics for the metrics. Ctrl-C ends it.'
	@scripts/as-root target/release/ebpf-sidecar

.PHONY: test
test: ## run what proves that it works: all on this kernel, the hooks in a virtual machine too (test-vm: all there)
	@rm -rf target/tiers
	@for tier in $(TIERS); do $(MAKE) --no-print-directory test-$$tier VM="$(or $(VM),smoke)"; done; \
		tests/table $(TIERS)

.PHONY: test-unit
test-unit: deps ## run the tests that need no root
	tests/tier unit $(HOST) cargo test --no-fail-fast

.PHONY: test-kernel
test-kernel: deps ## run the tests of the BPF programs, as root, on this kernel; with FILTER=tcp:: only those
	tests/tier kernel $(HOST) tests/kernel/run $(FILTER)

.PHONY: test-e2e
test-e2e: build ## run the tests of the release binary, as root, from outside
	tests/tier e2e $(HOST) tests/e2e/run.sh

.PHONY: test-vm
test-vm: deps ## run test-kernel in virtual machines: all of tests/vm/machines, or VM="6.1 ..."; FILTER as there
	FILTER="$(FILTER)" tests/vm/run $(VM)

.PHONY: test-cross
test-cross: deps ## run tests that need no root for all of scripts/machines, emulated; or for MACHINES="aarch64 ..."
	@test -n "$(MACHINES)" || { echo 'MACHINES names none.'; exit 1; }
	@status=0; for machine in $(MACHINES); do tests/tier cross $$machine tests/cross $$machine || status=1; done; exit $$status

# The kernel tests are named apart because plain cargo commands leave them out.
.PHONY: lint
lint: deps ## check formatting, lints and documentation
	@scripts/need lint
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --test kernel -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps
	clang-format --dry-run -Werror $(BPF_SOURCES)
	shellcheck -x $(SCRIPTS)

.PHONY: bench
bench: build ## measure what it costs
	benches/run.sh

.PHONY: image
image: ## build the container image ebpf-sidecar
	docker build -t ebpf-sidecar .

.PHONY: dist
dist: deps ## build a binary that needs no libraries, dist/ebpf-sidecar-<machine>; for others with MACHINE="aarch64 ..."
	scripts/dist $(MACHINE)

.PHONY: dist-all
dist-all: deps ## build it for all of scripts/machines
	scripts/dist $(MACHINES)

.PHONY: clean
clean: ## remove what was built and downloaded
	rm -rf target dist .cache
