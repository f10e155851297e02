# Two commands do everything on a fresh Debian or Ubuntu machine with Python >= 3.11:
#   make demo   sets up, then goes from mock survey to photo-z catalogue, metrics and figure (8 minutes)
#   make test   sets up, then runs all tests (half an hour)
# Beside them: make check (3 minutes), make lint, make clean.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo -n)
APT := $(AS_ROOT) env DEBIAN_FRONTEND=noninteractive apt-get

.PHONY: demo test check lint readers clean

demo: $(READY)
	rm -rf demo runs/demo
	$(BIN)/mmae mock demo --survey rubin --galaxies 2400 --tile 600 --shard-rows 128
	$(BIN)/mmae train demo/train.zarr --out runs/demo --epochs 8 --batch 32
	$(BIN)/mmae export runs/demo
	$(BIN)/python -m mmae.infer --catalog demo/rubin_tile.zarr
	$(BIN)/mmae evaluate demo/rubin_tile.photoz.fits --truth demo/rubin_tile.truth.fits

test: $(READY) lint readers
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

# What to run before every commit: lint, types, and the tests that take less than two seconds each.
check: $(READY) lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow and not slurm" $(PYTEST_FLAGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The field's own readers of FITS; without them their tests say so and are skipped (in CI they fail).
readers:
	@for tool in fitsverify stilts; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -n "$$missing" ]; then \
	    echo "installing$$missing"; \
	    { $(APT) update -qq && $(APT) install -y -qq --no-install-recommends $$missing; } >/dev/null 2>&1 \
	        || echo "could not install$$missing: their tests will not run"; \
	fi

# Debian keeps the venv module in a package of its own.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "mmae needs Python >= 3.11: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	    || { $(APT) update -qq && $(APT) install -y -qq python3-venv && $(PYTHON) -m venv --clear $(VENV); }
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[mpi,slurm,s3,similarity,mock,mlflow,hats,qp,rail,test,dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo runs/demo .pytest_cache .mypy_cache .ruff_cache
