.DEFAULT_GOAL := help
.PHONY: help setup test lint format demo kafka chaos fuzz soak gpu clean

PYTHON ?= $(firstword $(foreach python,python3 python3.13 python3.12 python3.11,\
	$(shell $(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(python))))
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
ARGS ?=
PORT ?= 9092

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.all ## the virtual environment .venv with everything: service, torch, tools

test: .venv/.all ## all tests; ARGS="-k wire" picks some
	@$(BIN)/pytest $(ARGS)

lint: .venv/.all .build/mypy ## ruff, format check, mypy
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet
	@MYPYPATH=.build/mypy $(BIN)/mypy

format: .venv/.all ## formats the code and sorts its imports
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

demo: .venv/.service ## the main job on an embedded broker; ARGS="--seconds 40" for that long
	@$(BIN)/prototide demo $(ARGS)

kafka: .venv/.all ## a real Kafka at localhost:9092 (PORT=...) until Ctrl-C
	@$(BIN)/python -m tests.support.kafka --port $(PORT)

chaos: .venv/.all ## kills, pauses, broker faults by the hundred; ARGS="--rounds 1" for some
	@$(BIN)/python -m tests.chaos $(ARGS)

fuzz: .venv/.all ## a million mutated records through the decoder; ARGS="--cases N --seed N"
	@$(BIN)/python -m tests.chaos.fuzz $(ARGS)

soak: .venv/.all ## half an hour of steady load; ARGS="--minutes 1 --overload" for ten times what it sustains
	@$(BIN)/python -m tests.chaos.soak $(ARGS)

gpu: .build/mypy ## on a CUDA machine: its engine's tests and benchmark; ARGS="--parts device,lambda0" for some
	@PYTHONPATH=.build/mypy:. $(PYTHON) -m pytest -q -c /dev/null --rootdir . --noconftest -p no:cacheprovider \
		tests/core/engines/gpu
	@PYTHONPATH=.build/mypy:. $(PYTHON) -m tests.benchmarks.gpu $(ARGS)

clean: ## removes the virtual environment and what tools left behind
	@rm -rf .venv .build build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/pip:
	@test -n "$(PYTHON)" || { echo "prototide needs Python 3.11 or newer: make PYTHON=/path/to/python3"; exit 1; }
	@echo "setting up .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

.venv/.service: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "installing the service"
	@$(INSTALL) '.[service]'
	@touch $@

.venv/.all: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "installing the service, torch and the tools"
	@$(INSTALL) '.[service,torch,dev]'
	@touch $@ .venv/.service

# The packages under their import names, where mypy finds them.
.build/mypy:
	@mkdir -p $@/prototide
	@ln -sfn ../../../core $@/prototide/core
	@ln -sfn ../../../service $@/prototide/service
