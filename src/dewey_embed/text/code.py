"""Source code and settings → the text as it stands, with the numbers of its lines."""

from __future__ import annotations

from dewey_embed.text.encodings import decode
from dewey_embed.text.inputs import Content
from dewey_embed.text.lines import numbered_lines

EXTENSIONS = (
    *(".py", ".pyi", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".vue", ".svelte"),
    *(".java", ".kt", ".kts", ".scala", ".groovy", ".cs", ".fs", ".vb", ".swift", ".m", ".mm"),
    *(".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".cu", ".go", ".rs", ".zig", ".d"),
    *(".rb", ".php", ".pl", ".pm", ".lua", ".r", ".jl", ".hs", ".ml", ".ex", ".exs", ".erl"),
    *(".clj", ".lisp", ".el", ".sh", ".bash", ".zsh", ".fish", ".ps1", ".bat", ".sql", ".proto"),
    *(".css", ".scss", ".less", ".toml", ".yaml", ".yml", ".json", ".xml", ".ini", ".cfg"),
    *(".conf", ".properties", ".gradle", ".cmake", ".mk", ".tf", ".f90", ".asm", ".vhd"),
)
"""How the names of such files end."""


def read_code(data: bytes) -> Content:
    """The file as it stands, with the numbers of its lines.

    Raises:
        ReadError: it is binary, or damaged in its encoding.

    """
    decoded = decode(data)
    return Content(decoded.text, "", decoded.unread, landmarks=numbered_lines(decoded.text))
