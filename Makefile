# Two commands do all the set-up on a fresh Debian or Ubuntu with Python 3.11 or newer: `make demo` and `make test`.
# Variables: GPU=1 (faiss on CUDA), TORCH_INDEX=URL (a pip index with smaller torch builds), PYTHON=python3.12,
#            HEADLESS=1 and SCENARIO=S03 (or S04, G04, I01, Q01, X04, all) for the demo, ARGS=... for pytest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# What is imported is compiled once and kept, where nobody asked for that, too: pip leaves the compiling of two gigabytes
# to the first import of each part, and the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV := .venv
STORES := .venv-stores
COMMA := ,
BIN := $(VENV)/bin
FAISS := $(if $(GPU),gpu,cpu)
OTHER_FAISS := $(if $(GPU),cpu,gpu)
PIP := $(BIN)/python -m pip --disable-pip-version-check install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: help demo drill test check bench bench-gpu evidence chaos migration install prompt-stores clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo-$(FAISS) ## Play a whole incident on this machine (HEADLESS=1: as text; SCENARIO=S03; SCENARIO=all with HEADLESS=1)
	$(BIN)/watchkeeper demo$(if $(HEADLESS), --headless)$(if $(SCENARIO), --scenario $(SCENARIO))

drill: $(VENV)/.demo-$(FAISS) ## Play faults of the catalogue to their end, judged (ARGS="G01,Q06 --jobs 2"; all 48 without ARGS)
	$(BIN)/watchkeeper drill --headless $(or $(ARGS),--all --jobs 2)

# On all cores what needs no processes of its own; then, two at a time, the stories of several processes. A file at a
# time, since its tests share worlds, and so that the heaviest stories do not run beside each other.
test: $(VENV)/.dev-$(FAISS) ## Run all tests (ARGS="tests/bot -x" for some)
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not acceptance"
	$(BIN)/python -m pytest -n 2 --dist loadfile -m acceptance
endif

check: $(VENV)/.dev-$(FAISS) ## Lint, format, types, import directions, runbooks, example configuration
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/watchkeeper runbook lint
	$(BIN)/watchkeeper runbook test
	$(BIN)/watchkeeper check-config watchkeeper.example.toml

bench: $(VENV)/.dev-$(FAISS) ## Measure: webhooks accepted, a storm of them, cards and verdicts, lint, retrieval (ARGS="--only storm --database sqlite")
	$(BIN)/python -m tests.bench $(ARGS)
	$(BIN)/python -m tests.redaction_bench
	$(BIN)/python -m tests.bench_lint
	$(BIN)/python -m tests.bench_retrieval

bench-gpu: $(VENV)/.dev-$(FAISS) ## On a machine with CUDA, with GPU=1: does the GPU find what the CPU finds, and how fast
	$(BIN)/python -m pytest -m gpu -v
	$(BIN)/python -m tests.bench_retrieval --gpu

evidence: $(VENV)/.dev-$(FAISS) ## Prove at length: kill -9 at every boundary, deeds about approvals, tampers (ARGS="--seeds 3 --deeds 100000")
	$(BIN)/python -m tests.evidence $(ARGS)

chaos: $(VENV)/.dev-$(FAISS) ## Take-over, freeze and upgrade one by one, then kill and freeze at random while hundreds of fixes run (ARGS="--runs 40")
	$(BIN)/python -m pytest -v --no-header --durations=0 --durations-min=1 tests/faults/test_takeover.py
	$(BIN)/python -m tests.chaos $(ARGS)

migration: $(VENV)/.dev-$(FAISS) ## Write a migration from the tables' changes (NAME="add a column")
	$(if $(NAME),,$(error say what changes: make migration NAME="add a column"))
	$(BIN)/python -m bot.store.schema "$(NAME)"

install: $(VENV)/.demo-$(FAISS) ## Make .venv with what the product and the demo need

# They pin other versions than we do, and nothing of ours imports them: their servers run from an environment of their own.
prompt-stores: $(STORES)/.installed ## Install a real MLflow and a real Phoenix for the tests that talk to them

$(STORES)/.installed: pyproject.toml
	$(PYTHON) -m venv $(STORES)
	@echo "==> Installing MLflow and Phoenix into $(STORES); the first time this takes one to two minutes."
	$(STORES)/bin/python -m pip --disable-pip-version-check install --quiet --no-compile \
		$$($(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["prompt-stores"])')
	@touch $@

clean: ## Remove .venv, caches and what the demo left behind
	rm -rf $(VENV) $(STORES) var build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# faiss-cpu and faiss-gpu own the same folder, so the one that is not wanted goes first. The stamps make the second run fast.
define install
	@echo "==> Installing Watchkeeper into $(VENV) ($(1)); the first time this takes one to three minutes."
	@rm -f $(VENV)/.demo-* $(VENV)/.dev-*
	@$(BIN)/python -m pip uninstall --quiet --yes faiss-$(OTHER_FAISS) 2>/dev/null
	$(PIP) --no-compile -c constraints.txt -e ".[$(1)]"
endef

$(VENV)/.demo-$(FAISS): pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(call install,$(FAISS)$(COMMA)lab)
	@touch $@

$(VENV)/.dev-$(FAISS): pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(call install,$(FAISS)$(COMMA)dev)
	@touch $@ $(VENV)/.demo-$(FAISS)

# The check comes first because a venv without ensurepip is left half made, and would look finished the next time.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed and \`$(PYTHON)\` is not: sudo apt-get install python3 python3-venv, or make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "Python's venv module is missing: sudo apt-get install python3-venv"; exit 2; }
	@echo "==> Making $(VENV) with $$($(PYTHON) --version)"
	$(PYTHON) -m venv $(VENV)
