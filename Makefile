# Everything one can do here. `make` lists it.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
GROUP = demo/group
TILE = demo/master_tile_demo.fits
# Programs that tests show tiles, and pages about them, to, and the compiler of the GPU's tests; as Debian names their packages.
NEIGHBOURS = chromium fish fitsverify g++ gnuastro mandoc siril source-extractor swarp zsh
# matplotlib would write its caches to the user's home.
export MPLCONFIGDIR := $(CURDIR)/$(VENV)/matplotlib

.PHONY: help install neighbours demo mosaic test test-gpu check format bench bench-speed bench-accuracy docs man clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

install: $(STAMP) ## make a virtual environment in .venv with zmtile and its tools

# A system Python without ensurepip (Debian's, without python3-venv) gets pip by its own means.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV) || ( \
	  echo "python3 cannot make a virtual environment: install its venv package (Debian: apt install python3-venv)" >&2; \
	  exit 1 )
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# As root, or with a sudo that asks nothing. What cannot be installed, tests skip, and say so.
neighbours: ## install the programs and shells that tests try zmtile with (Debian, Ubuntu; outside of this folder)
	@sudo=$$([ "$$(id -u)" = 0 ] || echo sudo -n); export DEBIAN_FRONTEND=noninteractive; \
	missing=$$(for name in $(NEIGHBOURS); do dpkg -s $$name > /dev/null 2>&1 || echo $$name; done); \
	[ -z "$$missing" ] || $$sudo timeout 120 apt-get -qq update || true; \
	for name in $$missing; do \
	  $$sudo timeout 600 apt-get -qq install -y --no-install-recommends $$name > /dev/null \
	    || echo "$$name cannot be installed: the tests that need it are skipped" >&2; \
	done

demo: $(STAMP) ## simulate a group, build its tile, leave a picture and a page of it beside it
	$(BIN)/python examples/make_group.py $(GROUP)
	$(BIN)/zmtile build $(GROUP) --output $(TILE) --overwrite
	$(BIN)/python examples/picture.py $(TILE) demo/master_tile_demo.png
	$(BIN)/zmtile report $(TILE) --output demo/master_tile_demo.html --overwrite
	@echo "Look at demo/master_tile_demo.png and demo/master_tile_demo.html"

mosaic: $(STAMP) ## simulate two overlapping groups, build their tiles, join them, leave a picture
	$(BIN)/python examples/mosaic/mosaic.py demo/mosaic --overwrite
	@echo "Look at demo/mosaic/mosaic.png"

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest

test-gpu: $(STAMP) ## run the tests of the GPU's kernels on a real one (first: .venv/bin/pip install '.[gpu-cuda12]')
	$(BIN)/python -m pytest --gpu -n 0 tests/test_gpu_stack.py tests/test_gpu_reject.py tests/test_gpu_whole.py

check: $(STAMP) ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff write the formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-speed bench-accuracy ## measure speed beside other programs, then accuracy (long)

bench-speed: $(STAMP) ## measure speed and memory, beside the programs that are installed (long; 5 GB in bench/data)
	$(BIN)/python bench/speed/peers.py
	$(BIN)/python bench/speed/rejection.py
	$(BIN)/python bench/speed/scaling.py
	$(BIN)/python bench/speed/startup.py
	$(BIN)/python bench/speed/stages.py
	$(BIN)/python bench/speed/limits.py
	$(BIN)/python bench/speed/measuring.py

bench-accuracy: $(STAMP) ## measure accuracy against the truth of simulated groups (minutes)
	$(BIN)/python bench/quality/truth.py --frames 20 --frames 60
	$(BIN)/python bench/quality/steps.py --frames 60
	$(BIN)/python bench/quality/registration.py --pairs 2000
	$(BIN)/python bench/quality/centroids.py
	$(BIN)/python bench/quality/weights.py
	$(BIN)/python bench/quality/kernels.py
	$(BIN)/python bench/quality/estimators.py
	$(BIN)/python bench/quality/pulls.py
	$(BIN)/python bench/quality/growth.py
	$(BIN)/python bench/quality/models.py --groups 3 --frames 6
	$(BIN)/python bench/quality/chain.py
	$(BIN)/python bench/quality/masters.py
	$(BIN)/python bench/quality/hot.py
	$(BIN)/python bench/quality/cfa.py --kappa 4 5

docs: $(STAMP) ## make the pictures of the docs again
	$(BIN)/python docs/make_pictures.py

man: $(STAMP) ## write the manual page again, from the help of the commands
	$(BIN)/python docs/make_man.py

clean: ## remove what the other targets made
	rm -rf $(VENV) demo bench/data .pytest_cache .mypy_cache .ruff_cache .hypothesis
