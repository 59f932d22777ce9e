# make demo   set up, then train supervised, pretrain_finetune and bljust on the synthesised corpus and compare them
# make test   set up, lint, all tests
.PHONY: demo test lint style setup doctor

setup:
	@tools/setup_venv.sh

demo: setup
	@egs/mini/asr1/demo.sh

test: lint
	@.venv/bin/python -m pytest

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet .
	@if command -v shellcheck >/dev/null; then git ls-files '*.sh' .ci/run | xargs shellcheck -x; \
	else echo "note: shellcheck is not installed (apt-get install shellcheck): shell scripts were not checked"; fi
	@.venv/bin/python -m pytest -q test/test_layers.py

style: setup
	@.venv/bin/ruff check --fix . && .venv/bin/ruff format .

doctor: setup
	@.venv/bin/bilevel doctor
