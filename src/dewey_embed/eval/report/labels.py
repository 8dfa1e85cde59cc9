"""Names beside what they name: at the ends of lines and beside points, none upon another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

GAP = 1.15
"""Distance of two names at the ends of lines, in heights of a name."""

POINT = 8
"""Pixels of half a point's width in a figure of 192 to an inch."""

SWEEPS = 3
"""How often names look for a better place, knowing where the others are."""

# Where a point's name may stand, the best places first: its anchor, and points to right and up.
PLACES = (
    ("left", "center", 7, 0), ("right", "center", -7, 0), ("center", "bottom", 0, 6),
    ("center", "top", 0, -6), ("left", "bottom", 5, 4), ("left", "top", 5, -4),
    ("right", "bottom", -5, 4), ("right", "top", -5, -4), ("left", "bottom", 6, 13),
    ("left", "top", 6, -13), ("right", "bottom", -6, 13), ("right", "top", -6, -13),
)  # fmt: skip


def plain(text: str, longest: int = 200) -> str:
    """Text in one line without control characters, which SVG may not hold; cut where too long."""
    words = "".join(char if char.isprintable() else " " for char in text).split()
    line = " ".join(words)
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places at least `gap` apart and in their order, as near to those wanted as a sweep finds.

    They stay between `low` and `high` where there is room for all.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    found = list(places)
    for before, i in zip([None, *order], order, strict=False):
        floor = low if before is None else found[before] + gap
        found[i] = max(found[i], floor)
    for after, i in zip([None, *reversed(order)], reversed(order), strict=False):
        ceiling = high if after is None else found[after] - gap
        found[i] = min(found[i], ceiling)
    return found


def separate_ends(axes: Axes, names: Sequence[Annotation]) -> None:
    """Nothing; names at the right edge then stand apart. Needs a figure that is laid out."""
    if not names:
        return
    whole = axes.get_window_extent()
    height = max(name.get_window_extent().height for name in names)
    wanted = [float(axes.transData.transform((0, name.xy[1]))[1]) for name in names]
    placed = spread(wanted, GAP * height, whole.y0 + height / 2, whole.y1 - height / 2)
    to_data = axes.transData.inverted()
    for name, place in zip(names, placed, strict=True):
        x, _ = name.xy
        name.xy = (x, float(to_data.transform((0, place))[1]))


def place_beside_points(axes: Axes, names: Sequence[Annotation]) -> None:
    """Nothing; each name then stands where it hides least. Needs a figure that is laid out."""
    points = [axes.transData.transform(name.xy) for name in names]
    boxes: dict[int, Bbox] = {}
    for _ in range(SWEEPS):
        for own, name in enumerate(names):
            others = [point for number, point in enumerate(points) if number != own]
            taken = [box for number, box in boxes.items() if number != own]
            costs = [_cost(axes, name, place, others, taken) for place in PLACES]
            _put(name, PLACES[costs.index(min(costs))])
            boxes[own] = name.get_window_extent()


def _put(name: Annotation, place: tuple[str, str, int, int]) -> None:
    across, along, right, up = place
    name.set(ha=across, va=along)
    name.xyann = (right, up)


def _cost(
    axes: Axes,
    name: Annotation,
    place: tuple[str, str, int, int],
    points: Sequence[Any],
    taken: Sequence[Bbox],
) -> float:
    """How much a name would hide at a place: points, other names; outside the axes is worst."""
    _put(name, place)
    box = name.get_window_extent()
    whole = axes.get_window_extent()
    outside = max(whole.x0 - box.x0, box.x1 - whole.x1, whole.y0 - box.y0, box.y1 - whole.y1, 0.0)
    apart, around = box.padded(3), box.padded(POINT)
    hidden_names = sum(apart.overlaps(other) for other in taken)
    hidden_points = sum(bool(around.contains(x, y)) for x, y in points)
    return 5 * float(outside) + 100 * hidden_names + 60 * hidden_points
