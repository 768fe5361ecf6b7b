# `make quickstart` and `make test` set up whatever is missing; only python3 (3.11 or newer) and make are needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/quickstart
JOBS ?= 2

.PHONY: setup quickstart serve test test-all bench lint clean

setup: $(VENV)/.ready
$(VENV)/.ready: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 -e .
	@touch $@

$(VENV)/.ready-serve: $(VENV)/.ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[serve]'
	@touch $@

serve: $(VENV)/.ready-serve
	$(BIN)/python experiments/serve.py --workdir=$(RUN)

# --use-pep517: seqeval is built from source, which old pips otherwise do with whatever is half installed by then.
# The tests' oracles (PyTorch, transformers) are not needed to use the project. One installation of all, and without
# bytecode: most of these 25,000 files are never imported.
$(VENV)/.ready-test: pyproject.toml tests/constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) with the tests' oracles (a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 --no-compile -e '.[test]' \
	  -c tests/constraints.txt
	@touch $(VENV)/.ready $(VENV)/.ready-serve $@

quickstart: setup
	$(BIN)/python experiments/train.py --config=configs/lm/python_stdlib.py --workdir=$(RUN)
	$(BIN)/python experiments/evaluate.py --workdir=$(RUN) --split=test --compressors
	$(BIN)/python experiments/generate.py --workdir=$(RUN) --prompt="    def __init__(self, " --max_new_tokens=150 --temperature=0.5

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-all: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m ''

bench: $(VENV)/.ready-test
	$(BIN)/python experiments/benchmark.py

lint: $(VENV)/.ready-test
	$(BIN)/ruff check src experiments configs tests

clean:
	rm -rf $(VENV) build src/*.egg-info .pytest_cache .ruff_cache
