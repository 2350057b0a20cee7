# Two commands do everything on a fresh machine with a package index: `make demo` and `make test`.
# Settings: VENV (folder of the virtual environment), PYTHON (3.11 or 3.12), RUNS (where the demo writes), PROCESSES (of
# the tests; each takes one core and about 3 GiB).

VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
RUNS ?= runs
PROCESSES ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.edge-t2t-installed

.PHONY: setup demo test lint format bench weights clean help

help:
	@echo "make setup    virtual environment with everything pinned in constraints.txt"
	@echo "make demo     the whole job for t2t_vit_10 and mobilenet_v2 on the embedded digits, ends with a report"
	@echo "make test     lint, then all tests"
	@echo "make lint     ruff, mypy, import contract"
	@echo "make bench    latency by form and by part, the MIL reference, the gate's errors, QAT, devices (four hours on 2 cores)"
	@echo "make weights  train the bundled demo weights anew (about an hour on 2 cores)"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no python3.11 or python3.12 on PATH: set PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP)
	$(BIN)/python main.py demo --runs-dir $(RUNS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python benchmarks/latency_vs_naive.py
	$(BIN)/python benchmarks/where_time_goes.py
	$(BIN)/python benchmarks/mil_reference.py
	$(BIN)/python benchmarks/gate_calibration.py
	$(BIN)/python benchmarks/qat_throughput.py
	$(BIN)/python benchmarks/kill_resume.py
	$(BIN)/python benchmarks/qat_stability.py
	$(BIN)/python benchmarks/throttling.py
	$(BIN)/python benchmarks/device_faults.py --device ssh
	$(BIN)/python benchmarks/device_faults.py --device adb
	$(BIN)/python benchmarks/arm64_numerics.py

weights: $(STAMP)
	$(BIN)/python benchmarks/train_demo_weights.py

clean:
	rm -rf $(RUNS) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
