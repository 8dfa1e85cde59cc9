"""C++ beside this file → shared libraries in the user's cache, compiled once for each version.

A library has a plain C interface and needs nothing of torch, so that no version of torch needs
another one. It asks for g++ and some seconds; who has none gets None, and a debug message says why.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno", "-mfma")
CACHE = Path("~/.cache/dewey-embed/native")
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
    def path(self) -> Path:
        """Where this version of it lies once it is built."""
        return CACHE.expanduser() / f"{self.name}-{_version(self)}" / "kernels.so"

    def fits_processor(self) -> bool:
        """Whether this processor can run it."""
        can = torch.cpu.get_capabilities()
        return all(can.get(need) for need in self.needs)


HALVES = (
    "attention.cpp", "attention_gradients.cpp", "linear.cpp", "rounded_weights.cpp", "rows.cpp",
    "weight_gradients.cpp",
)  # fmt: skip
FLOATS = ("float_attention.cpp", "float_linear.cpp", "float_rows.cpp")
AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
LIBRARIES = (
    Library(
        "bfloat16", torch.bfloat16, HALVES, (*AVX512, "-mavx512bf16", "-mavx512vnni"),
        needs=("avx512_bf16", "avx512_vnni"),
    ),
    Library(
        "float32-avx512", torch.float32, FLOATS, (*AVX512, "-ffp-contract=fast"),
        needs=("avx512_f", "avx512_bw", "avx512_dq", "avx512_vl"),
    ),
    Library(
        "float32-avx2", torch.float32, FLOATS, ("-mavx2", "-ffp-contract=fast"),
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


@cache
def build(library: Library) -> bool:
    """Whether the library is there, after an attempt to compile it; one attempt a process.

    Processes that build at once each write a file of their own, and rename it when it is whole.
    """
    path, compiler = library.path, find_compiler()
    if compiler is None:
        log.debug("no g++: encoding in plain PyTorch")
        return False
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    sources = [str(FOLDER / name) for name in library.sources]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [compiler, *FLAGS, *library.flags, *sources, "-o", str(draft)],
            check=True, capture_output=True, text=True, timeout=TIMEOUT_S,
        )  # fmt: skip
        draft.replace(path)
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        log.debug("kernels not built, encoding in plain PyTorch: %s", reason)
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


@cache
def _version(library: Library) -> str:
    """A hash of all that the library is compiled from."""
    files = (*library.sources, *sorted(path.name for path in FOLDER.glob("*.h")))
    texts = [(FOLDER / name).read_bytes() for name in files]
    flags = " ".join((*FLAGS, *library.flags)).encode()
    return hashlib.sha256(b"".join([*texts, flags])).hexdigest()[:16]
