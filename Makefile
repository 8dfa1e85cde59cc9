# Every target makes the environment .venv where there is none; only Python and make are needed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: install demo test test-all faults lint fix docs quickstart fuzz audit dist bench results measure train train-gpu train-context clean

install: $(READY)

# torch first and alone: with it in place no later package pulls another build.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@

demo: $(READY)
	$(BIN)/python examples/python_reference.py

# Three processes, whatever the cores: much of the time goes by in waiting for others.
# Not reordered: tests/conftest.py begins with the files that take longest.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder \
		-m "not slow"

test-all: lint
	$(BIN)/python -m pytest

# Commands under faults of the disk, the process and the clock: an hour on two cores.
faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults --runs 200 --every-file --seed 1 --page docs/reliability.md

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Pages that are written from the code: docs/api.md, docs/environment.md, README's marked blocks.
docs: $(READY)
	$(BIN)/python docs/reference.py

# A tiny student, trained and measured in minutes on the documentation of installed packages.
quickstart: $(READY) runs/python_docs/train.parquet
	$(BIN)/dewey train recipes/quickstart.toml
	$(BIN)/dewey eval runs/quickstart/start runs/quickstart/model bm25 --mode multi \
		--suite runs/python_docs/task --results runs/quickstart/results --cache runs/eval-cache

runs/python_docs/train.parquet: $(READY) recipes/python_docs.py
	$(BIN)/python recipes/python_docs.py --output $(@D)

# A million random cases of every promise about bytes, in hours; results go to SECURITY.md.
CASES   ?= 1000000
SECONDS ?= 3600
fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --target all --cases $(CASES) --seconds $(SECONDS)

# Known vulnerabilities and licences of all that Dewey installs; 2 where they cannot be looked up.
audit: $(READY)
	$(BIN)/python deploy/audit.py

# The wheel and the source distribution, to dist/.
dist: $(READY)
	rm -rf dist
	$(BIN)/pip install --quiet --constraint constraints.txt --group release
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/twine check --strict dist/*

# Encoding against its peers, in about twelve minutes on two cores, and docs/performance.md with it.
bench: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python benchmarks/encode.py --rounds 2
	$(BIN)/python benchmarks/performance.py

# docs/results.md, report.html and docs/scale.md, from the result files under benchmarks/results.
results: $(READY)
	$(BIN)/python benchmarks/scale.py
	$(BIN)/dewey report benchmarks/results -o docs/results.md -o report.html --plots docs/results

# Every figure of the embedded default in docs/results.md: three hours on two cores, for weights whose
# results are not there yet. docs/data.md says what lies in the folder DATA and how to make it.
DATA    ?= data
RESULTS := benchmarks/results
measure: $(READY)
	$(BIN)/dewey eval mini bm25 minilm minilm-windows minilm-chunks --suite $(DATA)/eval \
		--results runs/eval --cache runs/eval-cache -o $(RESULTS)/eval.json
	mkdir -p runs/passages
	ln -sfn $(addprefix $(abspath $(DATA))/,eval/chroma_chunks context/factbook_fields_dev \
		context/medquad_sections_dev context/fairytaleqa_sections) runs/passages
	$(BIN)/dewey eval mini bm25 --mode hybrid --suite runs/passages --passages \
		--results runs/eval --cache runs/eval-cache -o $(RESULTS)/passages.json
	$(BIN)/dewey eval mini bm25 --suite $(DATA)/context --contexts all --documents 40 \
		--results runs/eval --cache runs/eval-cache -o $(RESULTS)/context.json
	$(BIN)/python benchmarks/passages.py $(DATA)/eval/chroma_chunks --cache runs/splitters
	$(BIN)/dewey eval mini minilm --suite mteb-offline --data $(DATA) --mode single \
		--results runs/short_texts --cache runs/eval-cache -o $(RESULTS)/short_texts.json
	$(BIN)/dewey audit alignment --held-out 0.01 -o $(RESULTS)/audits/alignment.json $(addprefix \
		--data $(DATA)/train/,$(addsuffix .parquet,\
		wikipedia_0 pubmed novels legal_cases tech_proposals medquad))
	$(BIN)/dewey audit length --data $(DATA)/eval/fairytaleqa --longest-passkey 32768 \
		-o $(RESULTS)/audits/length.json
	$(BIN)/dewey audit context --data $(DATA)/context --documents 40 \
		-o $(RESULTS)/audits/context.json
	$(BIN)/dewey audit baseline $(DATA)/eval/time --model mini --model bm25 --model minilm \
		-o $(RESULTS)/audits/baseline.json
	$(BIN)/dewey audit cost --data $(DATA)/eval/fairytaleqa -o $(RESULTS)/audits/cost.json
	$(MAKE) results

# The embedded default's seven runs on a CPU, to runs/mini_seventh/model, and two on a GPU, to
# runs/mini_gpu2/model. Both resume where they were stopped; their texts lie in data/ (docs/data.md).
train: $(READY) runs/software_docs.parquet
	$(BIN)/dewey train recipes/mini.toml --max-minutes 60
	$(BIN)/dewey train recipes/mini_continued.toml
	from=mini_continued; seed=21; \
	for to in mini_third mini_fourth mini_fifth mini_sixth mini_seventh; do \
		seed=$$((seed + 1)); \
		$(BIN)/dewey train recipes/mini_continued.toml --output runs/$$to \
			--set base.checkpoint=runs/$$from/model \
			--set corpus.seed=$$seed --set split.seed=$$seed || exit 1; \
		from=$$to; \
	done

train-gpu: $(READY) runs/software_docs.parquet
	$(BIN)/dewey train recipes/mini_gpu.toml --max-minutes 5.6
	$(BIN)/dewey train recipes/mini_gpu.toml --output runs/mini_gpu2 --max-minutes 8.4 \
		--set base.checkpoint=runs/mini_gpu/model --set corpus.seed=28 --set split.seed=28 \
		--set split.resplits=2

# What chunks know of their documents: in one run from the embedded default, what that had in four
# (its history and docs/log.md say which).
train-context: $(READY)
	$(BIN)/dewey train recipes/mini_context.toml --max-minutes 76
	$(BIN)/dewey rotate runs/mini_context/model --data '$(DATA)/train/*.parquet' \
		-o runs/mini_context_rotated

runs/software_docs.parquet: $(READY) recipes/software_docs.py
	$(BIN)/python recipes/software_docs.py --output $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache demo.index dist
