"""A tiny student, a tiny teacher and a small real corpus, as a recipe that trains in seconds."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch

from dewey_embed.model.folder import locate_model
from tests.model.twins import hugging_face_config

MINI = locate_model(None)[1]

RECIPE = """
[base]
checkpoint = "{student}"
vector_size = 32
max_position_embeddings = 4096

[corpus]
min_characters = 200
held_out = 0.15

[[corpus.sources]]
kind = "files"
path = "{corpus}"
titles = "first_line"

[split]
crop_tokens = {{ 64 = 0.5, 128 = 0.5 }}
crops_per_text = 2
chunk_tokens = [16, 48]
overlap = [0.3, 0.6]

[context]
texts = 0.5
crop_tokens = {{ 64 = 0.5, 128 = 0.5 }}
max_tokens = 16
questions_per_crop = 2

[teacher]
kind = "sentence-transformers"
model = "{teacher}"
max_tokens = 96
dtype = "float32"

[targets]
shard_texts = 8

[loss]
in_sequence = 0.1
in_batch = 0.1

[training]
learning_rate = 1e-3
batch_samples = 4
max_steps = 12
warmup_steps = 2
save_steps = 3
evaluate_steps = 6
precision = "float32"
compile = "never"

[diagnostics]
held_out_samples = 8
passkey_tokens = [256]
"""


@dataclass(frozen=True)
class Tiny:
    """Where the recipe, the student's checkpoint, the teacher and the corpus lie."""

    recipe: Path
    student: Path
    teacher: Path
    corpus: Path


def write_student(folder: Path, *, seed: int = 1) -> None:
    """A random ModernBERT of width 32 over the embedded model's vocabulary."""
    transformers = pytest.importorskip("transformers")
    config = hugging_face_config("tiny")
    config.vocab_size, config.pad_token_id = 30522, 0
    config.cls_token_id = config.bos_token_id = 101
    config.sep_token_id = config.eos_token_id = 102
    torch.manual_seed(seed)
    transformers.ModernBertModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MINI / name, folder)


def write_teacher(folder: Path) -> None:
    """A random BERT of width 32 with mean pooling, as a Sentence Transformers folder."""
    transformers = pytest.importorskip("transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from dewey_embed.train.start import teacher_folder

    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(2)
    bare = folder.with_name(f"{folder.name}-bare")
    transformers.BertModel(config).save_pretrained(bare)
    transformers.AutoTokenizer.from_pretrained(teacher_folder()).save_pretrained(bare)
    body = Transformer(str(bare), max_seq_length=128)
    SentenceTransformer(modules=[body, Pooling(32, "mean")]).save_pretrained(str(folder))


def write_corpus(path: Path) -> None:
    """The Python language reference's topics under their names, one JSON line each."""
    lines = [
        json.dumps({"text": f"{name.capitalize()}\n\n{text}"})
        for name, text in sorted(topics.items())
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    """A tiny recipe whose targets take a second and whose training takes a few."""
    root = tmp_path_factory.mktemp("tiny")
    made = Tiny(root / "tiny.toml", root / "student", root / "teacher", root / "corpus.jsonl")
    write_student(made.student)
    write_teacher(made.teacher)
    write_corpus(made.corpus)
    made.recipe.write_text(
        RECIPE.format(student=made.student, teacher=made.teacher, corpus=made.corpus)
    )
    return made
