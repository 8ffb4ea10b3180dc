PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test slow lint benchmark clean

demo: $(VENV)/installed ## the main job on the embedded data set
	$(BIN)/tfopt --config=digits --workdir=runs/digits

test: $(VENV)/installed-dev ## the default test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

slow: $(VENV)/installed-dev ## the tests with real data and minutes of training
	$(BIN)/python -m pytest -m slow --ignore=tests/contracts
	for model in $$($(BIN)/python -c 'from tests.contracts.test_techniques import MODELS; print(*MODELS)'); \
	do for part in 1/3 2/3 3/3; \
	do $(BIN)/python -m pytest -m slow tests/contracts --model=$$model --part=$$part; \
	case $$? in 0|5) ;; *) exit 1;; esac; done; done

lint: $(VENV)/installed-dev ## style, layers and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

benchmark: $(VENV)/installed-dev ## training speed against plain Keras
	$(BIN)/python tests/benchmarks/train_speed.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.py | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: setup.py | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) build dist *.egg-info runs
