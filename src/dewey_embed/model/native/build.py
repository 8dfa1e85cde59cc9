"""C++ beside this file → a shared library in the user's cache, compiled once for each version.

The library has a plain C interface and needs nothing of torch, so that no version of torch needs
another one. It asks for g++ and some seconds; who has none gets None, and a debug message says why.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = ("attention.cpp", "linear.cpp", "rows.cpp")
HEADERS = ("vectors.h",)
# The processor is asked before anything is built or loaded; the flags name what the code needs and
# no more, so that machines that share a home folder share the library.
FLAGS = (
    "-O3", "-std=c++17", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno",
    "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16", "-mavx512vnni",
)  # fmt: skip
CACHE = Path("~/.cache/dewey-embed/native")
TIMEOUT_S = 300

log = logging.getLogger(__name__)


@cache
def library_path() -> Path:
    """Where this version's library lies once it is built."""
    texts = [(FOLDER / name).read_bytes() for name in (*SOURCES, *HEADERS)]
    version = hashlib.sha256(b"".join([*texts, " ".join(FLAGS).encode()])).hexdigest()[:16]
    return CACHE.expanduser() / version / "kernels.so"


def find_compiler() -> str | None:
    """Where the compiler is."""
    return shutil.which("g++")


@cache
def build() -> bool:
    """Whether the library is there, after an attempt to compile it; one attempt a process.

    Processes that build at once each write a file of their own, and rename it when it is whole.
    """
    path, compiler = library_path(), find_compiler()
    if compiler is None:
        log.debug("no g++: encoding in plain PyTorch")
        return False
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [compiler, *FLAGS, *(str(FOLDER / name) for name in SOURCES), "-o", str(draft)],
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
