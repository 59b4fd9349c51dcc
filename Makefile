# Two commands: `make demo` runs the whole chain on the embedded model, `make test` passes the tests.
# What they install is in requirements/lock.txt, to the version: no release of tomorrow changes what they do.
PYTHON ?= python3.11
BIN := .venv/bin
LOCK := requirements/lock.txt
OLDEST := requirements/oldest.txt
COMPILE := $(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	--default-index https://pypi.org/simple --no-config --no-annotate --quiet --custom-compile-command 'make lock'

WITHOUT_SLOW := 'not slow and not gpu and not fuzz'

SECONDS ?= 600
COUNT ?= 100
SEED ?= 0

unexport PYTHONDONTWRITEBYTECODE  # hundreds of tests start a process, and each would compile all modules again

.PHONY: demo test test-integration test-slow test-export check test-fuzz fuzz kills test-latest test-oldest lock sanitize check-arm clean

demo: .venv/all
	sh examples/demo.sh $(BIN)/vlmc demo-output

test: .venv/dev
	$(BIN)/pytest -n auto $(ARGS)

# Whole stages, graphs, checkpoints and processes on small models: as many minutes again.
test-integration: .venv/dev
	$(BIN)/pytest -n auto -m 'integration and not slow and not gpu and not fuzz' $(ARGS)

# The tests that take longer: every family's graphs, several processes, compiled models, large layers. Minutes on two cores.
test-slow: .venv/dev
	$(BIN)/pytest -n auto -m 'slow and not gpu and not fuzz' $(ARGS)

# Every family: exported, streamed, answering as transformers does, and each graph built with TensorRT-RTX, in fp32 and fp16.
test-export: .venv/dev
	$(BIN)/pytest -n auto -m 'not gpu and not fuzz' tests/exporters tests/deploy tests/runtime/test_families.py \
	tests/stages/test_export.py tests/stages/test_streamed_export.py tests/stages/test_twins.py $(ARGS)

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p vlmc
	$(BIN)/mypy benchmarks
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/readme.py --check

# The fixed share of the fuzzer, the known attacks and a few kills, in two minutes on two cores.
test-fuzz: .venv/dev
	$(BIN)/pytest -n auto -m 'fuzz and not slow' tests/fuzz $(ARGS)

# As long as wanted, with cases of its own for each seed: `make fuzz SECONDS=3600 SEED=7`. What was found is in fuzz.json.
fuzz: .venv/dev
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED) $(ARGS)

# So many kills of each verb: `make kills COUNT=100 SEED=7`. What was found is in kills.json.
kills: .venv/dev
	$(BIN)/python -m tests.fuzz.kills --count $(COUNT) --seed $(SEED) $(ARGS)

.venv/all: pyproject.toml setup.py $(wildcard runtime/kernels/*.cpp runtime/kernels/*.h) $(LOCK)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq -c $(LOCK) pip setuptools
	$(BIN)/python -m pip install -qq -c $(LOCK) --no-build-isolation -e '.[all]'
	touch $@

.venv/dev: .venv/all
	$(BIN)/python -m pip install -qq -c $(LOCK) --no-build-isolation -e '.[dev]'
	touch $@

# The newest versions that pyproject.toml allows, as they are today.
test-latest:
	$(PYTHON) -m venv --clear .venv-latest
	.venv-latest/bin/python -m pip install -qq --upgrade pip
	.venv-latest/bin/python -m pip install -qq -e '.[dev]'
	.venv-latest/bin/pytest -n auto -m $(WITHOUT_SLOW) $(ARGS)

# The oldest ones, but torch: the newest that it allows, or the one that TORCH names, as in `make test-oldest TORCH=2.11.0`.
test-oldest:
	$(PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install -qq -c $(OLDEST) pip setuptools
	.venv-oldest/bin/python -m pip install -qq -c $(OLDEST) --no-build-isolation -e '.[dev]' $(addprefix torch==,$(TORCH))
	.venv-oldest/bin/pytest -n auto -m $(WITHOUT_SLOW) $(ARGS)

lock: .venv/dev
	$(COMPILE) --upgrade -o $(LOCK)
	$(COMPILE) --upgrade --resolution lowest-direct -o $(OLDEST)
	sed -i -E '/^(torch|triton|cuda-.*|nvidia-.*)==/d' $(OLDEST)

clean:
	rm -rf .venv .venv-latest .venv-oldest demo-output build dist

# The kernels in C++ under AddressSanitizer and UndefinedBehaviorSanitizer, where there is a compiler; with -j in half the time.
KERNELS = amx into_tiles out_of_tiles tiles avx512 avx512bf16 avx512int8 avx2 avx2int8 neon portable matmul check
CHECKED := -std=c++17 -O1 -g1 -Wno-maybe-uninitialized -Wno-uninitialized -Iruntime/kernels
vpath %.cpp runtime/kernels tests/runtime/kernels

sanitize:
	@if command -v $(firstword $(CXX)) >/dev/null; then $(MAKE) --no-print-directory build/sanitized/check && build/sanitized/check; \
	else echo "sanitize: skipped, the kernels need a C++ compiler and there is no $(firstword $(CXX)): install g++"; fi

build/sanitized/check: $(KERNELS:%=build/sanitized/%.o)
	$(CXX) -fsanitize=address,undefined $^ -o $@

build/sanitized/%.o: %.cpp $(wildcard runtime/kernels/*.h)
	@mkdir -p $(@D)
	$(CXX) $(CHECKED) -fsanitize=address,undefined -fno-sanitize-recover=all -c $< -o $@

# The NEON kernels on any machine: apt install g++-aarch64-linux-gnu qemu-user
check-arm:
	@mkdir -p build
	aarch64-linux-gnu-g++ $(CHECKED) -static $(wildcard $(KERNELS:%=runtime/kernels/%.cpp)) tests/runtime/kernels/check.cpp -o build/check-arm
	qemu-aarch64 build/check-arm
