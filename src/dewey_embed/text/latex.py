r"""LaTeX → the text that it sets, line by line, so that the lines of the file stay known.

No macro is expanded: commands go and the words within them stay, formulas stay as they are written.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from dewey_embed.text.encodings import decode
from dewey_embed.text.inputs import Content, ReadOptions
from dewey_embed.text.lines import Lines, in_one_line

_LEVELS = {
    name: level
    for level, name in enumerate(
        ("part", "chapter", "section", "subsection", "subsubsection", "paragraph", "subparagraph"),
        start=1,
    )
}
_DECLARED = re.compile(r"(?m)^[^%\n]{0,80}?\\(title|author|date|abstract|subtitle)(?=[\[{])")
_INCLUDED = re.compile(r"(?m)^[^%\n]{0,80}?\\(?:input|include)\{")
_MAX_ARGUMENT = 5000
_RAW = r"verbatim\*?|Verbatim|lstlisting|minted"
_MATH = r"(?:equation|align|alignat|flalign|gather|multline|eqnarray|displaymath|math|split)\*?"
_WITHOUT_TEXT = (
    "label|ref|eqref|pageref|autoref|[cC]ref|nameref|input|include|includegraphics|bibliography"
    "|bibliographystyle|usepackage|documentclass|vspace|hspace|setlength|addtolength|setcounter"
    "|pagestyle|thispagestyle|newcommand|renewcommand|providecommand|def|graphicspath|[a-z]*cite[a-z]*"
    "|Cite[a-z]*|nocite|addbibresource|index|color|pagenumbering|hypersetup|tikzset|input@path"
)
_TABLES = r"tabular[*xy]?|tabularx|longtable|array"
_SYMBOL_NAMES = (
    "ss|ae|AE|oe|OE|o|O|l|L|aa|AA|i|j|LaTeX|TeX|ldots|dots|textendash|textemdash|S|P|euro"
    "|copyright|textbackslash|slash"
)
_UP_TO = f"{{0,{_MAX_ARGUMENT}}}"
_TOKEN = re.compile(
    rf"""
    (?P<comment>%[^\n]*)
    | (?P<typed>\\verb\*?(?P<mark>[^a-zA-Z\s*])(?P<inside>[^\n]*?)(?P=mark))
    | \\begin\{{(?P<raw>{_RAW}|{_MATH}|comment|tikzpicture)\}}
    | (?P<math>
        \$\$[^$]{_UP_TO}\$\$
        | \$(?:[^$\\\n]|\\.|\n(?!\s*\n)){_UP_TO}\$
        | \\\[(?s:.){_UP_TO}?\\\]
        | \\\((?s:.){_UP_TO}?\\\)
      )
    | \\(?P<section>{"|".join(_LEVELS)})\*?(?=\s*[\[{{])
    | \\(?P<dropped>(?:{_WITHOUT_TEXT})\*?)(?![a-zA-Z])
    | \\(?:begin|end)\{{(?P<table>{_TABLES})?[^{{}}\n]{{0,80}}\}}(?P<bounds>)
    | (?P<item>\\item(?![a-zA-Z])[ \t]*)
    | \\(?:(?P<accent>['`^"~=.])|(?P<named_accent>[uvHcdbrk])(?![a-zA-Z]))\s?
      (?:\{{\\?(?P<of>[a-zA-Z])\}}|(?P<bare>[a-zA-Z]))
    | (?P<break>\\\\\*?(?:\[[^\]\n]{{0,20}}\])?)
    | \\(?P<escaped>[%&_\#${{}}])
    | (?P<blank>~|\\[ ,;:!/>]|\\q?quad(?![a-zA-Z]))
    | \\(?P<symbol>{_SYMBOL_NAMES})(?![a-zA-Z])(?:\{{\}}|[ ]?)
    | (?P<command>\\[a-zA-Z@]+\*?[ \t]*(?:\[[^\]\n]{{0,200}}\])?)
    | (?P<between>\}}\{{)
    | (?P<brace>[{{}}])
    | (?P<cell>[ ]*(?<!\\)&[ ]*)
    | (?P<ligature>---|--|``|\'\')
    """,
    re.VERBOSE,
)
_ACCENTS = dict(
    zip(
        "'`^\"~=.uvHcdbrk",
        "\u0301\u0300\u0302\u0308\u0303\u0304\u0307\u0306\u030c\u030b\u0327\u0323\u0331\u030a\u0328",
        strict=True,
    )
)
_SYMBOLS = {
    **{"ss": "ß", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "o": "ø", "O": "Ø", "l": "ł"},
    **{"L": "Ł", "aa": "å", "AA": "Å", "i": "ı", "j": "ȷ", "LaTeX": "LaTeX", "TeX": "TeX"},
    **{"ldots": "…", "dots": "…", "textendash": "–", "textemdash": "—", "S": "§", "P": "¶"},
    **{"euro": "€", "copyright": "©", "textbackslash": "\\", "slash": "/"},
}
_LIGATURES = {"---": "—", "--": "–", "``": "“", "''": "”"}
_BODY = "\\begin{document}"


def read_latex(data: bytes, options: ReadOptions) -> Content:
    r"""The text of a LaTeX file with its sections as headings; of the preamble only the title page.

    Files that it includes are counted.

    Raises:
        ReadError: it is binary, or longer than the limit.

    """
    decoded = decode(data)
    source = _without_skipped(decoded.text.replace("\r\n", "\n"))
    scanner = _Scanner(source)
    begin = source.find(_BODY)
    title = ""
    if begin >= 0:
        title = scanner.front(begin)
    end = source.find("\\end{document}", max(begin, 0))
    scanner.read(max(begin, 0), end if end >= 0 else len(source))
    lines = Lines(options.limits)
    expected = 0
    was_blank = True
    for number, line in enumerate("".join(scanner.out).split("\n"), start=1):
        is_blank = not line.strip()
        if is_blank and was_blank:
            continue
        was_blank = is_blank
        if number != expected:
            lines.mark("line", number)
        expected = number + 1
        for level, label in scanner.headings.get(number, ()):
            lines.mark("heading", level, label)
        lines.add([line.strip()])
    included = len(_INCLUDED.findall(source))
    return lines.content(title, {**decoded.unread, "included files": included})


_TAKES_ARGUMENTS = "iff|ifthenelse|ifdef|ifundef|ifdefmacro|ifdefempty|ifdefvoid|ifdefstring"
_CONDITION = re.compile(
    rf"""
    (?:%[^\n]*|\\[^a-zA-Z])
    | \\verb\*?(?P<mark>[^a-zA-Z\s*])[^\n]*?(?P=mark)
    | \\begin\{{(?P<raw>{_RAW}|comment)\}}
    | \\(?:newif|let)\s*\\[a-zA-Z@]+(?:\s*=?\s*\\[a-zA-Z@]+)?
    | \\(?!(?:{_TAKES_ARGUMENTS})(?![a-zA-Z@]))
      (?P<condition>if(?:0(?=\s)|[a-zA-Z@]*(?![a-zA-Z@{{]))|(?:else|fi)(?![a-zA-Z@]))
    """,
    re.VERBOSE,
)
_FALSE = ("iffalse", "if0")


def _without_skipped(source: str) -> str:
    r"""The source with only line ends in place of comments and of what stands in `\iffalse`."""
    parts = []
    kept = at = 0
    branches = _Branches()
    unclosed = set()
    while found := _CONDITION.search(source, at):
        at = found.end()
        start = -1
        if found["condition"]:
            start = branches.meet(found["condition"], found.start())
        elif (raw := found["raw"]) and branches.start < 0 and raw not in unclosed:
            close = f"\\end{{{raw}}}"
            stop = source.find(close, at)
            if stop < 0:
                unclosed.add(raw)
                continue
            at = stop + len(close)
            start = found.start() if raw == "comment" else -1
        if start >= 0:
            parts += [source[kept:start], "\n" * source.count("\n", start, at)]
            kept = at
    return "".join([*parts, source[kept:]])


class _Branches:
    """The conditions that are open, and where a branch begins that is never set."""

    def __init__(self) -> None:
        self.start = -1
        self._opened: list[str] = []
        self._depth = 0

    def meet(self, name: str, at: int) -> int:
        """Open, turn or close a condition; where a skipped branch began that ends here, or -1."""
        if name not in ("else", "fi"):
            self._opened.append(name)
            if self.start < 0 and name in _FALSE:
                self._skip(at)
            return -1
        if not self._opened:
            return -1
        start = -1
        is_true = self._opened[-1] == "iftrue"
        if self.start < 0 and name == "else" and is_true:
            self._skip(at)
        elif self.start >= 0 and len(self._opened) == self._depth and (name == "fi" or not is_true):
            start, self.start = self.start, -1
        if name == "fi":
            self._opened.pop()
        return start

    def _skip(self, at: int) -> None:
        self.start, self._depth = at, len(self._opened)


class _Scanner:
    """The text of a source, in which every line stays in its place."""

    def __init__(self, source: str) -> None:
        self.out: list[str] = []
        self.headings: dict[int, list[tuple[int, str]]] = {}
        self._source = source
        self._line = 1

    def front(self, end: int) -> str:
        """Write the title page that a preamble declares; the title comes back."""
        title = ""
        at = 0
        for found in _DECLARED.finditer(self._source, 0, end):
            if found.end() < at:
                continue
            words, stop = self._argument(found.end(), _MAX_ARGUMENT)
            self._keep_lines(at, found.end())
            inner = _Scanner(words)
            inner.read(0, len(words))
            text = "".join(inner.out)
            self._write(text)
            self._write("\n" * (self._source.count("\n", found.end(), stop) - text.count("\n")))
            at = stop
            if found[1] == "title":
                title = in_one_line(text)
        self._keep_lines(at, end)
        return title

    def read(self, at: int, end: int) -> None:
        """Write the text from a place in the source to another."""
        while at < end:
            found = _TOKEN.search(self._source, at, end)
            if found is None:
                break
            self._write(self._source[at : found.start()])
            text, at = self._token(found, end)
            missing = self._source.count("\n", found.start(), at) - text.count("\n")
            self._write(text + "\n" * missing)
        else:
            return
        self._write(self._source[at:end])

    def _token(self, found: re.Match[str], end: int) -> tuple[str, int]:
        """The text of a token, and where the source goes on."""
        kind = found.lastgroup or ""
        if kind in _PLAIN:
            return _PLAIN[kind](found), found.end()
        if kind == "raw":
            close = f"\\end{{{found['raw']}}}"
            stop = self._source.find(close, found.end(), end)
            if stop < 0:
                return "", found.end()
            inside = self._source[found.end() : stop]
            is_text = found["raw"] not in ("comment", "tikzpicture")
            return inside if is_text else "", stop + len(close)
        if kind == "section":
            words, stop = self._argument(found.end())
            inner = _Scanner(words)
            inner.read(0, len(words))
            label = in_one_line("".join(inner.out))
            if label:
                heading = (_LEVELS[found["section"]], label)
                self.headings.setdefault(self._line, []).append(heading)
            return label, stop
        if kind == "bounds":
            return "", self._argument(found.end())[1] if found["table"] else found.end()
        stop = found.end()  # a command whose arguments are no text
        for _ in range(3):
            if self._source[stop : stop + 1] not in ("{", "["):
                break
            stop = self._argument(stop)[1]
        return "", stop

    def _argument(self, at: int, max_length: int = 1000) -> tuple[str, int]:
        """What stands in the braces after a place and any brackets, and where they end."""
        options = re.compile(r"\s*(?:\[[^\]]{0,500}\])?\s*").match(self._source, at)
        start = options.end() if options else at
        if self._source[start : start + 1] != "{":
            return "", start
        depth = 0
        for found in re.compile(r"\\.|[{}]", re.S).finditer(
            self._source, start, start + max_length
        ):
            depth += {"{": 1, "}": -1}.get(found[0], 0)
            if depth == 0:
                return self._source[start + 1 : found.start()], found.end()
        return "", start + 1

    def _keep_lines(self, at: int, end: int) -> None:
        self._write("\n" * self._source.count("\n", at, end))

    def _write(self, text: str) -> None:
        self.out.append(text)
        self._line += text.count("\n")


def _accented(found: re.Match[str]) -> str:
    """A letter with its accent."""
    accent = _ACCENTS[found["accent"] or found["named_accent"]]
    return unicodedata.normalize("NFC", (found["of"] or found["bare"]) + accent)


_PLAIN: dict[str, Callable[[re.Match[str]], str]] = {
    "comment": lambda found: "",
    "typed": lambda found: found["inside"],
    "math": lambda found: found[0],
    "item": lambda found: "- ",
    "of": _accented,
    "bare": _accented,
    "break": lambda found: "",
    "escaped": lambda found: found["escaped"],
    "blank": lambda found: " ",
    "symbol": lambda found: _SYMBOLS[found["symbol"]],
    "command": lambda found: "",
    "between": lambda found: " ",
    "brace": lambda found: "",
    "cell": lambda found: "\t",
    "ligature": lambda found: _LIGATURES[found["ligature"]],
}
"""What tokens become that need nothing but themselves."""
