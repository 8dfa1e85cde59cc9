"""What holds for all integrations: the extra that is named, and the examples."""

import importlib
import json
import re
import runpy
import sys

import pytest

from dewey_embed.errors import MissingDependencyError

FRAMEWORKS = {
    "langchain": ("langchain_core.documents", "langchain"),
    "llama_index": ("llama_index.core.base.base_retriever", "llama-index"),
    "haystack": ("haystack", "haystack"),
}


@pytest.mark.parametrize("module", FRAMEWORKS)
def test_a_missing_framework_is_named_with_its_extra(module, monkeypatch):
    imported, extra = FRAMEWORKS[module]
    monkeypatch.setitem(sys.modules, imported, None)
    monkeypatch.delitem(sys.modules, f"dewey_embed.integrations.{module}", raising=False)
    with pytest.raises(MissingDependencyError) as caught:
        importlib.import_module(f"dewey_embed.integrations.{module}")
    package = imported.partition(".")[0]
    assert f'needs the package {package}: pip install "dewey-embed[{extra}]"' in str(caught.value)


@pytest.mark.parametrize("module", FRAMEWORKS)
def test_the_example_finds_the_clause_of_the_right_contract(module, repository, capsys):
    runpy.run_path(str(repository / f"examples/{module}_contracts.py"), run_name="__main__")
    loan, lease = capsys.readouterr().out.split("may I keep a dog in the flat?")
    assert "loan [" in loan
    assert "Either side may end it with six weeks' notice." in loan
    assert "lease [" in lease
    assert "Pets need the owner's consent." in lease


def test_the_snippets_of_the_page_run_one_after_the_other(
    repository, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    page = (repository / "docs/integrations.md").read_text(encoding="utf-8")
    namespace = {}
    for snippet in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(snippet, "docs/integrations.md", "exec"), namespace)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in shown] == [
        ["lease", "0"],
        ["0", "64"],
        [shown[2].split()[0], "0"],
    ]
    assert len(namespace["vector"]) == 384


def test_the_table_of_the_page_is_the_one_that_was_measured(repository):
    page = (repository / "docs/integrations.md").read_text(encoding="utf-8")
    results = (repository / "benchmarks/results/integrations.json").read_text(encoding="utf-8")
    [table] = json.loads(results)["tables"]
    for framework, route, ndcg, *_ in table["rows"]:
        assert f"| {framework} | {route} | {ndcg:.3f} |" in page
