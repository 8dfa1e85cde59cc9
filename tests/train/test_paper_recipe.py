"""recipes/dewey_en.toml: the paper's values, and the whole run on local stand-ins."""

import json
from pathlib import Path

import pytest

from dewey_embed import Dewey
from dewey_embed.config import PAPER_PROMPTS
from dewey_embed.train.recipe_file import read_recipe
from tests.commands import done
from tests.train.conftest import write_student, write_teacher

# Source: arXiv 2503.20376, technical report, model card and released config.
PAPER = {
    "base.checkpoint": "answerdotai/ModernBERT-large",
    "base.vector_size": 2048,
    "base.max_position_embeddings": 131072,
    "base.global_rope_theta": 73_780_400.0,
    "base.single_vector": "cls_add_mean",
    "corpus.max_texts": 10_000_000,
    "split.crop_tokens": {2048: 1.0},
    "split.splitters": {"recursive": 0.7, "words": 0.3},
    "split.chunk_tokens": (64, 500),
    "split.overlap": (0.3, 0.6),
    "teacher.model": "Linq-AI-Research/Linq-Embed-Mistral",
    "training.optimizer": "stable_adamw",
    "training.learning_rate": 1e-4,
    "training.warmup_steps": 2000,
    "training.weight_decay": 0.0,
    "training.batch_samples": 64,
    "training.epochs": 2,
}

SIZES = [
    "base.vector_size=16", "base.max_position_embeddings=2048", "corpus.max_texts=50",
    "corpus.held_out=0.2", "split.crop_tokens={ 96 = 1.0 }", "split.chunk_tokens=[16, 48]",
    "teacher.max_tokens=96", "teacher.pca_texts=64", "targets.shard_texts=16",
    "training.batch_samples=4", "training.max_steps=4", "training.warmup_steps=2",
    "training.save_steps=2", "training.evaluate_steps=4", "diagnostics.held_out_samples=4",
    "diagnostics.passkey_tokens=[256]",
]  # fmt: skip


@pytest.fixture
def recipe_path(repository) -> Path:
    return repository / "recipes" / "dewey_en.toml"


def test_every_value_of_the_paper_stands_in_the_recipe(recipe_path) -> None:
    recipe = read_recipe(recipe_path)
    for key, value in PAPER.items():
        found = recipe
        for step in key.split("."):
            found = getattr(found, step)
        assert found == value, key
    assert recipe.base.prompts == dict(PAPER_PROMPTS)
    ids = [source.id for source in recipe.corpus.sources]
    assert ids == ["BAAI/Infinity-Instruct", "HuggingFaceFW/fineweb-edu"]


def test_every_value_names_its_source_or_says_that_there_is_none(recipe_path) -> None:
    for key in PAPER:
        name = key.rpartition(".")[2]
        lines = [
            line for line in recipe_path.read_text().splitlines() if line.startswith(f"{name} =")
        ]
        assert any("§" in line or "config" in line for line in lines), key


def write_data_set(folder: Path, subset: str, rows: list[dict]) -> None:
    """A local folder with a subset's name, as the hub's data sets have them."""
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: {subset}\n  data_files: rows.jsonl\n---\n"
    )


@pytest.fixture
def stand_ins(tmp_path, tiny) -> Path:
    """A folder with everything that the recipe names, small, under the same names."""
    texts = [json.loads(line)["text"] for line in tiny.corpus.read_text().splitlines()]
    turns = [
        {"conversations": [{"from": "human", "value": "Explain."}, {"from": "gpt", "value": text}]}
        for text in texts[:40]
    ]
    write_data_set(tmp_path / "BAAI/Infinity-Instruct", "7M", turns)
    write_data_set(
        tmp_path / "HuggingFaceFW/fineweb-edu", "sample-10BT", [{"text": t} for t in texts[40:]]
    )
    (tmp_path / "answerdotai").mkdir()
    (tmp_path / "Linq-AI-Research").mkdir()
    write_student(tmp_path / "answerdotai/ModernBERT-large")
    write_teacher(tmp_path / "Linq-AI-Research/Linq-Embed-Mistral")
    return tmp_path


def dewey(*arguments: str, cwd: Path) -> str:
    return done(*arguments, cwd=cwd, HF_HUB_OFFLINE="1")


def test_the_paper_s_run_goes_end_to_end_on_local_stand_ins(recipe_path, stand_ins) -> None:
    sizes = [part for size in SIZES for part in ("--set", size)]
    said = dewey("teach", str(recipe_path), "-o", "run", *sizes, cwd=stand_ins)
    assert "50 texts" in said
    assert "pca to 16 dimensions keeps" in said
    said = dewey("train", str(recipe_path), "-o", "run", *sizes, cwd=stand_ins)
    assert "held-out cosine" in said
    result = json.loads((stand_ins / "run/result.json").read_text())
    assert result["steps"] == 4
    model = Dewey.load(stand_ins / "run/model")
    assert model.embedding_dim == 16
    assert model.prompts == dict(PAPER_PROMPTS)
    [document] = model.encode_document(["A text about ships. " * 50], chunk_tokens=32)
    assert document.chunks.shape[1] == 16
