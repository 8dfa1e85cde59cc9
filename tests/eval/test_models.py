"""Models by name: BM25's scores, the teacher's three readings, caches, refusals."""

import re
import time

import mteb
import numpy as np
import pytest
from mteb.models.models_protocols import EncoderProtocol, SearchProtocol

from dewey_embed.encoder import Dewey
from dewey_embed.errors import CheckpointError, ConfigError, ResultsError, TeacherError
from dewey_embed.eval.adapters import DEWEY_EN_BETA, MINI, model_meta
from dewey_embed.eval.models import bm25_words, is_peer, open_models, open_peer
from dewey_embed.eval.tasks import beir_task
from dewey_embed.eval.vector_cache import VectorCache
from tests.eval.conftest import write_beir
from tests.train.test_teacher_endpoint import good, server

QUICK = ("time", "medline", "cranfield")
WITHIN = 0.02


def score(model, task):
    done = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return done.task_results[0].get_score()


@pytest.fixture
def task(tmp_path):
    """The answer stands in the first words, in the middle, or at the end of a long document."""
    filler = "The committee met again and the minutes of the last meeting were read aloud. " * 40
    facts = {
        "early": "A falcon nests in the old lighthouse.",
        "middle": "The violin was built from spruce and maple.",
        "late": "Copper pipes carry the water up to the attic.",
    }
    documents = {
        "early": facts["early"] + " " + filler,
        "middle": filler[: len(filler) // 2] + facts["middle"] + " " + filler[len(filler) // 2 :],
        "late": filler + facts["late"],
    }
    queries = {
        "q-early": "Where does the falcon nest?",
        "q-middle": "What wood is the violin made of?",
        "q-late": "What carries water to the attic?",
    }
    qrels = [(query, query.removeprefix("q-"), 1) for query in queries]
    return beir_task(write_beir(tmp_path / "places", documents, queries, qrels))


def test_models_whose_folders_have_one_name_have_columns_of_their_own(tmp_path):
    names = ["runs/a/model", "runs/b/model", "mini", "old/mini", "bm25", "large/v2"]
    for options in ({"mode": "multi"}, {"contexts": ["alone"]}):
        labels = [each.label for each in open_models(names, cache_folder=tmp_path, **options)]
        assert [label.split()[0] for label in labels] == [
            "a/model", "b/model", "mini", "old/mini", "bm25", "v2",
        ]  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_bm25_is_near_the_published_figures(shared_data, name):
    """Near, not the same: the published ones are of another stemmer."""
    readme = (shared_data / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| {name} \|.*\| [\d.]+ / ([\d.]+) \|$", readme, re.MULTILINE)
    found = score(open_peer("bm25"), beir_task(shared_data / "eval" / name))
    assert found == pytest.approx(float(row[1]), abs=WITHIN)


def test_bm25_takes_queries_of_unknown_words_and_of_none(tmp_path):
    documents = {"a": "timber harvest", "b": "river copper"}
    queries = {"unknown": "zebra", "none": "the of", "known": "rivers"}
    qrels = [("unknown", "a", 1), ("none", "a", 1), ("known", "b", 1)]
    folder = write_beir(tmp_path / "few", documents, queries, qrels)
    assert score(open_peer("bm25"), beir_task(folder)) > 0.3


def test_words_are_lower_case_without_stop_words_and_stemmed_by_snowball():
    assert bm25_words("The Cities were heating, heated; and gas passes 7 Áreas") == [
        "citi", "were", "heat", "heat", "gas", "pass", "7", "área",
    ]  # fmt: skip


def test_names_tell_peers_from_dewey_models():
    names = ["bm25", "minilm", "minilm-windows", "minilm-chunks", "st:x", "openai:http://x#m"]
    assert all(map(is_peer, names))
    assert not any(map(is_peer, ["mini", "./minilm", "infgrad/dewey_en_beta"]))
    with pytest.raises(ConfigError, match="no peer 'bm52'; peers: bm25, minilm"):
        open_peer("bm52")


def test_the_teacher_reads_the_start_the_windows_or_every_chunk(task, tmp_path):
    found = {}
    for name in ("minilm", "minilm-windows", "minilm-chunks"):
        model = open_peer(name, cache=tmp_path / "vectors")
        assert isinstance(model, EncoderProtocol)
        assert isinstance(model, SearchProtocol) == (name == "minilm-chunks")
        found[name] = score(model, task)
    assert found["minilm"] < 1
    assert found["minilm-chunks"] == 1
    names = {open_peer(name).mteb_model_meta.name for name in found}
    assert len(names) == 3, "their results would lie in one place"


def test_the_mean_of_one_window_is_the_text_itself():
    texts = ["A falcon nests in the old lighthouse.", "Copper pipes carry water."]
    whole, windows = (
        open_peer(name).embed(texts, label="") for name in ("minilm", "minilm-windows")
    )
    np.testing.assert_allclose(windows, whole, atol=1e-5)
    long = " ".join(texts * 40)
    [mean] = open_peer("minilm-windows").embed([long], label="")
    assert np.linalg.norm(mean) == pytest.approx(1, abs=1e-5)
    assert mean @ open_peer("minilm").embed([long], label="")[0] < 0.9999


def test_texts_are_embedded_once_and_vectors_outlive_a_stopped_run(tmp_path):
    asked = []

    def embed(texts):
        asked.extend(texts)
        if "stop" in texts:
            raise KeyboardInterrupt
        return np.array([[len(text), 1] for text in texts], np.float32)

    texts = [f"{number}" for number in range(600)]
    with pytest.raises(KeyboardInterrupt):
        VectorCache(tmp_path / "v" / "m.sqlite", embed).embed([*texts, "stop"], label="")
    assert len(asked) == 601
    again = VectorCache(tmp_path / "v" / "m.sqlite", embed)
    vectors = again.embed(["7", *texts, "7"], label="")
    assert len(asked) == 601 + 600 - 512, "the group that was whole was asked for again"
    assert vectors.tolist() == [[len(text), 1] for text in ["7", *texts, "7"]]
    assert VectorCache(None, embed).embed(["abc"], label="").tolist() == [[3, 1]]


def test_a_file_that_is_not_a_cache_is_refused(tmp_path):
    (tmp_path / "m.sqlite").write_text("something else, and long enough to be no header at all")
    with pytest.raises(ResultsError, match="is not a cache of vectors"):
        VectorCache(tmp_path / "m.sqlite", lambda texts: np.zeros((len(texts), 1), np.float32))


def test_a_sentence_transformers_folder_runs_and_is_told_from_another(task, tmp_path):
    folder = Dewey.load().folder
    for _ in range(2):
        model = open_peer(f"st:{folder}", cache=tmp_path / "vectors")
        assert score(model, task) > 0.5
    meta = model.mteb_model_meta
    assert meta.name == "local/mini"
    assert re.fullmatch("[0-9a-f]{16}", meta.revision)


def test_a_folder_without_a_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be loaded as a Sentence Transformers model"):
        open_peer(f"st:{tmp_path}")


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("name", ["nowhere/x", "nowhere", "no where/x"])
def test_without_a_network_an_unknown_hub_model_fails_at_once_in_one_line(name):
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=r"give a folder with modules\.json") as refused:
        open_peer(f"st:{name}")
    assert time.monotonic() - started < 20
    assert "\n" not in str(refused.value)


def test_an_endpoint_embeds_texts_once(task, tmp_path):
    with server(good) as (url, seen):
        first = score(open_peer(f"openai:{url}#org/letters", cache=tmp_path / "v"), task)
        num = len(seen)
        model = open_peer(f"openai:{url}#org/letters", cache=tmp_path / "v")
        assert score(model, task) == first
        assert len(seen) == num + 1, "only its width is asked for again"
    assert model.mteb_model_meta.name == "org/letters"


@pytest.mark.parametrize("address", ["", "nowhere", "http://x/v1", "ftp://x#m", "http://x/v1#"])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(ConfigError, match="does not have the form openai:URL#MODEL"):
        open_peer(f"openai:{address}")


def test_the_error_of_a_server_that_refuses_names_the_key():
    with (
        server(lambda number, texts: (401, {}, {"error": {"message": "no"}})) as (url, _),
        pytest.raises(TeacherError, match="OPENAI_API_KEY"),
    ):
        open_peer(f"openai:{url}#m")


def test_dewey_models_tell_mteb_what_they_are():
    model = Dewey.load()
    meta = model_meta(model)
    assert meta.name == MINI.name == "dewey-embed/mini"
    assert meta.revision == model.fingerprint
    assert meta.embed_dim == model.embedding_dim
    assert meta.max_tokens == model.max_tokens
    assert meta.n_parameters == sum(p.numel() for p in model.model.parameters())
    assert 0 < meta.n_embedding_parameters < meta.n_parameters
    assert meta.license == "apache-2.0"
    assert DEWEY_EN_BETA.embed_dim == 2048
    assert model_meta(Dewey.load(truncate_dim=64)).revision != meta.revision


def test_a_model_of_ones_own_is_named_after_its_folder(tmp_path):
    model = Dewey.load()
    model.save(tmp_path / "mine")
    meta = model_meta(Dewey.load(tmp_path / "mine"))
    assert meta.name == "dewey-embed/mine"
    assert meta.license is None
