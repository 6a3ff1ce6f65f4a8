# Everything a checkout can do. Needs git, make, a C++20 compiler and Python 3.10 to 3.13 with venv; says so otherwise.
#   PY=python3.12 make test     picks the Python           make test ARGS="-k sampler"     passes arguments on
.DEFAULT_GOAL := help
.PHONY: help doctor demo test test-all test-gpu bench lint format conda packages clean

ARGS ?=

help:
	@echo "make demo       build, install into a fresh .venv, and watch the demo model answer"
	@echo "make test       C++ tests and Python tests, in .venv-test      (ARGS='-k name' goes to pytest)"
	@echo "make test-all   the slow ones too, the C++ tests under ASan, UBSan and TSan, packages and conda"
	@echo "make test-gpu   build for the GPU here, test it, and time it into benchmarks/results"
	@echo "make bench      fastllm beside other engines on the same weights"
	@echo "make lint       ruff, mypy --strict, clang-format              (make format repairs)"
	@echo "make packages   sdist and wheels, audited, each tested in a bare environment (ARGS=3.12 for one Python)"
	@echo "make conda      the conda recipe, built and installed from a local channel"
	@echo "make doctor     is everything here that the build needs?"
	@echo "make clean      remove all that was built and installed here"
	@echo "PY=python3.12 make ...   use that Python"

doctor demo test test-all test-gpu bench lint format conda packages clean:
	@python=$$(PY="$(PY)" sh tools/find_python.sh) && exec "$$python" tools/bootstrap.py $@ $(ARGS)
