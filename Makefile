# One command each. `make demo` and `make test` do all set-up on a machine with Python, pip, make, git.
#
#   PYTHON=python3        use this interpreter as it is, without set-up (GPU machines have no .venv)
#   BASE_PYTHON=python3.12  make .venv from this interpreter (3.11 to 3.13)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test check fix one gpu bench chaos faults

export PYTHONUNBUFFERED := 1
export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_OFFLINE := 1

VENV := .venv
ifeq ($(origin PYTHON), undefined)
  PYTHON := $(VENV)/bin/python
  SETUP := setup
endif
BASE_PYTHON ?=
DEMO_DIR := runs/demo
STAMP := $(VENV)/.traitmill-stamp
# What the stamp must say for .venv to be current: the two files that decide what is installed.
LOCK_DIGEST = $$(sed -n '/^\[build-system/,/^\[tool/p' pyproject.toml | cat requirements.lock - | cksum)
PYTEST := $(PYTHON) -m pytest -p no:cacheprovider
RANKS := $(filter-out %/test_tp_schedule.py, \
  $(wildcard tests/integration/test_tp*.py tests/integration/test_toy_tp.py))
HERE := not gpu and not multi_gpu and not packages and not long

help:  ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

setup:  ## make .venv from requirements.lock; does nothing when it is current
	@if [ -x $(VENV)/bin/python ] && [ "$$(cat $(STAMP) 2>/dev/null)" = "$(LOCK_DIGEST)" ]; \
	then exit 0; fi; \
	.ci/setup $(VENV) "$(BASE_PYTHON)"; \
	echo "$(LOCK_DIGEST)" > $(STAMP)

demo: $(SETUP)  ## the main job on a shipped toy model; FRESH=1 computes it again
	@if [ -n "$(FRESH)" ]; then rm -rf $(DEMO_DIR); fi
	@mkdir -p $(DEMO_DIR)
	@start=$$SECONDS; $(PYTHON) -m jobs.pipeline run_dir=$(DEMO_DIR); \
	num_files=$$(find $(DEMO_DIR)/data -name '*.parquet' | wc -l); \
	echo; echo "demo: $$((SECONDS - start)) s, $$num_files Parquet files in $(DEMO_DIR)/data;" \
	  "open $(CURDIR)/$(DEMO_DIR)/report.html"

# Integration tests wait more than they compute: unit tests run beside them, their output follows,
# and so do the ranks without Ray, or one of the two would end minutes before the other.
test: $(SETUP)  ## unit and integration tests: no GPU, no network; about 12 minutes on 2 cores
	@export OMP_NUM_THREADS=1; status=0; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	$(PYTEST) tests/unit $(RANKS) -q -m "$(HERE)" >"$$log" 2>&1 & unit=$$!; \
	$(PYTEST) tests/integration $(addprefix --ignore=,$(RANKS)) -q -m "$(HERE)" \
	  --durations=15 --durations-min=5 || status=1; \
	wait $$unit || status=1; cat "$$log"; exit $$status

check: $(SETUP)  ## what CI checks without tests: ruff, format, strict types
	@$(PYTHON) -m ruff check --no-cache .
	@$(PYTHON) -m ruff format --no-cache --check .
	@$(PYTHON) -m mypy --strict

fix: $(SETUP)  ## what a machine can mend: ruff check --fix, ruff format
	@$(PYTHON) -m ruff check --no-cache --fix .
	@$(PYTHON) -m ruff format --no-cache .

one: $(SETUP)  ## one test: make one T=tests/unit/test_house.py::test_name
	@: "$${T:?name a test, as in: make one T=tests/unit/test_house.py}"
	@$(PYTEST) --showlocals $(T)

gpu: $(SETUP)  ## GPU tests, with PYTHON (python3 on a GPU machine)
	@NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 \
	  $(PYTEST) tests/gpu -q -m "gpu or multi_gpu"

bench: $(SETUP)  ## a benchmark on this machine: make bench B=decode writes tests/benchmarks/records/
	@: "$${B:?name a benchmark, as in: make bench B=decode}"
	@$(PYTHON) -m tests.benchmarks.bench_$(B) $(ARGS)

chaos: $(SETUP)  ## kill, stop and cut off at random, then compare with a clean run; 60 minutes at most
	@$(PYTHON) -m tests.chaos.run $(ARGS)

faults: $(SETUP)  ## every failure in the table, one by one; 60 minutes at most
	@$(PYTEST) tests/unit tests/integration -q -m "packages or long"
	@$(PYTHON) -m tests.faults.run $(ARGS)
