PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA := $(wildcard ../shared/data)
export PRIVHIER_DATA ?= $(abspath $(DATA))

.PHONY: demo gpu test test-slow fuzz faults corrupt mutants lint typecheck docs bench peers clean

demo: $(STAMP)  ## Train, attack, account and report on synthetic faces
	rm -rf runs/demo
	$(BIN)/privhier run configs/quickstart.yaml --out runs/demo

test: $(STAMP)  ## Everything but the slow tests: about ten minutes on two cores; two processes where memory allows
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)  ## Minutes and gigabytes
	$(BIN)/python -m pytest -m slow

fuzz: $(STAMP)  ## 100,000 hostile messages against the decoder and a live cloud, on loopback
	GRPC_VERBOSITY=NONE $(BIN)/python tests/uplink/fuzz_long.py --messages 100000

faults: $(STAMP)  ## kill either side 50 times, cut the line 50 times: the same weights, every release once
	GRPC_VERBOSITY=NONE OMP_NUM_THREADS=1 $(BIN)/python tests/training/faults.py --kills 50 --cuts 50

corrupt: $(STAMP)  ## 300 damaged folders, every verb on each: no silent difference, no traceback
	OMP_NUM_THREADS=1 $(BIN)/python tests/corruption/campaign.py --trials 300

mutants: $(STAMP)  ## Break the mechanisms' source in one place after another: every mutant must be killed by its test
	$(BIN)/python tests/mutants/run.py

gpu: $(STAMP)  ## CUDA tests and images a second on the card at hand: benchmarks/results/gpu.md
	$(BIN)/python benchmarks/gpu.py --check
	$(BIN)/python -m pytest -m cuda
	$(BIN)/python benchmarks/gpu.py

lint: $(STAMP)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# An editable install's mapping is invisible to static checkers and doctests: check the built package.
typecheck: $(STAMP)  ## mypy strict and the doctests, on the built package
	rm -rf build/ && $(BIN)/pip install --quiet --no-deps --no-build-isolation --upgrade --target build/typecheck .
	cd build/typecheck && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p privhier
	cd build/typecheck && ../../$(BIN)/python -m pytest --doctest-modules -p no:cacheprovider -q privhier

docs: $(STAMP)  ## The site under build/site, references included; a dead link or a warning fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(STAMP)  ## Ratios measured in one run
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/dp_sgd_loop.py
	$(BIN)/python benchmarks/cached_loading.py
	$(BIN)/python benchmarks/sweep_workers.py
	$(BIN)/python benchmarks/sweep_page.py
	$(BIN)/python benchmarks/busy_machine.py
	$(BIN)/python benchmarks/certificates.py
	$(BIN)/python benchmarks/defenses.py

peers:  ## Ours beside its peers, in an environment of their own; ratios in one run
	$(PYTHON) benchmarks/peers/install.py
	OMP_NUM_THREADS=1 .peers/bin/python benchmarks/peers/run.py

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,docs]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) .peers build dist runs *.egg-info
