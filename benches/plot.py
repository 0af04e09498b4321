#!/usr/bin/env python3
"""Draws docs/figures/cost-*.svg from the lines of JSON that `cargo bench --bench whole -- --out FILE` leaves.

usage: benches/plot.py FILE [DIRECTORY]          (docs/figures); nothing but Python's own library is needed
"""
import json
import math
import sys
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 260, 190, 40, 34
BAR, GAP = 22, 12
INK, OURS, OTHERS, LIMIT = "#333", "#2b6cb0", "#a0aec0", "#c53030"


def text(x, y, what, anchor="start", size=12, fill=INK):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{fill}">{what}</text>'


def page(height, title, *parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">'
    back = f'<rect width="{WIDTH}" height="{height}" fill="white"/>'
    return "\n".join([head, back, text(12, 20, title, size=14), *parts, "</svg>", ""])


def bars(title, unit, rows, limit=None):
    """Rows of (name, value); the limit is a line across them."""
    most = max([value for _, value in rows] + [limit or 0]) * 1.15
    across = lambda value: LEFT + (WIDTH - LEFT - 70) * value / most
    parts, y = [], TOP
    for name, value in rows:
        fill = OURS if name.startswith("ours") else OTHERS
        parts.append(text(LEFT - 8, y + 16, name, "end"))
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{across(value) - LEFT:.1f}" height="{BAR}" fill="{fill}"/>')
        parts.append(text(across(value) + 6, y + 16, f"{value:.3g} {unit}"))
        y += BAR + GAP
    if limit:
        parts.append(f'<path d="M{across(limit):.1f} {TOP - 6}V{y}" stroke="{LIMIT}" stroke-dasharray="4 3"/>')
        parts.append(text(across(limit), y + 12, f"budget {limit} {unit}", "middle", 11, LIMIT))
    return page(y + 24, title, *parts)


def curve(title, x_name, y_name, lines, logarithmic=False):
    """Lines of (name, colour, [(x, y)])."""
    scale = math.log10 if logarithmic else float
    xs = [scale(x) for _, _, points in lines for x, _ in points]
    most = max(y for _, _, points in lines for _, y in points) * 1.15
    x_at = lambda x: 70 + (WIDTH - 110) * (scale(x) - min(xs)) / ((max(xs) - min(xs)) or 1)
    y_at = lambda y: HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * y / most
    parts = [f'<path d="M70 {TOP}V{HEIGHT - BOTTOM}H{WIDTH - 40}" fill="none" stroke="{INK}"/>']
    for share in (0, 0.5, 1):
        parts.append(text(64, y_at(most * share) + 4, f"{most * share:.3g}", "end", 11))
    for x, _ in lines[0][2]:
        parts.append(text(x_at(x), HEIGHT - BOTTOM + 16, f"{x:g}", "middle", 11))
    for number, (name, colour, points) in enumerate(lines):
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(text(WIDTH - 12, TOP + 14 * number, name, "end", 12, colour))
    parts.append(text(WIDTH / 2, HEIGHT - 8, x_name, "middle"))
    parts.append(text(12, TOP - 4 + 8, y_name, size=11))
    return page(HEIGHT, title, *parts)


def main():
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    into = Path(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).resolve().parent.parent / "docs" / "figures")
    into.mkdir(parents=True, exist_ok=True)
    of = lambda part: [row for row in rows if row["part"] == part]
    drawn = {}
    if of("start"):
        drawn["start"] = bars("From exec to the first next, median", "ms",
                              [(row["program"], row["median_ms"]) for row in of("start")], 4)
    idle = [row for row in of("memory") if "idle_kb" in row]
    if idle:
        drawn["memory"] = bars("Resident memory", "MB", [
            (f"{row['program']}, {what}", row[key] / 1024)
            for row in idle for what, key in (("idle", "idle_kb"), ("67 MB burst", "burst_kb"))], 14)
    if of("cost"):
        drawn["lines"] = curve("CPU per invocation, received to delivered", "lines of 250 bytes per invocation", "ms",
                              [("all of it", OURS, [(row["lines"], row["cpu_ms_per_invocation"]) for row in of("cost")])], True)
    for name, drawing in drawn.items():
        (into / f"cost-{name}.svg").write_text(drawing)
        print(into / f"cost-{name}.svg")


if __name__ == "__main__":
    main()
