# Two commands for a newcomer: `make demo` and `make test`. Both build .venv first if need be.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := setup.py $(wildcard lightning_gradwatch/native/*.[ch])

.PHONY: demo test check test-oldest clean

$(STAMP): setup.cfg pyproject.toml requirements/development.txt $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "lightning-gradwatch needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -c requirements/development.txt -e ".[examples,report,development]"
	@touch $@

demo: $(STAMP) ## train the MLP example sick, then cured, and print both diagnoses
	$(BIN)/python -m examples.demo

test: $(STAMP) ## the whole test suite
	$(BIN)/python -m pytest

check: $(STAMP) ## what CI runs after the tests: lint, types, docs, examples
	.ci/check

test-oldest: ## tests of all that touches torch or Lightning on the oldest releases we admit, in an environment of their own
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install -r requirements/oldest.txt hypothesis pytest pytest-timeout rich pandas scikit-learn
	.venv-oldest/bin/python -m pytest tests/probe tests/trainer tests/actions tests/culprit tests/ring tests/test_engine.py tests/test_together.py tests/test_history.py --ignore tests/trainer/test_namespaces.py

clean:
	rm -rf $(VENV) .venv-oldest build *.egg-info .pytest_cache .mypy_cache .ruff_cache
