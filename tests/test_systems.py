"""The package imports on every supported system."""

import ast
import subprocess
import sys

SCRIPT = """
import builtins, importlib, pkgutil, sys

ONLY_UNIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"}
plain = builtins.__import__

def without(name, given=None, *rest, **more):
    if (given or {}).get("__name__", "").startswith("dewey_embed") and name in ONLY_UNIX:
        raise ModuleNotFoundError(f"{given['__name__']} imports {name}", name=name)
    return plain(name, given, *rest, **more)

builtins.__import__ = without
import dewey_embed
for module in pkgutil.walk_packages(dewey_embed.__path__, "dewey_embed."):
    if module.name.split(".")[1] not in ("train", "eval") and "__main__" not in module.name:
        importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("dewey_embed.")]))
"""

ONLY_UNIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"}
ONLY_SOME = {
    "os": {
        "fork", "forkpty", "killpg", "getuid", "geteuid", "getgid", "getegid", "getpgid", "setsid",
        "sched_getaffinity", "sysconf", "getloadavg", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK",
    },
    "signal": {"SIGKILL", "SIGHUP", "SIGALRM", "SIGXCPU", "SIGCHLD", "alarm", "setitimer"},
}  # fmt: skip


def test_encoding_and_searching_import_no_module_that_only_unix_has():
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[-1]) > 50


def test_modules_that_only_unix_has_are_imported_in_functions_only(repository):
    for path in (repository / "src").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            assert not ONLY_UNIX & set(names), path


def test_names_that_only_some_systems_have_are_looked_up_first(repository):
    """As by `getattr(os, "fork", None)`, or after `hasattr` in the same function."""
    for path in (repository / "src").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                where = f"{path.name}:{node.lineno}: {node.value.id}.{node.attr}"
                needs_asking = node.attr in ONLY_SOME.get(node.value.id, set())
                assert not needs_asking or f'"{node.attr}")' in source, where
