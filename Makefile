# Everything runs in a private virtual environment below this folder. Needs Python 3.11+, make and the package index.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= demo-out
# Up to four workers; each takes whole files, whose tests share what is long in the making.
TESTS  ?= --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test lint format types docs torch sbom audit-deps notebook bench lock clean
help:            ## show these targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# --no-deps: the locks are whole, and pip may ask for a newer release of what another package needs with an extra.
# Two stamps, so that `make demo` never waits for the developers' tools.
$(VENV)/.demo: requirements/train.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/train.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(VENV)/.demo $@

demo: $(VENV)/.demo  ## the whole way on pictures it draws itself: audit, train, evaluate, score, worklist
	$(BIN)/dermalert demo --out $(OUT)

test: $(VENV)/.dev   ## linters, types, import rules and the whole test suite
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -q $(TESTS)

lint: $(VENV)/.dev   ## ruff, mypy --strict and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

torch: $(VENV)/.dev  ## PyTorch, to train on a GPU and for the tests of that; large, so no part of the others
	$(BIN)/python -m pip install --quiet torch==2.14.1

docs: $(VENV)/.dev   ## build the documentation into site/
	$(BIN)/mkdocs build --strict

sbom: $(VENV)/.dev   ## list the service's components, CycloneDX, in sbom.json
	$(BIN)/cyclonedx-py requirements requirements/serve.txt --pyproject pyproject.toml --output-reproducible --output-file sbom.json

audit-deps: $(VENV)/.dev  ## known vulnerabilities of what the service installs; fails where it cannot know
	$(BIN)/python scripts/audit_deps.py requirements/serve.txt

notebook: $(VENV)/.dev  ## execute notebooks/nineteen_steps.py and store it, with its outputs, as .ipynb
	$(BIN)/python notebooks/execute.py

bench: $(VENV)/.dev  ## every benchmark, beside what a user would run instead
	for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

lock:            ## pin anew what `make demo`, `make test` and CI install
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra train --extra serve --group build --custom-compile-command 'make lock' pyproject.toml -o requirements/train.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev --group build --custom-compile-command 'make lock' pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra serve --extra heic --group build --constraints requirements/dev.txt --custom-compile-command 'make lock' pyproject.toml -o requirements/serve.txt

clean:           ## remove the virtual environment and all that was made
	rm -rf $(VENV) $(OUT) site sbom.json .pytest_cache .mypy_cache .ruff_cache .hypothesis
