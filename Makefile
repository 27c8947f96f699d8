# Makes a virtual environment in .venv once and runs everything in it.
PYTHON ?= python3
VENV ?= .venv
# PADDLE is the build of Paddle, cpu or gpu, and CUDA the release of the GPU build, cu126 or cu118.
# Their defaults are those of the environment that is there. Without one, the build is gpu where
# NVIDIA's driver answers.
BUILT := $(subst -, ,$(patsubst $(VENV)/.ready-%,%,$(firstword $(wildcard $(VENV)/.ready-*))))
ifeq ($(BUILT),)
PADDLE ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
CUDA := cu126
else
PADDLE ?= $(word 1,$(BUILT))
CUDA := $(word 2,$(BUILT))
endif
ifeq ($(filter cpu gpu,$(PADDLE)),)
$(error PADDLE=$(PADDLE) is unknown: give cpu or gpu)
endif
ifneq ($(words $(VENV)),1)
$(error VENV=$(VENV) must be one path without spaces)
endif
# The group of results, its data and more settings. Environment variables of these names, and of
# CUDA, have no effect.
GROUP :=
DATA :=
SET :=
# The path is in quotes, since that of this folder may have spaces.
RUN := "$(if $(filter /%,$(VENV)),,$(CURDIR)/)$(VENV)/bin/python"
# The demo's folder in examples/wgangp
DEMO := outputs_wgangp_demo

# Two pips must not change one environment at the same time.
.NOTPARALLEL:

.PHONY: help setup torch onnx demo test bench stress fuzz soak lint docs docs-npm docs-tools docs-serve \
	browser results results-group reproduce-cifar10 tables pages clean

help:
	@echo "make demo   trains CIFAR-10's networks, narrow, on coloured digits and shows a page (three minutes)"
	@echo "make test   lints and tests"
	@echo "make bench  times the suite and PyTorch, one process and two (a quarter of an hour)"
	@echo "make stress ends trainings twenty times in five ways and resumes them (five minutes)"
	@echo "make fuzz   feeds 3,000 damaged and hostile files to the readers (one minute)"
	@echo "make soak   trains for an hour and watches memory and files"
	@echo "make docs   builds the site of docs/ into site/; make docs-serve serves it (needs npm)"
	@echo "make results GROUP=toy   trains and evaluates a group of results (toy, mnist, ...)"
	@echo "make reproduce-cifar10   trains both CIFAR-10 models and compares with the paper (GPU)"
	@echo "make tables writes the tables of docs/results into README.md and the pages of docs/"
	@echo "make pages  writes all that is made: tables, configuration pages, import graph"
	@echo "make browser   installs Debian's Chromium for the tests of the site (as root)"
	@echo "make torch  installs PyTorch for the tests and benchmarks that compare with it"
	@echo "make onnx   installs the packages of ONNX export, and TensorBoard's writer"
	@echo "make setup  only installs, into $(VENV) (Paddle: $(PADDLE))"
	@echo "make clean  removes $(VENV), the demo's output and the files of make docs"

# The stamp names the build. The environment starts empty, so that CPU and GPU builds do not mix.
STAMP := $(VENV)/.ready-$(PADDLE)-$(CUDA)

setup: $(STAMP)

$(STAMP): requirements.txt requirements-base.txt requirements-dev.txt
	@$(PYTHON) -c "import sys; v = sys.version_info[:2]; sys.exit(None if (3, 9) <= v <= (3, 12) \
		else 'Python 3.9 to 3.12 is needed: make PYTHON=python3.11 ...')"
	@echo "Installing packages into $(VENV): 1.4 GB, some minutes."
	$(PYTHON) -m venv --clear "$(VENV)"
	$(RUN) -m pip install --quiet --disable-pip-version-check --upgrade pip
ifeq ($(PADDLE),gpu)
	$(RUN) -m pip install --quiet paddlepaddle-gpu==3.2.2 \
		-i https://www.paddlepaddle.org.cn/packages/stable/$(CUDA)/
	$(RUN) -m pip install --quiet -r requirements-base.txt -r requirements-dev.txt
else
	$(RUN) -m pip install --quiet -r requirements.txt -r requirements-dev.txt
endif
	touch "$@"

# The CPU build is enough; this version has none for Python 3.9. What the tests use of torch-fidelity
# and prdc works without the packages' own dependencies.
torch: setup
	$(RUN) -m pip install --quiet "torch==2.13.0; python_version >= '3.10'" pillow
	$(RUN) -m pip install --quiet --no-deps torch-fidelity==0.4.0 prdc==0.2

# paddle2onnx needs these old releases of numpy and protobuf, but does not ask for them.
onnx: setup
	$(RUN) -m pip install --quiet paddle2onnx==2.1.0 onnxruntime tensorboardX "numpy<2" "protobuf<5"

# Trains, evaluates, draws from weights that ship, and shows all of it on one page.
demo: setup
	rm -rf examples/wgangp/$(DEMO)
	cd examples/wgangp && $(RUN) wgangp_cifar10.py preset=demo hydra.run.dir=$(DEMO)
	cd examples/wgangp && $(RUN) wgangp_cifar10.py preset=demo mode=eval hydra.run.dir=$(DEMO) \
		EVAL.pretrained_gen_model_path=$(DEMO) EVAL.pretrained_dis_model_path=$(DEMO)
	cd examples/wgangp && $(RUN) wgangp_cifar10.py mode=infer hydra.run.dir=$(DEMO)/shipped \
		INFER.pretrained_model_path=colored_digits
	cd examples/wgangp && $(RUN) report.py $(DEMO) $(DEMO)/shipped --output $(DEMO)/report.html
	@echo
	@echo "The page of the demo: $(CURDIR)/examples/wgangp/$(DEMO)/report.html"
	@echo "It shows samples and figures of this training, on scikit-learn's digits of 8x8 pixels, and"
	@echo "samples of weights that ship, trained on MNIST for 27 minutes. Next:"
	@echo "  source $(VENV)/bin/activate && cd examples/wgangp"
	@echo "  python wgangp_toy.py                   # 8 Gaussians; seven minutes"
	@echo "  python wgangp_mnist.py preset=laptop   # MNIST, downloaded; forty minutes"
	@echo "  python wgangp_cifar10.py --help        # settings, presets, objectives, examples"

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

# With worksteal, no core waits for the other at the end.
test: lint
	$(RUN) -m pytest -n 2 --dist worksteal

# On an idle machine; make pages then shows the figures.
bench: torch
	$(RUN) benchmarks/speed.py --output docs/results/speed.json
	$(RUN) benchmarks/processes.py --output docs/results/processes.json

stress: setup
	$(RUN) tests/runs/stress.py --kills 20 --output docs/results/stress.json

fuzz: setup
	$(RUN) tests/unit/fuzz.py --cases 3000 --output docs/results/fuzz.json

soak: setup
	$(RUN) benchmarks/soak.py --minutes 60

# mkdocs, and the files that the pages load in a browser
docs-npm:
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js 18 or newer"; exit 1; }

docs-tools: docs-npm setup
	$(RUN) -m pip install --quiet -r requirements-docs.txt
	npm ci --no-audit --no-fund --loglevel=error

# NO_MKDOCS_2_WARNING: without it, mkdocs and Material advertise their successors.
docs: docs-tools
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build

docs-serve: docs-tools
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs serve

browser:
	apt-get update -qq && apt-get install -y -qq chromium chromium-driver fonts-noto-cjk

# A missing GROUP is an error before anything is installed.
results-group:
	@test -n "$(GROUP)" || { echo "GROUP=... is missing: toy, mnist, lab, cifar10 and others"; exit 2; }

results: results-group setup
	$(RUN) benchmarks/results.py $(GROUP) $(if $(DATA),--data "$(DATA)") $(if $(SET),--set $(SET))

# Both of the paper's trainings on CIFAR-10, and a verdict; the same command resumes them.
reproduce-cifar10:
	$(MAKE) results GROUP=cifar10

tables: setup
	$(RUN) benchmarks/tables.py

pages: tables
	$(RUN) docs/make_configuration.py
	$(RUN) docs/import_graph.py

clean:
	rm -rf "$(VENV)" examples/wgangp/$(DEMO) site node_modules
