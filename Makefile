# make demo: install, train three runs on digits, print their comparison, write a figure
# make test: install with the test extra, run every test, in WORKERS processes
# make test-lower-bounds: some tests with the oldest packages that setup.cfg allows (torch and what is as large excepted)
# make soak: 50 kills of a run, 100,000 steps with flat memory, every null calibrated, every network as ONNX, compiled kernels
# make lint: ruff and mypy
# make bench: speed and memory on this machine, in less than ten minutes of two idle cores; the figures of
#     docs/performance.md: make bench BENCH="--update docs/performance.md"
# make clean
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
WORKERS ?= 2
OLDEST := build/lower-bounds
DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: demo test test-lower-bounds soak lint bench clean

# A stamp says which install is there; it is written last, so that a broken install is tried again.
$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install -q --disable-pip-version-check -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(RUN) pip install -q --disable-pip-version-check -e ".[test]"
	touch $@

demo: $(VENV)/installed
	$(RUN) motivation train -m experiment=demo hydra.sweep.dir=$(DEMO)
	$(RUN) motivation compare $(DEMO) --figure $(DEMO)/comparison.png

test: $(VENV)/installed-test
	$(RUN) pytest -q -n $(WORKERS) --dist worksteal

# timm alone comes without its dependencies, of which torch is one. What old packages warn of is no error here.
test-lower-bounds: $(VENV)/installed-test
	rm -rf $(OLDEST)
	$(RUN) pip install -q --disable-pip-version-check --target $(OLDEST) --no-deps \
		$$($(VENV)/bin/python .ci/lower_bounds.py timm)
	$(RUN) pip install -q --disable-pip-version-check --target $(OLDEST) --upgrade \
		$$($(VENV)/bin/python .ci/lower_bounds.py hydra-core omegaconf einops rich filelock pydantic)
	PYTHONPATH=$(OLDEST) $(RUN) pytest -q -W default -n $(WORKERS) -k "not every_config_composes" \
		tests/test_registry.py tests/pairing/test_pair.py tests/training/test_recipe.py \
		tests/run/test_run.py::test_always_trains_the_motivated_network

soak: $(VENV)/installed-test
	MOTIVATION_SOAK=1 $(RUN) pytest -q -m soak --timeout=3600

lint: $(VENV)/installed-test
	$(RUN) ruff check .
	$(RUN) mypy

bench: $(VENV)/installed
	$(VENV)/bin/motivation bench --json build/bench.json $(BENCH)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
