"""The leaderboard's arithmetic, by hand, and its page."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from benchmarks import leaderboard
from benchmarks.board_page import advice, as_board, better, text, write_board
from benchmarks.standings import FEWER_STEPS, LOWER_WEIGHT, Cell, duels, geometric_mean, hypervolume, standings
from benchmarks.trial import Trial

from tenuto.evaluation.board import Board, plot, shipped_board
from tests.boards import arm, board, cell, points


def test_methods_are_read_at_the_plain_loras_strength_in_every_cell() -> None:
    found = {own.method: own for own in standings(board())}
    hold = found["hold"]
    assert hold.strength == "weight 2"
    assert hold.kept_out.value == pytest.approx(2 / 8)
    assert hold.drift["1"].value == pytest.approx(math.sqrt((1 / 8) * (2 / 8)))
    assert (hold.drift["1"].reached, hold.drift["1"].cells) == (4, 4)
    low, high = hold.drift["1"].interval or (0, 0)
    assert 1 / 8 <= low < high <= 2 / 8
    assert hold.tag_compliance.value == pytest.approx(1 - (1 + 2) / 2 / 20), "itself, not over the plain LoRA's"
    assert hold.forwards == pytest.approx(1.2)
    assert hold.as_shipped["usable_weight"] == pytest.approx(1.5), "of the cells that have one"
    assert (hold.as_shipped["pres"], hold.as_shipped["div"]) == (pytest.approx(0.04), None)
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
    assert found["plain"].as_shipped["additivity"] == pytest.approx(0.5)
    assert set(found[LOWER_WEIGHT].as_shipped.values()) == {None}, "those were measured at full weight"


def test_hypervolume_by_hand() -> None:
    own = points((1.0, 0.5, 0.0), (1.5, 0.8, 1.0), (2.0, 0.7, 3.0))  # the third is worse than the second
    assert hypervolume(own) == pytest.approx(0.5 * 1.0 + 0.3 * 0.5)
    assert hypervolume([]) is None
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)


def test_two_methods_are_compared_where_both_get_there() -> None:
    cells = board()
    easy = arm("easy", "weight 1", points((1.0, 0.6, 0.2)), forwards=240)
    for place in (0, 2):  # where `hold` has 1
        cells[place] = cells[place].model_copy(update={"arms": {**cells[place].arms, "easy, weight 1": easy}})
    hard = arm("easy", "weight 1", points((1.0, 0.2, 0.1)))
    cells[1] = cells[1].model_copy(update={"arms": {**cells[1].arms, "easy, weight 1": hard}})
    easy_one, tight = duels(cells, "hold")
    assert (easy_one.method, tight.method) == ("easy", "tight"), "neither the plain LoRA nor the other itself"
    assert easy_one.drift.value == pytest.approx(0.2)
    assert (easy_one.drift.reached, easy_one.drift.cells, easy_one.less) == (2, 3, 2)
    assert (easy_one.alone, easy_one.missed) == (0, 1)
    assert easy_one.bake.value == pytest.approx(0.2)
    assert (easy_one.forwards, easy_one.sets) == (pytest.approx(2), 1), "of the cells that count"
    assert (tight.drift.value, tight.alone, tight.missed, tight.less) == (None, 0, 4, 0)
    assert better([easy_one, tight]) == [], "one set says nothing"
    (line, last) = better([easy_one._replace(sets=5), tight._replace(sets=5)])
    assert "`easy` (weight 1), 0.20 (0.20 to 0.20) of it in 2 cells of 5 sets, for 2.00 times its forwards" in line
    assert "in 1 cell the default alone gets there, in 0 cells this one" in line
    assert last == "Of 2 compared in at least 5 sets nobody does so for no more forwards than the default."
    (reverse, *_) = (own for own in duels(cells, "easy") if own.method == "hold")
    assert reverse.drift.value == pytest.approx(5)
    assert (reverse.alone, reverse.missed, reverse.drift.cells) == (1, 0, 3)
    assert better(duels(cells, "nobody")) == []
    assert len(better([easy_one._replace(sets=5, forwards=1.0)])) == 1, "somebody does"


def test_the_page_says_what_the_numbers_say(tmp_path: Path) -> None:
    drawing = tmp_path / "leaderboard" / "curves.svg"
    low = points((1.0, 0.5, 0.5), (1.5, 0.7, 1.5))
    weak = points((1.0, 0.2, 0.1), (1.5, 0.3, 0.2))
    first = cell("elsewhere", 3, True, arm("hold", "weight 1", weak), arm("hold", "weight 2", low, forwards=120))
    trial = Trial(first, cell("other", 3, True, arm("hold", "weight 2", points((1.0, 0.6, 4.0)))))
    write_board(board(), trial, tmp_path / "leaderboard.md", drawing, tmp_path / "board.json")
    page = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "(leaderboard/curves.svg)" in page
    assert "tuned (2 training seeds), kept (kept out) (2 training seeds), 100 updates" in page
    assert "| hold | weight 2 | 0.18 (" in page
    assert "| tight | weight 1 | – | 0/4 |" in page
    assert "over the base's.\n" in page, "all cells have it"
    assert "`masked_prior` (needs masks" in page
    assert "elsewhere and other, training seed 3, 100 updates" in page
    assert "| strength | elsewhere: concept × | drift × | bake × | other: concept × | drift × | bake × |" in page
    assert "| hold | **weight 2** | 0.83 * | 0.12 | 0.12 | 1.0 * | 0.50 | 0.50 | 1.2 |" in page
    assert "| hold | weight 1 | 0.33 | – | – | | | | 1.0 |" in page
    shipped = [row.split(" | ") for row in page.partition("## As shipped")[2].splitlines() if row.startswith("|")]
    assert shipped[0][-5:] == ["tag compliance", "PRES", "DIV", "usable weight", "additivity error |"]
    assert shipped[1][0].count("---") == len(shipped[0])
    plain = next(row for row in shipped if row[0] == "| plain")
    assert plain[-4:] == ["0.040", "–", "1.5", "0.50 |"]
    assert {row[0].strip("| ") for row in shipped[2:]} == {"plain", "hold", "tight"}, "no part of the plain LoRA"
    assert "- **DIV** is empty: it needs two noise seeds." in page
    assert "**PRES** is empty" not in page
    assert "quick" not in page
    svg = drawing.read_bytes()
    shown = Board.model_validate_json((tmp_path / "board.json").read_text(encoding="utf-8"))
    assert plot(shown).encode() == svg, "the board that ships draws the same, bit for bit"
    assert shown.standings == standings(board())
    assert shown.curves["hold"][-1][0] > 1.0
    assert b"prefers-color-scheme" in svg
    assert "12 pictures a set, batches of 4, rank 8 on attention and feed-forward layers, learning rate 0.001" in page
    assert "weights 0.25, 0.5, 0.75, 1.0, 1.25, 1.5" in page, "the settings of the cells, here the usual ones"
    assert "those that held there stand" not in page, "the trial's method stands there"
    assert "`hold` (" not in page.partition("## How it was measured")[2], "it is in every cell"
    assert "drawn by chance" not in page, "in all cells alike"
    lines = advice(standings(board()), [])
    assert lines[0].startswith("**Least drift:** `hold` (weight 2), 0.18")
    assert "1.2 times its forwards" in lines[0]
    cells = board()
    late = arm("late", "weight 1", points((1.0, 0.6, 0.01)))
    cells[0] = cells[0].model_copy(update={"arms": {**cells[0].arms, "late, weight 1": late}})
    assert advice(standings(cells), []) == lines, "one cell of four is no advice"


def test_the_page_says_what_was_measured_otherwise(tmp_path: Path) -> None:
    cells = [own.model_copy(update={"spread": 32 * number}) for number, own in enumerate(board())]
    cells[0] = cells[0].model_copy(update={"versions": {"date": "2026-11-28"}})
    cells[1] = cells[1].model_copy(update={"versions": {"date": "2026-11-30"}})
    late = arm("late", "weight 1", points((1.0, 0.6, 0.01)))
    cells[2] = cells[2].model_copy(update={"arms": {**cells[2].arms, "late, weight 1": late}})
    trial = Trial(cell("elsewhere", 3, True, arm("nobody", "weight 1", points((1.0, 0.6, 8.0)))))
    page = text(cells, trial, standings(cells), as_board(cells, standings(cells)), "curves.svg")
    assert "those that held there stand here" in page
    assert "In 1 of 4 cells the far prompts were\n  drawn by chance" in page
    assert "- `late` (1): measured in so few cells" in page
    assert "- Tried alone: `nobody` did not hold in the trial." in page
    assert "- **When**: 2026-11-28 to 2026-11-30;" in page


def test_the_first_is_told_with_those_that_may_be_as_good() -> None:
    cells = board()
    for number, drift in enumerate((0.45, 0.9, 0.45, 0.9)):
        near = arm("near", "weight 3", points((1.0, 0.5, drift), (1.5, 0.7, 3 * drift)), forwards=140)
        cells[number] = cells[number].model_copy(update={"arms": {**cells[number].arms, "near, weight 3": near}})
    first, alike, cheap = advice(standings(cells), duels(cells, "near"))
    assert first.startswith("**Least drift:** `near` (weight 3)")
    assert alike == "Its interval overlaps those of `hold` (weight 2): say “no difference”."
    assert "1.25 times the plain LoRA's compute:** `hold` (weight 2), 0.18" in cheap
    assert cheap.endswith("; 1.1 (1.1 to 1.1) of the default's drift and 1.1 (1.1 to 1.1) of its bake.")


def test_before_the_first_cell_the_page_has_the_trial(tmp_path: Path) -> None:
    first = cell("elsewhere", 3, True, arm("hold", "weight 1", points((1.0, 0.6, 4.0))))
    write_board([], Trial(first), tmp_path / "leaderboard.md", tmp_path / "curves.svg", tmp_path / "board.json")
    page = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "no set yet, but for the trial, 100 updates each" in page
    assert "| hold | **weight 1** | 1.0 * | 0.50 | 0.50 | 1.0 |" in page
    assert "At equal concept strength" not in page
    assert [own.name for own in tmp_path.iterdir()] == ["leaderboard.md"], "there is no board to show"


def test_the_board_that_ships_is_that_of_the_docs() -> None:
    root, size = Path(leaderboard.__file__).parents[1], leaderboard.FULL
    files = [root / size.results / place.file for place in size.places]
    found = [Cell.load(file) for file in files if file.is_file()]
    assert shipped_board() == (as_board(found, standings(found)) if found else None)
