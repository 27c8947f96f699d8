# SPDX-License-Identifier: Apache-2.0
"""Draws which packages of the suite import which: `python docs/import_graph.py`.

Writes docs/images/import_graph.svg. With `--check`, the program writes nothing and fails if the
picture is not current; with `--longest N`, it lists the longest functions of the suite instead.
"""

from __future__ import annotations

import argparse
import ast
import sys
import textwrap
from pathlib import Path
from typing import Dict
from typing import List
from typing import Mapping
from typing import NamedTuple
from typing import Optional
from typing import Sequence
from typing import Set
from typing import Tuple

ROOT = Path(__file__).resolve().parent.parent
SUITE = ROOT / "examples" / "wgangp"
PICTURE = ROOT / "docs" / "images" / "import_graph.svg"
# From top to bottom. A package imports from lower layers only; `training` may also use `measures`.
LAYERS = (
    ("scripts",),
    ("modes",),
    ("training", "measures"),
    ("functions",),
    ("networks", "data", "pages"),
    ("kernels",),
    ("support",),
)
Graph = Dict[str, Set[str]]  # The modules that each module imports


class Function(NamedTuple):
    """A function and its place; `lines` includes the docstring."""

    lines: int
    path: Path
    number: int
    name: str


def list_modules(suite: Path = SUITE) -> Dict[str, Path]:
    """The modules of the suite by their dotted names, without the empty ones of packages."""
    modules = {}
    for path in sorted(suite.rglob("*.py")):
        if path.name != "__init__.py":
            modules[".".join(path.relative_to(suite).with_suffix("").parts)] = path
    return modules


def find_package(module: str) -> str:
    """The package of a module: its folder, or "functions", or "scripts"."""
    package, dot, _ = module.partition(".")
    return package if dot or package == "functions" else "scripts"


def find_imports(source: str, modules: Mapping[str, Path]) -> Set[str]:
    """The modules of the suite that a module imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names & set(modules)


def read_graph(suite: Path = SUITE) -> Graph:
    """The imports of each module of the suite."""
    modules = list_modules(suite)
    return {
        name: find_imports(path.read_text(encoding="utf-8"), modules)
        for name, path in modules.items()
    }


def find_package_imports(graph: Graph) -> Set[Tuple[str, str]]:
    """Pairs of an importing package and the package that it imports from."""
    pairs = {
        (find_package(module), find_package(imported))
        for module, imports in graph.items()
        for imported in imports
    }
    return {(package, imported) for package, imported in pairs if package != imported}


def list_functions(suite: Path = SUITE) -> List[Function]:
    """All functions and methods of the suite, the longest first."""
    functions = []
    for path in list_modules(suite).values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                functions.append(Function(lines, path, node.lineno, node.name))
    return sorted(functions, key=lambda function: (-function.lines, function.path, function.number))


# The picture: a box for each package, and to the right of them a vertical line for each one that
# others import. An importing package has a dot on that line; the line ends in an arrow. Fills and
# lines have medium brightness, so that they are visible on white and on dark pages.
MARGIN, BOX_WIDTH, LANE_WIDTH = 12, 520, 26
TITLE_HEIGHT, LINE_HEIGHT, PACKAGE_GAP, LAYER_GAP = 26, 17, 8, 24
COLUMNS = 80  # Characters in a line of a box
COLOURS = {
    "scripts": "#7a4f9a",
    "modes": "#9a4f6e",
    "training": "#a8481f",
    "measures": "#8a5f16",
    "functions": "#66701f",
    "networks": "#2f7a4f",
    "data": "#1f7a6b",
    "pages": "#54606e",
    "kernels": "#1f6f8f",
    "support": "#3f5fae",
}
FUNCTIONS = "the paper's networks, formulas and losses, readers, Inception Score"


def place_packages(graph: Graph) -> Tuple[Dict[str, Tuple[int, int, List[str], str]], int]:
    """The boxes of the packages.

    Returns:
        ({package: (top, height, lines of text, colour)}, height of the picture).
    """
    boxes, top = {}, MARGIN
    for layer in LAYERS:
        for package in layer:
            names = [name.rpartition(".")[2] for name in graph if find_package(name) == package]
            text = FUNCTIONS if package == "functions" else ", ".join(names)
            lines = textwrap.wrap(text, COLUMNS)
            height = TITLE_HEIGHT + LINE_HEIGHT * len(lines) + 4
            boxes[package] = top, height, lines, COLOURS[package]
            top += height + PACKAGE_GAP
        top += LAYER_GAP - PACKAGE_GAP
    return boxes, top - LAYER_GAP + MARGIN


def draw_box(package: str, top: int, height: int, lines: Sequence[str], colour: str) -> List[str]:
    """The SVG elements of a package's box."""
    title = {"scripts": "scripts", "functions": "functions.py"}.get(package, f"{package}/")
    elements = [
        f'<rect x="{MARGIN}" y="{top}" width="{BOX_WIDTH}" height="{height}" rx="5" '
        f'fill="{colour}"/>',
        f'<text x="{MARGIN + 10}" y="{top + 18}" font-weight="bold">{title}</text>',
    ]
    for number, line in enumerate(lines):
        y = top + TITLE_HEIGHT + LINE_HEIGHT * number + 9
        elements.append(f'<text x="{MARGIN + 10}" y="{y}" font-size="12">{line}</text>')
    return elements


def draw_lane(number: int, target: Tuple[int, int, str], sources: Sequence[int]) -> List[str]:
    """The SVG elements of the line of an imported package.

    Args:
        number: The line's place, counted from the boxes.
        target: Top, height and colour of the imported package's box.
        sources: Heights at which importing packages join the line.
    """
    top, height, colour = target
    edge, x = MARGIN + BOX_WIDTH, MARGIN + BOX_WIDTH + LANE_WIDTH * (number + 1)
    end = top + height // 2
    path = f"M{x} {min(sources)}V{end}H{edge + 9}"
    joins = "".join(f"M{edge} {y}H{x}" for y in sources)
    elements = [f'<path d="{joins}{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    elements += [f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>' for y in sources]
    arrow = f"M{edge + 1} {end}l10 -5v10z"
    return [*elements, f'<path d="{arrow}" fill="{colour}"/>']


def draw(graph: Graph) -> str:
    """The picture as SVG."""
    boxes, height = place_packages(graph)
    pairs = find_package_imports(graph)
    packages = list(boxes)
    targets = [package for package in packages if any(imported == package for _, imported in pairs)]
    width = 2 * MARGIN + BOX_WIDTH + LANE_WIDTH * (len(targets) + 1) - LANE_WIDTH // 2
    elements = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-size="14" fill="#ffffff" '
        'font-family="Helvetica, Arial, sans-serif">',
        "<title>Which packages of examples/wgangp import which</title>",
    ]
    for package, (top, box_height, lines, colour) in boxes.items():
        elements += draw_box(package, top, box_height, lines, colour)
    for number, target in enumerate(targets):
        sources = []
        for package in packages:
            if (package, target) in pairs:
                top, box_height, *_ = boxes[package]
                # Each line leaves a box at a height of its own, so that lines do not overlap.
                share = (number + 1) / (len(targets) + 1)
                sources.append(round(top + box_height * share))
        top, box_height, _, colour = boxes[target]
        elements += draw_lane(number, (top, box_height, colour), sources)
    return "\n".join([*elements, "</svg>"]) + "\n"


def main(words: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="fail if the picture is not current")
    parser.add_argument("--longest", type=int, metavar="N", help="list the N longest functions")
    options = parser.parse_args(words)
    if options.longest is not None:
        for function in list_functions()[: options.longest]:
            place = f"{function.path.relative_to(ROOT)}:{function.number}"
            print(f"{function.lines:4}  {place}  {function.name}")
        return
    picture = draw(read_graph())
    if options.check:
        if not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != picture:
            sys.exit(f"{PICTURE} is not current: `python docs/import_graph.py` draws it.")
        return
    PICTURE.write_text(picture, encoding="utf-8")
    print(f"Wrote {PICTURE}")


if __name__ == "__main__":
    main()
