"""A leaderboard as plain data, and its plot: what `benchmarks/` measured, shown by whoever asks.

The numbers that ship with the package stand in leaderboard.json beside this file, once the board has been run.
"""

from __future__ import annotations

from importlib import resources

from pydantic import Field

from tenuto.evaluation.figures import ARM_COLOURS, FAINT, INK, OTHER_COLOURS, RULE, axes, to_svg
from tenuto.evaluation.report import template
from tenuto.evaluation.wording import significant
from tenuto.words import Settings

PLAIN = "plain"
"""The method that the others are measured by: none."""
SHIPPED = "leaderboard.json"


class Reading(Settings):
    """A number over cells (a concept at a training seed)."""

    value: float | None
    interval: tuple[float, float] | None = None
    """Bootstrap 95 % over cells."""
    reached: int = 0
    """Cells in which the arm got to that concept strength."""
    cells: int = 0

    def told(self) -> str:
        """With its interval."""
        if self.interval is None:
            return short(self.value)
        return f"{short(self.value)} ({' to '.join(short(end) for end in self.interval)})"


class Standing(Settings):
    """One method's line."""

    method: str
    strength: str
    drift: dict[str, Reading]
    """Share of the plain LoRA's strength -> drift over the plain LoRA's as shipped, geometric mean over cells."""
    kept_out: Reading
    """The drift at the whole strength, on concepts that nothing was tuned on."""
    bake: Reading
    """Over the plain LoRA's as shipped, at its strength."""
    tag_compliance: Reading
    """There, itself: 1 is the base's."""
    bleed: Reading
    """Itself, not a ratio: it may be 0 or less."""
    volume: Reading
    """Area under the arm's best points in the plane of concept strength and 1 / (1 + nD)."""
    forwards: float | None
    """Over the plain LoRA's, the prior set counted."""
    seconds: float | None
    as_shipped: dict[str, float | None]
    """Metric -> mean over cells, of each LoRA as it is, at whatever concept strength."""


class Board(Settings):
    """leaderboard.json"""

    concepts: dict[str, int]
    """Ready set, marked where nothing was tuned on it -> training seeds."""
    updates: int
    quick: bool = False
    """Whether it only shows that the machinery works."""
    standings: list[Standing]
    """Best first."""
    curves: dict[str, list[tuple[float, float]]] = Field(default_factory=dict)
    """Method -> (share of the plain LoRA's concept strength, drift over the plain LoRA's as shipped)."""

    def where(self) -> str:
        """What it was measured on, as part of a sentence."""
        return ", ".join(f"{name} ({seeds} training seed{'s' * (seeds != 1)})" for name, seeds in self.concepts.items())


def shipped_board() -> Board | None:
    """The one that this installation carries, if any."""
    file = resources.files("tenuto.evaluation").joinpath(SHIPPED)
    return Board.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None


def short(value: float | None) -> str:
    if value is None:
        return "–"
    return f"−{significant(-value)}" if value < 0 else significant(value)


def plot(board: Board) -> str:
    """Drift against concept strength as an SVG file, light or dark as its reader likes: one line per method, the best
    ones in colour."""
    names = {own.method: f"{own.method}, {own.strength}" if own.strength else own.method for own in board.standings}
    best = [own.method for own in board.standings if own.method != PLAIN and len(board.curves.get(own.method, ())) > 1]
    shades = dict(zip(best, OTHER_COLOURS, strict=False))
    figure, drawing = axes(9, 5.2)
    for method, points in board.curves.items():
        x, y = [100 * share for share, _ in points], [value for _, value in points]
        if method == PLAIN:
            drawing.plot(x, y, "-", color=ARM_COLOURS[PLAIN], lw=2.6, label="plain LoRA")
        elif method in shades:
            drawing.plot(x, y, "-", color=shades[method], lw=1.7, label=names[method])
        else:
            drawing.plot(x, y, "-", color=RULE, lw=0.9, zorder=1)
    drawing.set_yscale("log")
    drawing.tick_params(which="both", colors=FAINT, labelcolor=FAINT, labelsize=9)
    drawing.set_xlabel("concept strength, % of the plain LoRA's as shipped", color=INK)
    drawing.set_ylabel("drift over the plain LoRA's as shipped", color=INK)
    if any(board.curves.values()):
        drawing.legend(frameon=False, fontsize=8, labelcolor=INK, loc="center left", bbox_to_anchor=(1, 0.5))
    svg = to_svg(figure, "Drift against concept strength")
    head, tag, rest = svg.partition(">")
    return f"{head}{tag}<style>{template('colours.css.j2').render()} svg {{ font-family:sans-serif; }}</style>{rest}"
