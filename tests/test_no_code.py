"""Nothing that a model, an index, a cache or a page brings is run as code, and no pickle opened."""

import ast
import importlib.util
import io
import json
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from dewey_embed import Dewey
from dewey_embed.errors import CheckpointError, DeweyError
from tests.model.random_folders import make_folder, write

SOURCE = Path(__file__).parents[1] / "src/dewey_embed"
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CALLS = {"eval", "exec", "compile", "__import__", "extractall", "system", "popen"}
"""Functions that run, or write, what they are given; methods count by their names."""
METHODS_OF_OTHERS = {"eval", "compile"}
"""Names of methods that do something else: `model.eval()`, `re.compile`."""


@cache
def nodes():
    """Every node of the package's code, with its file."""
    return [
        (path, node)
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call | ast.Import | ast.ImportFrom)
    ]


def calls():
    """Every call in the package, with its file and the name of what is called."""
    for path, node in nodes():
        if isinstance(node, ast.Call):
            is_method = isinstance(node.func, ast.Attribute)
            name = node.func.attr if is_method else getattr(node.func, "id", "")
            yield path, node, name, is_method


def test_no_module_of_the_package_can_open_a_pickle():
    for path, node in nodes():
        if isinstance(node, ast.Call):
            continue
        names = [each.name for each in node.names] + [getattr(node, "module", None) or ""]
        assert not MODULES & {name.partition(".")[0] for name in names}, path


def test_nothing_is_run_that_was_read():
    for path, node, name, is_method in calls():
        if name in CALLS and not (is_method and name in METHODS_OF_OTHERS):
            pytest.fail(f"{path.relative_to(SOURCE)}:{node.lineno} calls {name}")


def test_no_call_asks_for_foreign_code_pickles_or_a_shell():
    for path, node, name, _ in calls():
        given = {each.arg: each.value for each in node.keywords}
        where = f"{path.relative_to(SOURCE)}:{node.lineno}"
        assert "trust_remote_code" not in given, where
        assert "allow_pickle" not in given, where
        assert not getattr(given.get("shell"), "value", False), where
        if name == "load" and getattr(getattr(node.func, "value", None), "id", "") == "torch":
            assert getattr(given.get("weights_only"), "value", False) is True, where


def test_the_trainer_reads_its_own_checkpoints_as_tensors_alone():
    package = importlib.util.find_spec("transformers")
    if package is None:
        pytest.skip("transformers is not installed")
    trainer = Path(package.origin).with_name("trainer.py")
    found = [
        node
        for node in ast.walk(ast.parse(trainer.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert len(found) > 3
    for node in found:
        assert "weights_only=True" in ast.unparse(node)


class Evil:
    """An object whose unpickling writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def touched(tmp_path):
    """The file that foreign code would write; it is not there at the end."""
    path = tmp_path / "touched"
    pickle.loads(pickle.dumps(Evil(path)))
    assert path.exists()
    path.unlink()
    yield path
    assert not path.exists()


@pytest.fixture
def folder(tmp_path):
    make_folder(tmp_path / "model", 28)
    return tmp_path / "model"


def test_pickled_weights_are_refused_unopened(folder, touched):
    weights = next(folder.rglob("model.safetensors"))
    weights.with_name("pytorch_model.bin").write_bytes(pickle.dumps(Evil(touched)))
    Dewey.load(folder)  # the weights beside it
    weights.unlink()
    with pytest.raises(CheckpointError, match="is a pickle, which Dewey does not open"):
        Dewey.load(folder)


def test_code_in_a_model_folder_is_never_imported(folder, touched):
    for place in {folder, next(folder.rglob("tokenizer.json")).parent}:
        for name in ("modeling_evil", "evil", "tokenization_evil", "conftest", "__init__"):
            (place / f"{name}.py").write_text(
                f"import pathlib; pathlib.Path({str(touched)!r}).touch()"
            )
        names = {"AutoModel": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Evil"}
        for file in ("config.json", "tokenizer_config.json"):
            if (place / file).exists():
                values = json.loads((place / file).read_text("utf-8"))
                template = (
                    "{{ cycler.__init__.__globals__.os.system('touch " + str(touched) + "') }}"
                )
                write(place / file, values | {"auto_map": names, "chat_template": template})
    Dewey.load(folder).encode(["The rent is due."])
    modules = (folder / "modules.json").read_text("utf-8")
    (folder / "modules.json").write_text(
        modules.replace("sentence_transformers.", "evil.", 1), "utf-8"
    )
    with pytest.raises(CheckpointError, match="is code of its own"):
        Dewey.load(folder)


def test_a_peer_or_a_teacher_that_brings_code_is_refused(folder, touched):
    """What Dewey cannot run itself is loaded by Sentence Transformers, without its code."""
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("mteb")
    from dewey_embed.eval.models import _open_sentence_transformer

    (folder / "evil.py").write_text(f"import pathlib; pathlib.Path({str(touched)!r}).touch()")
    modules = (folder / "modules.json").read_text("utf-8")
    changed = modules.replace('"sentence_transformers.', '"evil.', 1)
    (folder / "modules.json").write_text(changed, "utf-8")
    with pytest.raises(DeweyError):
        _open_sentence_transformer(str(folder), "cpu", None)


def test_arrays_of_objects_in_caches_and_targets_are_refused_unopened(tmp_path, touched):
    from dewey_embed.eval.vector_cache import _read_document
    from dewey_embed.train.reduce import Reduction

    evil = np.array([Evil(touched)], dtype=object)
    arrays = dict.fromkeys(
        ("kind", "sizes", "components", "vector", "chunks", "spans", "tokens", "overflow"), evil
    )
    np.savez(tmp_path / "a.npz", **arrays)
    assert _read_document(tmp_path / "a.npz") is None
    with pytest.raises(DeweyError):
        Reduction.load(tmp_path / "a.npz")


def test_a_parquet_file_that_names_a_python_type_is_read_without_it(touched):
    import pyarrow as pa
    import pyarrow.parquet

    name, metadata = b"ARROW:extension:name", b"ARROW:extension:metadata"
    extension = {name: b"arrow.py_extension_type", metadata: pickle.dumps(Evil(touched))}
    field = pa.field("text", pa.string(), metadata=extension)
    table = pa.table([pa.array(["rent"])], schema=pa.schema([field]))
    stream = io.BytesIO()
    pa.parquet.write_table(table, stream)
    stream.seek(0)
    found = pa.parquet.read_table(stream)["text"]
    assert found.to_pylist() == ["rent"]
