"""The documents are true: pages written from the code are current, commands and numbers exist."""

import ast
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main

from dewey_embed.cli.app import app
from dewey_embed.eval.report.pages import collect
from dewey_embed.train.recipe_file import read_recipe

ROOT = Path(__file__).parents[1]
WRITTEN_BY_PEOPLE = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *(
        path
        for path in sorted((ROOT / "docs").glob("*.md"))
        if path.name not in {"results.md", "performance.md", "api.md", "environment.md"}
    ),
]
RECORDS = {"results.md", "performance.md", "log.md", "encode.md"}
"""Pages with commands as they were when they ran."""


@pytest.fixture(scope="module")
def reference():
    """docs/reference.py as a module."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["docs/api.md", "docs/architecture.md", "docs/environment.md", "README.md"]
)
def test_pages_written_from_the_code_are_current(reference, name):
    page = reference.PAGES[ROOT / name]().rstrip() + "\n"
    assert (ROOT / name).read_text(encoding="utf-8") == page, "run `make docs`"


def test_every_environment_variable_in_the_code_is_documented(reference):
    documented = (ROOT / "docs/environment.md").read_text(encoding="utf-8")
    for path in (ROOT / "src").rglob("*.py"):
        for name in re.findall(r"\"(DEWEY_[A-Z_]+)\"", path.read_text(encoding="utf-8")):
            assert f"`{name}`" in documented or name == "DEWEY_EN_BETA", f"{path.name}: {name}"


def commands_in(text: str) -> list[str]:
    """The `dewey` commands in the code of a page or a recipe, comments and prompts removed."""
    text = text.replace("\\\n", " ")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fenced if language in {"", "sh", "console"}]
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(dewey [a-z][^`]*)`", text)
    lines += re.findall(r"^# +(dewey [a-z]+ .*)$", text, flags=re.MULTILINE)
    return [re.split(r"  +#|   ", line)[0] for line in lines if line.startswith("dewey ")]


def options_of(words: list[str]) -> tuple[set[str], str]:
    """The options of the command that the words begin with, and its name."""
    command = typer.main.get_command(app)
    name = ""
    while hasattr(command, "commands") and words and words[0] in command.commands:
        name = f"{name} {words[0]}".strip()
        command = command.commands[words.pop(0)]
    names = {each for parameter in command.params for each in parameter.opts}
    return names | {"-h", "--help"}, name


@pytest.mark.parametrize(
    "path",
    [path for path in WRITTEN_BY_PEOPLE if path.name not in RECORDS]
    + sorted((ROOT / "recipes").rglob("*.toml"))
    + [ROOT / "Makefile"],
    ids=lambda path: path.name,
)
def test_every_command_of_the_docs_exists_with_its_options(path):
    text = path.read_text(encoding="utf-8")
    if path.name == "Makefile":
        joined = text.replace("\\\n", " ").replace("|| exit 1; ", "")
        found = [line.split("$(BIN)/", 1)[1] for line in joined.splitlines() if "/dewey " in line]
    else:
        found = commands_in(text)
    for line in found:
        words = [word for word in shlex.split(line.replace("…", ""))[1:] if word != "\\"]
        known, name = options_of(words)
        assert name, f"`{line}` is no command"
        for word in words:
            if re.fullmatch(r"-{1,2}[a-z][a-z-]*(=.*)?", word):
                assert word.partition("=")[0] in known, f"`dewey {name}` has no {word}: {line}"


@pytest.mark.parametrize(
    "path",
    [path for path in WRITTEN_BY_PEOPLE if path.name not in RECORDS]
    + sorted((ROOT / "recipes").rglob("*.toml")),
    ids=lambda path: path.name,
)
def test_every_setting_that_a_page_gives_a_recipe_is_one(path):
    text = path.read_text(encoding="utf-8")
    for setting in re.findall(r"--set \"?(\w+\.[\w.]+=[^\s\"`]+)", text):
        if setting != "section.key=value":
            read_recipe(ROOT / "recipes/mini.toml", [setting])  # raises at a mistake


@pytest.mark.parametrize("path", WRITTEN_BY_PEOPLE, ids=lambda path: path.name)
def test_every_recipe_that_a_page_shows_can_be_read(path, tmp_path):
    shown = re.findall(r"^```toml\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    for text in shown:
        if "[training]" in text:
            (tmp_path / "shown.toml").write_text(text, "utf-8")
            assert read_recipe(tmp_path / "shown.toml")  # raises at a mistake


def test_every_page_of_results_is_in_the_report_of_them():
    report = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    pages = [
        page.result.title
        for group in collect([ROOT / "benchmarks/results"]).groups
        for page in group.pages
    ]
    assert pages
    assert [title for title in pages if f"### {title}\n" not in report] == [], "run `make results`"


def test_every_promise_of_security_names_tests_that_are_there():
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    promises = page.partition("## Promises")[2].partition("\n## ")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row.rpartition(" | ")[2])
        assert tests, row
        for file, name in tests:
            code = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            defined = {node.name for node in code.body if isinstance(node, ast.FunctionDef)}
            assert name in defined, f"{file} has no {name}"


def test_the_table_of_fuzzing_is_that_of_the_last_runs():
    from tests.fuzz.results import PAGE, with_table

    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page) == page, "python -m tests.fuzz writes it"


def test_the_readme_shows_how_to_index_and_search():
    shown = commands_in((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {line.split()[1] for line in shown} >= {"index", "search", "encode", "train", "eval"}


@pytest.mark.parametrize("path", WRITTEN_BY_PEOPLE, ids=lambda path: path.name)
def test_every_file_and_target_that_a_page_names_is_there(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or (path.parent / target).exists(), target
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"make {target}"
    for module in set(re.findall(r"`((?:tests|recipes|benchmarks)/[\w/.]+\.(?:py|toml))`", text)):
        if path.name not in RECORDS:
            assert (ROOT / module).exists(), module


@pytest.mark.parametrize(
    "path",
    WRITTEN_BY_PEOPLE + sorted((ROOT / "recipes").rglob("*.*")),
    ids=lambda path: path.name,
)
def test_nothing_points_outside_the_repository(path):
    if path.suffix in {".md", ".toml", ".py"}:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\.\./shared|\bthe issue\b|\bShow \d|DESIGN\.md|HOUSE\.md", text)


def test_the_tree_has_every_file_and_folder_of_the_root(reference):
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in tracked.splitlines()} - {"src", "README.md"}
    described = {name.rstrip("/") for name in reference.BESIDE_PACKAGE}
    assert {name for name in top if not name.startswith(".")} == described


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        found
        for path in WRITTEN_BY_PEOPLE
        for found in re.findall(
            r"`([\w/]+\.py): ([^`=]+) = ([^`]+)`", path.read_text(encoding="utf-8")
        )
    ],
)
def test_constants_in_the_docs_are_those_of_the_code(file, name, value):
    module = importlib.import_module(f"dewey_embed.{file.removesuffix('.py').replace('/', '.')}")
    assert eval(name, vars(module)) == ast.literal_eval(value)


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project
    assert project["dynamic"] == ["version"]


def test_distributions_hold_the_package_and_its_weights_and_nothing_else():
    sdist = pytest.importorskip("hatchling.builders.sdist")
    wheel = pytest.importorskip("hatchling.builders.wheel")
    packed = {
        file.distribution_path for file in sdist.SdistBuilder(str(ROOT)).recurse_included_files()
    }
    assert "src/dewey_embed/models/mini/model.safetensors" in packed
    assert not [name for name in packed if name.startswith(("tests", "benchmarks", "docs"))]
    installed = {
        file.distribution_path for file in wheel.WheelBuilder(str(ROOT)).recurse_included_files()
    }
    assert "dewey_embed/models/mini/model.safetensors" in installed
    assert "dewey_embed/model/native/linear.cpp" in installed
    assert all(name.startswith("dewey_embed/") for name in installed)


def test_the_package_imports_under_its_own_version():
    shown = subprocess.run(
        [sys.executable, "-c", "import dewey_embed; print(dewey_embed.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", shown)
