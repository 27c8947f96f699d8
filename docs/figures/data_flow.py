# SPDX-License-Identifier: Apache-2.0
"""Draws which data flow through both networks in a step of the critic and of the generator.

`python docs/figures/data_flow.py` writes docs/images/data_flow.svg. With `--check`, the program
writes nothing and fails if the picture is not current.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List
from typing import NamedTuple
from typing import Tuple

PICTURE = Path(__file__).resolve().parents[1] / "images" / "data_flow.svg"
WIDTH, HEIGHT, STEP = 700, 316, 208  # of the drawing, and from the first step to the second
# Fills that white text is readable on, and a stroke that is visible on white and on dark pages
TRAINED, FROZEN, DATA, LOSS = "#2b62b8", "#6b7280", "#8a5a12", "#9a3f6e"
LINE = "#858b95"


class Box(NamedTuple):
    """A box: its middle, width, lines of text, fill, and whether its corners are round."""

    x: float
    y: float
    width: float
    lines: Tuple[str, ...]
    fill: str
    is_data: bool = False


class Arrow(NamedTuple):
    """An arrow through points."""

    points: Tuple[Tuple[float, float], ...]


class Label(NamedTuple):
    """Text outside of boxes, around its middle."""

    x: float
    y: float
    text: str


def data(x: float, y: float, *lines: str, width: float = 92) -> Box:
    return Box(x, y, width, lines, DATA, True)


def draw_box(box: Box) -> List[str]:
    height = 15 * len(box.lines) + 13
    radius = height / 2 if box.is_data else 4
    left, top = box.x - box.width / 2, box.y - height / 2
    parts = [
        f'<rect x="{left:g}" y="{top:g}" width="{box.width:g}" height="{height}" '
        f'rx="{radius:g}" fill="{box.fill}"/>'
    ]
    for number, line in enumerate(box.lines):
        weight = ' font-weight="bold"' if number == 0 else ' font-size="12"'
        parts.append(f'<text x="{box.x:g}" y="{top + 19 + 15 * number:g}"{weight}>{line}</text>')
    return parts


def draw_label(label: Label) -> List[str]:
    place = f'x="{label.x:g}" y="{label.y + 5:g}"'
    return [f'<text {place} font-weight="bold" fill="{LINE}">{label.text}</text>']


def draw_arrow(arrow: Arrow) -> List[str]:
    path = " L".join(f"{x:g},{y:g}" for x, y in arrow.points)
    stroke = f'fill="none" stroke="{LINE}" stroke-width="2" marker-end="url(#tip)"'
    return [f'<path d="M{path}" {stroke}/>']


def critic_step() -> List:
    """The critic's step: fakes come without a graph, and D judges three kinds of samples."""
    return [
        data(60, 60, "z", "noise"),
        Box(180, 60, 92, ("G", "frozen"), FROZEN),
        data(310, 60, "x̃", "generated"),
        data(310, 170, "x", "real"),
        data(310, 115, "x̂ = x + α (x̃ − x)", "α ∼ U[0, 1], one a sample", width=176),
        Box(480, 115, 70, ("D", "trained"), TRAINED),
        Box(618, 82, 150, ("E[D(x̃)] − E[D(x)]",), LOSS),
        Box(618, 148, 150, ("λ E[(‖∇D(x̂)‖ − 1)²]",), LOSS),
        Label(618, 115, "+"),
        Label(618, 182, "loss of D"),
        Arrow(((106, 60), (132, 60))),
        Arrow(((226, 60), (262, 60))),
        Arrow(((310, 82), (310, 93))),
        Arrow(((310, 148), (310, 138))),
        Arrow(((356, 60), (444, 100))),
        Arrow(((398, 115), (443, 115))),
        Arrow(((356, 170), (444, 130))),
        Arrow(((515, 108), (541, 90))),
        Arrow(((515, 122), (541, 140))),
    ]


def generator_step() -> List:
    """The generator's step: the frozen critic computes its loss."""
    return [
        data(60, 60, "z", "noise"),
        Box(180, 60, 92, ("G", "trained"), TRAINED),
        data(310, 60, "x̃", "generated"),
        Box(480, 60, 70, ("D", "frozen"), FROZEN),
        Box(618, 60, 150, ("−E[D(x̃)]",), LOSS),
        Label(618, 94, "loss of G"),
        Arrow(((106, 60), (132, 60))),
        Arrow(((226, 60), (262, 60))),
        Arrow(((356, 60), (443, 60))),
        Arrow(((515, 60), (541, 60))),
    ]


DRAW = {Box: draw_box, Label: draw_label, Arrow: draw_arrow}


def draw() -> str:
    """The picture, an SVG document."""
    steps = {"Critic step (n_critic times)": critic_step(), "Generator step": generator_step()}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" font-size="14" text-anchor="middle" fill="#ffffff" '
        'font-family="Helvetica, Arial, sans-serif">',
        "<title>Data flow of a critic step and of a generator step</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="5" '
        'markerHeight="5" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{LINE}"/></marker></defs>',
    ]
    for number, (title, shapes) in enumerate(steps.items()):
        head = f'x="10" y="20" text-anchor="start" font-weight="bold" fill="{LINE}"'
        parts.append(f'<g transform="translate(0 {number * STEP})">\n<text {head}>{title}</text>')
        for shape in shapes:
            parts += DRAW[type(shape)](shape)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether it is current")
    options = parser.parse_args()
    picture = draw()
    if not options.check:
        PICTURE.write_text(picture, encoding="utf-8")
    elif not PICTURE.is_file() or PICTURE.read_text(encoding="utf-8") != picture:
        sys.exit(f"{PICTURE} is not current: run python docs/figures/data_flow.py.")


if __name__ == "__main__":
    main()
