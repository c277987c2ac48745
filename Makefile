# User commands. `make demo` and `make test` need nothing but Python 3.11 or newer: each makes
# .venv (with uv where it is there, else with venv and pip) and installs what it needs once.

# With PYTHON=... only that one is tried, else the first that is new enough.
PYTHON ?=
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
VENV := .venv
BIN := $(VENV)/bin
UV_INSTALL := uv pip install --compile-bytecode --python $(BIN)/python -c constraints.txt -e

.DEFAULT_GOAL := help
.PHONY: help demo test lint typecheck docs dist lowest constraints clean

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## the main job end to end, on data it makes itself
	$(BIN)/geotune demo

# One thread each: two processes that both use both cores are slower than one.
test: lint typecheck docs  ## everything that must hold before a change goes in
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.test  ## style, formatting, and that imports point down only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

typecheck: $(VENV)/.test  ## types, strictly
	$(BIN)/mypy --strict src benchmarks

# Warnings are errors: a link that leads nowhere fails.
docs: $(VENV)/.docs  ## the documentation site, in build/docs/index.html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

dist: $(VENV)/.test  ## the source distribution and the wheel, in dist/
	rm -rf dist
	$(BIN)/python -m hatchling build

# .demo, .test and .docs are stamps: younger than what they depend on once that is installed.
$(VENV)/.demo: pyproject.toml constraints.txt $(BIN)/python
	$(call install,.)
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt $(BIN)/python
	$(call install,.[test])
	@touch $@ $(VENV)/.demo $(VENV)/.docs

$(VENV)/.docs: pyproject.toml constraints.txt $(BIN)/python
	$(call install,.[docs])
	@touch $@ $(VENV)/.demo

# uv's environments have no pip of their own, so ensurepip brings it where uv has gone. Bytecode is
# made once, as pip does: where Python may not write it, every command would take 8 s longer. Without
# a GPU, uv takes torch without CUDA's libraries; where that fails, such as without PyTorch's index,
# it installs as pip does.
define install
	@if uv --version >/dev/null 2>&1; then \
		set -x; \
		UV_TORCH_BACKEND=$${UV_TORCH_BACKEND:-auto} $(UV_INSTALL) '$(1)' || $(UV_INSTALL) '$(1)'; \
	else \
		$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip; \
		set -x; $(BIN)/python -m pip install -c constraints.txt -e '$(1)'; \
	fi
endef

$(BIN)/python:
	@for candidate in $(PYTHONS); do \
		python=$$($$candidate -c 'import sys; assert sys.version_info >= (3, 11); print(sys.executable)' 2>/dev/null) \
			&& break; \
	done; \
	if [ -z "$$python" ]; then \
		echo "geotune needs Python 3.11 or newer; tried: $(PYTHONS)." >&2; \
		echo "Install one, or say where it is: make PYTHON=/path/to/python3.12 ..." >&2; \
		exit 1; \
	fi; \
	set -ex; \
	rm -rf $(VENV); \
	if uv --version >/dev/null 2>&1; then \
		uv venv --python "$$python" $(VENV); \
	else \
		"$$python" -m venv $(VENV); \
	fi

# What pyproject.toml says of its lower bounds has to be true.
lowest:  ## the tests with the oldest versions that pyproject.toml allows (needs uv)
	uv venv --clear $(VENV)-lowest
	uv pip install --python $(VENV)-lowest/bin/python --resolution lowest-direct -e '.[test]'
	OMP_NUM_THREADS=1 $(VENV)-lowest/bin/python -m pytest -n 2 --dist worksteal

constraints:  ## pin anew what pyproject.toml asks for (needs uv); UPGRADE=1: to the newest
	uv pip compile pyproject.toml --extra all --extra docs --extra test --universal --python-version 3.11 \
		--no-annotate --custom-compile-command 'make constraints' \
		--no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade) -o constraints.txt

clean:  ## remove .venv, caches and built packages; runs stay
	rm -rf $(VENV) $(VENV)-lowest build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
