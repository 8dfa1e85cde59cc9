"""Write docs/api.md, docs/environment.md and the marked blocks of README: `make docs`.

docs/api.md has the public names with their signatures and docstrings, docs/environment.md the
environment variables of all commands. README's blocks are the tree of files, from the modules' own
first lines, and figures from benchmarks/results. A test fails while any of them is out of date.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

import dewey_embed
from dewey_embed.cli.app import app
from dewey_embed.eval.summary import DEVELOPMENT_TASKS

DOCS = Path(__file__).parent
ROOT = DOCS.parent
RESULTS = ROOT / "benchmarks/results"
NARROW = 88
"""Signatures wider than this are written one parameter a line."""

BESIDE_OPTIONS = {
    "DEWEY_NATIVE": "`0` encodes and trains in plain PyTorch, without the compiled kernels.",
    "DEWEY_SERVE_KEYS": "Keys of `dewey serve`, with commas between, as in the file of --key-file.",
    "DEWEY_TRACEBACK": "`1` shows the traceback of an error in place of its one line.",
    "NO_COLOR": "Set to anything: no bold text on the terminal.",
    "OMP_NUM_THREADS": "Threads of one process; default: the cores that the container grants.",
    "XDG_CACHE_HOME": "Where compiled kernels are kept; default: `~/.cache`.",
}
"""Variables that are no option of a command, and what each does."""


TOKENS_PER_MB = 220_000
"""Tokens of mini in a megabyte of English text."""
CLONE_MB, INSTALLED_GB, TORCH_GB = 81, 1.6, 0.75
"""Measured on 28 November 2026: Linux, Python 3.11, `pip install .` after torch for CPUs."""

USABLE = 0.01
"""Of nDCG@10: what an index may lose by another model's queries, as in benchmarks/asymmetric.py."""

MODELS = {
    "mini hybrid": "**Dewey, `hybrid`**",
    "bm25": "BM25",
    "mini multi": "Dewey, `multi`",
    "minilm-chunks": "MiniLM, the best of its chunks of 256 tokens",
    "mini single": "Dewey, `single`",
    "minilm": "MiniLM, the first 256 tokens",
}
"""Rows of README's table of results: a model's column in the results of eval, and its label."""

CHUNK_WAYS = {
    "mini in-context": "**in its document's one pass**",
    "mini in-context+title": "so, with the title's vector added",
    "mini under-title": "so, with the title read above it",
    "mini titled": "alone, its title before it as one text",
    "mini alone": "alone",
    "bm25 titled": "BM25, title and chunk",
    "bm25 alone": "BM25",
}
"""Rows of README's table of chunks: a column in the results of `eval --contexts`, and its label."""

COLUMN = 28
"""Width of the column of names in the tree."""
OTHER_FOLDERS = {
    "mini": "The weights of the embedded default, its tokenizer and its card.",
    "models": "Models that ship in the package.",
}
BESIDE_PACKAGE = {
    "benchmarks/": "Speed and accuracy beside other packages; benchmarks/results/ has a file each.",
    "deploy/": "A systemd unit and a Containerfile for `dewey serve`; audit.py: `make audit`.",
    "docs/": "These pages; reference.py writes those that come from the code.",
    "examples/": "python_reference.py: `make demo`; contracts in each framework.",
    "recipes/": "Training runs as TOML, and scripts that write the texts for them.",
    "tests/": "Mirrors the package; a file for each module, and for what users rely on.",
    "CHANGELOG.md": "What changed, by version.",
    "CONTRIBUTING.md": "How to add a format, a single vector, a loss, a splitter and more.",
    "LICENSE": "Apache-2.0.",
    "Makefile": "install, demo, quickstart, test, fuzz, audit, docs, dist and the rest.",
    "SECURITY.md": "What is promised of hostile input, and the tests of it.",
    "constraints.txt": "Versions that the project is developed with.",
    "pyproject.toml": "Dependencies, the distributions, and the settings of the checks.",
}
"""Files and folders beside the package, and what each holds."""


class Literally(str):
    """An annotation or default that `inspect` prints without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def api() -> str:
    """docs/api.md."""
    names = [name for name in dewey_embed.__all__ if name != "__version__"]
    sections = [section(name, getattr(dewey_embed, name)) for name in names]
    listed = " · ".join(f"[`{name}`](#{name.lower()})" for name in names)
    return "\n\n".join(
        [
            "# The public names",
            "Written by `make docs` from the docstrings; do not edit. "
            "All are imported from `dewey_embed`.",
            listed,
            *sections,
        ]
    )


def section(name: str, thing: Any) -> str:
    """One public class or function under a heading of its own."""
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return alias(name)
    lines = [f"## `{name}`", code(signature(name, thing)), text(inspect.getdoc(thing) or "")]
    for member, value in members(thing):
        lines += [f"### `{name}.{member}`"]
        called = value.fget if isinstance(value, property) else getattr(thing, member)
        if not isinstance(value, property):
            lines.append(code(signature(member, called)))
        lines.append(text(inspect.getdoc(called) or ""))
    return "\n\n".join(filter(None, lines))


def alias(name: str) -> str:
    """A public name of a type: its definition, and the string below it."""
    home = importlib.import_module(f"dewey_embed.{dewey_embed._HOMES[name]}")
    body = ast.parse(inspect.getsource(home)).body
    for node, following in zip(body, [*body[1:], body[0]], strict=True):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            described = isinstance(following, ast.Expr) and ast.literal_eval(following.value)
            return "\n\n".join(
                [f"## `{name}`", code(ast.unparse(node)), inspect.cleandoc(described or "")]
            ).rstrip()
    raise LookupError(f"{home.__name__} does not define {name}")


def members(thing: Any) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class itself defines and describes."""
    for name, value in vars(thing).items() if inspect.isclass(thing) else ():
        described = isinstance(value, property | classmethod | staticmethod) or (
            inspect.isfunction(value)
        )
        if described and not name.startswith("_"):
            yield name, value


def signature(name: str, called: Any) -> str:
    """The call of a function or class, one parameter a line where it is long."""
    try:
        found = inspect.signature(called)
    except ValueError:  # an exception that takes what every exception takes
        return f"{name}(message)"
    parameters = [
        each.replace(annotation=shown(each.annotation))
        for each in found.parameters.values()
        if each.name not in {"self", "_cls"}
    ]
    result = found.replace(
        parameters=[
            each.replace(default=Literally("...")) if "factory" in repr(each.default) else each
            for each in parameters
        ],
        return_annotation=found.empty
        if inspect.isclass(called)
        else shown(found.return_annotation),
    )
    line = f"{name}{result}"
    if len(line) <= NARROW or not parameters:
        return line
    rest = str(result.replace(parameters=[]))[2:]
    star = False
    rows = []
    for each in result.parameters.values():
        if each.kind is each.KEYWORD_ONLY and not star:
            star = True
            rows.append("    *,")
        star = star or each.kind is each.VAR_POSITIONAL
        rows.append(f"    {each},")
    return "\n".join([f"{name}(", *rows, f"){rest}"])


def shown(annotation: Any) -> Any:
    """An annotation that prints as it stands in the source."""
    if annotation is inspect.Parameter.empty:
        return annotation
    named = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return Literally(re.sub(r"ForwardRef\('(.*?)'\)", r"\1", named))


def text(docstring: str) -> str:
    """A docstring as Markdown: examples and drawings as code, `Raises:` as a list."""
    blocks = []
    for block in docstring.split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0].startswith(">>>"):
            blocks.append(code(block))
        elif lines and re.fullmatch(r"[A-Z]\w+:", lines[0]):
            entries = re.sub(r"\n {8,}", " ", "\n".join(lines[1:]))
            blocks.append(
                f"**{lines[0]}**\n\n"
                + "\n".join(f"- {entry.strip()}" for entry in entries.splitlines())
            )
        else:
            blocks.append(block)
    return "\n\n".join(blocks)


def code(source: str) -> str:
    """Source fenced as Python."""
    return f"```python\n{source}\n```"


def environment() -> str:
    """docs/environment.md."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for command, option in options(typer.main.get_command(app), "dewey"):
        where = f"`{command} {option.opts[0]}`"
        rows.setdefault(option.envvar, []).append((where, option.help or ""))
    table = [
        f"| `{name}` | {', '.join(where for where, _ in uses)} | {cell(uses[0][1])} |"
        for name, uses in sorted(rows.items())
    ]
    beside = [f"| `{name}` | {meaning} |" for name, meaning in BESIDE_OPTIONS.items()]
    return "\n".join(
        [
            "# Environment variables",
            "",
            "Written by `make docs` from the commands; do not edit. Every option can be set by a",
            "variable; the command line wins over it, and an empty variable counts as unset. An",
            "option that may be given several times takes its values with spaces between them, and",
            "a flag takes `1` or `0`.",
            "",
            "| variable | option | meaning |",
            "|---|---|---|",
            *table,
            "",
            "## Variables that are no option",
            "",
            "| variable | meaning |",
            "|---|---|",
            *beside,
        ]
    )


def options(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every option with a variable, below a command, with the words that call its command."""
    for name, below in getattr(command, "commands", {}).items():
        yield from options(below, f"{path} {name}")
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.envvar:
            yield path, parameter


def cell(words: str) -> str:
    """Text that stays within one cell of a Markdown table."""
    return " ".join(words.split()).replace("|", "\\|")


def readme() -> str:
    """README.md with its marked blocks as they are now."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = {
        "costs": costs, "results": results, "chunks": chunks, "two models": two_models,
        "sizes": sizes, "tree": tree,
    }  # fmt: skip
    for name, block in blocks.items():
        page = replaced(page, name, f"\n{block()}\n")
    figures = json.loads((RESULTS / "mini_training.json").read_text(encoding="utf-8"))["figures"]
    for name in ("chunk_cosine", "cls_cosine"):
        page = replaced(page, f"figure {name}", f"{figures[name]:.2f}", end="figure")
    return page


def replaced(page: str, name: str, block: str, end: str = "") -> str:
    """A page with the text between two markers replaced."""
    before, _, rest = page.partition(f"<!-- {name} -->")
    _, _, after = rest.partition(f"<!-- /{end or name} -->")
    return f"{before}<!-- {name} -->{block}<!-- /{end or name} -->{after}"


def tables(name: str) -> dict[str, dict[str, Any]]:
    """The tables of a result file by their titles."""
    page = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return {table["title"]: table for table in page["tables"]}


def two_models() -> str:
    """Whether mini and its teacher can share an index, as a paragraph."""
    title = "nDCG@10 by who embeds queries and who the index"
    *tasks, [_, _, mini, teacher, new, old] = tables("asymmetric.json")[title]["rows"]
    usable = "stays usable with" if old >= teacher - USABLE else "should be made again for"
    return "\n".join(
        [
            f"An existing index of all-MiniLM-L6-v2's vectors {usable} mini's queries: mean "
            f"nDCG@10 {old:.3f} over",
            f"samples of {len(tasks)} tasks, and {teacher:.3f} with MiniLM's own. MiniLM's queries "
            f"in an index of mini's: {new:.3f}, and {mini:.3f} with",
            "mini's own (`benchmarks/asymmetric.py`; every task in "
            "[docs/evaluation.md](docs/evaluation.md#queries-by-one-model-chunks-by-another)).",
        ]
    )


def sizes() -> str:
    """What smaller vectors find, as a table of means by dimensions and precision."""
    measured = tables("sizes.json")["nDCG@10 by dimensions and precision"]
    num_tasks = len(measured["columns"]) - 5
    by_size: dict[int, dict[str, Any]] = {}
    for dim, precision, num_bytes, *_, mean, _ in measured["rows"]:
        by_size.setdefault(dim, {})[precision] = (mean, num_bytes)
    precisions = list(next(iter(by_size.values())))
    return "\n".join(
        [
            f"| dimensions | {' | '.join(precisions)} |",
            f"|---|{'---:|' * len(precisions)}",
            *(
                f"| {dim} | "
                + " | ".join(f"{mean:.3f} ({size:,} B)" for mean, size in row.values())
                + " |"
                for dim, row in by_size.items()
            ),
            "",
            f"Means of nDCG@10 over samples of {num_tasks} tasks, with the bytes of a vector "
            "that is compared with every query.",
        ]
    )


def costs() -> str:
    """What installing, indexing and searching cost, as a list."""
    cost = tables("index_cost.json")
    ours, chunks_254, *_ = cost["Indexing and searching"]["rows"]
    [large] = cost["From query to answer in a running process"]["rows"]
    start = re.search(
        r"^\| `dewey search` \| ([\d.]+)", (RESULTS / "start.md").read_text(), re.MULTILINE
    )
    assert start is not None
    longest = json.loads((RESULTS / "encode_131072.json").read_text(encoding="utf-8"))["rows"]
    seconds = next(row["seconds_median"] for row in longest if row["shape"] == "mini")
    per_long_mb = seconds * TOKENS_PER_MB / 131_072
    return "\n".join(
        [
            f"- **Time**: {ours[2]:.0f} seconds for a megabyte of English on two cores, in five "
            "long documents; Sentence Transformers with all-MiniLM-L6-v2 and LanceDB take "
            f"{chunks_254[2]:.0f} for chunks of 254 tokens. Read in one pass over 131,072 tokens "
            f"(`--window`) it is {per_long_mb:.0f}. Without AVX512-BF16 it takes about twice as "
            "long. (`benchmarks/index.py`, `benchmarks/encode.py`)",
            f"- **Index**: {ours[4] / 1e3:.1f} MB for a megabyte of text, a copy of the text and a "
            f"vector for every sentence included; {chunks_254[4] / 1e3:.1f} there. "
            "(`benchmarks/index.py`)",
            f"- **Search**: {large[3]:.0f} ms from question to answer in a running process, with "
            f"{large[2]:,} passages; {float(start[1]):.1f} seconds for `dewey search` from the "
            "shell. (`benchmarks/index.py`, `benchmarks/start.py`)",
            f"- **Installation**: {CLONE_MB} MB for the shallow clone, {INSTALLED_GB} GB for the "
            f"environment, of which torch for CPUs takes {TORCH_GB}. (`du -sm`)",
        ]
    )


def results() -> str:
    """Mean scores over development tasks and other tasks, as a table."""
    scores: dict[str, dict[str, float]] = {}
    for file in ("eval_minilm.json", "eval.json"):
        table = tables(file)["Main scores"]
        models = [column["name"] for column in table["columns"]]
        for row in table["rows"]:
            if row[1] == "nDCG@10":
                scores.setdefault(row[0], {}).update(zip(models, row, strict=True))
    groups = {
        "development": [task for task in scores if task in DEVELOPMENT_TASKS],
        "other": [task for task in scores if task not in DEVELOPMENT_TASKS],
    }
    heads = [
        f"{len(tasks)} {name} task{'s' if len(tasks) > 1 else f' ({tasks[0]})'}"
        for name, tasks in groups.items()
    ]
    rows = [f"| | {' | '.join(heads)} |", "|---|---:|---:|"]
    for model, label in MODELS.items():
        means = [
            f"{sum(scores[task][model] for task in tasks) / len(tasks):.3f}"
            for tasks in groups.values()
        ]
        rows.append(f"| {label} | {' | '.join(means)} |")
    return "\n".join(rows)


def chunks() -> str:
    """What a chunk gains by its document: scores over all chunks, by how a chunk is read."""
    table = tables("context.json")["Main scores"]
    columns = [column["name"] for column in table["columns"]]
    rows = [dict(zip(columns, row, strict=True)) for row in table["rows"] if row[1] == "nDCG@10"]
    suites = [row["task"] for row in rows]
    lines = [
        f"| a chunk is read | {' | '.join(suites)} | mean |",
        f"|---|{'---:|' * (len(rows) + 1)}",
    ]
    for column, label in CHUNK_WAYS.items():
        scores = [row[column] for row in rows]
        cells = " | ".join(f"{score:.3f}" for score in [*scores, sum(scores) / len(scores)])
        lines.append(f"| {label} | {cells} |")
    return "\n".join(lines)


def tree() -> str:
    """Every file of the package by its module's first line, and the folders beside it."""
    lines = ["src/dewey_embed/"]
    lines += branch(ROOT / "src/dewey_embed", "  ")
    lines += [f"{name:<{COLUMN}}{meaning}" for name, meaning in BESIDE_PACKAGE.items()]
    return "\n".join(["```", *lines, "```"])


def branch(folder: Path, indent: str) -> Iterator[str]:
    """The lines of a folder: its modules, then its folders with theirs."""
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "__p"))]
    for path in sorted(entries, key=Path.is_dir):
        if path.is_dir():
            below = list(branch(path, indent + "  "))
            module = path / "__init__.py"
            meaning = first_line(module) if module.exists() else OTHER_FOLDERS.get(path.name, "")
            if below or meaning:
                yield entry(f"{indent}{path.name}/", meaning)
                yield from below
        elif path.suffix == ".py" and path.name != "__init__.py":
            yield entry(f"{indent}{path.name}", first_line(path))


def first_line(module: Path) -> str:
    """The first line of a module's docstring."""
    described = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return described.partition("\n")[0]


def entry(name: str, meaning: str) -> str:
    """A name and what it holds, in two columns."""
    return f"{name + ' ':<{COLUMN}}{meaning}".rstrip()


def architecture() -> str:
    """docs/architecture.md with the layers as tests/test_layers.py has them."""
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    return replaced(page, "layers", f"\n{layers()}\n")


def layers() -> str:
    """The layers as a picture, top first; of the ground, which may import those before them."""
    names = runpy.run_path(str(ROOT / "tests/test_layers.py"))
    by_layer: dict[int, list[str]] = {}
    for room, layer in names["LAYERS"].items():
        by_layer.setdefault(layer, []).append(room)
    lines = [
        f"{layer}  {'    '.join(rooms)}"
        for layer, rooms in sorted(by_layer.items(), reverse=True)
        if layer
    ]
    return "\n".join(["```", *lines, f"0  {' < '.join(names['GROUND'])}", "```"])


PAGES = {
    DOCS / "api.md": api,
    DOCS / "architecture.md": architecture,
    DOCS / "environment.md": environment,
    ROOT / "README.md": readme,
}


def main() -> None:
    """Write every page."""
    for path, page in PAGES.items():
        path.write_text(page().rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
