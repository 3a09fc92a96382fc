# The steps stand in .ci/check, which CI runs too; .venv is the virtual environment.

check: ## all steps: what CI runs
	.ci/check tests lint types docs package

quick tests slow lint types docs package: ## one step; `quick` is a subset of the tests
	.ci/check $@

schemas: ## write the JSON schemas and the reference pages into docs/
	YQC_WRITE_SCHEMAS=1 .venv/bin/python -m pytest -q tests/test_schemas.py

format: ## format the code, and fix what ruff can fix
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

.PHONY: check quick tests slow lint types docs package schemas format
