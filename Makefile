# Everything runs from .venv, which these targets make and keep up to date themselves; VENV=.venv-3.12 takes another, and
# PYTHON=python3.12 makes a new one with that. Nothing is installed outside this folder. Paths are relative throughout, so a checkout may stand in a folder with spaces.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/sh

VENV ?= .venv
python := $(VENV)/bin/python
pip := $(python) -m pip --disable-pip-version-check --no-input --quiet
ready_to_serve := $(VENV)/.ready-to-serve
ready_to_develop := $(VENV)/.ready-to-develop
ready_to_fuzz := $(VENV)/.ready-to-fuzz
ready_to_document := $(VENV)/.ready-to-document

# pytest's further arguments: make test ARGS="-n0 -k damage -x"
ARGS ?=

# Compiled code is kept, whatever the environment says: the tests start hundreds of processes, and each would compile the
# package for itself, as each worker would compile all tests. Empty is unset for Python.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help env serve test test-pythons test-long dist try-dist mutants shape fuzz docs lint format generate lock bench clean

help:
	@echo 'make env        the environment, .venv, with everything that development needs'
	@echo 'make serve      a node on haptera://127.0.0.1:7457'
	@echo 'make test       the tests; ARGS="-k name" chooses among them'
	@echo 'make test-pythons   the tests, with each supported Python that is found'
	@echo 'make test-long  those that take minutes, too'
	@echo 'make dist       the source distribution and the wheel, in dist/, checked'
	@echo 'make try-dist   tries the wheel in empty environments; ALL=1 takes the oldest dependencies and other Pythons too'
	@echo 'make mutants    breaks the product on purpose, and says which changes no test notices'
	@echo 'make shape      measures the tree: sizes, reaches, names with two meanings, the words of its prose'
	@echo 'make fuzz       the fuzz targets, for a minute; ARGS="decoder --seconds 600"'
	@echo 'make docs       the site of the documentation, site/index.html'
	@echo 'make lint       formatting, rules, types, and whether generated files are current'
	@echo 'make format     formats the sources'
	@echo 'make generate   writes the generated files'
	@echo 'make bench      the measurements of bench/README.md'
	@echo 'make lock       chooses the versions in requirements*.lock again'
	@echo 'make clean      removes the environment and what tools left behind'

# --- environment ------------------------------------------------------------------------------------------

# A dangling bin/python (its Python was upgraded away) counts as missing, so the environment is made again.
$(python):
	@python="$$(tools/python.sh)" && echo "making $(VENV) with $$python" && "$$python" -m venv --clear $(VENV)

# The project itself is installed last and editable: its metadata depends on pyproject.toml and the version, its code is
# never copied.
$(ready_to_serve): requirements.lock pyproject.toml src/haptera/version.py | $(python)
	@echo 'installing what a node needs into $(VENV)'
	@$(pip) install --require-hashes --requirement requirements.lock
	@$(pip) install --no-deps --no-build-isolation --editable .
	@touch $@

$(ready_to_develop): requirements-dev.lock $(ready_to_serve)
	@echo 'installing what development needs into $(VENV)'
	@$(pip) install --require-hashes --requirement requirements-dev.lock
	@touch $@

# Where the fuzzer has no wheel the lock file has nothing to install, and the targets run without it.
$(ready_to_fuzz): requirements-fuzz.lock $(ready_to_develop)
	@echo 'installing what fuzzing needs into $(VENV)'
	@$(pip) install --require-hashes --requirement requirements-fuzz.lock
	@touch $@

$(ready_to_document): requirements-docs.lock $(ready_to_develop)
	@echo 'installing what the site of the documentation needs into $(VENV)'
	@$(pip) install --require-hashes --requirement requirements-docs.lock
	@touch $@

env: $(ready_to_develop)

# --- running ----------------------------------------------------------------------------------------------

# exec: SIGTERM, which make passes on, reaches the node itself and no shell. The node ends with 0; make then ends by the
# signal that it got.
serve: $(ready_to_serve)
	@exec $(python) -m haptera serve $(ARGS)

# --- checking ---------------------------------------------------------------------------------------------

test: $(ready_to_develop)
	@$(python) -m pytest $(ARGS)

# An environment for each; they are kept. A Python that fails does not keep the others from being tried.
test-pythons:
	@failed=; \
	for python in $$(tools/pythons.sh); do \
		version="$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"; \
		echo "Python $$version"; \
		$(MAKE) --no-print-directory test VENV=.venv-$$version PYTHON="$$python" ARGS='$(ARGS)' || failed="$$failed $$version"; \
	done; \
	[ -z "$$failed" ] || { echo "failed with Python$$failed" >&2; exit 1; }

test-long: $(ready_to_fuzz)
	@HYPOTHESIS_PROFILE=long $(python) -m pytest -m '' --timeout 3600 $(ARGS)

dist: $(ready_to_develop)
	@$(python) -m tools.distributions $(ARGS)

# Each extra by itself, with the newest dependencies and this Python; ALL=1 adds the oldest dependencies, and the oldest and
# the newest Python. Without a registry of packages each test is skipped, and says so.
ALL ?=
try-dist: $(ready_to_develop)
	@$(python) -m pytest tests/distribution -m '$(if $(ALL),,not long)' --timeout 600 $(ARGS)

mutants: $(ready_to_develop)
	@$(python) -m tools.mutants $(ARGS)

shape: $(ready_to_develop)
	@$(python) -m tools.shape $(ARGS)

fuzz: $(ready_to_fuzz)
	@$(python) -m fuzz.run $(ARGS)

docs: $(ready_to_document)
	@$(python) -m tools.build_site

lint: $(ready_to_develop)
	@$(python) -m ruff format --check --quiet .
	@$(python) -m ruff check --quiet .
	@$(python) -m mypy
	@$(python) tools/generate_errors.py --check
	@$(python) tools/generate_vectors.py --check
	@$(python) -m tools.generate_configuration --check
	@$(python) -m tools.generate_diagram --check
	@$(python) -m tools.generate_sync --check
	@$(python) -m tools.generate_sync_tests --check
	@$(python) -m tools.generate_module_index --check

format: $(ready_to_develop)
	@$(python) -m ruff check --fix --quiet . || true
	@$(python) -m ruff format --quiet .

generate: $(ready_to_develop)
	@$(python) tools/generate_errors.py
	@$(python) tools/generate_vectors.py
	@$(python) -m tools.generate_configuration
	@$(python) -m tools.generate_diagram
	@$(python) -m tools.generate_sync
	@$(python) -m tools.generate_sync_tests
	@$(python) -m tools.generate_module_index

# --- measuring --------------------------------------------------------------------------------------------

bench: $(ready_to_develop)
	@$(python) -m bench $(ARGS)

# --- maintaining ------------------------------------------------------------------------------------------

# One lock file for every platform and Python that the project supports; the development one repeats the
# versions of the other, so that tests run what users run. UPGRADE=--upgrade takes newer versions.
UPGRADE ?=
compile := $(python) -m uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
	--no-emit-package haptera --custom-compile-command 'make lock' $(UPGRADE)
lock:
	@test -x $(python) || { python="$$(tools/python.sh)" && "$$python" -m venv --clear $(VENV); }
	@$(python) -m uv --version >/dev/null 2>&1 || $(pip) install uv
	@$(compile) --extra all --group build --output-file requirements.lock pyproject.toml
	@$(compile) --extra all --group dev --constraint requirements.lock \
		--output-file requirements-dev.lock pyproject.toml
	@$(compile) --group dist --output-file requirements-dist.lock
	@$(compile) --group fuzz --output-file requirements-fuzz.lock
	@$(compile) --group docs --constraint requirements-dev.lock --output-file requirements-docs.lock

clean:
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site
	rm -rf .fuzz
	find src tests tools bench fuzz -type d -name __pycache__ -prune -exec rm -rf {} +
