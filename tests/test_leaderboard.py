"""The leaderboard: who takes part, its arithmetic by hand, its page, and a whole one in small."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, final

import pytest
import typer
from benchmarks import entries as entries_module
from benchmarks import leaderboard
from benchmarks.board_page import advice, as_board, write_board
from benchmarks.entries import Entry, entries, why_not
from benchmarks.standings import (
    FEWER_STEPS,
    LOWER_WEIGHT,
    ArmOnBoard,
    ConceptOnBoard,
    best_strength,
    geometric_mean,
    hypervolume,
    standings,
)

from tenuto.cli.demo import SETTINGS
from tenuto.evaluation.board import Board, plot, shipped_board
from tenuto.evaluation.curve import Point
from tenuto.events import silent
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.work.tasks import in_sequence


def test_every_method_of_the_catalogue_takes_part() -> None:
    rows = {entry.method.split(",")[0] for entry in entries()}
    for name in REGULARIZERS:
        assert name in rows or why_not(name), name
    baselines = {
        "plain, rank 2",
        "plain, rank 4",
        "plain, DoRA",
        "plain, LoHa",
        "plain, LoKr",
        "plain, OFT",
        "plain, BOFT",
    }
    assert baselines <= {entry.method for entry in entries()}
    assert {entry.method for entry in entries(only=("l2_to_base",))} & baselines == {"plain, rank 2", "plain, rank 4"}
    usual = entries(usual_only=True)
    assert len({entry.label for entry in usual}) == len(usual) == len({entry.method for entry in usual})
    pools = {entry.method: entry.way.per_image for entry in usual}
    assert pools["prior_preservation, x50"] == 50
    assert pools["prior_prediction"] == 8
    assert pools["l2_to_base"] == 0
    assert pools["cached_prior"] is pools["drift_controller"] is None, "as in anybody's project"
    assert set(next(e for e in usual if e.method == "drift_controller").way.methods) == {
        "cached_prior",
        "drift_controller",
    }


@final
class Newcomer(Regularizer):
    """A method that somebody adds."""

    weight: float = 0.5


def test_a_method_that_is_added_to_the_catalogue_appears_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(entries_module.REGULARIZERS, "newcomer", Newcomer)
    own = [entry for entry in entries() if entry.method == "newcomer"]
    assert [entry.strength for entry in own] == ["weight 0.125", "weight 0.5", "weight 2"]
    assert own[1].way.methods == {"newcomer": Newcomer(weight=0.5)}


def points(seed: int, *triples: tuple[float, float, float], steps: int = 100) -> list[Point]:
    """(strength, concept, drift) of the last checkpoint."""
    return [Point(step=steps, strength=s, seed=seed, concept=c, drift=d, bake=d / 10, bleed=0.0) for s, c, d in triples]


def arm(method: str, strength: str, *parts: list[Point], forwards: float = 100.0) -> ArmOnBoard:
    numbers: dict[str, list[float | None]] = {
        "forwards": [forwards], "seconds": [1.0], "usable_weight": [1.5, None], "pres": [0.1, -0.02],
        "div": [None, None], "additivity": [0.25, 0.75],
    }  # fmt: skip
    reasons = {"div": "it needs two noise seeds"}
    own = [p for part in parts for p in part]
    return ArmOnBoard(method=method, strength=strength, points=own, numbers=numbers, reasons=reasons)


PLAIN_POINTS = ((0.5, 0.3, 2.0), (1.0, 0.6, 8.0))


def concept(name: str, tuned: bool, **arms: ArmOnBoard) -> ConceptOnBoard:
    plain = arm("plain", "", *(points(seed, *PLAIN_POINTS) for seed in (0, 1)))
    labels = {f"{own.method}, {own.strength}": own for own in arms.values()}
    return ConceptOnBoard(
        concept=name, kind="concept", tuned=tuned, updates=100, seeds=[0, 1], arms={"plain": plain, **labels}
    )


def board() -> list[ConceptOnBoard]:
    """Strength 2 is better where tuning is allowed, strength 1 on the set that is kept out."""
    flat = ((1.0, 0.5, 1.0), (1.5, 0.7, 3.0))  # 2 at the plain LoRA's .6
    low = ((1.0, 0.5, 0.5), (1.5, 0.7, 1.5))  # 1 there
    weak = ((1.0, 0.2, 0.1), (1.5, 0.3, 0.2))
    return [
        concept(
            "tuned", True,
            a=arm("hold", "weight 1", points(0, *flat), points(1, *flat), forwards=120),
            b=arm("hold", "weight 2", points(0, *low), points(1, *low), forwards=120),
            c=arm("tight", "weight 1", points(0, *weak), points(1, *weak), forwards=300),
        ),
        concept(
            "kept", False,
            a=arm("hold", "weight 1", points(0, *low), points(1, *low), forwards=120),
            b=arm("hold", "weight 2", points(0, *flat), points(1, *flat), forwards=120),
            c=arm("tight", "weight 1", points(0, *weak), points(1, *weak), forwards=300),
        ),
    ]  # fmt: skip


def test_strengths_are_chosen_where_tuning_is_allowed_and_read_everywhere() -> None:
    assert best_strength(board(), ["hold, weight 1", "hold, weight 2"]) == "hold, weight 2"
    found = {own.method: own for own in standings(board())}
    hold = found["hold"]
    assert hold.strength == "weight 2"
    assert hold.kept_out.value == pytest.approx(2 / 8)
    assert hold.drift["1"].value == pytest.approx(math.sqrt((1 / 8) * (2 / 8)))
    assert (hold.drift["1"].reached, hold.drift["1"].cells) == (4, 4)
    low, high = hold.drift["1"].interval or (0, 0)
    assert 1 / 8 <= low < high <= 2 / 8
    assert hold.forwards == pytest.approx(1.2)
    assert hold.usable_weight == pytest.approx(1.5)
    assert (hold.pres, hold.div, hold.additivity) == (pytest.approx(0.04), None, pytest.approx(0.5))
    tight = found["tight"]
    assert tight.drift["1"].value is None
    assert tight.drift["1"].reached == 0
    assert next(own.method for own in standings(board())) == "hold"
    assert [own.method for own in standings(board())][-1] == "tight"


def test_the_plain_lora_turned_down_is_a_baseline_of_its_own() -> None:
    found = {own.method: own for own in standings(board())}
    assert found["plain"].drift["1"].value == pytest.approx(1.0)
    at_three_quarters = 2.0 + (0.45 - 0.3) / 0.3 * 6.0
    assert found[LOWER_WEIGHT].drift["0.75"].value == pytest.approx(at_three_quarters / 8.0)
    assert found[FEWER_STEPS].drift["0.75"].value is None, "there is no earlier checkpoint here"
    assert found["plain"].additivity == pytest.approx(0.5)
    assert found[LOWER_WEIGHT].additivity is None, "it was measured at full weight"


def test_hypervolume_by_hand() -> None:
    own = points(0, (1.0, 0.5, 0.0), (1.5, 0.8, 1.0), (2.0, 0.7, 3.0))  # the third is worse than the second
    assert hypervolume(own) == pytest.approx(0.5 * 1.0 + 0.3 * 0.5)
    assert hypervolume([]) is None
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)


def test_the_page_says_what_the_numbers_say(tmp_path: Path) -> None:
    drawing = tmp_path / "leaderboard" / "curves.svg"
    write_board(board(), tmp_path / "leaderboard.md", drawing, tmp_path / "board.json")
    page = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "(leaderboard/curves.svg)" in page
    assert "kept (kept out)" in page
    assert "| hold | weight 2 | 0.18 (" in page
    assert "| tight | weight 1 | – | 0/4 |" in page
    assert "`masked_prior` (needs masks" in page
    rows = [row.split(" | ") for row in page.splitlines() if row.startswith("|")]
    assert rows[0][-5:] == ["usable weight", "trigger necessity", "PRES", "DIV", "additivity error |"]
    assert rows[1][0].count("---") == len(rows[0])
    assert rows[2][-5:] == ["1.5", "–", "0.040", "–", "0.50 |"]
    assert "- **DIV** is empty: it needs two noise seeds." in page
    assert "**PRES** is empty" not in page
    assert "quick" not in page
    svg = drawing.read_bytes()
    shown = Board.model_validate_json((tmp_path / "board.json").read_text(encoding="utf-8"))
    assert plot(shown).encode() == svg, "the board that ships draws the same, bit for bit"
    assert shown.standings == standings(board())
    assert shown.curves["hold"][-1][0] > 1.0
    assert b"prefers-color-scheme" in svg
    lines = advice(standings(board()))
    assert lines[0].startswith("**Least drift:** `hold` (weight 2), 0.18")
    assert "1.2 times its forwards" in lines[0]


def test_the_board_that_ships_is_that_of_the_docs() -> None:
    results = [
        Path(leaderboard.__file__).parents[1] / leaderboard.FULL.results / f"{n}.json" for n in leaderboard.ORDER
    ]
    found = [ConceptOnBoard.model_validate_json(file.read_text(encoding="utf-8")) for file in results if file.is_file()]
    assert shipped_board() == (as_board(found, standings(found)) if found else None)


def test_a_whole_one_in_small(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the tiny base, which nobody can read: concept strength is then the gain on unbiased pictures."""
    monkeypatch.setattr("benchmarks.ready.PICTURES", 4)
    monkeypatch.setitem(SETTINGS["base"], "model", str(tiny_folder))
    comparison: dict[str, Any] = {
        **leaderboard.QUICK.comparison, "prompts": 1, "drift_prompts": 1, "steps": 2, "curve_checkpoints": 0,
        "loss_times": [0.5],
    }  # fmt: skip
    size = leaderboard.QUICK._replace(
        runs=tmp_path / "runs",
        results=tmp_path / "results",
        page=tmp_path / "page.md",
        shipped=tmp_path / "board.json",
        updates=4,
        comparison=comparison,
    )
    chosen = [entry for entry in entries(usual_only=True) if entry.method in ("plain", "plain, rank 2", "l2_to_base")]
    found = leaderboard.run_concept(
        "head-in-a-jar", chosen, size, lambda projects, folder: in_sequence, silent, lambda: False
    )
    assert [own.method for own in found.arms.values()] == ["plain", "plain, rank 2", "l2_to_base"]
    assert found.settings["second_lora"] == "second-character"
    assert (size.runs / "second" / "second-character" / "lora.safetensors").is_file()
    for own in found.arms.values():
        assert all(value is not None and value > 0 for value in own.numbers["additivity"])
        assert "comparison.dino" in own.reasons["pres"], "nobody can read these pictures"
        assert [point.strength for point in own.points] == [1.0, 0.5]
        assert all(point.drift is not None and point.concept is not None for point in own.points)
    assert not leaderboard.is_there("head-in-a-jar", chosen, size)
    found.save(size.results / "head-in-a-jar.json")
    assert leaderboard.is_there("head-in-a-jar", chosen, size)
    assert not leaderboard.is_there("head-in-a-jar", entries(usual_only=True), size)
    assert not leaderboard.is_there("head-in-a-jar", chosen, size._replace(updates=5))
    assert not leaderboard.is_there("head-in-a-jar", chosen, size._replace(comparison={**comparison, "steps": 3}))
    page = leaderboard.write_page(size).read_text(encoding="utf-8")
    assert "A quick run" in page
    assert "| l2_to_base | weight 0.001 |" in page
    assert "**PRES** is empty: no DINO encoder was named" in page
    assert "**additivity error** is empty" not in page
    assert (size.results / "curves.svg").stat().st_size > 5000


def test_each_ready_set_is_measured_beside_another_one() -> None:
    assert {name for name in leaderboard.ORDER if leaderboard.beside(name) == name} == set()
    assert leaderboard.beside("second-character") == "crazy-eyes"
    assert {leaderboard.beside(name) for name in leaderboard.ORDER} <= set(leaderboard.ORDER)


def test_the_label_names_method_and_strength() -> None:
    assert Entry("a", "weight 1", entries()[0].way).label == "a, weight 1"


def test_some_methods_only_do_not_touch_the_board() -> None:
    board, some = leaderboard.FULL, leaderboard.FULL.aside("max_norm")
    assert not {board.runs, board.results, board.page, board.shipped} & {
        some.runs, some.results, some.page, some.shipped,
    }  # fmt: skip
    with pytest.raises(typer.Exit):
        leaderboard.main(method=["max_nrom"])
