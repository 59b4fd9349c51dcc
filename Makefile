# Two commands: `make demo` runs the whole chain on the embedded model, `make test` passes the tests.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test check clean

.venv/all: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[all]'
	touch $@

.venv/dev: .venv/all
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@

demo: .venv/all
	sh examples/demo.sh $(BIN)/vlmc

test: .venv/dev
	$(BIN)/pytest -n auto

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p vlmc
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/readme.py --check

clean:
	rm -rf .venv artifact artifact.work pruned demo-data split-study build
