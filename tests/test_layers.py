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
    "integrations": 5,
    "eval": 5,
    "train": 4,
    "index": 4,
    "encoder": 3,
    "chunking": 2,
    "rows": 2,
    "pretrained": 2,
    "text": 1,
    "model": 1,
    "quantization": 0,
    "scoring": 0,
    "progress": 0,
    "printable": 0,
    "titles": 0,
    "extras": 0,
    "files": 0,
    "storage": 0,
    "config": 0,
    "single_vectors": 0,
    "topics": 0,
    "types": 0,
    "errors": 0,
}
# Within the lowest layer, each imports only what stands before it here.
GROUND = (
    "errors",
    "files",
    "storage",
    "printable",
    "titles",
    "types",
    "topics",
    "single_vectors",
    "config",
    "quantization",
    "scoring",
    "progress",
    "extras",
)


MODULES = {
    ".".join(("dewey_embed", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
MODULES = {name.removesuffix(".__init__"): path for name, path in MODULES.items()}


def imports_of(module: str) -> set[str]:
    """Modules that a module imports anywhere in it, functions and type-only blocks included."""
    names = []
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    found = {name if name in MODULES else name.rpartition(".")[0] for name in names}
    return found & set(MODULES) - {module}


# The package itself only hands on public names; which ones is pinned in test_public_api.py.
GRAPH = {module: imports_of(module) for module in MODULES if module != "dewey_embed"}


def room(module: str) -> str:
    """The part of the package that a module belongs to."""
    return module.split(".")[1]


@pytest.mark.parametrize("module", GRAPH)
def test_imports_point_downward(module: str) -> None:
    own = room(module)
    for imported in GRAPH[module] - {"dewey_embed"}:
        part = room(imported)
        if part == own:
            continue
        if LAYERS[own] == 0:
            assert GROUND.index(part) < GROUND.index(own), f"{module} imports {imported}"
        else:
            assert LAYERS[part] < LAYERS[own], f"{module} imports {imported}"


INDEX_ABOVE_THE_ENCODER = {
    f"dewey_embed.index.{name}" for name in ("index", "sync", "kept", "hits")
}


def test_only_the_index_itself_knows_the_encoder_and_readers() -> None:
    for module in {each for each in GRAPH if room(each) == "index"} - INDEX_ABOVE_THE_ENCODER:
        for imported in GRAPH[module] - INDEX_ABOVE_THE_ENCODER:
            part = room(imported)
            assert part == "index" or LAYERS[part] == 0, f"{module} imports {imported}"


def test_every_part_has_a_layer() -> None:
    assert {room(module) for module in GRAPH} <= set(LAYERS)


def test_no_module_imports_from_the_public_names() -> None:
    assert [module for module, imported in GRAPH.items() if "dewey_embed" in imported] == []


def reached_from(module: str) -> set[str]:
    """Modules that are imported when a module is."""
    reached: set[str] = set()
    waiting = [module]
    while waiting:
        new = GRAPH[waiting.pop()] - reached - {"dewey_embed"}
        reached |= new
        waiting += new
    return reached


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert {module for module in GRAPH if module in reached_from(module)} == set()
