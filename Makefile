# make demo: install, train three runs on digits, print their comparison, write a figure
# make test: install with the test extra, run every test
# make soak: 50 kills of a run, 100,000 steps with flat memory, every null calibrated
# make lint, make bench, make clean
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: demo test soak lint bench clean

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
	$(RUN) pytest

soak: $(VENV)/installed-test
	MOTIVATION_SOAK=1 $(RUN) pytest -q tests/run/test_soak.py tests/null

lint: $(VENV)/installed-test
	$(RUN) ruff check .

bench: $(VENV)/installed
	$(VENV)/bin/motivation bench training
	$(VENV)/bin/motivation bench checkpoints
	$(VENV)/bin/motivation bench folders
	$(VENV)/bin/motivation bench augmentation

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
