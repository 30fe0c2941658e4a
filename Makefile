# Two commands do everything: `make demo` runs the main job, `make test` the tests.
# Both make their own .venv; another interpreter or folder: make test PYTHON=python3.12 VENV=/tmp/v
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
# without setuptools' remark on editable packages
INSTALL = PYTHONWARNINGS='ignore:Editable installation' $(BIN)/pip install --quiet --constraint constraints.txt
CORE = tests/test_backbone.py tests/test_packing.py tests/test_training.py tests/test_readers.py \
	tests/test_recommend.py tests/test_security.py tests/faults

.PHONY: install demo test test-browser lint figures notebooks site slides badges benchmark reliability test-newest audit clean help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; point PYTHON= at one"; exit 1; }
	@echo "installing into $(VENV): a minute to several, without output"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	$(INSTALL) --editable '.[dev]'
	@touch $@

install: $(READY) ## only set up .venv; demo and test do it themselves

demo: $(READY) ## train, evaluate and talk to a small PECRS, with every baseline beside it
	$(BIN)/python -m experiments.demo

test: $(READY) ## all tests, notebooks included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -W ignore \
		--nbval-lax --nbval-current-env --nbval-cell-timeout=300 notebooks

test-browser: $(READY) ## widgets, chat, site and slides in a real browser (installs Playwright; needs chromium)
	$(INSTALL) playwright --editable '.[docs]'
	$(BIN)/python -m pytest -W ignore tests/browser

lint: $(READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

figures: $(READY) ## redraw figures/ from data/results/
	$(BIN)/python -m experiments.draw_figures

notebooks: $(READY) ## execute all notebooks and write their outputs
	$(BIN)/python -m experiments.notebooks run

site: $(READY) ## notebooks and docs as pages that open without a network: site/index.html
	$(INSTALL) --editable '.[docs]'
	$(BIN)/python -m experiments.site pages site

slides: $(READY) ## a deck of slides for each notebook: slides/index.html
	$(INSTALL) --editable '.[docs]'
	$(BIN)/python -m experiments.site slides slides

badges: $(READY) ## point the Colab badges at REPO=owner/name
	$(BIN)/python -m experiments.notebooks badges $(REPO)

benchmark: $(READY) ## where the time goes, beside floors and three passes (INSPIRED=folder of the data)
	$(BIN)/python -m tests.benchmarks.bench_one_pass --inspired $(INSPIRED) --json data/results/bench_one_pass.json
	$(BIN)/python -m tests.benchmarks.bench_scaling --inspired $(INSPIRED) --json data/results/bench_scaling.json
	$(BIN)/python -m tests.benchmarks.bench_scaling --inspired $(INSPIRED) --dtype bfloat16 \
		--json data/results/bench_scaling_bfloat16.json
	$(BIN)/python -m tests.benchmarks.bench_gpu --inspired $(INSPIRED) --json data/results/bench_gpu.json
	$(BIN)/python -m experiments.draw_figures

reliability: $(READY) ## 20 killed trainings, 10,000 cases of bad data, and docs/reliability.md
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.reliability

test-newest: ## tests of the core with the newest versions that pyproject.toml allows (HOLD=torch==2.13.0 keeps one)
	$(PYTHON) -m venv $(VENV)-newest
	PYTHONWARNINGS='ignore:Editable installation' $(VENV)-newest/bin/pip install --quiet \
		--upgrade --upgrade-strategy eager --editable ".[dev]" $(HOLD)
	$(VENV)-newest/bin/pip list --outdated
	OMP_NUM_THREADS=1 $(VENV)-newest/bin/python -m pytest $(CORE) -n auto --maxprocesses 4 \
		-W ignore::DeprecationWarning -W ignore::FutureWarning --junitxml=runs/newest.xml
	$(VENV)-newest/bin/python -m experiments.reliability --newest runs/newest.xml

audit: $(READY) ## known vulnerabilities of what is installed (needs the network)
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --quiet pip-audit
	$(VENV)-audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

clean: ## remove the environment and caches
	rm -rf site slides $(VENV) $(VENV)-newest $(VENV)-audit .pytest_cache .mypy_cache .ruff_cache runs/demo
