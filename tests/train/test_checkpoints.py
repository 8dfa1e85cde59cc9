"""Which checkpoints count: whole ones; what is half, damaged or somebody else's is kept apart."""

import json
import shutil

import pytest

from dewey_embed.errors import RunError
from dewey_embed.train.recipe_file import read_object
from dewey_embed.train.trainer import (
    COMPLETE_FILE,
    last_complete_checkpoint,
    mark_complete,
    mark_of,
)


@pytest.fixture
def folder(tmp_path):
    for step in (1, 2):
        write(tmp_path / f"checkpoint-{step}", seconds=10.0 * step)
    return tmp_path


def write(checkpoint, *, seconds=None):
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(bytes(1000))
    (checkpoint / "trainer_state.json").write_text("{}")
    if seconds is not None:
        mark_complete(checkpoint, elapsed_s=seconds)


def test_the_newest_whole_checkpoint_is_the_last(folder):
    assert last_complete_checkpoint(folder) == (folder / "checkpoint-2", 20.0)


def test_what_a_killed_run_left_half_written_is_removed(folder):
    mark_of(folder / "checkpoint-3").touch()
    write(folder / "checkpoint-3")
    assert last_complete_checkpoint(folder) == (folder / "checkpoint-2", 20.0)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-1", "checkpoint-2"]


def test_what_somebody_put_there_is_kept(folder):
    write(folder / "checkpoint-3")  # no mark of ours: a copy of another program's
    write(folder / "checkpoint-best")
    (folder / "notes.txt").write_text("mine")
    with pytest.warns(UserWarning, match=r"unused-checkpoint-3: set aside, no run finished it"):
        assert last_complete_checkpoint(folder) == (folder / "checkpoint-2", 20.0)
    for name in ("unused-checkpoint-3", "checkpoint-best"):
        assert (folder / name / "model.safetensors").exists()
    assert (folder / "notes.txt").exists()


@pytest.mark.parametrize(
    "damage", ["flipped", "cut short", "missing", "no object", "no JSON", "type"]
)
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(folder, damage):
    newest = folder / "checkpoint-2"
    weights, whole = newest / "model.safetensors", newest / COMPLETE_FILE
    {
        "flipped": lambda: weights.write_bytes(bytes(500) + b"x" + bytes(499)),
        "cut short": lambda: weights.write_bytes(bytes(900)),
        "missing": weights.unlink,
        "no object": lambda: whole.write_text("[]"),
        "no JSON": lambda: whole.write_text("{"),
        "type": lambda: whole.write_text(json.dumps({"elapsed_s": "long"})),
    }[damage]()
    with pytest.warns(UserWarning, match=r"unused-checkpoint-2: set aside"):
        assert last_complete_checkpoint(folder) == (folder / "checkpoint-1", 10.0)
    assert (folder / "unused-checkpoint-2").is_dir()


def test_a_checkpoint_of_an_older_version_counts(folder):
    (folder / "checkpoint-2" / COMPLETE_FILE).write_text(json.dumps({"elapsed_s": 7}))
    assert last_complete_checkpoint(folder) == (folder / "checkpoint-2", 7.0)


def test_no_whole_checkpoint_is_none(folder):
    for path in folder.iterdir():
        shutil.rmtree(path)
    assert last_complete_checkpoint(folder) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read"), ("[]", "holds a JSON list, not an object"), ("{}", "lacks recipe"),
     ("\xff", "cannot be read"), (None, "cannot be read")],
)  # fmt: skip
def test_a_damaged_file_of_a_run_is_one_line(tmp_path, content, message):
    path = tmp_path / "start.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(RunError, match=rf"start\.json: {message}.*; do this$"):
        read_object(path, keys=["recipe"], remedy="do this")
