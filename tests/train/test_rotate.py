"""`dewey rotate`: principal axes folded into a model, and what knows of them afterwards."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from dewey_embed import Dewey
from dewey_embed.errors import CheckpointError, ConfigError, TargetsError
from dewey_embed.eval.audits.alignment import audit_alignment
from dewey_embed.model.folder import AXES_FILE, AXES_NAME, CHECKSUMS_FILE, HISTORY_FILE
from dewey_embed.train.batches import Collator, SampleSet
from dewey_embed.train.card import AXES_TEXT
from dewey_embed.train.merge import merge
from dewey_embed.train.push import files_to_push
from dewey_embed.train.recipe_file import read_recipe
from dewey_embed.train.rotate import rotate
from dewey_embed.train.run import RunFolder, train
from dewey_embed.train.start import runs_of, start_folder, start_tokenizer
from dewey_embed.train.teach import OnlineTeacher, teach, untaught
from dewey_embed.train.teachers import open_teacher
from tests.commands import ended

pytestmark = pytest.mark.filterwarnings("ignore:.*the limit:UserWarning")

TEXTS = ["The tenant pays the rent.", "Ships carry timber.", "Who mends the roof of the house?"]
MACHINE = {"cores": 2, "processor": "x", "capability": "AVX512", "devices": []}
CARD = "---\nlicense: mit\n---\n# A tiny model\n"
SMALL = ["corpus.max_texts=12", "corpus.held_out=0.3"]
HALF = 5e-4
"""Targets are stored in float16."""


@pytest.fixture(scope="module")
def plain(tiny, tmp_path_factory):
    """A tiny model with a head, a card and a history."""
    folder = tmp_path_factory.mktemp("rotate") / "plain"
    start_folder(read_recipe(tiny.recipe, ["base.single_vector=cls"]), folder)
    (folder / "start.json").unlink()
    (folder / "README.md").write_text(CARD)
    (folder / "LICENSE").write_text("as is")
    run = {
        "command": "dewey train",
        "steps": 3,
        "tokens": 7,
        "train_hours": 0.5,
        "machine": MACHINE,
    }
    (folder / HISTORY_FILE).write_text(json.dumps([run]))
    return folder


@pytest.fixture(scope="module")
def rotated(plain, tiny):
    """The same model, rotated, and the rotation."""
    folder = plain.with_name("rotated")
    return folder, rotate(plain, [tiny.corpus], folder, num_chunks=200)


def vectors(folder, **options):
    return Dewey.load(folder, dtype="float32", **options).encode(TEXTS)


def test_vectors_are_turned_and_keep_their_cosines(plain, rotated):
    folder, rotation = rotated
    before, after = vectors(plain), vectors(folder)
    np.testing.assert_allclose(after, before @ rotation.directions.T, atol=1e-6)
    np.testing.assert_allclose(after @ after.T, before @ before.T, atol=1e-6)
    axes = Dewey.load(folder).teacher_axes
    np.testing.assert_allclose(after @ axes.T, before, atol=1e-6)
    np.testing.assert_allclose(before @ axes, after, atol=1e-6)
    assert Dewey.load(plain).teacher_axes is None


def test_the_first_dimensions_hold_the_greatest_eigenvalues(rotated):
    _, rotation = rotated
    moments = rotation.vectors.T @ rotation.vectors / len(rotation.vectors)
    eigenvalues = np.linalg.eigvalsh(moments.astype(np.float64))[::-1]
    for dim in (1, 8, 32):
        before, after = rotation.shares(dim)
        assert after == pytest.approx(eigenvalues[:dim].sum(), abs=1e-5)
        assert before == pytest.approx(np.diag(moments)[:dim].sum(), abs=1e-5)


def test_truncated_vectors_are_turned_back_by_the_axes_that_are_kept(rotated):
    folder, _ = rotated
    model = Dewey.load(folder, dtype="float32", truncate_dim=8)
    assert model.teacher_axes.shape == (32, 8)
    complete = vectors(folder)[:, :8]
    complete /= np.linalg.norm(complete, axis=1, keepdims=True)
    expected = complete @ Dewey.load(folder).teacher_axes[:, :8].T
    np.testing.assert_allclose(model.encode(TEXTS) @ model.teacher_axes.T, expected, atol=1e-6)


def test_a_second_rotation_turns_the_axes_on(plain, rotated, tiny, tmp_path):
    folder, _ = rotated
    rows = [{"text": f"Ship {number} carries timber to port. " * 9} for number in range(40)]
    (tmp_path / "ships.jsonl").write_text("\n".join(map(json.dumps, rows)))
    second = rotate(folder, [tmp_path / "ships.jsonl"], tmp_path / "twice", num_chunks=40)
    assert not np.allclose(np.abs(second.directions), np.eye(32), atol=0.1)
    axes = Dewey.load(tmp_path / "twice").teacher_axes
    np.testing.assert_allclose(vectors(tmp_path / "twice") @ axes.T, vectors(plain), atol=1e-6)
    assert (tmp_path / "twice" / "README.md").read_text().count(AXES_TEXT) == 1


def test_two_rotations_of_one_model_are_the_same_files(plain, rotated, tiny, tmp_path):
    folder, _ = rotated
    rotate(plain, [tiny.corpus], tmp_path / "again", num_chunks=200)
    for name in (AXES_FILE, "2_Dense/model.safetensors", "model.safetensors", "dewey.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.parametrize("dim", [None, 8])
def test_sentence_transformers_gives_the_same_vectors(rotated, dim):
    st = pytest.importorskip("sentence_transformers")
    folder, _ = rotated
    theirs = st.SentenceTransformer(str(folder), device="cpu", truncate_dim=dim)
    expected = theirs.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(vectors(folder, truncate_dim=dim), expected, atol=1e-5)


def test_a_rotated_head_stays_float32_in_a_model_of_half_precision(plain, rotated):
    folder, _ = rotated
    model = Dewey.load(folder, dtype="bfloat16")
    assert (model.dtype, model.model.head.weight.dtype) == (torch.bfloat16, torch.float32)
    before, after = (Dewey.load(each, dtype="bfloat16").encode(TEXTS) for each in (plain, folder))
    np.testing.assert_allclose(after @ after.T, before @ before.T, atol=1e-3)


def test_the_card_the_licence_and_the_history_go_with_the_model(rotated):
    folder, _ = rotated
    assert (folder / "README.md").read_text() == f"{CARD.rstrip()}\n\n{AXES_TEXT}"
    assert (folder / "LICENSE").read_text() == "as is"
    assert [run["steps"] for run in runs_of(folder)] == [3, 0]
    assert AXES_FILE in {each.name for each in files_to_push(folder)}


def test_a_model_without_a_last_linear_layer_is_refused(tiny, tmp_path):
    with pytest.raises(CheckpointError, match="ends in no linear layer"):
        rotate(tiny.student, [tiny.corpus], tmp_path / "rotated")
    assert not (tmp_path / "rotated").exists()


def test_too_few_texts_are_refused(plain, tmp_path):
    (tmp_path / "one.txt").write_text("Ships carry timber. " * 20)
    with pytest.raises(ConfigError, match=r"1 chunks are fewer than the 32 dimensions"):
        rotate(plain, [tmp_path / "one.txt"], tmp_path / "rotated")
    with pytest.raises(ConfigError, match="no data"):
        rotate(plain, [], tmp_path / "rotated")


def test_the_command_says_what_the_first_dimensions_hold(rotated, tiny, tmp_path, capsys):
    options = ("--data", tiny.corpus, "--chunks", 40, "-o", tmp_path / "again")
    assert ended("rotate", rotated[0], *options) == 0
    said = capsys.readouterr().out
    assert re.fullmatch(rf"{tmp_path / 'again'}: 32 axes of \d+ chunks\n", said)


def test_saving_keeps_the_axes_and_saving_another_model_removes_them(plain, rotated, tmp_path):
    model = Dewey.load(rotated[0], dtype="float32")
    model.save(tmp_path / "saved")
    np.testing.assert_array_equal(Dewey.load(tmp_path / "saved").teacher_axes, model.teacher_axes)
    Dewey.load(plain).save(tmp_path / "saved")
    assert not (tmp_path / "saved" / AXES_FILE).exists()


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({AXES_NAME: np.eye(16, dtype=np.float32)}, "16 axes for vectors of 32 dimensions"),
        ({AXES_NAME: np.full((32, 32), np.nan, np.float32)}, "holds no finite"),
        ({"other": np.eye(32, dtype=np.float32)}, "holds no finite"),
    ],
)
def test_axes_that_are_none_are_refused(rotated, tmp_path, axes, said):
    folder = shutil.copytree(rotated[0], tmp_path / "model", ignore=lambda *_: [CHECKSUMS_FILE])
    save_file(axes, folder / AXES_FILE)
    with pytest.raises(CheckpointError, match=said):
        Dewey.load(folder)


def test_models_of_other_axes_are_not_merged(plain, rotated, tmp_path):
    folder, _ = rotated
    with pytest.raises(CheckpointError, match="stand in other axes"):
        merge([plain, folder], tmp_path / "merged")
    merge([folder, shutil.copytree(folder, tmp_path / "copy")], tmp_path / "merged")
    np.testing.assert_allclose(vectors(tmp_path / "merged"), vectors(folder), atol=0.01)
    assert load_file(tmp_path / "merged" / AXES_FILE).keys() == {AXES_NAME}


def test_an_audit_of_alignment_turns_the_vectors_back(plain, rotated, tiny, tmp_path):
    teacher = open_teacher(read_recipe(tiny.recipe).teacher, device="cpu")

    def rows(folder):
        page = audit_alignment(
            Dewey.load(folder, dtype="float32"), [tiny.corpus], teacher=teacher,
            chunk_tokens=(32,), num_documents=4, max_tokens=128, cache=tmp_path,
        )  # fmt: skip
        return [row for table in page.tables for row in table.rows]

    for mine, theirs in zip(rows(rotated[0]), rows(plain), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-3)


@pytest.fixture(scope="module")
def recipe(tiny, rotated):
    return read_recipe(tiny.recipe, [f"base.checkpoint={rotated[0]}", *SMALL])


@pytest.fixture(scope="module")
def start(recipe, tmp_path_factory):
    return start_folder(recipe, tmp_path_factory.mktemp("start") / "start")


@pytest.fixture(scope="module")
def targets(recipe, start):
    return teach(recipe, start, start.with_name("targets"), device="cpu")


def test_targets_are_the_teachers_turned_into_the_axes(
    recipe, start, targets, tiny, plain, tmp_path
):
    without = read_recipe(tiny.recipe, [f"base.checkpoint={plain}", *SMALL])
    plain_start = start_folder(without, tmp_path / "start")
    expected = teach(without, plain_start, tmp_path / "targets", device="cpu")
    axes = Dewey.load(start).teacher_axes
    turned, unturned = (SampleSet(each, "train") for each in (targets, expected))
    assert len(turned) == len(unturned) > 8
    for number in range(len(turned)):
        mine, theirs = turned[number], unturned[number]
        assert mine.sample == theirs.sample
        np.testing.assert_allclose(mine.document, theirs.document @ axes, atol=HALF)
        np.testing.assert_allclose(mine.chunks, theirs.chunks @ axes, atol=HALF)


def test_an_online_teacher_gives_the_stored_targets(recipe, start, targets, tmp_path):
    online = OnlineTeacher(recipe, start, tmp_path)
    stored = [SampleSet(targets, "train")[number] for number in range(3)]
    tokenizer = start_tokenizer(start)
    batch = Collator(tokenizer, online.request)([untaught(each.sample) for each in stored])
    got, expected = online.with_targets(batch), Collator(tokenizer)(stored)
    torch.testing.assert_close(got["chunk_targets"], expected["chunk_targets"], atol=HALF, rtol=0)
    torch.testing.assert_close(got["cls_targets"], expected["cls_targets"], atol=HALF, rtol=0)


def test_the_targets_of_other_axes_are_refused(targets, tiny, plain, tmp_path):
    without = read_recipe(tiny.recipe, [f"base.checkpoint={plain}", *SMALL])
    with pytest.raises(TargetsError, match="teacher_axes"):
        teach(without, start_folder(without, tmp_path / "start"), targets.path, device="cpu")


def test_a_trained_model_keeps_the_axes(recipe, start, tmp_path):
    run = RunFolder(tmp_path / "run")
    short = recipe.training.model_copy(update={"max_steps": 2, "warmup_steps": 1})
    train(recipe.model_copy(update={"training": short}), run)
    trained = Dewey.load(run.model)
    np.testing.assert_array_equal(trained.teacher_axes, Dewey.load(start).teacher_axes)
    assert AXES_TEXT in (run.model / "README.md").read_text()


def test_a_new_head_knows_nothing_of_the_axes(tiny, rotated, tmp_path):
    changed = [f"base.checkpoint={rotated[0]}", "base.vector_size=16"]
    start_folder(read_recipe(tiny.recipe, changed), tmp_path / "start")
    assert not (tmp_path / "start" / AXES_FILE).exists()


def test_what_does_not_fit_the_axes_is_refused(tiny, rotated, start, tmp_path):
    base = f"base.checkpoint={rotated[0]}"
    cut = read_recipe(tiny.recipe, [base, "teacher.reduce=truncate"])
    with pytest.raises(ConfigError, match="set it to 'none'"):
        teach(cut, start, tmp_path / "targets", device="cpu")
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(48, 32)))[0]
    other = shutil.copytree(start, tmp_path / "start", ignore=lambda *_: [CHECKSUMS_FILE])
    save_file({AXES_NAME: axes.astype(np.float32)}, other / AXES_FILE)
    with pytest.raises(ConfigError, match=r"a space of 48 dimensions, the teacher has 32"):
        teach(read_recipe(tiny.recipe, [base]), other, tmp_path / "others", device="cpu")


def test_the_axes_of_a_run_that_reduces_its_teacher_are_kept_and_gone_on_in(tiny, tmp_path):
    settings = ["base.vector_size=16", "teacher.reduce=pca", "training.max_steps=2", *SMALL]
    run, then = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "then")
    recipe = read_recipe(tiny.recipe, settings)
    train(recipe.model_copy(update={"training": recipe.training.model_copy(
        update={"warmup_steps": 1})}), run)  # fmt: skip
    axes = Dewey.load(run.model).teacher_axes
    assert axes.shape == (32, 16)
    np.testing.assert_allclose(axes.T @ axes, np.eye(16), atol=1e-5)
    on = read_recipe(tiny.recipe, [*settings, f"base.checkpoint={run.model}", "corpus.seed=9"])
    start_folder(on, then.start)
    teach(on, then.start, then.targets, device="cpu")
    with np.load(then.targets / "reduction.npz") as stored:
        np.testing.assert_array_equal(stored["components"].T, axes)
