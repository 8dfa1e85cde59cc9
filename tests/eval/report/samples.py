"""Pages such as evaluations and audits write, made from a seed: every kind of table and plot."""

from pathlib import Path
from random import Random

import numpy as np

from dewey_embed.eval.result_page import Column, Machine, Plot, ResultPage, Series, Table

MACHINE = Machine(
    processor="AMD EPYC 9R14", capability="AVX512", cores=2, threads=2, device="cpu",
    dtype="bfloat16",
)  # fmt: skip
VERSIONS = {"Python": "3.11.7", "dewey-embed": "0.1.0", "torch": "2.13.0+cpu", "mteb": "2.26.24"}
LENGTHS = [2.0**power for power in range(10, 18)]
TASKS = {
    "LEMBNarrativeQARetrieval": 10449, "LEMBQMSumRetrieval": 1527, "LEMBSummScreenFDRetrieval": 336,
    "LEMBWikimQARetrieval": 300, "fairytaleqa": 1007, "narrativeqa_books": 612, "qasper": 1372,
    "legal_cases": 420, "coffee_stackexchange": 288, "pubmed_long": 511, "passkey": 400,
}  # fmt: skip
CONTENDERS = ("mini single", "mini multi", "mini hybrid", "BM25", "teacher, truncated",
              "teacher, mean of windows", "teacher by chunk")  # fmt: skip


def findings(**values) -> ResultPage:
    """A page whose machine, versions, date and command are always the same."""
    return ResultPage(
        **{"machine": MACHINE, "versions": VERSIONS, "date": "2026-11-23", "title": values["name"]}
        | {"command": f"dewey audit {values['kind']} mini --data ../shared/data"}
        | values
    )


def evaluation() -> ResultPage:
    """Eleven tasks, eight columns of figures, one of them with gaps."""
    rng = Random(4)
    rows = []
    for task, queries in TASKS.items():
        scores = [rng.betavariate(8, 5) for _ in CONTENDERS]
        if task == "passkey":
            scores[4] = scores[6] = None
        rows.append((task, queries, *scores))
    means = [0.548, 0.631, 0.702, 0.655, 0.412, 0.523, 0.618]
    return findings(
        kind="eval",
        name="offline",
        title="Every task under ../shared/data/eval",
        command="dewey eval mini --suite ../shared/data/eval --mode all --against bm25",
        summary="Means over 10 tasks: mini hybrid 0.702, BM25 0.655, mini multi 0.631. One vector "
        "for a whole document is worse than one for each chunk wherever documents are longer than "
        "4,096 tokens. (These figures are made up: they test a report.)",
        tables=(
            Table(
                title="nDCG@10",
                columns=(
                    Column(name="task"),
                    Column(name="queries"),
                    *(Column(name=name, best="highest") for name in CONTENDERS),
                ),
                rows=tuple(rows),
                notes=("A dash: the teacher's window ends before the answer, so nothing was run.",),
            ),
        ),
        plots=(
            Plot(
                title="Mean nDCG@10 over 10 retrieval tasks",
                kind="bars",
                x_label="",
                y_label="nDCG@10",
                series=(
                    Series(
                        name="nDCG@10",
                        x=CONTENDERS,
                        y=tuple(means),
                        low=tuple(mean - 0.013 for mean in means),
                        high=tuple(mean + 0.012 for mean in means),
                    ),
                ),
                notes=("Intervals: 95%, over the queries of each task.",),
            ),
        ),
    )


def by_length() -> ResultPage:
    """Four lines from 1K to 128K tokens with intervals."""
    lines = {
        "narrativeqa, single": [0.81, 0.77, 0.70, 0.61, 0.50, 0.41, 0.35, 0.30],
        "narrativeqa, multi": [0.83, 0.82, 0.81, 0.79, 0.77, 0.74, 0.72, 0.69],
        "passkey, single": [0.99, 0.96, 0.83, 0.58, 0.36, 0.22, 0.15, 0.12],
        "passkey, multi": [1.00, 1.00, 1.00, 1.00, 0.99, 0.98, 0.97, 0.96],
    }
    notes = (
        "Chunks of 256 tokens, overlapping by 64; single: the document's vector; multi: its best "
        "chunk. Intervals: 95% bootstrap over queries.",
        "Longer than the model's 8,192 tokens, so read in overlapping windows: 16,384 and more.",
    )
    series = tuple(
        Series(
            name=name,
            x=tuple(LENGTHS),
            y=tuple(ys),
            low=tuple(max(0.0, y - 0.06) for y in ys),
            high=tuple(min(1.0, y + 0.05) for y in ys),
        )
        for name, ys in lines.items()
    )
    return findings(
        kind="length",
        name="length-mini",
        title="Retrieval by document length: mini",
        summary="One vector falls by 5 points at 4,096 tokens, chunk vectors at 32,768.",
        tables=(
            Table(
                title="By length",
                columns=(
                    Column(name="task and mode"),
                    Column(name="length", unit="tokens", digits=0),
                    Column(name="accuracy@1", best="highest"),
                ),
                rows=tuple(
                    (one.name, int(x), y)
                    for one in series
                    for x, y in zip(one.x, one.y, strict=True)
                ),
                notes=notes,
            ),
        ),
        plots=tuple(
            Plot(
                title=f"{measure} by document length",
                kind="line",
                x_label="document length (tokens)",
                y_label=measure,
                log_x=True,
                series=some,
                notes=notes,
            )
            for measure, some in (("Accuracy@1", series), ("nDCG@10", series[:2]))
        ),
    )


def cost() -> ResultPage:
    """Sixteen configurations as points, their front among them."""
    rng = Random(7)
    points = []
    for chunk in (64, 128, 256, 512):
        for precision, bytes_each in (("f32", 4), ("f16", 2), ("int8", 1), ("bin", 0.125)):
            size = 2.4e5 / chunk * 384 * bytes_each
            loss = {"f32": 0.0, "f16": 0.0004, "int8": 0.004, "bin": 0.041}[precision]
            score = 0.662 - abs(np.log2(chunk / 128)) * 0.012 - loss + rng.uniform(-0.003, 0.003)
            points.append((f"{chunk} {precision}", float(size), float(score)))
    points.sort(key=lambda point: point[1])
    front = []
    for point in points:
        if not front or point[2] > front[-1][2]:
            front.append(point)
    others = [point for point in points if point not in front]

    def series(name, chosen) -> Series:
        labels, x, y = zip(*chosen, strict=True)
        return Series(name=name, x=x, y=y, labels=labels)

    return findings(
        kind="cost",
        name="cost-mini",
        title="What many vectors buy and cost",
        summary="int8 is the bargain: a quarter of the bytes for 0.004 nDCG@10.",
        tables=(
            Table(
                title="Every configuration",
                columns=(
                    Column(name="configuration"),
                    Column(name="index", unit="MB", digits=2, best="lowest"),
                    Column(name="nDCG@10", best="highest"),
                    Column(name="query", unit="ms", digits=2, best="lowest"),
                ),
                rows=tuple((n, x / 1e6, y, 0.4 + x / 4e6) for n, x, y in points),
            ),
        ),
        plots=(
            Plot(
                title="Accuracy against size of the index",
                kind="points",
                x_label="bytes of the index",
                y_label="nDCG@10",
                log_x=True,
                series=(series("Pareto front", front), series("others", others)),
                notes=("Names: tokens of a chunk, and the precision of its vector.",),
            ),
            Plot(
                title="Query latency by tokens of a chunk",
                kind="bars",
                x_label="tokens of a chunk",
                y_label="milliseconds, median",
                series=tuple(
                    Series(name=name, x=(64, 128, 256, 512), y=tuple(y / k for k in (1, 2, 4, 8)))
                    for name, y in (("float32", 3.9), ("int8", 1.6))
                ),
            ),
        ),
    )


def alignment() -> ResultPage:
    """Histograms of cosines, and a curve whose middle was not measured."""
    rng = np.random.default_rng(3)
    edges = np.arange(0.3, 1.0, 0.02)
    histograms = []
    for name, mean in (("chunks of 32 tokens", 0.72), ("128 tokens", 0.81), ("256 tokens", 0.85)):
        values = np.clip(rng.normal(mean, 0.07, 5000), 0.3, 0.999)
        counts, _ = np.histogram(values, np.append(edges, 1.0))
        histograms.append(Series(name=name, x=tuple(edges.tolist()), y=tuple(map(float, counts))))
    return findings(
        kind="alignment",
        name="alignment-mini",
        title="How near student and teacher are",
        summary="Cosines between the student's chunk vectors and the teacher's.",
        plots=(
            Plot(
                title="Cosine of chunk vectors to the teacher's",
                kind="histogram",
                x_label="cosine",
                y_label="chunks",
                series=tuple(histograms),
            ),
            Plot(
                title="Cosine by position in the document",
                kind="line",
                x_label="position of the chunk",
                y_label="cosine to the teacher",
                series=(
                    Series(
                        name="mini",
                        x=("first", "second", "third", "fourth", "last"),
                        y=(0.84, 0.83, None, 0.81, 0.80),
                    ),
                ),
            ),
        ),
    )


def write_all(folder: Path) -> Path:
    """The folder, with a file for each of the findings."""
    for each in (evaluation(), by_length(), cost(), alignment()):
        each.write(folder / f"{each.name}.json")
    return folder
