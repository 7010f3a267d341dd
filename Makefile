# make demo   recordings, archive, fitted pipeline, scores and report in ./demo
# make test   the tests, with coverage
# Each sets up what it needs in a virtual environment of its own (.venv), which later calls reuse.

PYTHON ?= python3
VENV ?= .venv
PYTEST ?=
DEMO ?= demo

bin := $(VENV)/bin
# Nothing of an environment that happens to be active takes part.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
rooms := statistics pipeline archive stages
comma := ,
empty :=
space := $(empty) $(empty)

.PHONY: demo test test-slow lint clean

demo: $(VENV)/.demo
	$(bin)/hsi-batch demo $(DEMO)

test: $(VENV)/.test
	.ci/system-packages
	rm -f .coverage .coverage.*
	$(bin)/python -m pytest -n 3 --dist worksteal --cov --cov-report= -m "not slow" $(PYTEST)
	$(bin)/python -m coverage report --skip-covered --include "$(subst $(space),$(comma),$(rooms:%=hsi_batch/%/*))" --fail-under 90

# Gigabytes large: 60 GB of disk (most of it holes) and a quarter of an hour.
test-slow: $(VENV)/.test
	.ci/system-packages
	$(bin)/python -m pytest -m slow $(PYTEST)

lint: $(VENV)/.test
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/lint-imports

clean:
	rm -rf $(VENV) $(DEMO) .coverage .coverage.*

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --upgrade "pip>=25.1"
	touch $@

$(VENV)/.demo: $(VENV)/.pip pyproject.toml constraints.txt
	$(bin)/python -m pip install --quiet --constraint constraints.txt --editable ".[cu3s]"
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(bin)/python -m pip install --quiet --constraint constraints.txt --group dev
	touch $@
