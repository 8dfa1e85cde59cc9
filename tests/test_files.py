"""Files appear complete or not at all, one writer at a time."""

import hashlib
import json
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from dewey_embed import files
from dewey_embed.errors import ConfigError
from dewey_embed.files import (
    atomic_file,
    cached_sha256,
    crc32,
    draft_of,
    locked,
    only_writer,
    sha256,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_takes_the_new_content_and_leaves_no_draft(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "values.json"
    write_json(path, {"a": "ä"}, sync=sync)
    write_json(path, {"a": "ö"}, indent=1, sync=sync)
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ö"}
    assert names(tmp_path) == ["values.json"]


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    path.write_text("old")

    def write_half() -> None:
        with atomic_file(path) as draft:
            draft.write_text("ne")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_half()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["values.json"]


def test_an_unwritten_draft_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_file(path):
        pass
    assert path.read_text() == "old"


def test_a_name_of_bytes_that_are_not_utf8_is_written_as_an_escape(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    write_json(path, {"name": "caf\udce9 ä"})
    assert json.loads(path.read_bytes()) == {"name": "caf\udce9 ä"}


def test_a_value_that_is_not_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == "old"


def test_two_drafts_of_one_file_have_different_names(tmp_path: Path) -> None:
    assert draft_of(tmp_path / "a") != draft_of(tmp_path / "a")


def test_the_only_writer_removes_drafts_of_killed_runs_of_that_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    draft_of(path).touch()
    (tmp_path / ".a.bin.0123abcd.tmp").touch()
    other = draft_of(tmp_path / "ba.bin")
    other.touch()
    with only_writer(path):
        assert names(tmp_path) == sorted([".a.bin.lock", other.name])
    assert names(tmp_path) == [other.name]


def test_a_second_process_is_refused_while_a_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    script = (
        "import sys; from pathlib import Path; from dewey_embed.files import only_writer\n"
        "with only_writer(Path(sys.argv[1])): pass"
    )
    with only_writer(path):
        run = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
        )
    assert run.returncode != 0
    assert "is being written by another process" in run.stderr
    with only_writer(path):  # free again
        pass


def test_a_lock_is_held_by_one_and_stays_or_goes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path), pytest.raises(BlockingIOError), locked(path):
        pass
    assert path.exists()
    with locked(path, remove=True):
        pass
    assert not path.exists()
    with locked(path):
        pass


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder that takes no files")
def test_a_folder_that_takes_no_files_is_not_called_locked() -> None:
    with pytest.raises(FileNotFoundError), locked(Path("/proc/lock")):
        pass


def test_a_missing_folder_is_not_made_for_a_lock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), only_writer(tmp_path / "gone" / "a"):
        pass
    assert names(tmp_path) == []
    with only_writer(tmp_path / "a"), pytest.raises(ConfigError), only_writer(tmp_path / "a"):
        pass


@pytest.mark.parametrize("content", [b"", b"a", bytes(range(256)) * 20_000])
def test_digests_are_those_of_the_standard_library(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    assert crc32(path) == zlib.crc32(content)
    assert sha256(path) == hashlib.sha256(content).digest()


@pytest.fixture
def hashed(tmp_path, monkeypatch):
    """A file that changed a while ago, and a list of the files hashed since."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "_SETTLED_NS", -1)
    monkeypatch.setattr(files, "_LARGE", 0)
    paths = []
    monkeypatch.setattr(files, "sha256", lambda path: paths.append(path) or sha256(path))
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path, paths


def test_a_file_that_has_not_changed_is_hashed_once(hashed):
    path, paths = hashed
    assert cached_sha256(path) == cached_sha256(path) == sha256(path)
    assert paths == [path]


def test_small_files_are_not_kept(hashed, tmp_path, monkeypatch):
    path, _ = hashed
    monkeypatch.setattr(files, "_LARGE", 2**24)
    assert cached_sha256(path) == sha256(path)
    assert not (tmp_path / "cache").exists()


def test_a_changed_file_of_the_same_size_is_hashed_again(hashed):
    path, _ = hashed
    cached_sha256(path)
    path.write_bytes(b"WEIGHTS")
    assert cached_sha256(path) == sha256(path)


def test_a_file_that_may_change_within_a_tick_of_the_clock_is_not_remembered(hashed, monkeypatch):
    path, paths = hashed
    monkeypatch.setattr(files, "_SETTLED_NS", 10**12)
    assert cached_sha256(path) == cached_sha256(path)
    assert paths == [path] * 2


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"state": 3, "sha256": 4}', b"\xff"])
def test_a_damaged_cache_is_passed_over(hashed, tmp_path, content):
    path, _ = hashed
    cached_sha256(path)
    (entry,) = (tmp_path / "cache").rglob("*.json")
    entry.write_bytes(content)
    assert cached_sha256(path) == sha256(path)


def test_a_cache_that_cannot_be_written_does_no_harm(hashed, tmp_path):
    path, _ = hashed
    (tmp_path / "cache").write_text("in the way")
    assert cached_sha256(path) == sha256(path)
