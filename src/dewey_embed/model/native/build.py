"""C++ beside this file → shared libraries in the user's cache, compiled once for each version.

A library has a plain C interface and needs nothing of torch, so that no version of torch needs
another one. It asks for g++ and some seconds; who has none gets None, and a debug message says why.
Where nothing can be kept, it is compiled for the one process that needs it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from dewey_embed.model.native.cache import (
    cache_folder,
    exposed_home,
    make_folder,
    may_be_loaded,
    private_folder,
    seal,
    wanted_folder,
)

FOLDER = Path(__file__).parent
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno", "-mfma")
TIMEOUT_S = 300

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Library:
    """Kernels for one dtype and one kind of processor.

    `needs` are capabilities by torch's names. The flags name what the code needs and no more, so
    that machines that share a home folder share the library.
    """

    name: str
    dtype: torch.dtype
    sources: tuple[str, ...]
    flags: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def path(self) -> Path | None:
        """Where it lies in the user's cache once it is built; None where there is no home."""
        folder = wanted_folder()
        return None if folder is None else self.path_in(folder)

    def path_in(self, folder: Path) -> Path:
        """Where this version of it lies in a folder of libraries once it is built."""
        return folder / f"{self.name}-{_version(self)}" / "kernels.so"

    def fits_processor(self) -> bool:
        """Whether this processor can run it."""
        can = torch.cpu.get_capabilities()
        return all(can.get(need) for need in self.needs)


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
"""Of those for one dtype the first that the processor can run is the one that it runs."""


@cache
def library_for(dtype: torch.dtype) -> Library | None:
    """The kernels of a dtype that this processor can run."""
    fitting = (each for each in LIBRARIES if each.dtype == dtype and each.fits_processor())
    return next(fitting, None)


def find_compiler() -> str | None:
    """Where the compiler is."""
    return shutil.which("g++")


def find(library: Library) -> Path | None:
    """The library's file, if it is built and may be loaded."""
    if library in _private:
        return _private[library]
    path = library.path
    return path if path is not None and may_be_loaded(path) else None


_private: dict[Library, Path] = {}
"""Libraries that were built for this process alone."""


@cache
def build(library: Library) -> Path | None:
    """The library's file, after an attempt to compile it; one attempt a process."""
    compiler, folder = find_compiler(), cache_folder()
    if compiler is None:
        log.debug("no g++: encoding in plain PyTorch")
        return None
    if folder is not None and (path := _compiled(library, compiler, folder)) is not None:
        return path
    if folder is None and exposed_home():
        return None
    try:
        private = private_folder()
    except OSError as error:
        log.debug("kernels not built, encoding in plain PyTorch: %s", error)
        return None
    if (path := _compiled(library, compiler, private)) is not None:
        _private[library] = path
    return path


def _compiled(library: Library, compiler: str, folder: Path) -> Path | None:
    """The library, compiled into a folder of libraries; None where that cannot be done.

    Processes that build at once each write a file of their own, and rename it when it is whole.
    """
    path = library.path_in(folder)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    sources = [str(FOLDER / name) for name in library.sources]
    try:
        make_folder(path.parent)
        subprocess.run(
            [compiler, *FLAGS, *library.flags, *sources, "-o", str(draft)],
            check=True, capture_output=True, text=True, timeout=TIMEOUT_S,
        )  # fmt: skip
        seal(draft)
        draft.replace(path)
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        log.debug("kernels not built in %s: %s", folder, reason)
        return None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return path if may_be_loaded(path) else None


@cache
def _version(library: Library) -> str:
    """A hash of all that the library is compiled from."""
    files = (*library.sources, *sorted(path.name for path in FOLDER.glob("*.h")))
    texts = [(FOLDER / name).read_bytes() for name in files]
    flags = " ".join((*FLAGS, *library.flags)).encode()
    return hashlib.sha256(b"".join([*texts, flags])).hexdigest()[:16]
