# make demo   recordings, archive, fitted pipeline, scores and report in ./demo
# make test   the tests, with coverage
# make napari-test  archives in the real napari, in an environment of its own (.venv-napari)
# make slurm-test  submitted runs on a real SLURM, workers by SSH; installs and starts both (as root, Debian)
# make docs   the documents as a site, in ./site; dead links fail
# make fuzz   damaged files of every format (FUZZ_CASES of each)
# make flips  one byte flipped in each of many archives, scores and fitted pipelines (FLIPS of each)
# make chaos  200 runs that are killed, starved and interrupted until they are done (CHAOS_RUNS)
# make notebooks  the notebooks, from the first cell to the last (into NOTEBOOKS, if it is given)
# make parity the same graphs here and in cuvis-ai 0.19.3, in an environment of its own (.venv-parity)
# make bench  speed beside the peers, into docs/performance.md: 15 minutes, 12 GB of disk, an idle machine
# make bench-quick the same in 2 minutes on little data, printed only
# Each sets up what it needs in a virtual environment of its own (.venv), which later calls reuse.

PYTHON ?= python3
VENV ?= .venv
PARITY ?= .venv-parity
BENCH ?=
S3 ?= .venv-s3
NAPARI ?= .venv-napari
PYTEST ?=
NOTEBOOKS ?=
DEMO ?= demo

bin := $(VENV)/bin
# Nothing of an environment that happens to be active takes part.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
# Named, so that tests of object storage fail without it; where nobody names it they are skipped.
moto = HSI_BATCH_S3_SERVER=$(abspath $(S3))/bin/moto_server
rooms := statistics pipeline archive stages
comma := ,
empty :=
space := $(empty) $(empty)

.PHONY: demo docs test test-slow notebooks napari-test slurm-test parity fuzz flips chaos bench bench-quick bench-smoke lint clean

demo: $(VENV)/.demo
	$(bin)/hsi-batch demo $(DEMO)

test: $(VENV)/.test $(S3)/.moto
	.ci/system-packages
	rm -f .coverage .coverage.*
	$(moto) $(bin)/python -m pytest -n 3 --dist worksteal --cov --cov-report= -m "not slow" $(PYTEST)
	$(bin)/python -m coverage report --skip-covered --include "$(subst $(space),$(comma),$(rooms:%=hsi_batch/%/*))" --fail-under 90

# Gigabytes large: 60 GB of disk (most of it holes) and a quarter of an hour.
test-slow: $(VENV)/.test $(S3)/.moto
	.ci/system-packages
	$(moto) $(bin)/python -m pytest -m slow $(PYTEST)

# Two minutes. NOTEBOOKS=folder keeps them there with their outputs.
notebooks: $(VENV)/.test
	HSI_BATCH_NOTEBOOKS=$(NOTEBOOKS) $(bin)/python -m pytest tests/notebooks $(PYTEST)

# The real napari, without a window, in an environment of its own.
napari-test: $(VENV)/.test $(NAPARI)/.napari
	HSI_BATCH_NAPARI=$(abspath $(NAPARI))/bin/python $(bin)/python -m pytest tests/users/test_napari.py

# A real SLURM on this machine, as root: submitted runs, losses, walltimes; workers by SSH on ports
# of the loopback address, and on two networks of their own. Ten minutes; the short ones of them
# (`PYTEST='-m "not slow"'`) in CI.
slurm-test: $(VENV)/.test
	.ci/slurm install
	HSI_BATCH_SLURM=1 $(bin)/python -m pytest tests/slurm tests/cluster/test_ssh.py \
	  tests/cluster/test_namespaces.py $(PYTEST)

# No network: fonts are those of the system, the search runs in the page.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build --strict --quiet
	! grep -rlE '(src|href)="https?:[^"]*\.(js|css|woff2?)"' site --include '*.html'

parity: $(PARITY)/.parity
	$(PARITY)/bin/python -m pytest -c tests/parity/pytest.ini --rootdir tests/parity \
	  --confcutdir tests/parity tests/parity $(PYTEST)

# Damaged files of every format, 10^5 cases of each: hours. FUZZ_CASES=1000 for minutes;
# FUZZ='npz weights' for some formats only.
fuzz: $(VENV)/.test
	cd tests && FUZZ_CASES=$${FUZZ_CASES:-100000} PYTHONPATH=. $(abspath $(bin))/python -m fuzz $(FUZZ)

flips: $(VENV)/.test
	cd tests && FLIPS=$${FLIPS:-500} PYTHONPATH=. $(abspath $(bin))/python -m flips

# Twenty of these are in `make test`. CHAOS_WHOLE=1 takes each run through all four stages,
# CHAOS_SEED=n begins at another seed, CHAOS_TOLD=1 prints every fault. Mounts a small tmpfs.
chaos: $(VENV)/.test
	CHAOS_RUNS=$${CHAOS_RUNS:-200} $(bin)/python -m pytest -s tests/chaos $(PYTEST)

# In the environment of the peers. The figures of an idle machine belong into the page.
bench: $(PARITY)/.bench
	$(PARITY)/bin/python -m benchmarks.speed --out docs/performance.md $(BENCH)

bench-quick bench-smoke: $(PARITY)/.bench
	$(PARITY)/bin/python -m benchmarks.speed --size $(@:bench-%=%) $(BENCH)

lint: $(VENV)/.test
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/lint-imports

clean:
	rm -rf $(VENV) $(PARITY) $(S3) $(NAPARI) $(DEMO) site .coverage .coverage.*

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --upgrade "pip>=25.1"
	touch $@

$(VENV)/.demo: $(VENV)/.pip pyproject.toml constraints.txt
	$(bin)/python -m pip install --quiet --constraint constraints.txt --editable ".[cu3s]"
	touch $@

$(VENV)/.docs: $(VENV)/.demo
	$(bin)/python -m pip install --quiet --constraint constraints.txt --group docs
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(bin)/python -m pip install --quiet --constraint constraints.txt --group dev
	touch $@

# The server that tests of object storage talk to; its pins clash with ours.
$(S3)/.moto:
	$(PYTHON) -m venv $(S3)
	$(S3)/bin/python -m pip install --quiet "moto[server]==5.2.5"
	touch $@

$(NAPARI)/.napari:
	$(PYTHON) -m venv $(NAPARI)
	$(NAPARI)/bin/python -m pip install --quiet "napari==0.9.2" "zarr>=3.1" "dask[array]" google-crc32c
	touch $@

# The packages of cuvis-ai come without their dependencies, which would bring the proprietary SDK
# and CUDA builds; a stand-in for torchvision is in tests/parity/stub.
cuvis := cuvis-ai==0.19.3 cuvis-ai-core==0.18.6 cuvis-ai-schemas==0.14.2 cuvis-ai-dataloader==0.8.2

$(PARITY)/.parity: pyproject.toml constraints.txt tests/parity/requirements.txt
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(PARITY)/bin/python -m pip install --quiet --constraint constraints.txt \
	  --requirement tests/parity/requirements.txt --editable . pytest pytest-timeout
	$(PARITY)/bin/python -m pip install --quiet --no-deps $(cuvis)
	touch $@

$(PARITY)/.bench: $(PARITY)/.parity benchmarks/requirements.txt
	$(PARITY)/bin/python -m pip install --quiet --constraint constraints.txt \
	  --requirement benchmarks/requirements.txt
	touch $@
