"""`dewey push`, against a real local server that speaks the hub's protocol."""

import os
import shutil

import huggingface_hub
import pytest

from dewey_embed import Dewey
from dewey_embed.errors import CheckpointError, HubError
from dewey_embed.train.push import files_to_push, push
from tests.commands import ended, started_from_nothing
from tests.train.conftest import write_student
from tests.train.hub import OWNER, TOKEN, hub

REPOSITORY = f"{OWNER}/tiny"
CARD = "---\nlicense: mit\n---\n# A tiny model\n"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny model's folder with a card."""
    folder = tmp_path_factory.mktemp("push")
    write_student(folder / "student")
    Dewey.load(folder / "student", single_vector="cls").save(folder / "model")
    (folder / "model" / "README.md").write_text(CARD)
    return folder / "model"


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the model's folder that a test may change."""
    return shutil.copytree(saved, tmp_path / "model", copy_function=os.link)


@pytest.fixture
def running(monkeypatch):
    """The stand-in, which the hub's client calls with a token."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with hub() as held:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", held.url)
        yield held


def names(folder):
    """All files of a folder, by their paths in it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_pushed_model_is_on_the_hub_byte_by_byte_in_one_commit(saved, tmp_path):
    with hub() as held:
        result = started_from_nothing(
            "push", saved, REPOSITORY,
            HF_ENDPOINT=held.url, HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1", HF_HUB_OFFLINE="0",
            HF_HOME=str(tmp_path / "home"),
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    files = held.files[REPOSITORY]
    assert result.stdout.startswith(f"{held.url}/{REPOSITORY}/commit/")
    assert f": {len(files)} files, {sum(map(len, files.values())):,} bytes\n" in result.stdout
    assert TOKEN not in result.stdout + result.stderr
    assert len(held.commits[REPOSITORY]) == 1
    assert not held.private[REPOSITORY]
    assert files == {name: (saved / name).read_bytes() for name in names(saved)}


def test_a_dry_run_lists_each_file_with_its_bytes_and_calls_nobody(running, saved, capsys):
    assert ended("push", saved, REPOSITORY, "--dry-run") == 0
    *listed, total = [line.split() for line in capsys.readouterr().out.splitlines()]
    sizes = {name: int(size.replace(",", "")) for size, name in listed}
    assert sizes == {name: (saved / name).stat().st_size for name in names(saved)}
    assert total[0] == f"{sum(sizes.values()):,}"
    assert running.requests == []


def test_a_second_push_adds_one_commit_of_what_has_changed(running, folder):
    push(files_to_push(folder), REPOSITORY, private=True)
    assert running.private[REPOSITORY]
    (folder / "README.md").unlink()
    (folder / "README.md").write_text(f"{CARD}It has changed.\n")
    before = len(running.requests)
    push(files_to_push(folder), REPOSITORY, private=True)
    assert len(running.commits[REPOSITORY]) == 2
    assert running.files[REPOSITORY]["README.md"].endswith(b"It has changed.\n")
    assert not any(path.startswith("/large/") for _, path in running.requests[before:])


def test_a_run_is_pushed_by_its_model(saved, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text("{}")
    (tmp_path / "run" / "model").symlink_to(saved)
    assert {each.name for each in files_to_push(tmp_path / "run")} == names(saved)


@pytest.mark.parametrize(
    "name",
    ["optimizer.pt", "trainer_state.json", "checkpoint-12/model.safetensors", "notes.txt",
     "2_Dense/optimizer.pt", "events.out.tfevents.1"],
)  # fmt: skip
def test_what_training_left_is_named_and_refused(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    with pytest.raises(HubError, match=rf"holds {name}, which no model needs; move"):
        files_to_push(folder)


def test_hidden_files_are_not_sent(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    (folder / ".gitattributes").write_text("x")
    assert not any("git" in each.name for each in files_to_push(folder))


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (None, "the model's card is not there; write one"),
        ("# No metadata\n", "names no licence"),
        ("---\ntags: [dewey]\n---\n", "names no licence"),
        ("---\nlicense: [\n---\n", "cannot be read"),
    ],
)
def test_a_model_without_a_licence_is_refused(folder, card, said):
    (folder / "README.md").unlink()
    if card is not None:
        (folder / "README.md").write_text(card)
    with pytest.raises(HubError, match=said):
        files_to_push(folder)


def test_a_model_without_all_its_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        files_to_push(folder)


def test_a_folder_that_is_not_finished_is_refused(folder):
    (folder / "start.json").write_text("{}")
    with pytest.raises(HubError, match="push the model/ beside"):
        files_to_push(folder)
    (folder / ".dewey-saved").mkdir()
    with pytest.raises(HubError, match="save the model there again"):
        files_to_push(folder)


def test_what_holds_no_model_of_ours_is_called_what_it_is(folder, tmp_path):
    (tmp_path / "run").mkdir()
    folder = folder.rename(tmp_path / "ours")
    for given, said in (
        (tmp_path / "nowhere", "nowhere: no such folder; give"),
        (folder / "config.json", "is a file; give the folder"),
        (tmp_path / "run", "is an empty folder; give"),
        (tmp_path, "give one of the folders in it that do: ours$"),
    ):
        with pytest.raises(HubError, match=said):
            files_to_push(given)
    (tmp_path / "run" / "recipe.json").write_text("{}")
    with pytest.raises(HubError, match="is a run that has no model/ yet"):
        files_to_push(tmp_path / "run")
    (folder / "dewey.json").unlink()
    with pytest.raises(HubError, match="is not a model that Dewey has saved; save it"):
        files_to_push(folder)


def refused(capsys, *words):
    """The one line that a push ends with, which must fail."""
    assert ended("push", *words) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert TOKEN not in errors
    assert errors.count("\n") == 1, errors
    return errors


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "some body/tiny", "/tiny", "somebody/"])
def test_what_is_no_repository_is_refused_before_anything_is_read(name, capsys, tmp_path):
    assert "give NAMESPACE/NAME" in refused(capsys, tmp_path / "nowhere", name)


def test_without_a_token_it_says_how_to_get_one(running, saved, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    assert "set HF_TOKEN, or run `hf auth login`" in refused(capsys, saved, REPOSITORY)
    assert running.requests == []


def test_an_unknown_token_is_refused_in_one_line(running, saved, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    line = refused(capsys, saved, REPOSITORY)
    assert "the hub answers 401" in line
    assert "hf_another" not in line


def test_a_namespace_of_others_is_refused_in_one_line(running, saved, capsys):
    assert "the hub answers 403" in refused(capsys, saved, "others/tiny")


def test_a_public_repository_is_not_filled_where_a_private_one_is_wanted(running, saved, capsys):
    push(files_to_push(saved), REPOSITORY)
    commits = list(running.commits[REPOSITORY])
    capsys.readouterr()
    assert "is public; nothing was sent" in refused(capsys, saved, REPOSITORY, "--private")
    assert running.commits[REPOSITORY] == commits


def test_an_unreachable_hub_is_named_in_one_line(running, saved, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "the hub cannot be reached" in refused(capsys, saved, REPOSITORY)


def test_offline_is_said(running, saved, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "while HF_HUB_OFFLINE is set" in refused(capsys, saved, REPOSITORY)
