"""Models that several tests share."""

import os

import pytest
import torch

from dewey_embed.model.native import build
from tests.model.twins import twins

COPY = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
sleep 0.2
cp "{library}" "$2"
"""


@pytest.fixture(scope="session")
def path_of_copier(tmp_path_factory):
    """A `PATH` whose g++ gives what the real one compiled before: for tests of where it goes."""
    library = build.library_for(torch.float32)
    path = build.find(library) or build.build(library)
    folder = tmp_path_factory.mktemp("compiler")
    folder.chmod(0o755)
    copy = folder / "library.so"
    copy.write_bytes(path.read_bytes())
    copier = folder / "g++"
    copier.write_text(COPY.format(library=copy))
    copier.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="session")
def model_twins():
    """`twins` made once per shape."""
    made = {}

    def get(shape: str):
        if shape not in made:
            made[shape] = twins(shape)
        return made[shape]

    return get
