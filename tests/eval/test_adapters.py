"""Dewey under mteb's two protocols, on tasks that mteb runs and scores."""

import json

import mteb
import numpy as np
import pytest
from mteb.cache import ResultCache
from mteb.models.models_protocols import EncoderProtocol, SearchProtocol

from dewey_embed.encoder import Dewey
from dewey_embed.eval.adapters import DeweyEncoder, DeweySearch
from dewey_embed.eval.tasks import beir_task
from dewey_embed.index.sync import IndexEncoder

TEXTS = {
    "patents": "The parties agree that patents made during the project are owned by the client. "
    * 4,
    "cooking": "Fry the onions in butter until they are golden, then add the rice and the stock. "
    * 4,
    "music": "The second movement is slow; the oboe sings over the strings, and the horns answer. "
    * 4,
}
QUERIES = {"q1": "who owns the patents?", "q2": "how are onions fried?"}
QRELS = {"q1": "patents", "q2": "cooking"}


@pytest.fixture(scope="module")
def mini():
    return Dewey.load()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beir") / "small"
    folder.mkdir()
    corpus = [{"_id": key, "title": "", "text": text} for key, text in TEXTS.items()]
    queries = [{"_id": key, "text": text} for key, text in QUERIES.items()]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    lines = "".join(f"{query}\t{document}\t1\n" for query, document in QRELS.items())
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    return folder


def test_adapters_satisfy_mtebs_protocols(mini, tmp_path):
    encoder, search = DeweyEncoder(mini), DeweySearch(mini, tmp_path)
    assert isinstance(encoder, EncoderProtocol)
    assert not isinstance(encoder, SearchProtocol)
    assert isinstance(search, SearchProtocol)


@pytest.mark.parametrize("mode", ["single", "multi", "hybrid"])
def test_a_small_task_runs_through_mteb_in_every_mode(mini, folder, tmp_path, mode):
    cache = ResultCache(tmp_path)
    model = DeweySearch(mini, tmp_path / "indexes", mode=mode)
    done = mteb.evaluate(model, beir_task(folder), cache=cache, co2_tracker=False)
    assert done.task_results[0].get_score() == 1.0
    loaded = cache.load_task_result("small", model.mteb_model_meta)
    assert loaded.get_score() == 1.0
    assert model.mteb_model_meta.experiment_kwargs is None
    assert f"-{mode}" in model.mteb_model_meta.name


def test_the_encoder_scores_as_single_search_does(mini, folder, tmp_path):
    task = beir_task(folder)
    by_encoder = mteb.evaluate(DeweyEncoder(mini), task, cache=None, co2_tracker=False)
    search = DeweySearch(mini, tmp_path / "indexes", mode="single")
    by_search = mteb.evaluate(search, task, cache=None, co2_tracker=False)
    first, second = (done.task_results[0].scores["test"][0] for done in (by_encoder, by_search))
    for key in ("ndcg_at_10", "recall_at_1", "mrr_at_10"):
        assert first[key] == pytest.approx(second[key], abs=1e-6)


def test_a_corpus_is_encoded_once_for_all_modes(mini, folder, tmp_path, monkeypatch):
    task = beir_task(folder)
    single = DeweySearch(mini, tmp_path / "indexes", mode="single")
    mteb.evaluate(single, task, cache=None, co2_tracker=False)

    def refuse(*args, **kwargs):
        raise AssertionError("a document was encoded again")

    monkeypatch.setattr(IndexEncoder, "encode", refuse)
    multi = DeweySearch(mini, tmp_path / "indexes", mode="multi")
    mteb.evaluate(multi, task, cache=None, co2_tracker=False)


def test_vectors_are_those_of_encode_with_the_prompt_of_their_role(mini, folder):
    from mteb._create_dataloaders import create_dataloader
    from mteb.types import PromptType

    task = beir_task(folder)
    task.load_data()
    split = task.dataset["default"]["test"]
    encoder = DeweyEncoder(mini)
    loader = create_dataloader(
        split["queries"], task_metadata=task.metadata, prompt_type=PromptType.query, batch_size=2
    )
    found = encoder.encode(
        loader, task_metadata=task.metadata, hf_split="test", hf_subset="default",
        prompt_type=PromptType.query,
    )  # fmt: skip
    np.testing.assert_allclose(found, mini.encode_query(list(QUERIES.values())), atol=1e-5)
