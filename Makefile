# Needs make and Python 3.11 or newer; everything else goes into the folder $(VENV).
#   make run PYTHON=python3.12       another interpreter
#   make test VENV=/tmp/venv         another environment
#   make test PYTEST_ARGS="-k mask"  some of the tests
#   make test WORKERS=0              one after the other, in one process

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
WORKERS ?= 2
COMFYUI_PYTHON ?= $(PY)

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# Python compiles what is imported when it first is, and keeps it; pip would compile three times as much beforehand.
INSTALL := $(PIP) install --no-compile -c constraints.txt
unexport PYTHONDONTWRITEBYTECODE
WITH_TORCH := $(VENV)/.torch
INSTALLED := $(VENV)/.installed
WITH_DEMO := $(VENV)/.demo
WITH_SITE := $(VENV)/.site
WITH_TYPES := $(VENV)/.types
WITH_RELEASE := $(VENV)/.release

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run demo test test-upstream test-comfyui test-quantization test-onnx quality types site release try-versions upload bundles modular train-tiny clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## */\1|/' | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

run: $(INSTALLED)  ## make a picture of what the default model does: outputs/showcase.png
	$(PY) -m demo.showcase --output outputs/showcase.png

demo: $(WITH_DEMO)  ## open a page where you feel what color, texture and shape do
	$(PY) -m demo.app --open

# One thread for each worker: those of several would wait for each other.
test: $(INSTALLED)  ## run the tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-upstream: $(INSTALLED)  ## run diffusers' own testers over our classes: DIFFUSERS_TESTS=its checkout
	DIFFUSERS_TESTS="$(DIFFUSERS_TESTS)" $(PY) -m pytest -c tests_upstream/pytest.ini tests_upstream -rs $(PYTEST_ARGS)

# In the Python of ComfyUI, which has what ComfyUI needs, and what we need (docs/comfyui.md).
test-comfyui:  ## run each node in a real ComfyUI on the CPU: COMFYUI=its checkout COMFYUI_PYTHON=its python
	COMFYUI="$(COMFYUI)" PYTHONPATH=. $(COMFYUI_PYTHON) -m pytest -c tests_comfyui/pytest.ini tests_comfyui $(PYTEST_ARGS)

test-quantization: $(INSTALLED)  ## install torchao, optimum-quanto and bitsandbytes, and run the tests that need them
	$(INSTALL) -e ".[quantization]"
	$(PY) -m pytest tests/pipelines -k "torchao or quanto or bitsandbytes" $(PYTEST_ARGS)

test-onnx: $(INSTALLED)  ## install ONNX Runtime and its exporter, and run the tests that need them
	$(INSTALL) -e ".[onnx]"
	$(PY) -m pytest tests/test_onnx_runtime.py -rs $(PYTEST_ARGS)

quality: $(INSTALLED)  ## check formatting and lint
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: $(WITH_TYPES)  ## check the types of the public surface with mypy
	$(PY) -m tools.types

site: $(WITH_SITE)  ## build the documentation as pages with navigation and search, without a network: site/
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --site-dir site

release: $(WITH_RELEASE)  ## build and check sdist and wheel; VERSION=1.2.3 sets the version and dates the changelog first
	$(PY) -m tools.release $(VERSION)

try-versions: $(WITH_RELEASE)  ## paint with the oldest and the newest versions that are claimed: OLDEST_TORCH=2.6.0 NEWEST_TORCH=... choose a build
	$(PY) -m tools.try_versions $(if $(OLDEST_TORCH),--oldest-torch $(OLDEST_TORCH)) $(if $(NEWEST_TORCH),--newest-torch $(NEWEST_TORCH))

upload: $(WITH_DEMO)  ## upload cards, weights and the Space to the Hub: HUB_OWNER=name, DRY_RUN=1 only says what would go up
	$(PY) -m tools.upload $(if $(DRY_RUN),--dry-run) $(or $(HUB_OWNER),$(error HUB_OWNER=name of a user or organization of the Hub))

bundles: $(INSTALLED)  ## write the code in hub_cards/mg-bazaar anew from its source
	$(PY) -c "from mg_diffusion.bundling import refresh; refresh('hub_cards/mg-bazaar')"

modular: $(INSTALLED)  ## write hub_cards/mg-bazaar-modular beside its card, from hub_cards/mg-bazaar
	$(PY) -m mg_diffusion.export_modular hub_cards/mg-bazaar hub_cards/mg-bazaar-modular

train-tiny: $(INSTALLED)  ## train a very small model for a few steps, to see that training works
	$(PY) -m mg_diffusion.training.tiny

clean:  ## remove .venv, caches and build folders; outputs stay
	rm -rf .venv build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find mg_diffusion pipelines demo tests hub_cards -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# torch first and alone, at the pinned version: a looser request may choose another, much larger build.
$(WITH_TORCH): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 or newer expected, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(INSTALLED): $(WITH_TORCH)
	$(INSTALL) -e ".[dev]"
	@touch $@

$(WITH_DEMO): $(WITH_TORCH)
	$(INSTALL) -e ".[demo]"
	@touch $@

$(WITH_SITE): $(WITH_TORCH)
	$(INSTALL) -e ".[docs]"
	@touch $@

$(WITH_TYPES): $(WITH_TORCH)
	$(INSTALL) -e ".[types]"
	@touch $@

$(WITH_RELEASE): $(WITH_TORCH)
	$(INSTALL) -e ".[release]"
	@touch $@
