"""The architecture of docs/architecture.md, kept: imports point downward only."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "dewey_embed"

# The higher number may import the lower; names of one number do not know each other.
LAYERS = {
    "cli": 6,
    "serve": 5,
    "cluster": 5,
    "eval": 5,
    "train": 4,
    "search": 4,
    "encoder": 3,
    "chunking": 2,
    "pretrained": 2,
    "text": 1,
    "model": 1,
    "index": 1,
    "quantization": 0,
    "scoring": 0,
    "progress": 0,
    "printable": 0,
    "extras": 0,
    "files": 0,
    "config": 0,
    "single_vectors": 0,
    "types": 0,
    "errors": 0,
}
# Within the lowest layer, each imports only what stands before it here.
GROUND = (
    "errors",
    "files",
    "types",
    "single_vectors",
    "config",
    "quantization",
    "scoring",
    "printable",
    "progress",
    "extras",
)


def imported_parts(path: Path) -> set[str]:
    """Parts of the package that a module imports anywhere in it, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
            if node.module == "dewey_embed":
                names = [f"dewey_embed.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("dewey_embed.")}
    return found


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for part in imported_parts(path) - {own}:
        if LAYERS[own] == 0:
            assert GROUND.index(part) < GROUND.index(own), f"{own} imports {part}"
        else:
            assert LAYERS[part] < LAYERS[own], f"{own} imports {part}"


def test_every_part_has_a_layer() -> None:
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES}
    assert parts <= set(LAYERS)
