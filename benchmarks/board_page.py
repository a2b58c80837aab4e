"""docs/leaderboard.md, its plot and the board that ships, from docs/leaderboard/*.json alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from benchmarks.entries import DEFAULT, company, why_not
from benchmarks.ready import PICTURES, PLAIN
from benchmarks.standings import (
    AS_SHIPPED,
    FEWER_STEPS,
    LOWER_WEIGHT,
    TOLERANCE,
    Cell,
    Duel,
    curve,
    duels,
    standings,
)
from benchmarks.trial import HOLDS, STRONG_ENOUGH, Trial
from tenuto.cli.demo import SETTINGS
from tenuto.evaluation.board import Board, Reading, Standing, plot, short
from tenuto.evaluation.curve import RESAMPLES
from tenuto.evaluation.settings import ComparisonSettings
from tenuto.files import write_text
from tenuto.regularizers.catalogue import REGULARIZERS

SHARES = tuple(n / 20 for n in range(4, 25))
CHEAP = 1.25
"""Times the plain LoRA's compute."""
SETS = 5
"""Ready sets in which two methods are compared before a word is said about it."""
PARTS = (LOWER_WEIGHT, FEWER_STEPS)
BASELINES = (PLAIN, *PARTS)
TEMPLATE = Path(__file__).parent / "leaderboard.md.j2"


def write_board(board: Sequence[Cell], trial: Trial | None, page: Path, drawing: Path, data: Path) -> None:
    """Write the page, its plot, and the board that others show; before the first cell the page with the trial alone."""
    if not board:
        write_text(page, text(board, trial, [], None, ""))
        return
    found = standings(board)
    shown = as_board(board, found)
    write_text(drawing, plot(shown))
    write_text(data, shown.model_dump_json(indent=1) + "\n")
    write_text(page, text(board, trial, found, shown, f"{drawing.parent.name}/{drawing.name}"))


def text(
    board: Sequence[Cell], trial: Trial | None, found: Sequence[Standing], shown: Board | None, drawing: str
) -> str:
    """The page."""
    beside = duels(board, DEFAULT)
    first = [*board, *(trial.cells() if trial else ())][0]
    tried = trial.methods() if trial else {}
    methods = {own.method for own in found}
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"told": Reading.told, "short": short}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        board=shown,
        strong_enough=STRONG_ENOUGH,
        holds=HOLDS,
        trial=trial,
        tried=tried,
        chosen={*trial.chosen().values()} if trial else set(),
        left=[method for method in tried if method not in methods],
        everyone=methods.issuperset(tried),
        cells=len(board),
        advice=[*advice(found, beside), *better(beside)],
        default=DEFAULT,
        beside=beside,
        plot=drawing,
        plain=PLAIN,
        found=found,
        as_shipped=AS_SHIPPED,
        empty=_empty(board, found),
        absent=[(name, why) for name in REGULARIZERS if (why := why_not(name))],
        company=[name for name in company() if name in methods],
        few=_few(found),
        parts=PARTS,
        protocol=ComparisonSettings.model_validate(first.settings),
        spread=sum(cell.spread > 0 for cell in board),
        dates=sorted({cell.versions["date"] for cell in board if "date" in cell.versions}),
        training=SETTINGS["training"],
        pictures=PICTURES,
        tolerance=TOLERANCE,
        resamples=RESAMPLES,
    )


def advice(found: Sequence[Standing], beside: Sequence[Duel]) -> list[str]:
    """Use this, because: from the numbers alone."""
    cells = max((own.drift["1"].cells for own in found), default=0)
    usable = [own for own in found if _gets_there(own, cells) and own.method not in BASELINES]
    usable.sort(key=lambda own: own.drift["1"].value or 0.0)
    if not usable:
        return ["No method gets as strong as the plain LoRA in at least half of the cells."]
    best, *others = usable
    lines = [f"**Least drift:** {_named(best)}, {best.drift['1'].told()} of the plain LoRA's{_price(best)}."]
    alike = [_named(own) for own in others if _overlap(best.drift["1"], own.drift["1"])]
    if alike:
        lines.append(f"Its interval overlaps those of {', '.join(alike)}: say “no difference”.")
    cheap = next((own for own in usable if own.forwards is not None and own.forwards <= CHEAP), None)
    if cheap is not None and cheap is not best:
        own = next((own for own in beside if own.method == cheap.method and own.drift.value is not None), None)
        lines.append(
            f"**At no more than {CHEAP:g} times the plain LoRA's compute:** {_named(cheap)}, {cheap.drift['1'].told()}"
            + (f"; {own.drift.told()} of the default's drift and {own.bake.told()} of its bake" if own else "")
            + "."
        )
    return lines


def better(beside: Sequence[Duel]) -> list[str]:
    """Who leaves less drift than the default where both get that strong, with an interval below 1 over enough sets; and
    whether any of them does so for as little work."""
    able = [own for own in beside if own.sets >= SETS]
    found = [own for own in able if own.drift.interval and own.drift.interval[1] < 1]
    lines = [
        f"Less drift than the default where both get that strong: {_named(own)}, {own.drift.told()} of it in "
        f"{_cells(own.drift.reached)} of {own.sets} sets, for {own.forwards or 0:.2f} times its forwards; in "
        f"{_cells(own.missed)} the default alone gets there, in {_cells(own.alone)} this one."
        for own in found
    ]
    cheap = any(own.forwards is not None and own.forwards <= 1 for own in found)
    nobody = f"Of {len(able)} compared in at least {SETS} sets nobody does so for no more forwards than the default."
    return lines + [nobody] * (bool(able) and not cheap)


def _cells(number: int) -> str:
    return f"{number} cell{'s' * (number != 1)}"


def _gets_there(own: Standing, cells: int) -> bool:
    """In at least half of the board's cells; who stands in few of them has not shown it."""
    whole = own.drift["1"]
    return whole.value is not None and 2 * whole.reached >= cells


def _named(own: Standing | Duel) -> str:
    return f"`{own.method}`" + (f" ({own.strength})" if own.strength else "")


def _price(own: Standing) -> str:
    return f", at {own.forwards:.2g} times its forwards" if own.forwards else ""


def _overlap(a: Reading, b: Reading) -> bool:
    return bool(a.interval and b.interval and a.interval[0] <= b.interval[1] and b.interval[0] <= a.interval[1])


def as_board(board: Sequence[Cell], found: Sequence[Standing]) -> Board:
    """What is shown anywhere, without the raw numbers."""
    return Board(
        concepts=Counter(own.concept + ("" if own.tuned else " (kept out)") for own in board),
        updates=board[0].updates,
        quick=any(own.quick for own in board),
        standings=list(found),
        curves={own.method: list(curve(board, own.method, SHARES)) for own in found if own.method not in PARTS},
    )


def _few(found: Sequence[Standing]) -> dict[str, int]:
    """Who was measured in less than half of the cells -> in how many."""
    cells = {own.method: own.drift["1"].cells for own in found}
    return {method: own for method, own in cells.items() if 2 * own < max(cells.values())}


def _empty(board: Sequence[Cell], found: Sequence[Standing]) -> dict[str, str]:
    """Columns without any number -> why."""
    arms = [arm for own in board for arm in own.arms.values()]
    return {
        column: next((arm.reasons[name] for arm in arms if name in arm.reasons), "not measured")
        for name, column in AS_SHIPPED.items()
        if all(own.as_shipped[name] is None for own in found)
    }
