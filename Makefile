# Each target makes the environment it needs (.venv) by itself; Python 3.11 or newer is all that must be there.

PYTHON := .venv/bin/python
CATALOGUE := universal_registry/registry/catalogue
SHELL_PARTS := cli/by_daemon.sh
SHELL_FILES := ureg run_registry.sh install_registry.sh cli/registry_cli.sh scripts/setup.sh .ci/run
# Keeps the lines of parallel checks apart where make can (4.0 and later).
APART := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
PINNING := --universal --generate-hashes --no-header --no-emit-index-url

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/.ready-runtime $(CATALOGUE).json ## See it work: this machine's records, delivered to real receivers (removed at exit)
	@$(PYTHON) scripts/ureg.py demo

.PHONY: test
test: setup ## Run every test that this machine can run
	@$(PYTHON) -m pytest -n auto --dist worksteal  # else one worker ends long before the other

.PHONY: test-fast
test-fast: setup ## Run the tests of the pure parts, for the inner loop
	@$(PYTHON) -m pytest -q -m 'not slow' tests/unit tests/property

.PHONY: check
check: setup ## Lint, format, types, layers, shape and shell scripts (under a minute)
	@$(MAKE) --no-print-directory --keep-going -j4 $(APART) check-lint check-format check-types check-layers check-shape check-shell
	@echo 'all checks passed'

.PHONY: bench
bench: setup .venv-bench/.ready ## Measure it beside limits and peers, in one run (ARGS='--quick --only web')
	@$(PYTHON) -m bench $(ARGS)

.PHONY: docs
docs: setup ## Generate the reference pages, build the site, test both
	@$(PYTHON) -m universal_registry.registry.reference
	@.venv/bin/zensical build --strict
	@$(PYTHON) -m pytest -q tests/docs

.PHONY: sbom
sbom: setup ## Write dist/sbom.cdx.json: what an installed ureg brings, with licences
	@$(PYTHON) scripts/sbom.py dist/sbom.cdx.json

.PHONY: setup
setup: .venv/.ready-dev $(CATALOGUE).json ## Make .venv with all tools, from pinned and hashed packages
	@:

.PHONY: lock
lock: ## Pin the newest allowed packages anew (needs uv and the network)
	@rm -f requirements.txt requirements-dev.txt requirements-bench.txt
	@uv pip compile -q pyproject.toml --group build $(PINNING) -o requirements.txt
	@uv pip compile -q pyproject.toml --group dev -c requirements.txt $(PINNING) -o requirements-dev.txt
	@uv pip compile -q --group bench -c requirements.txt $(PINNING) -o requirements-bench.txt

.venv/.ready-dev: pyproject.toml requirements-dev.txt
	@sh scripts/setup.sh dev

.venv/.ready-runtime: pyproject.toml requirements.txt
	@sh scripts/setup.sh runtime

# Without them the bench says so, and measures the rest.
.venv-bench/.ready: requirements-bench.txt | .venv/.ready-dev
	@echo 'making .venv-bench for the peers (once)' >&2
	@if command -v uv >/dev/null 2>&1; then uv venv -q --clear --python $(PYTHON) .venv-bench && \
	  uv pip install -q --python .venv-bench/bin/python --require-hashes -r requirements-bench.txt; else \
	  $(PYTHON) -m venv --clear .venv-bench && \
	  .venv-bench/bin/python -m pip install -q --require-hashes -r requirements-bench.txt; fi && touch $@ || \
	  echo 'the peers could not be installed' >&2

$(CATALOGUE).json: $(CATALOGUE).yaml universal_registry/registry/compile.py | .venv/.ready-runtime
	@$(PYTHON) -m universal_registry.registry.compile

.PHONY: check-lint check-format check-types check-layers check-shape check-shell
check-lint:
	@$(PYTHON) -m ruff check --quiet
check-format:
	@$(PYTHON) -m ruff format --check --quiet
check-types:
	@$(PYTHON) -m mypy
check-layers:
	@out=$$($(PYTHON) -c 'from importlinter.cli import lint_imports_command as c; c()' 2>&1) || { printf '%s\n' "$$out"; exit 1; }
check-shape:
	@$(PYTHON) -m pytest -q -p no:cacheprovider tests/unit/test_shape.py
check-shell:
	@.venv/bin/shellcheck $(SHELL_FILES) $(SHELL_PARTS)
	@for file in $(SHELL_FILES) $(SHELL_PARTS); do bash -n "$$file" || exit 1; done
