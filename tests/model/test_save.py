"""What saving does to a folder: the model's own files are replaced, at once, and nothing else."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import time

import numpy as np
import pytest

from dewey_embed import Dewey
from dewey_embed.errors import CheckpointError
from tests.model.random_folders import make_folder

TEXTS = ["Ships carry timber.", "rent"]
WITH_HEAD, WITHOUT = 13, 5
"""Seeds of folders with a Dense as its last module, and with none."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models that differ in all their files."""
    loaded = []
    for seed in (WITH_HEAD, WITHOUT):
        folder = tmp_path_factory.mktemp("made") / "model"
        make_folder(folder, seed)
        loaded.append(Dewey.load(folder, dtype="float32"))
    assert [model.model.head is None for model in loaded] == [False, True]
    return loaded


def encode(model):
    return model.encode(TEXTS, overflow="truncate")


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_other_files_in_the_folder_stay(models, tmp_path):
    others = ["README.md", ".git/HEAD", ".gitattributes", "eval.json", "2_Dense/notes.txt",
              "onnx/model.onnx"]  # fmt: skip
    folder = tmp_path / "repository"
    models[0].save(folder)
    for name in others:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"mine: {name}")
    models[1].save(folder)
    for name in others:
        assert (folder / name).read_text() == f"mine: {name}"
    models[1].save(tmp_path / "new")
    assert files(folder) == sorted([*others, *files(tmp_path / "new")])
    np.testing.assert_array_equal(encode(Dewey.load(folder, dtype="float32")), encode(models[1]))


def test_a_model_is_saved_onto_the_folder_it_was_loaded_from(tmp_path, monkeypatch):
    make_folder(tmp_path / "model", WITH_HEAD)
    (tmp_path / "model" / "README.md").write_text("a card")
    monkeypatch.chdir(tmp_path / "model")
    for place in (tmp_path / "model", ".", tmp_path / "model" / ".." / "model"):
        model = Dewey.load(place, dtype="float32")
        expected = encode(model)
        model.save(place)
        np.testing.assert_array_equal(encode(Dewey.load(".", dtype="float32")), expected)
        np.testing.assert_array_equal(encode(model), expected)
    assert (tmp_path / "model" / "README.md").read_text() == "a card"
    assert not [name for name in files(tmp_path) if "draft" in name or "saved" in name]


@pytest.mark.parametrize("beside", [(), ("README.md", ".gitattributes", "LICENSE")])
def test_a_model_is_saved_into_a_repository_without_one(models, tmp_path, beside):
    for name in beside:
        (tmp_path / name).write_text("mine")
    models[0].save(tmp_path)
    assert set(beside) < set(files(tmp_path))
    np.testing.assert_array_equal(encode(Dewey.load(tmp_path, dtype="float32")), encode(models[0]))


def killed_while_saving(models, folder, after):
    """Save one model after the other onto a folder, until killed some time after the start."""
    began, say = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            os.write(say, b"!")
            while True:
                for model in models:
                    model.save(folder)
        os._exit(1)
    os.read(began, 1)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(began)
    os.close(say)


def test_killed_at_any_moment_the_folder_holds_one_model_or_the_other(models, tmp_path):
    folder, choose = tmp_path / "model", random.Random(1)
    models[0].save(folder)
    (folder / "README.md").write_text("mine")
    expected = [encode(model) for model in models]
    for _ in range(30):
        killed_while_saving(models, folder, choose.uniform(0.01, 0.08))
        found = encode(Dewey.load(folder, dtype="float32"))
        same = [found.shape == one.shape and np.array_equal(found, one) for one in expected]
        assert any(same)
        assert (folder / "README.md").read_text() == "mine"
    models[1].save(folder)
    models[1].save(tmp_path / "new")
    assert files(folder) == sorted(["README.md", *files(tmp_path / "new")])


def test_a_save_killed_leaves_a_complete_new_folder_or_none(models, tmp_path):
    choose = random.Random(2)
    for number in range(8):
        folder = tmp_path / f"model-{number}"
        killed_while_saving(models[:1], folder, choose.uniform(0.001, 0.03))
        if folder.exists():
            Dewey.load(folder)
    models[0].save(tmp_path / "model-0")
    assert not list(tmp_path.glob(".model-0*"))


def test_a_path_that_cannot_be_written_is_refused_in_one_line(models, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, file / "below", "/proc/model", tmp_path / ("long" * 100)):
        with pytest.raises(CheckpointError) as caught:
            models[0].save(place)
        assert "\n" not in str(caught.value)
        assert str(place) in str(caught.value)
    with pytest.raises(CheckpointError, match="cannot be the name of a folder"):
        models[0].save("a\0b")
    assert file.read_text() == "mine"
    assert files(tmp_path) == ["file"]


def test_a_link_to_a_folder_stays_one(models, tmp_path):
    models[0].save(tmp_path / "model")
    (tmp_path / "link").symlink_to("model")
    models[1].save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    np.testing.assert_array_equal(
        encode(Dewey.load(tmp_path / "model", dtype="float32")), encode(models[1])
    )


def test_a_full_disk_leaves_the_old_model_and_no_draft(models, tmp_path):
    folder = tmp_path / "model"
    models[1].save(folder)
    before = files(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))
    try:
        for place in (folder, tmp_path / "new"):
            with pytest.raises(CheckpointError, match="cannot be saved there"):
                models[0].save(place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path) == before
    np.testing.assert_array_equal(encode(Dewey.load(folder, dtype="float32")), encode(models[1]))


def test_settings_come_back_as_they_were_loaded(tmp_path):
    for seed in range(12):
        folder = tmp_path / str(seed) / "model"
        make_folder(folder, seed)
        with contextlib.suppress(CheckpointError):
            first = Dewey.load(folder, dtype="float32")
            first.save(tmp_path / str(seed) / "saved")
            second = Dewey.load(tmp_path / str(seed) / "saved", dtype="float32")
            assert second.config == first.config
            assert second.truncate_dim == first.truncate_dim


def test_a_damaged_list_of_modules_does_not_stand_in_the_way(models, tmp_path):
    models[0].save(tmp_path / "model")
    for damaged in ("", "[]", '{"a": 1}', json.dumps([{"path": 3}, {"path": "../.."}])):
        (tmp_path / "model" / "modules.json").write_text(damaged)
        models[0].save(tmp_path / "model")
        Dewey.load(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_that_is_not_as_it_was_saved_is_named(models, tmp_path, name):
    folder = tmp_path / "model"
    models[0].save(folder)
    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"{name}: is not as it was saved .* if you changed"):
        Dewey.load(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: is missing"):
        Dewey.load(folder)
