"""C++ beside this file → shared libraries in the user's cache, compiled once for each version.

A library has a plain C interface and needs nothing of torch, so that no version of torch needs
another one. Compiling needs g++ and some seconds; without g++ there is no library, and a debug
message says why. Where no cache can be kept, a library is compiled for one process alone.

A library is code that runs as whoever loads it. So it is loaded only from folders that none but
its user (or root) can write to, and only if it is complete: it ends with the digest of all bytes
before it.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import torch

from dewey_embed import files

FOLDER = Path(__file__).parent
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno", "-mfma")
TIMEOUT_S = 300
DIGEST_BYTES = hashlib.sha256().digest_size

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Library:
    """Kernels for one dtype and one kind of processor.

    `needs` are capabilities by torch's names. The flags name only the instructions that the code
    needs, so that machines that share a home folder share the library.
    """

    name: str
    dtype: torch.dtype
    sources: tuple[str, ...]
    flags: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def path(self) -> Path | None:
        """Its place in the user's cache; None without a home folder."""
        folder = cache_folder()
        return None if folder is None else folder / self.file

    @property
    def file(self) -> Path:
        """The place of this version within a folder of libraries."""
        return Path(f"{self.name}-{_version(self)}", "kernels.so")

    def fits_processor(self) -> bool:
        """Whether this processor can run it."""
        capabilities = torch.cpu.get_capabilities()
        return all(capabilities.get(need) for need in self.needs)


BFLOAT16 = (
    "attention.cpp", "attention_gradients.cpp", "linear.cpp", "quantized_weights.cpp", "rows.cpp",
    "weight_gradients.cpp",
)  # fmt: skip
FLOAT32 = ("float_attention.cpp", "float_linear.cpp", "float_rows.cpp")
AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
LIBRARIES = (
    Library(
        "bfloat16", torch.bfloat16, BFLOAT16, (*AVX512, "-mavx512bf16", "-mavx512vnni"),
        needs=("avx512_bf16", "avx512_vnni"),
    ),
    Library(
        "float32-avx512", torch.float32, FLOAT32, (*AVX512, "-ffp-contract=fast"),
        needs=("avx512_f", "avx512_bw", "avx512_dq", "avx512_vl"),
    ),
    Library(
        "float32-avx2", torch.float32, FLOAT32, ("-mavx2", "-ffp-contract=fast"),
        needs=("avx2", "fma3"),
    ),
)  # fmt: skip
"""A processor uses the first library of a dtype that it can run."""


@cache
def library_for(dtype: torch.dtype) -> Library | None:
    """The kernels of a dtype that this processor can run."""
    fitting = (each for each in LIBRARIES if each.dtype == dtype and each.fits_processor())
    return next(fitting, None)


def find_compiler() -> str | None:
    """The path of the compiler."""
    return shutil.which("g++")


_built: dict[Library, Path | None] = {}
"""Libraries that this process has compiled, or failed to compile."""


def find(library: Library) -> Path | None:
    """The library's file, if it is built and may be loaded."""
    path = _built.get(library) or library.path
    return path if path is not None and may_be_loaded(path) else None


def build(library: Library) -> Path | None:
    """The library's file, after an attempt to compile it; one attempt a process."""
    if library not in _built:
        _built[library] = _build(library)
    return _built[library]


def _build(library: Library) -> Path | None:
    compiler, folder = find_compiler(), cache_folder()
    if compiler is None:
        log.debug("no g++: encoding in plain PyTorch")
        return None
    if folder is None:
        log.debug("no home folder: kernels are not kept")
    elif _is_exposed(folder):
        return None
    elif (path := _compile(library, compiler, folder)) is not None:
        return path
    try:
        return _compile(library, compiler, private_folder())
    except OSError as error:
        log.debug("kernels not built, encoding in plain PyTorch: %s", error)
        return None


def _is_exposed(folder: Path) -> bool:
    """Whether others may change a folder, so that nothing is kept in it."""
    try:
        exposed = exposed_part(folder)
    except OSError as error:  # which making or reading it will meet, too
        log.debug("%s cannot be read: %s", folder, error)
        return False
    if exposed is not None:
        _warn(exposed)
    return exposed is not None


def _compile(library: Library, compiler: str, folder: Path) -> Path | None:
    """The library, compiled into a folder of libraries; None where that fails.

    Processes that build at once each write a draft of their own.
    """
    path = folder / library.file
    sources = [str(FOLDER / name) for name in library.sources]
    try:
        for part in reversed(path.parents):  # for this user alone
            part.mkdir(mode=0o700, exist_ok=True)
        with files.atomic_file(path) as draft:
            subprocess.run(
                [compiler, *FLAGS, *library.flags, *sources, "-o", str(draft)],
                check=True, capture_output=True, text=True, timeout=TIMEOUT_S,
            )  # fmt: skip
            seal(draft)
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        log.debug("kernels not built in %s: %s", folder, reason)
        return None
    return path if may_be_loaded(path) else None


@cache
def _version(library: Library) -> str:
    """A hash of the sources and flags that the library is compiled from."""
    names = (*library.sources, *sorted(path.name for path in FOLDER.glob("*.h")))
    texts = [(FOLDER / name).read_bytes() for name in names]
    flags = " ".join((*FLAGS, *library.flags)).encode()
    return hashlib.sha256(b"".join([*texts, flags])).hexdigest()[:16]


def cache_folder() -> Path | None:
    """The user's cache of libraries; None without a home folder."""
    folder = files.cache_folder()
    return None if folder is None else folder / "native"


@cache
def private_folder() -> Path:
    """A folder of this process alone, removed when it ends."""
    folder, owner = Path(tempfile.mkdtemp(prefix="dewey-native-")), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # and not in its forked children
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def seal(path: Path) -> None:
    """Append its digest to a library, which the loader of libraries ignores."""
    data = path.read_bytes()
    with path.open("ab") as file:
        file.write(hashlib.sha256(data).digest())
    path.chmod(0o600)


def may_be_loaded(path: Path) -> bool:
    """Whether a library is there, complete, and its user's own."""
    try:
        status = path.stat()
    except OSError:
        return False
    return _is_sound(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _is_sound(path: Path, _inode: int, _changed: int, _size: int) -> bool:
    """`may_be_loaded`, once for each state of a file."""
    try:
        data, exposed = path.read_bytes(), exposed_part(path)
    except OSError as error:
        log.debug("%s cannot be read: %s", path, error)
        return False
    if exposed is not None:
        _warn(exposed)
        return False
    if hashlib.sha256(data[:-DIGEST_BYTES]).digest() != data[-DIGEST_BYTES:]:
        log.debug("%s is damaged, and built again when it is worth it", path)
        return False
    return True


def exposed_part(path: Path) -> Path | None:
    """The nearest of a path and the folders above it that others may change; None if none is.

    A folder that does not exist yet will be made for this user alone. In a sticky folder, such as
    /tmp, others cannot replace what is not theirs.
    """
    if not hasattr(os, "geteuid"):  # no owners and modes to go by
        return None
    path = path.resolve()
    for part in (path, *path.parents):
        try:
            status = part.stat()
        except FileNotFoundError:
            continue
        mode = status.st_mode
        shared = mode & stat.S_IWGRP and not _is_private_group(status.st_gid)
        sticky = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
        writable = (mode & stat.S_IWOTH or shared) and not sticky
        if status.st_uid not in {0, os.geteuid()} or writable:
            return part
    return None


@cache
def _warn(exposed: Path) -> None:
    """Say once for each place why kernels are neither kept in it nor loaded from it."""
    log.warning(
        "%s may be changed by other users: no compiled kernels are loaded from it, and encoding is "
        "slower; remove their right to write (chmod go-w), or set XDG_CACHE_HOME to a folder of "
        "your own",
        exposed,
    )


@cache
def _is_private_group(group: int) -> bool:
    """Whether a group is its user's own, as many systems make one for each user."""
    try:
        import grp
        import pwd

        entry, user = grp.getgrgid(group), pwd.getpwuid(os.geteuid())
    except (ImportError, KeyError):
        return False
    others = set(entry.gr_mem) - {user.pw_name}
    return entry.gr_gid == user.pw_gid and not others and entry.gr_name == user.pw_name
