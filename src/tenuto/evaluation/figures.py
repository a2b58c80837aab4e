"""Drawings of the report as inline SVG that follows the page's colours, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tenuto.evaluation.curve import Point, Quantity

if TYPE_CHECKING:  # matplotlib takes a second to import, and most commands draw nothing
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLACEHOLDERS = {"#010203": "var(--ink)", "#020304": "var(--faint)", "#030405": "var(--rule)", "#050607": "var(--card)"}
"""Colours that matplotlib is given -> CSS variables that they become."""
INK, FAINT, RULE, CARD = PLACEHOLDERS
ARM_COLOURS = {"plain": "#060708", "held": "#070809", "base": "#08090a"}
OTHER_COLOURS = tuple(f"#0{n}0{n}0{n}" for n in range(1, 9))
_OTHER_NAMES = ("third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
PLACEHOLDERS |= {shade: f"var(--{arm})" for arm, shade in ARM_COLOURS.items()}
PLACEHOLDERS |= {shade: f"var(--{name})" for shade, name in zip(OTHER_COLOURS, _OTHER_NAMES, strict=True)}
LABELLED = 3
"""Up to so many arms have their names beside their points; more get a legend."""


def colour(arm: str, others: Sequence[str] = ()) -> str:
    """The placeholder colour of an arm; arms beyond the usual ones take turns."""
    rest = [name for name in others if name not in ARM_COLOURS]
    return ARM_COLOURS.get(arm) or OTHER_COLOURS[(rest.index(arm) if arm in rest else 0) % len(OTHER_COLOURS)]


def to_svg(figure: Figure, label: str) -> str:
    """An accessible <svg> without fixed size, colours replaced by the page's variables. The same figure gives the
    same text."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    prefix = re.sub(r"[^a-z]", "", label.lower())[:24]
    svg = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 role="img" aria-label="{label}"', svg, count=1)
    svg = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px; font-family: inherit", svg)
    for colour_code, variable in PLACEHOLDERS.items():
        svg = svg.replace(colour_code, variable)
    return svg


def axes(width: float = 6.2, height: float = 3.9) -> tuple[Figure, Axes]:
    """An empty drawing in the report's dress."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    plot = figure.add_subplot()
    for side in ("top", "right"):
        plot.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        plot.spines[side].set_color(RULE)
    plot.tick_params(colors=FAINT, labelcolor=FAINT, length=3, labelsize=9)
    plot.grid(True, color=RULE, linewidth=0.6)
    plot.set_axisbelow(True)
    return figure, plot


def at(point: Point, name: str) -> float:
    """A number of a point that is known to be there."""
    return float(getattr(point, name))


def curve_figure(curves: Mapping[str, Sequence[Point]], quantity: Quantity, xlabel: str, ylabel: str) -> str | None:
    """A quantity against concept strength: a line through each arm's checkpoints, a thin one through its strengths."""
    usable = {
        arm: [p for p in points if p.concept is not None and getattr(p, quantity) is not None]
        for arm, points in curves.items()
    }
    if not any(len(points) > 1 for points in usable.values()):
        return None
    figure, plot = axes()
    for arm, points in usable.items():
        shade = colour(arm, list(curves))
        for place, seed in enumerate(sorted({p.seed for p in points})):
            mine = [p for p in points if p.seed == seed]
            last = max(p.step for p in mine)
            full = sorted((p for p in mine if p.strength == 1.0), key=lambda p: p.step)
            turned = sorted((p for p in mine if p.step == last), key=lambda p: p.strength)
            alpha = 1.0 if place == 0 else 0.35
            for line, style, width in ((full, "-", 1.8), (turned, ":", 1.4)):
                plot.plot(
                    [at(p, "concept") for p in line],
                    [at(p, quantity) for p in line],
                    style,
                    color=shade,
                    lw=width,
                    alpha=alpha,
                )
            for line, marker, size in ((full[:-1], "o", 4), ([p for p in turned if p.strength != 1.0], "o", 3)):
                fill = shade if size == 4 else CARD
                plot.plot(
                    [at(p, "concept") for p in line],
                    [at(p, quantity) for p in line],
                    marker,
                    ms=size,
                    mfc=fill,
                    color=shade,
                    alpha=alpha,
                )
            if full:
                x, y = at(full[-1], "concept"), at(full[-1], quantity)
                plot.plot([x], [y], "D", ms=7, color=shade, mec=CARD, mew=1.2, alpha=alpha)
                if place == 0 and len(usable) > LABELLED:
                    plot.plot([], [], "D-", ms=5, color=shade, label=arm)
                elif place == 0:
                    plot.annotate(
                        f"{arm}, weight 1",
                        (x, y),
                        textcoords="offset points",
                        xytext=(9, 5),
                        fontsize=9.5,
                        color=shade,
                    )
    if len(usable) > LABELLED:
        plot.legend(frameon=False, fontsize=8, labelcolor=INK)
    plot.set_xlabel(xlabel, color=INK, fontsize=10)
    plot.set_ylabel(ylabel, color=INK, fontsize=10)
    plot.margins(x=0.16, y=0.1)
    plot.set_ylim(bottom=0)
    return to_svg(figure, f"{quantity} against concept strength")


def learning_figure(series: Mapping[str, Sequence[tuple[float, float]]], label: str, smooth: int = 1) -> str | None:
    """Something in the training log over updates, one line per arm, lightly smoothed."""
    usable = {arm: [point for point in points if point[1] == point[1]] for arm, points in series.items()}
    if not any(len(points) > 1 for points in usable.values()):
        return None
    figure, plot = axes(4.1, 2.5)
    for arm, points in usable.items():
        if len(points) < 2:
            continue
        shade = colour(arm, list(series))
        window = max(1, len(points) // 30) if smooth else 1
        values = [y for _, y in points]
        mean = [
            sum(values[max(0, n - window) : n + window + 1]) / len(values[max(0, n - window) : n + window + 1])
            for n in range(len(values))
        ]
        step = max(1, len(points) // 400)
        plot.plot([x for x, _ in points][::step], values[::step], color=shade, lw=0.6, alpha=0.25)
        plot.plot([x for x, _ in points][::step], mean[::step], color=shade, lw=1.7, label=arm)
    plot.set_title(label, color=INK, fontsize=10, loc="left")
    plot.set_xlabel("updates", color=FAINT, fontsize=9)
    legend = plot.legend(frameon=False, fontsize=9, labelcolor=INK)
    legend.set_in_layout(False)
    return to_svg(figure, f"{label} during training")


def strip_figure(
    parts: Mapping[str, Mapping[str, Sequence[float]]], what: str, label: str, limit: float | None
) -> str | None:
    """A reading along the weight strip, one line per arm."""
    usable = {arm: part for arm, part in parts.items() if part.get(what)}
    if not usable:
        return None
    figure, plot = axes(4.1, 2.5)
    for arm, part in usable.items():
        plot.plot(part["strengths"], part[what], "-o", ms=3, lw=1.7, color=colour(arm, list(parts)), label=arm)
    if limit is not None:
        plot.axhline(limit, color=FAINT, lw=1, ls="--")
    plot.set_title(label, color=INK, fontsize=10, loc="left")
    plot.set_xlabel("weight", color=FAINT, fontsize=9)
    plot.set_ylim(bottom=0)
    plot.legend(frameon=False, fontsize=9, labelcolor=INK)
    return to_svg(figure, f"{label} along the weights")
