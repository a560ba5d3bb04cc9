# One word each; `make` alone lists them. The first one that needs it makes .venv.
#
#   PYTHON=/path/to/python   the interpreter to build .venv with (3.11 to 3.13)
#   ARGS="..."               handed on to the command of test, demo, bench, chaos and load
#   FILE=document.json       the document that `make demo` takes instead of its own
#   QUICK=1                  `make bench` in about a minute

PYTHON ?=
ARGS ?=
FILE ?=
QUICK ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# What the checkers read: the folders that hold Python files at present.
CHECKED := $(patsubst %/,%,$(sort $(dir $(wildcard \
	protocol/*.py treestore/*.py actors/*.py scripts/*.py tests/*.py))))

# Functions that are started with ``nursery.start``.
STARTABLE := serve_listener,serve_http,run_actors,run_proxy,use_server,watch

# Is the interpreter $$python one that can build .venv? A command of the right name proves
# nothing (it may be a shim that only reports an error), so this runs it.
USABLE := "$$python" -c 'import sys, ssl, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
FIND_PYTHON := found=; for python in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python); do \
	if $(USABLE); then found="$$python"; break; fi; done

# uv fetches what pip would: from the index that pip's settings name, if they name one.
PIP_INDEX = $${PIP_INDEX_URL:-$$($(BIN)/python -m pip config list 2>/dev/null | sed -n "s/^[^ ]*\.index-url='\(.*\)'$$/\1/p" | tail -n 1)}

.PHONY: help demo test coverage lint format check bench chaos load schema properties lock clean python
.DEFAULT_GOAL := help
.SILENT:

help:
	echo 'make demo       a tour of TreeStore on a document of your own (FILE=...) or its own example'
	echo 'make test       the tests (ARGS="-k name" picks some)'
	echo 'make coverage   the tests, and how many lines of the program they reach: at least 80 %'
	echo 'make lint       style and types'
	echo 'make format     put files in the style that lint asks for'
	echo 'make check      lint, then the tests with their coverage'
	echo 'make bench      the side-by-side benchmark (QUICK=1 for a short one)'
	echo 'make chaos      ten minutes of crashes, kills, damage and attacks; nothing may be lost'
	echo 'make load       a hundred users for ten minutes; then everything is verified'
	echo 'make schema     an hour of requests made from the OpenAPI document; no fault may be found'
	echo 'make properties an hour of the tests that make up their own examples, thousands of each'
	echo 'make lock       choose dependency versions anew and write requirements.lock'
	echo 'make clean      remove .venv, caches and reports'

demo: $(READY)
	$(BIN)/python scripts/demo.py $(if $(FILE),"$(FILE)") $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -n auto $(ARGS)

# On Python 3.12 and later the interpreter counts lines by itself, at next to no cost. What only goes
# on for long over lines that others reach is not traced: tests/conftest.py.
coverage: $(READY)
	COVERAGE_CORE=$$($(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")') \
		$(BIN)/python -m pytest -n auto --cov --cov-report=term:skip-covered --cov-fail-under=80 $(ARGS)

# Runs every checker, so that one run shows all there is to mend.
lint: $(READY)
	failed=; \
	run() { name=$$1; shift; "$$@" || failed="$$failed $$name"; }; \
	run ruff $(BIN)/ruff check --quiet $(CHECKED); \
	run format $(BIN)/ruff format --quiet --check --diff $(CHECKED); \
	run flake8-async sh -c "grep -rlE --include='*.py' 'async (def|with|for)' $(CHECKED) | xargs -P 2 -n 20 \
		$(BIN)/flake8-async --startable-in-context-manager $(STARTABLE)"; \
	run mypy $(BIN)/mypy --strict --no-error-summary $(CHECKED); \
	run basedpyright $(BIN)/basedpyright --level error $(CHECKED); \
	if [ -n "$$failed" ]; then echo "lint: failed:$$failed" >&2; exit 1; fi; \
	echo 'lint: no complaints'

format: $(READY)
	$(BIN)/ruff check --quiet --fix $(CHECKED) || true
	$(BIN)/ruff format $(CHECKED)

check: lint
	$(MAKE) --no-print-directory coverage

bench: $(READY)
	$(BIN)/treestore bench $(if $(QUICK),--quick) $(ARGS)

chaos: $(READY)
	$(BIN)/python scripts/chaos.py $(if $(ARGS),$(ARGS),mix)

load: $(READY)
	$(BIN)/treestore loadtest --users 100 --duration 600 $(ARGS)

schema: $(READY)
	TREESTORE_HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest tests/http/test_schema.py $(ARGS)

properties: $(READY)
	TREESTORE_HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -n auto -m hypothesis \
		--ignore tests/http/test_schema.py $(ARGS)

# The same versions on every Python and system we support, with the hashes of their files, and
# without the address of any index: the file serves behind any mirror.
lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra bench --universal --upgrade \
		--python-version 3.11 --fork-strategy fewest --generate-hashes --no-config \
		--no-emit-index-url --no-header --quiet --output-file requirements.lock
	echo 'requirements.lock is up to date'

clean:
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis \
		.mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Prints the interpreter that .venv would be built with, for scripts.
python:
	$(FIND_PYTHON); [ -n "$$found" ] && echo "$$found"

# The environment: exactly the versions of requirements.lock, each file checked against its
# hash, then TreeStore itself from this folder. uv comes from the lock as well; where it cannot
# be had or cannot reach an index, pip does the same work in more time.
$(READY): requirements.lock pyproject.toml
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		$(FIND_PYTHON); \
		if [ -z "$$found" ]; then \
			echo 'No usable Python: TreeStore needs CPython 3.11, 3.12 or 3.13 with its venv and ensurepip modules.' >&2; \
			echo 'On Debian and Ubuntu: apt install python3-venv. Elsewhere: make PYTHON=/path/to/python3 ...' >&2; \
			exit 1; \
		fi; \
		echo "Making .venv with $$("$$found" --version) ..."; \
		rm -rf $(VENV) && "$$found" -m venv $(VENV); \
	fi
	export PIP_DISABLE_PIP_VERSION_CHECK=1 UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1; \
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.lock; \
	echo "Installing $$(grep -c '^[a-z0-9]' requirements.lock) packages ..."; \
	$(BIN)/python -m pip install --quiet --require-hashes -r $(VENV)/uv.lock && \
	index=$(PIP_INDEX) && \
	{ [ -z "$$index$$UV_DEFAULT_INDEX$$UV_INDEX_URL" ] || \
		export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$${UV_INDEX_URL:-$$index}}"; } && \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock || { \
		echo 'uv did not manage; installing with pip, which takes a minute ...'; \
		$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock; \
	}
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-index \
		--no-build-isolation --editable .
	touch $(READY)
