"""Draws a table of figures as grouped bars on a logarithmic scale: an SVG of plain shapes and text, no library."""

import math
from xml.sax.saxutils import escape

COLOURS = ("#b7410e", "#e08e45", "#5b3a8c", "#a48ad4", "#4c6272", "#9bb0bd")
WIDTH, LEFT, RIGHT = 900, 290, 60
BAR, GAP, TOP = 11, 12, 78


def svg(title: str, subtitle: str, contenders: list[str], figures: dict[str, list]) -> str:
    """`figures` has a value for each contender, or None, by the name of the work."""
    values = [value for row in figures.values() for value in row if value]
    if not values:
        raise ValueError("nothing was measured that could be drawn")
    low = 10 ** math.floor(math.log10(min(values)))
    high = 10 ** math.ceil(math.log10(max(values)))
    scale = (WIDTH - LEFT - RIGHT) / (math.log10(high) - math.log10(low) or 1)

    def x(value: float) -> float:
        return LEFT + (math.log10(value) - math.log10(low)) * scale

    group = BAR * len(contenders) + GAP
    height = TOP + group * len(figures) + 24
    shapes = [text(16, 24, title, 16, weight="bold"), text(16, 42, subtitle, 11, "#666")]
    at = 16
    for contender, colour in zip(contenders, COLOURS):
        shapes += [rectangle(at, 52, 10, 10, colour), text(at + 14, 61, contender, 11)]
        at += 30 + 7 * len(contender)
    decade = low
    while decade <= high:
        shapes.append(f'<line x1="{x(decade):.1f}" x2="{x(decade):.1f}" y1="{TOP}" y2="{height - 20}" stroke="#ddd"/>')
        shapes.append(text(x(decade), height - 8, f"{decade:g}", 10, "#666", "middle"))
        decade *= 10
    for number, (work, row) in enumerate(figures.items()):
        y = TOP + number * group + GAP / 2
        shapes.append(text(LEFT - 8, y + (group - GAP) / 2 + 4, work, 11, anchor="end"))
        for place, (value, colour) in enumerate(zip(row, COLOURS)):
            if value:
                shapes.append(rectangle(LEFT, y + place * BAR, x(value) - LEFT, BAR - 1, colour))
                shapes.append(text(x(value) + 4, y + place * BAR + 9, f"{value:.2f}", 9, "#333"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif">'
    ground = rectangle(0, 0, WIDTH, height, "#fff")
    return "\n".join([head, ground, *shapes, "</svg>"]) + "\n"


def rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" fill="{colour}"/>'


def text(x: float, y: float, words: str, size: int, colour="#111", anchor="start", weight="normal") -> str:
    style = f'font-size="{size}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'
