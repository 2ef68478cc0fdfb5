# Everything below runs in .venv, which is made on first use. PYTHON and CXX may be set.
PYTHON ?= python3
CXX ?= c++
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard csrc/*.h csrc/*.cpp csrc/cpu/*.cpp) CMakeLists.txt setup.py pyproject.toml

.PHONY: demo test lint doctor clean

demo: $(VENV)/installed
	$(BIN)/tlxml-fast demo --out runs/demo

test: $(VENV)/installed lint
	$(BIN)/python -m pytest -m "not slow"
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

doctor: $(VENV)/installed
	$(BIN)/tlxml-fast doctor

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

$(VENV)/installed: $(SOURCES)
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed; Python 3.10 to 3.13 is needed" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo "error: $$($(PYTHON) --version) cannot run this; Python 3.10 to 3.13 is needed (make PYTHON=python3.12 …)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "error: $(PYTHON) has no venv module; install it (Debian: apt install python3-venv)" >&2; exit 1; }
	@command -v $(CXX) >/dev/null || { echo "error: no C++ compiler ($(CXX)) is installed (Debian: apt install g++)" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing tlxml_fast with its compiled core (torch is large: minutes on the first run)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@
