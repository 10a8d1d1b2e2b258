# Everything that cargo alone does not do. Works with GNU make 3.81 and any POSIX shell.

PYTHON ?= python3
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
EXPORT := $(TARGET)/release/lfm2-export
HOST := $(TARGET)/release/lfm2-host
# Virtual environments, each with the packages of the requirements.txt in the folder of the same name under tests/ or benches/.
ENVIRONMENTS := .venv

# $(call need,PROGRAM,WHAT TO DO) stops with a clear message if PROGRAM cannot be run.
need = @command -v $(1) >/dev/null 2>&1 || { echo "make: $(1) was not found. $(2)" >&2; exit 1; }

.PHONY: help demo test interop compare lint runtime reference bless need-cargo need-python need-npm programs
.PHONY: runtime-qnn runtime-qnn-if-any runtime-cuda

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

demo: runtime programs ## export the tiny chat model and ask it a question
	rm -rf $(TARGET)/demo
	$(EXPORT) tests/fixtures/tiny-chat --out $(TARGET)/demo/lfm2.onnx
	$(HOST) --model $(TARGET)/demo/lfm2.onnx --prompt "What is C. elegans?"

test: runtime runtime-qnn-if-any need-cargo ## run all tests but `interop`
	$(PYTHON) -m unittest discover -s host/runtime
	$(CARGO) test --workspace --locked

interop: runtime programs $(ENVIRONMENTS)/interop/ready tests/interop/node_modules/.package-lock.json ## compare with Transformers.js and onnxruntime-genai
	$(ENVIRONMENTS)/interop/bin/python tests/interop/compare.py --export $(EXPORT) --host $(HOST) --work $(TARGET)/interop

compare: runtime programs $(ENVIRONMENTS)/baselines/ready ## time this host and onnxruntime-genai on CHECKPOINT=folder (downloads torch)
	@test -n "$(CHECKPOINT)" || { echo "make: name a checkpoint: make compare CHECKPOINT=folder. benches/baselines/checkpoint.py makes one." >&2; exit 1; }
	$(ENVIRONMENTS)/baselines/bin/python benches/baselines/compare.py --checkpoint $(CHECKPOINT) --export $(EXPORT) --host $(HOST)

lint: need-cargo ## check formatting, clippy and the documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --locked

runtime: need-python ## fetch the ONNX Runtime library into .runtime
	$(PYTHON) host/runtime/fetch.py

runtime-qnn: need-python ## fetch the plugin for Qualcomm's NPUs too, which simulates one on x86 (100 MB)
	$(PYTHON) host/runtime/fetch.py qnn

# Tests that need it say so and do nothing where it does not exist.
runtime-qnn-if-any: need-python
	$(PYTHON) host/runtime/fetch.py qnn --optional

runtime-cuda: need-python ## fetch the build of ONNX Runtime for NVIDIA's GPUs too (256 MB)
	$(PYTHON) host/runtime/fetch.py cuda

reference: $(ENVIRONMENTS)/reference/ready ## regenerate the reference data from transformers (downloads torch)
	$(ENVIRONMENTS)/reference/bin/python tests/reference/blocks.py
	$(ENVIRONMENTS)/reference/bin/python tests/reference/models.py
	$(ENVIRONMENTS)/reference/bin/python tests/reference/questions.py
	$(ENVIRONMENTS)/reference/bin/python tests/reference/sampler.py
	$(ENVIRONMENTS)/reference/bin/python tests/reference/templates.py
	$(ENVIRONMENTS)/reference/bin/python tests/reference/fidelity.py
	$(ENVIRONMENTS)/reference/bin/python tests/reference/calibration.py

bless: runtime need-cargo ## accept what the golden tests produce now as right
	UPDATE_EXPECT=1 $(CARGO) test --package lfm2-tests --locked

programs: need-cargo
	$(CARGO) build --release --locked --package lfm2-export --package lfm2-host

need-cargo:
	$(call need,$(CARGO),Install Rust 1.95 or newer.)

need-python:
	$(call need,$(PYTHON),Install Python 3.8 or newer with pip (3.11 for interop and reference) or name it: make PYTHON=...)

need-npm:
	$(call need,npm,Install Node.js 20.9 or newer.)

$(ENVIRONMENTS)/%/ready: tests/%/requirements.txt | need-python
	$(PYTHON) -m venv --clear $(ENVIRONMENTS)/$*
	$(ENVIRONMENTS)/$*/bin/python -m pip install --quiet --requirement $<
	touch $@

$(ENVIRONMENTS)/baselines/ready: benches/baselines/requirements.txt | need-python
	$(PYTHON) -m venv --clear $(ENVIRONMENTS)/baselines
	$(ENVIRONMENTS)/baselines/bin/python -m pip install --quiet --requirement $<
	touch $@

tests/interop/node_modules/.package-lock.json: tests/interop/package-lock.json | need-npm
	cd tests/interop && npm ci --ignore-scripts
	touch $@
