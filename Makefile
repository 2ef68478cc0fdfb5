# Everything below runs in .venv, which is made on first use. PYTHON=python3.12 and CXX=clang++ choose others.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard csrc/*.h csrc/*/*.h csrc/*.cpp csrc/cpu/*.cpp csrc/cuda/*.cu*) CMakeLists.txt setup.py pyproject.toml

.PHONY: demo test quick interpreted crash lint doctor docs evidence bench sanitize gpu-check gpu-bench clean

demo: $(VENV)/installed
	$(BIN)/tlxml-fast demo --out runs/demo

test: lint quick interpreted
	$(BIN)/python -m pytest -m "slow and not crash"

quick: $(VENV)/installed
	$(BIN)/python -m pytest -m "not slow and not crash"

# The GPU kernels, by Triton's interpreter on the CPU.
interpreted: $(VENV)/installed
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/ops tests/kernels tests/test_engine_on_a_device.py -m "not slow" -n auto

# Runs over a store that fail at every write, sync and rename, and commands that are killed.
crash: $(VENV)/installed
	$(BIN)/python -m pytest tests/store -m crash

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

doctor: $(VENV)/installed
	$(BIN)/tlxml-fast doctor

# The documentation as a site that works offline: build/docs/index.html.
docs: $(VENV)/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is build/docs/index.html"

# The experiments at full size, on the embedded letters: about two hours.
evidence: $(VENV)/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[experiments]'
	$(BIN)/tlxml-fast experiment all --seeds 0,1 --out runs/evidence

bench: $(VENV)/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/tlxml-fast bench --out benchmarks/results

sanitize: $(VENV)/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pybind11>=2.13' 'ninja>=1.11' 'cmake>=3.24'
	$(BIN)/python tools/sanitize/run.py

gpu-check: $(VENV)/installed
	$(BIN)/python tools/gpu/check.py

gpu-bench: $(VENV)/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m pytest tests/ops/test_on_a_device.py tests/ops/test_convolution.py tests/ops/test_precision.py tests/ops/test_topk.py \
		tests/test_engine_on_a_device.py tests/test_influence_on_a_device.py tests/distributed/test_group_of_one.py
	$(BIN)/python -m tlxml_fast.benchmarks.gpu --out benchmarks/results

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

$(VENV)/installed: $(SOURCES)
	@sh tools/check-machine.sh $(PYTHON) $(CXX)
	@test -x $(BIN)/python || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing tlxml_fast and building its core (torch is large: minutes on the first run)"
	@rm -rf *.egg-info  # of an older install, whose entry points would be found first
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@
