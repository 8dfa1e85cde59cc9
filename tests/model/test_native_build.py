"""Which compiled libraries are loaded: complete ones that none but their user can have written."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dewey_embed.model.native import build
from dewey_embed.model.native.build import cache_folder, exposed_part, may_be_loaded, seal

HAVE_FLOATS = build.find_compiler() is not None and build.library_for(torch.float32) is not None
needs_float32 = pytest.mark.skipif(not HAVE_FLOATS, reason="no compiler, or no AVX2")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "kernels.so"
    path.write_bytes(bytes(range(256)) * 64)
    seal(path)
    assert may_be_loaded(path)
    return path


@pytest.mark.parametrize("size", [0, 16, 31, 32, 5000, -1])
def test_a_truncated_library_is_not_loaded(library, size):
    library.write_bytes(library.read_bytes()[:size])
    assert not may_be_loaded(library)


@pytest.mark.parametrize("place", [0, 7777, -32, -1])
def test_a_library_with_one_other_bit_is_not_loaded(library, place):
    data = bytearray(library.read_bytes())
    data[place] ^= 1
    library.write_bytes(data)
    assert not may_be_loaded(library)


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o777])
def test_a_library_that_others_may_write_to_is_not_loaded(library, mode, caplog):
    library.chmod(mode)
    os.utime(library)
    with caplog.at_level(logging.WARNING):
        assert not may_be_loaded(library)
        assert not may_be_loaded(library)
    (warning,) = caplog.messages
    assert f"{library} may be changed by other users" in warning
    assert "chmod go-w" in warning


@as_root
def test_a_library_of_another_user_is_not_loaded(library):
    os.chown(library, 12345, 12345)
    os.utime(library)
    assert not may_be_loaded(library)


def test_a_folder_above_that_others_may_write_to_is_named_unless_it_is_sticky(tmp_path):
    inner = tmp_path / "home" / "cache"
    inner.mkdir(parents=True)
    assert exposed_part(inner / "not-there-yet") is None
    inner.parent.chmod(0o777)
    assert exposed_part(inner / "not-there-yet") == inner.parent
    inner.parent.chmod(0o1777)
    assert exposed_part(inner / "not-there-yet") is None


def test_the_cache_is_in_xdg_cache_home_or_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    assert cache_folder() == tmp_path / "kept" / "dewey-embed" / "native"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_folder() == tmp_path / "home" / ".cache" / "dewey-embed" / "native"


RUN = """
import os, sys, torch
from dewey_embed.model.native.kernels import kernels
from dewey_embed.model.native.build import find, library_for
{setup}
print("kernels" if kernels(torch.float32, may_build=True) else "none")
print(find(library_for(torch.float32)))
"""


def run(home, setup="", **environment):
    given = {key: value for key, value in os.environ.items() if key != "XDG_CACHE_HOME"}
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(setup=setup)],
        env=given | {"HOME": str(home)} | environment,
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    kind, path = done.stdout.split()
    return kind, path, done.stderr


@needs_float32
def test_a_damaged_library_is_built_again(tmp_path, monkeypatch, path_of_copier):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    path = build.library_for(torch.float32).path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x7fELF not a whole library")
    kind, loaded, log = run(tmp_path, PATH=path_of_copier)
    assert (kind, loaded, log) == ("kernels", str(path), "")
    assert may_be_loaded(path)
    assert sorted(path.parent.iterdir()) == [path]


@needs_float32
def test_a_home_that_others_may_write_to_is_named_once_and_not_used(tmp_path):
    tmp_path.chmod(0o777)
    kind, _, log = run(tmp_path)
    assert kind == "none"
    assert log.count("\n") == 1
    assert f"{tmp_path} may be changed by other users" in log
    assert not list(tmp_path.rglob("*.so"))


@needs_float32
@as_root
def test_a_user_without_a_home_builds_for_the_process_alone(tmp_path, path_of_copier):
    if not all(part.stat().st_mode & 0o005 == 0o005 for part in Path(build.__file__).parents):
        pytest.skip("other users cannot read the checkout")
    scratch = tmp_path / "scratch"
    scratch.mkdir(mode=0o700)
    os.chown(scratch, 12345, 12345)
    for part in (tmp_path, *list(tmp_path.parents)[:3]):  # one more where tests run side by side
        part.chmod(0o755)
    setup = "os.setuid(12345); del os.environ['HOME']"
    kind, path, log = run(tmp_path, setup, TMPDIR=str(scratch), PATH=path_of_copier)
    assert (kind, log) == ("kernels", "")
    assert path.startswith(str(scratch))
    assert not list(scratch.iterdir())
