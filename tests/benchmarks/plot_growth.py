"""Draws a growth record as one SVG: time over tokens, and memory over queued requests.

``python -m tests.benchmarks.plot_growth RECORD`` writes the picture beside the record, from the
record alone.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 460, 380
LEFT, TOP, BOTTOM = 64, 56, 48
INK, GREY, GRID = "#1f2328", "#6a737d", "#e3e6ea"
COLOURS = ("#1f6fb4", "#c8541b", "#2f8f5b")
Points = Sequence[tuple[float, float]]


class Linear:
    """A scale from zero to pixels."""

    def __init__(self, high: float, start: float, end: float) -> None:
        self.step = next(s for s in (1, 2, 5, 10, 20, 50, 100) if high / s <= 6)
        self.high = self.step * math.ceil(high / self.step)
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        return self.start + value / self.high * (self.end - self.start)

    def ticks(self) -> list[float]:
        """From zero on, at even steps."""
        return [float(n) for n in range(0, self.high + 1, self.step)]


class Axis:
    """A logarithmic scale from data to pixels."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low = math.floor(math.log10(low))
        self.high = max(self.low + 1, math.ceil(math.log10(high)))
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Powers of ten."""
        return [10.0**n for n in range(self.low, self.high + 1)]


def text(x: float, y: float, words: str, *, size: int = 12, colour: str = INK, **more: str) -> str:
    fields = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}"{fields}>{words}</text>'
    )


def panel(
    at: float,
    title: str,
    lines: Sequence[tuple[str, Points, str]],
    labels: tuple[str, str],
    *,
    linear: bool = False,
) -> tuple[list[str], Axis, Axis | Linear]:
    """A frame with grid, lines with dots, and each line's name at its end."""
    points = [point for _, line, _ in lines for point in line]
    across = Axis(min(x for x, _ in points), max(x for x, _ in points), at + LEFT, at + WIDTH - 24)
    low, high = min(y for _, y in points), max(y for _, y in points)
    bottom = HEIGHT - BOTTOM
    up = Linear(high, bottom, TOP) if linear else Axis(low, high, bottom, TOP)
    parts = [text(at + LEFT, 28, title, size=14, font_weight="600")]
    for x in across.ticks():
        px = across(x)
        parts.append(f'<path d="M{px:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{GRID}"/>')
        words = plain(x)
        parts.append(
            text(px, HEIGHT - BOTTOM + 17, words, size=11, colour=GREY, text_anchor="middle")
        )
    for y in up.ticks():
        py = up(y)
        parts.append(f'<path d="M{at + LEFT} {py:.1f}H{at + WIDTH - 24}" stroke="{GRID}"/>')
        words = plain(y)
        parts.append(text(at + LEFT - 8, py + 4, words, size=11, colour=GREY, text_anchor="end"))
    for _, line, colour in lines:
        path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in line)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{colour}"/>'
            for x, y in line
        ]
    middle = at + (LEFT + WIDTH - 24) / 2
    parts.append(text(middle, HEIGHT - 10, labels[0], colour=GREY, text_anchor="middle"))
    parts.append(text(at + LEFT, 46, labels[1], size=11, colour=GREY))
    return parts, across, up


def legend(at: float, top: float, names: Sequence[tuple[str, str]]) -> list[str]:
    parts = []
    for number, (name, colour) in enumerate(names):
        y = top + 17 * number
        parts.append(f'<path d="M{at} {y - 4}h18" stroke="{colour}" stroke-width="2"/>')
        parts.append(text(at + 24, y, name, size=11))
    return parts


def plain(value: float) -> str:
    """1, 10, 1k, 10k, 1M; below 1 as a decimal."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def draw(record: dict[str, Any]) -> str:
    """The picture of one record."""
    rows, slopes = record["rows"], record["says"]["time_exponent"]
    words = {
        "requests": "requests of 5 tokens",
        "completion": "8 completions, stop strings watched",
        "prompt": "one prompt, read in chunks",
    }
    times = [
        (name, [(r["tokens"], r["cpu_s"]) for r in rows if r.get("grows") == name], colour)
        for name, colour in zip(words, COLOURS, strict=True)
    ]
    parts, across, up = panel(
        0, "Time grows with tokens", times, ("tokens", "CPU seconds, one core")
    )
    x = [p for p, _ in times[0][1]]
    y0 = times[0][1][-1][1] / x[-1]
    guide = f"M{across(x[0]):.1f} {up(y0 * x[0]):.1f}L{across(x[-1]):.1f} {up(y0 * x[-1]):.1f}"
    parts.append(f'<path d="{guide}" stroke="{GREY}" stroke-dasharray="3 4" fill="none"/>')
    shown = {n: "unknown" if slope is None else f"{slope:.2f}" for n, slope in slopes.items()}
    named = [(f"{words[n]}: slope {shown[n]}", c) for n, _, c in times]
    parts += legend(LEFT + 12, TOP + 16, [*named, ("slope 1", GREY)])

    queued = [r for r in rows if "queued" in r]
    kinds = list(dict.fromkeys(r["kind"] for r in queued))
    memory = [
        (kind, [(r["queued"], r["peak_bytes"] / 1e6) for r in queued if r["kind"] == kind], colour)
        for kind, colour in zip(kinds, COLOURS, strict=False)
    ]
    given = [(r["queued"], r["given_bytes"] / 1e6) for r in queued if r["kind"] == kinds[-1]]
    held = ("the requests themselves, which the caller holds", given, GREY)
    more, _, _ = panel(
        WIDTH,
        "Memory with queued requests",
        [*memory, held],
        ("requests queued", "MB of resident memory at the peak, answers dropped as they come"),
        linear=True,
    )
    parts += more
    parts += legend(
        WIDTH + LEFT + 12,
        TOP + 16,
        [(f"engine, requests {kind}", colour) for kind, _, colour in memory] + [(held[0], GREY)],
    )
    size = f'width="{2 * WIDTH}" height="{HEIGHT}" viewBox="0 0 {2 * WIDTH} {HEIGHT}"'
    font = 'font-family="system-ui, sans-serif"'
    background = f'<rect width="{2 * WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>\n{background}\n{body}\n</svg>\n'


def main() -> int:
    path = Path(sys.argv[1])
    path.with_suffix(".svg").write_text(draw(json.loads(path.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
