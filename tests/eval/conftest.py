"""Folders in BEIR's layout, and a model that costs nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from mteb.models.model_meta import ModelMeta
from mteb.similarity_functions import cos_sim, pairwise_cos_sim


def write_beir(folder: Path, documents, queries, qrels, *, qrels_name="qrels.tsv") -> Path:
    """A folder with texts by id, and lines of (query, document, gain)."""
    (folder / qrels_name).parent.mkdir(parents=True, exist_ok=True)
    for name, texts in (("corpus", documents), ("queries", queries)):
        rows = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("".join(f"{row}\n" for row in rows))
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, line)) for line in qrels)]
    (folder / qrels_name).write_text("".join(f"{line}\n" for line in lines))
    return folder


class Letters:
    """A model under mteb's `EncoderProtocol` whose vectors count letters."""

    mteb_model_meta = ModelMeta.create_empty({"name": "tests/letters", "revision": "1"})

    def encode(self, inputs, **_):
        texts = [text.lower() for batch in inputs for text in batch["text"]]
        counts = [[1 + text.count(letter) for letter in "abcdefghijklmnop"] for text in texts]
        return np.array(counts, np.float32)

    def similarity(self, embeddings1, embeddings2):
        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1, embeddings2):
        return pairwise_cos_sim(embeddings1, embeddings2)


@pytest.fixture
def letters():
    return Letters()


@pytest.fixture(scope="session")
def shared_data(repository):
    """The folder of real data beside the repository."""
    folder = repository.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real data in {folder}")
    return folder


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """An empty cache and a hub that is not there, wherever the tests run."""
    from datasets import config
    from huggingface_hub import constants

    from dewey_embed.eval import hub

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "no-cache")
    for module in (config, constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    asked = hub._why_unreachable
    asked.cache_clear()
    yield
    asked.cache_clear()
