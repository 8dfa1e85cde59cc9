"""LaTeX: the words that are set, under their sections, in their own lines."""

import pytest

from dewey_embed.text.inputs import ReadOptions
from dewey_embed.text.latex import read_latex
from dewey_embed.types import Location
from tests.text.places import one, where

PAPER = r"""\documentclass[11pt]{article}
\usepackage{amsmath} % formulas
\newcommand{\R}{\mathbb{R}}
\title{On \emph{tides}
  and the moon}
\author{Ann M\"uller}

\begin{document}
\maketitle

\section{Introduction}\label{sec:intro}
Tides rise \textbf{twice
a day}~\cite[p.~3]{moon}, 50\% of them higher. % a remark
See Section~\ref{sec:intro} --- or ``not''.


\subsection*{Forces of $n$ bodies}
The force is $F = G \frac{m_1}{r^2}$ and
\begin{equation}
  a = \frac{F}{m}
\end{equation}
\begin{itemize}
  \item caf\'e na\"{\i}ve \c{c}a \ss{} \v{s}
  \item \% \& \_ \# \$ \{x\}
\end{itemize}
\begin{tabular}{l|r}
Dover & 6.7 \\
\end{tabular}
\begin{verbatim}
  \raw{text} % stays
\end{verbatim}
\input{appendix}
\section{End}
Done.
\end{document}
never set
"""


def test_a_paper_is_its_words_under_their_sections(tmp_path):
    (tmp_path / "a.tex").write_text(PAPER)
    found = one(tmp_path / "a.tex")
    assert found.title == "On tides and the moon"
    assert found.unread == {"included files": 1}
    assert found.text.split("\n") == [
        *("On tides", "and the moon", "Ann Müller", "", "Introduction", "Tides rise twice"),
        *("a day , 50% of them higher.", "See Section  — or “not”.", "", "Forces of $n$ bodies"),
        *(r"The force is $F = G \frac{m_1}{r^2}$ and", "", r"a = \frac{F}{m}", ""),
        *("- café naïve ça ß š", "- % & _ # $ {x}", "", "Dover\t6.7", ""),
        *(r"\raw{text} % stays", "", "End", "Done."),
    ]


@pytest.mark.parametrize(
    "words",
    ["and the moon", "Tides rise", "a day", "Forces", "The force", "Dover", "stays", "Done."],
)
def test_lines_are_those_of_the_file(tmp_path, words):
    (tmp_path / "a.tex").write_text(PAPER)
    found = one(tmp_path / "a.tex")
    line = 1 + PAPER[: PAPER.index(words)].count("\n")
    assert (where(found, words).line, where(found, words).last_line) == (line, line)


def test_headings_are_the_sections_above(tmp_path):
    (tmp_path / "a.tex").write_text(PAPER)
    found = one(tmp_path / "a.tex")
    assert where(found, "Müller").headings == ()
    assert where(found, "Dover").headings == ("Introduction", "Forces of $n$ bodies")
    assert where(found, "Done.") == Location(line=34, last_line=34, headings=("End",))


def test_two_arguments_are_two_words(tmp_path):
    (tmp_path / "a.tex").write_text("\\moduleauthor{Ann}{ann@x.org}")
    assert one(tmp_path / "a.tex").text == "Ann ann@x.org"


def test_a_chapter_without_a_preamble_is_read(tmp_path):
    (tmp_path / "a.tex").write_text("\\chapter[short]{The {\\it moon}}\r\nIt pulls.\r\n")
    found = one(tmp_path / "a.tex")
    assert found.text == "The moon\nIt pulls."
    assert where(found, "pulls") == Location(line=2, last_line=2, headings=("The moon",))


@pytest.mark.parametrize(
    "piece",
    [
        *("$", "\\[", "\\begin{verbatim}", "{", "\\section{", "\\title{\n", "\\cite[", "\\'"),
        *("\\iffalse ", "\\iffalse\\else ", "\\begin{comment}"),
    ],
)
def test_what_is_never_closed_takes_no_long_time(piece):
    import time

    start = time.process_time()
    read_latex(b"before " + piece.encode() * 20_000 + b" after", ReadOptions())
    assert time.process_time() - start < 10


def test_a_section_that_is_only_shown_is_no_heading(tmp_path):
    (tmp_path / "a.tex").write_text(
        "\\section{Tides}\nWrite \\verb|\\section{Moon}| to begin, or\n"
        "\\begin{verbatim}\n\\section{Sun}\n\\end{verbatim}\nThey rise. % \\section{Old}\nAnd fall."
    )
    found = one(tmp_path / "a.tex")
    assert "Write \\section{Moon} to begin" in found.text
    assert where(found, "And fall.").headings == ("Tides",)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a\n\\iffalse\n\\section{Old}\nb\n\\fi\nc", "a\n\nc"),
        ("a \\iffalse b \\ifx\\x\\y d \\else e \\fi f \\fi c", "a  c"),
        ("a \\iffalse b \\iffalse d \\fi e \\fi c", "a  c"),
        ("a \\iffalse b \\ifbool{x}{y}{z} $p \\iff q$ \\fi c", "a  c"),
        ("a \\iffalse b % \\fi\nd \\fi c", "a \nc"),
        ("a \\iffalse b\\else d \\fi c", "a d c"),
        ("a \\iftrue b\\else d\\fi c", "a b c"),
        ("a \\if0\nb\\fi c", "a \nc"),
        ("a \\newif\\ifdraft \\ifdraft b \\iffalse d \\fi e \\fi c", "a b  e c"),
        ("\\let\\ifdraft\\iffalse a \\ifdraft b\\fi", "a b"),
        ("a \\iffalse b", "a b"),
        ("a % \\iffalse\nb \\fi c", "a\nb c"),
        ("\\verb|\\iffalse| b \\fi c", "\\iffalse b c"),
        ("\\begin{verbatim}\n\\iffalse b \\fi\n\\end{verbatim}", "\\iffalse b \\fi"),
        ("a \\begin{comment} \\iffalse \\end{comment} b \\fi c", "a  b c"),
    ],
)
def test_what_is_never_set_is_not_read(tmp_path, source, text):
    (tmp_path / "a.tex").write_text(source)
    found = one(tmp_path / "a.tex")
    assert [" ".join(line.split()) for line in found.text.split("\n")] == [
        " ".join(line.split()) for line in text.split("\n")
    ]


def test_what_is_skipped_gives_neither_headings_nor_a_title(tmp_path):
    (tmp_path / "a.tex").write_text(
        "\\title{New}\n\\iffalse\n\\title{Old}\n\\begin{document}\n\\fi\n\\begin{comment}\n"
        "\\title{Older}\n\\end{comment}\n\\begin{document}\n\\section{Tides}\n\\iffalse\n"
        "\\section{Moon}\n\\input{moon}\n\\fi\nThey rise.\n\\end{document}\n"
    )
    found = one(tmp_path / "a.tex")
    assert (found.title, found.unread) == ("New", {})
    assert where(found, "They rise.") == Location(line=15, last_line=15, headings=("Tides",))
