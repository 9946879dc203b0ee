"""Draw the house: the rooms and what they import, read from the source as it is.

    python docs/house.py            # writes docs/images/house.svg

Needs nothing but Python. A test draws it again and compares, so the picture in CONTRIBUTING is never that of yesterday.
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ignite_lr"
# from the roof to the ground, each with a word on who lives there
FLOORS = [
    {"report": "one page of a run"},
    {"lr_finder": "a sweep of rates", "study": "trials and findings"},
    {
        "range_test": "the result of a sweep",
        "dry_run": "training without trace",
        "scheduler": "applies schedules",
        "clipper": "limits gradients",
        "logger": "records rates",
    },
    {"suggestion": "rules that read a curve", "schedules": "update to factor"},
    {"core": "host reads, Ignite's engine, updates, checks, rates, figures: under every room but suggestion"},
]
WIDTH, HEIGHT, GAP = 150, 62, 22
ACROSS, DOWN = WIDTH + GAP, HEIGHT + 64
MARGIN = 16


def rooms() -> list[str]:
    return sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def imported(room: str) -> set[str]:
    """The rooms that the files of a room import."""
    found = set()
    for path in (PACKAGE / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ignite_lr"):
                parts = (node.module or "").split(".")
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found & set(rooms()) - {room}


def positions() -> dict[str, tuple[float, float]]:
    """The upper left corner of each room. Every floor is centred, ``core`` lies under all of them."""
    here = set(rooms())
    floors = [[room for room in floor if room in here] for floor in FLOORS]
    if missing := here - {room for floor in floors for room in floor}:
        raise SystemExit(f"no place on a floor for {', '.join(sorted(missing))}: add it to FLOORS")
    widest = max(len(floor) for floor in floors)
    return {
        room: (MARGIN + ((widest - len(floor)) / 2 + column) * ACROSS, MARGIN + row * DOWN)
        for row, floor in enumerate(floors)
        for column, room in enumerate(floor)
    }


def arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    """From the lower edge of a room to the upper edge of one below it."""
    x, y = start[0] + WIDTH / 2, start[1] + HEIGHT
    to_x, to_y = end[0] + WIDTH / 2, end[1] - 4
    middle = (y + to_y) / 2
    return f'<path d="M{x:g} {y:g} C{x:g} {middle:g} {to_x:g} {middle:g} {to_x:g} {to_y:g}" marker-end="url(#tip)"/>'


def draw() -> str:
    places = positions()
    width = max(x for x, _ in places.values()) + WIDTH + MARGIN
    height = max(y for _, y in places.values()) + HEIGHT + MARGIN
    base = places["core"][1]
    arrows, boxes = [], []
    for room, place in places.items():
        if room == "core":
            continue
        arrows += [arrow(place, places[other]) for other in sorted(imported(room) - {"core"})]
        boxes.append(box(room, *place, WIDTH))
    boxes.append(box("core", MARGIN, base, width - 2 * MARGIN))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img"
 font-family="system-ui, sans-serif" font-size="13" text-anchor="middle">
<title>The rooms of ignite_lr and what they import</title>
<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto"
><path d="M0 0L7 3L0 6z" fill="#4051b5"/></marker></defs>
<rect width="100%" height="100%" rx="8" fill="white"/>
<g fill="none" stroke="#4051b5" stroke-width="1.3" opacity="0.75">
{chr(10).join(arrows)}
</g>
{chr(10).join(boxes)}
</svg>
"""


def box(room: str, x: float, y: float, width: float) -> str:
    middle = x + width / 2
    [label] = (floor[room] for floor in FLOORS if room in floor)
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{HEIGHT}" rx="6" fill="#eef0fb" stroke="#4051b5"/>'
        f'<text x="{middle:g}" y="{y + 27:g}" font-weight="600">{room}</text>'
        f'<text x="{middle:g}" y="{y + 46:g}" font-size="11" fill="#444">{escape(label)}</text>'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "house.svg")
    output = parser.parse_args().output
    output.write_text(draw(), encoding="utf-8")
    print(output)


if __name__ == "__main__":
    main()
