# Everything needs Python, git and make only; the rest is installed into .venv.
PYTHON ?= python3
VENV := .virtualenv
STAMP := $(VENV)/installed

# tox looks for its Pythons on the path; those of pyenv need not be on it otherwise.
export PATH := $(PATH):$(subst $() ,:,$(wildcard $(HOME)/.pyenv/versions/*/bin))

.PHONY: help demo demo-vm test lint explore bench bench-guest soak packages clean

help:
	@echo "make demo     install into $(VENV) and play the demonstration"
	@echo "make demo-vm  play it on a real virtual machine, with live migrations"
	@echo "make test     run the whole test suite, through tox, on the oldest Python and on Debian's"
	@echo "make lint     check style and types"
	@echo "make explore  explore the negotiation one step deeper than the test suite does"
	@echo "make bench    measure what guests cost the host daemon, beside a floor"
	@echo "make soak     let thousands of bad and good guests loose on the daemon, for minutes or hours"
	@echo "make bench-guest  measure what the agent costs a guest, beside a bare Python interpreter"
	@echo "make packages  build .deb and .rpm packages into dist, and check them"
	@echo "make clean    remove everything that make made"

demo: $(STAMP)
	@$(VENV)/bin/vmaccord demo

demo-vm: $(STAMP)
	@$(VENV)/bin/vmaccord demo --vm

test: $(STAMP)
	@$(VENV)/bin/python -m tests.get_libvirt
	@$(VENV)/bin/tox run-parallel --parallel 3 --parallel-no-spinner
	@$(VENV)/bin/tox run-parallel --parallel 2 --parallel-no-spinner -e vm-image,vm,vm-services

lint: $(STAMP)
	@$(VENV)/bin/tox run -e lint

explore: $(STAMP)
	VMACCORD_EXPLORE=deep $(VENV)/bin/python -m pytest -s tests/explorer

bench: $(STAMP)
	@$(VENV)/bin/python -m tests.bench.host

soak: $(STAMP)
	@$(VENV)/bin/python -m tests.soak

bench-guest: $(STAMP)
	@$(VENV)/bin/python -m tests.bench.guest

packages:
	@packaging/build
	@packaging/check

clean:
	rm -rf $(VENV) .tox .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -exec rm -rf {} +

$(STAMP): setup.cfg pyproject.toml
	@echo "installing into $(VENV) ..."
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || packaging/install-venv
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]' 'tox>=4'
	@touch $@
