# Everything a user or CI calls. Each step is skipped when its inputs have not changed.
SHELL := /bin/bash
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

export SIDEGATE_CACHE ?= $(HOME)/.cache/sidegate
PY := .venv/bin/python
STEP := tools/step
RUN_ARGS ?=
TEST_ARGS ?=
PROTO := $(wildcard sidegate_api/*/v1/*.proto)

.PHONY: build run test conformance test-unit lint format bench clean lock help
build: build/apt .venv/installed build/proto build/bpf build/module build/cni build/peers build/kafka ## build all

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## the quickstart; RUN_ARGS=--once: probe, clean up, exit; --gateway, --cluster, --istio: more of it
	@$(PY) -m sandbox.quickstart $(RUN_ARGS)

test: build build/cluster lint ## all tests: real kernel, Envoy, broker, Kubernetes (root)
	@cargo test --locked --quiet --manifest-path l7_proxy_ext/Cargo.toml --target-dir $(SIDEGATE_CACHE)/cargo-target
	@cargo test --locked --quiet --manifest-path cni_plugin/Cargo.toml --target-dir $(SIDEGATE_CACHE)/cargo-target
	@$(PY) -m pytest $(TEST_ARGS)

conformance: build build/cluster ## of the tests, the official suite of the Gateway API
	@$(PY) -m pytest -m conformance tests/system $(TEST_ARGS)

test-unit: build ## the fast tests
	@$(PY) -m pytest tests/unit $(TEST_ARGS)

lint: .venv/installed build/proto build/module ## types, style, room contract
	@$(STEP) "ruff" .venv/bin/ruff check .
	@$(STEP) "ruff format" .venv/bin/ruff format --check .
	@$(STEP) "mypy --strict" .venv/bin/mypy .
	@$(STEP) "import contract" .venv/bin/lint-imports
	@$(STEP) "clang-format" bash -c 'clang-format --dry-run -Werror datapath/bpf/*.[ch]'
	@$(STEP) "rustfmt" bash -c 'cargo fmt --check --manifest-path l7_proxy_ext/Cargo.toml --all && cargo fmt --check --manifest-path cni_plugin/Cargo.toml'
	@$(STEP) "clippy" bash -c 'for d in l7_proxy_ext cni_plugin; do cargo clippy --locked --quiet --all-targets --manifest-path $$d/Cargo.toml --target-dir $(SIDEGATE_CACHE)/cargo-target -- -D warnings || exit 1; done'

format: .venv/installed ## put all code into its canonical form
	@.venv/bin/ruff check --fix-only -q . ; .venv/bin/ruff format -q .
	@clang-format -i datapath/bpf/*.[ch]
	@cargo fmt --manifest-path l7_proxy_ext/Cargo.toml --all; cargo fmt --manifest-path cni_plugin/Cargo.toml

bench: build ## measure; writes bench/results/latest.json
	@$(PY) -m bench $(BENCH_ARGS)

lock: .venv/installed ## renew requirements.lock
	@$(PY) -m pip -q install uv && .venv/bin/uv pip compile --all-extras --generate-hashes --no-header --no-emit-index-url -q pyproject.toml -o requirements.lock

clean: ## forget what was built here (the cache outside the checkout stays)
	@rm -rf build .venv datapath/bpf/*.o l7_proxy_ext/lib l7_proxy_ext/_rules.abi3.so cni_plugin/bin
	@find . -name '*_pb2*.py*' -not -path './.venv/*' -delete

build/apt: tools/apt-packages.txt tools/preflight
	@mkdir -p build && tools/preflight
	@$(STEP) "Debian packages" tools/apt-install
	@touch $@

.venv/installed: requirements.lock pyproject.toml | build/apt
	@[ -x $(PY) ] || $(STEP) "Python environment" python3 -m venv .venv
	@$(STEP) "Python packages" $(PY) -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	@$(STEP) "Sidegate's own packages" $(PY) -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

build/proto: $(PROTO) .venv/installed
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(STEP) "Protocol buffers" $(PY) -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. $(PROTO)
	@touch $@

build/bpf: $(wildcard datapath/bpf/*.[ch] datapath/build.py) .venv/installed
	@$(STEP) "BPF programs" $(PY) -m datapath.build
	@touch $@

build/module: $(shell find l7_proxy_ext/crates -name '*.rs' -o -name '*.toml' -o -name '*.c' 2>/dev/null) $(wildcard l7_proxy_ext/Cargo.* l7_proxy_ext/Makefile) $(PROTO) | build/apt
	@$(STEP) "Envoy module (Rust)" $(MAKE) -C l7_proxy_ext
	@touch $@

# For nodes of that architecture; tests look at it where it was built.
build/module-arm64: build/module
	@$(STEP) "Envoy module for arm64 (Rust)" $(MAKE) -C l7_proxy_ext arm64
	@touch $@

build/cni: $(shell find cni_plugin/src -name '*.rs' 2>/dev/null) $(wildcard cni_plugin/Cargo.* cni_plugin/Makefile) | build/apt
	@$(STEP) "CNI plugin (Rust)" $(MAKE) -C cni_plugin
	@touch $@

build/peers: $(shell find tests/peers/http -name '*.go' 2>/dev/null) $(wildcard tests/peers/http/go.*) .venv/installed
	@$(STEP) "HTTP peer (Go)" $(PY) -m sandbox.binaries build http-peer
	@touch $@

# Ten minutes the first time, then found in the cache; a user's first cluster builds them too.
build/cluster: $(wildcard sandbox/go_modules/*/*) sandbox/binaries.py .venv/installed
	@for m in etcd kubernetes cni coredns helm streaming istio istio-cni istio-echo gateway-conformance; do $(STEP) "Kubernetes on this machine: $$m (Go)" $(PY) -m sandbox.binaries build $$m || exit 1; done
	@touch $@

build/kafka: $(wildcard tests/peers/kafka/pom.xml) .venv/installed
	@$(STEP) "Kafka broker (Maven)" $(PY) -m sandbox.kafka_broker prepare
	@touch $@
