"""The leaderboard: who takes part, at which strength, who joins a cell, and a whole one in small."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import pytest
import typer
from benchmarks import entries as entries_module
from benchmarks import leaderboard
from benchmarks.entries import ADAPTER, ADAPTERS, DEFAULT, LIGHT, TOGETHER, Entry, entries, tried, untried, why_not
from benchmarks.leaderboard import Place
from benchmarks.ready import Way, project_on, sweep_on
from benchmarks.standings import Cell

from tenuto.cli.demo import SETTINGS
from tenuto.events import Event, silent
from tenuto.project.settings import Project
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.cached_prior import FEWEST
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.regularizers.trigger_contrast import TriggerContrast
from tenuto.work.tasks import Runner
from tests.boards import arm, cell, plain_arm, points
from tests.work.test_sweep import sent

SOME = {"plain", "plain, rank 4", "plain, rate 0.0005", DEFAULT, LIGHT}
BASELINES = {
    "plain, rank 2",
    "plain, rank 4",
    "plain, rate 0.0005",
    "plain, DoRA",
    "plain, LoHa",
    "plain, LoKr",
    "plain, OFT",
    "plain, BOFT",
}


def test_every_method_of_the_catalogue_takes_part() -> None:
    everyone = entries(untried())
    methods = {name for name in REGULARIZERS if not why_not(name)}
    assert {entry.name for entry in everyone} == {"", *TOGETHER, *ADAPTERS, *methods}
    assert {entry.method for entry in everyone} >= BASELINES
    some = {entry.method for entry in entries(untried(), only=("l2_to_base", "prior_preservation"))}
    assert some == SOME | {"l2_to_base", "prior_preservation, x8"}, "not what is dear, or of little use"
    assert len({entry.label for entry in everyone}) == len(everyone) == len({entry.method for entry in everyone})
    pools = {entry.method: entry.way.per_image for entry in everyone}
    assert pools["prior_preservation, x50"] == 50
    assert pools["prior_prediction"] == 8
    assert pools["l2_to_base"] == 0
    assert pools["cached_prior"] is pools["drift_controller"] is None, "as in anybody's project"
    assert set(next(e for e in everyone if e.method == "drift_controller").way.methods or ()) == {
        "cached_prior",
        "drift_controller",
    }
    both = {e.method: e.way for e in everyone if e.method in TOGETHER}
    whole, half = (both[f"cached_prior with trigger_contrast{more}"] for more in ("", ", half of each"))
    assert whole.ratio == 2 * (half.ratio or 0) == FEWEST
    assert [(way.methods or {})["trigger_contrast"] for way in (whole, half)] == [
        TriggerContrast(weight=0.4, share=share) for share in (0.1, 0.05)
    ]


def test_everyone_can_stand_in_a_sweep(tmp_path: Path) -> None:
    """A sweep is particular about the names of its arms, and trains nothing twice."""
    size = leaderboard.FULL._replace(runs=tmp_path)
    for everyone in (entries(untried()), tried()):
        trained = leaderboard.trained_as(everyone, "small", size)
        ways = {entry.label: entry.way for entry in everyone if trained[entry.label] == entry.label}
        sweep = sweep_on("small", ways, tmp_path / "data", leaderboard.COMPARISON)
        assert [arm.name for arm in sweep.arms] == list(ways)
    alike = leaderboard.trained_as(entries(untried()), "small", size)
    light = f"{LIGHT}, weight 0.1"
    assert {label: first for label, first in alike.items() if label != first} == {"cached_prior, weight 0.1": light}
    strong = entries({**untried(), "cached_prior": 1.6})
    assert not [label for label, first in leaderboard.trained_as(strong, "small", size).items() if label != first]


def test_the_default_is_what_a_project_takes_that_names_no_method(tmp_path: Path) -> None:
    (default,) = (entry.way for entry in entries(untried()) if entry.method == DEFAULT)
    held = {name: project_on(name, default, tmp_path, leaderboard.COMPARISON) for name in ("clothing", "style")}
    assert {name: list(own.regularizers) for name, own in held.items()} == {
        "clothing": ["cached_prior", "output_preservation"], "style": ["output_preservation"],
    }  # fmt: skip
    assert held["clothing"].prior.model_fields_set == {"sampler"}, "pool and ratio follow"


def test_strengths_are_tried_apart_and_the_best_one_stands_on_the_board() -> None:
    candidates = tried()
    assert {entry.name for entry in candidates} == {entry.name for entry in entries(untried())}
    assert "prior_preservation, x50" not in {entry.method for entry in candidates}, "it takes that of x8"
    l2 = [entry for entry in candidates if entry.name == "l2_to_base"]
    assert [entry.value for entry in l2] == [0.00025, 0.001, 0.004]
    drifts = {l2[0].label: 3.0, l2[1].label: 2.0, l2[2].label: 1.0}
    concepts = {l2[2].label: 0.3}  # half of the plain LoRA's: held too hard
    arms = {
        entry.label: arm(
            entry.method,
            entry.strength,
            points(
                (1.0, concepts.get(entry.label, 0.6), drifts.get(entry.label, 7.5)),
                (1.5, 0.7, 9.0),
            ),
        )
        for entry in candidates
    }
    trial = Cell(concept="one", kind="concept", tuned=True, seed=3, updates=100, arms={**arms, "plain": plain_arm()})
    asked: list[list[str]] = []

    def again(some: Sequence[Entry]) -> Cell:
        """The second set: at 0.001 l2_to_base holds nothing there."""
        asked.append([entry.label for entry in some])
        own = {entry.label: arms[entry.label] for entry in some}
        if l2[1].label in own:
            own[l2[1].label] = arm("l2_to_base", l2[1].strength, points((1.0, 0.6, 7.5), (1.5, 0.7, 9.0)))
        return trial.model_copy(update={"concept": "other", "arms": {**own, "plain": plain_arm()}})

    chosen, held = leaderboard.strengths_of(candidates, trial, again)
    assert asked == [["plain", l2[1].label], ["plain", l2[0].label, l2[1].label]], "one rung after the other"
    assert held == ["l2_to_base"], "the others drift as the plain LoRA does"
    assert chosen["l2_to_base"] == 0.00025
    assert chosen.keys() == untried().keys()
    assert {entry.method for entry in entries(untried(), held)} == {*SOME, "l2_to_base"}
    assert {entry.method for entry in entries(untried(), [])} == SOME, "nobody held"
    board = {entry.method: entry for entry in entries({**chosen, "prior_preservation": 1.0})}
    assert board["l2_to_base"].strength == "weight 0.00025"
    assert board["prior_preservation, x50"].strength == board["prior_preservation, x8"].strength == "weight 1"


@final
class Newcomer(Regularizer):
    """A method that somebody adds."""

    weight: float = 0.5


def test_a_method_that_is_added_to_the_catalogue_appears_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(entries_module.REGULARIZERS, "newcomer", Newcomer)
    own = [entry for entry in tried() if entry.method == "newcomer"]
    assert [entry.strength for entry in own] == ["weight 0.125", "weight 0.5", "weight 2"]
    assert own[1].way.methods == {"newcomer": Newcomer(weight=0.5)}
    assert own[1] in entries(untried())


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
    everyone = entries(untried())
    chosen = [entry for entry in everyone if entry.method in ("plain", "plain, rank 2", "l2_to_base")]
    place = Place("head-in-a-jar", 1)
    engaged: list[Path] = []

    def engage(projects: Sequence[Project], folder: Path) -> Runner:
        engaged.append(folder)
        return sent  # as a cluster does: tasks and answers travel as bytes

    found = leaderboard.run_cell(place, chosen, size, engage, silent, lambda: False)
    assert engaged == [size.runs / "head-in-a-jar-1"]
    assert [own.method for own in found.arms.values()] == ["plain", "plain, rank 2", "l2_to_base"]
    assert found.seed == 1
    assert found.spread == 32, "far prompts are drawn that way now"
    assert {"date", "tenuto", "torch"} <= found.versions.keys()
    assert (size.runs / "head-in-a-jar-1" / "arms" / "plain" / "seed-1").is_dir()
    assert found.settings["second_lora"] == "second-character"
    assert (size.runs / "second" / "second-character" / "lora.safetensors").is_file()
    for own in found.arms.values():
        assert (own.numbers["additivity"] or 0) > 0
        assert (own.numbers["drift_p95"] or 0) > 0
        assert "comparison.dino" in own.reasons["pres"], "nobody can read these pictures"
        assert [point.strength for point in own.points] == [1.0, 0.5]
        assert all(point.drift is not None and point.concept is not None for point in own.points)
    three, ran = [entry.label for entry in chosen], list[list[str]]()
    more = [entry.label for entry in everyone if entry.label not in three]

    def again(some: Sequence[Entry]) -> Cell:
        ran.append([entry.label for entry in some])
        arms = {entry.label: found.arms.get(entry.label, found.arms["plain"]) for entry in some}
        methods = {entry.label: entry.method for entry in some}
        named = {label: own.model_copy(update={"method": methods[label]}) for label, own in arms.items()}
        return found.model_copy(update={"arms": named})

    file = size.results / place.file
    for asked, work, now in (
        (chosen, size, [three]),
        (chosen, size, []),
        (chosen[:2], size, []),
        (everyone, size, [["plain", *more]]),
        (everyone, size, []),
        (chosen, size._replace(updates=5), [three]),
        (chosen, size._replace(comparison={**comparison, "steps": 3}), [three]),
    ):
        ran.clear()
        leaderboard.kept_cell(file, asked, work, again)
        assert ran == now, "what stands there is not measured again, anything else is"
    assert Cell.load(file) == found
    page = leaderboard.write_page(size._replace(places=(Place("style", 0), place))).read_text(encoding="utf-8")
    assert "A quick run" in page
    assert "head-in-a-jar (1 training seed), 4 updates" in page
    assert "| l2_to_base | weight 0.001 |" in page
    assert "**PRES** is empty: no DINO encoder was named" in page
    assert "**additivity error** is empty" not in page
    assert (size.results / "curves.svg").stat().st_size > 5000


def test_who_comes_later_joins_the_cell(tmp_path: Path) -> None:
    """At another strength a method takes its own place; another plain LoRA is another cell."""
    first = cell("style", 0, False, arm("hold", "weight 2", []), arm("tight", "weight 1", []))
    file, size = tmp_path / "style-0.json", leaderboard.FULL._replace(updates=100, comparison={})
    first.save(file)
    plain, hold, new = Entry("plain", "", Way()), Entry("hold", "weight 3", Way()), Entry("new", "", Way())

    def run(some: Sequence[Entry], *, drift: float = 8.0) -> Cell:
        assert some == [plain, hold, new]
        found = cell("style", 0, False, arm("hold", "weight 3", []), arm("new", "", []))
        own = plain_arm().model_copy(update={"points": points((1.0, 0.6, drift)), "numbers": {"seconds": 9.0}})
        return found.model_copy(update={"arms": {**found.arms, "plain": own, "new": found.arms.pop("new, ")}})

    heard: list[Event] = []
    same = leaderboard.kept_cell(file, [plain, hold, new], size, partial(run, drift=8.2), heard.append)
    assert same == first == Cell.load(file)
    assert "style-0.json: its plain LoRA is not the one of this machine, so 2 stay out" in heard[0].data["text"]
    whole = leaderboard.kept_cell(file, [plain, hold, new], size, partial(run, drift=8.1))
    assert list(whole.arms) == ["plain", "hold, weight 3", "new", "tight, weight 1"]
    assert whole.arms["plain"] == plain_arm(), "its cost is the one that the others were judged by"
    assert Cell.load(file) == whole
    without = whole.model_copy(update={"arms": {**whole.arms, "plain": arm("plain", "", [])}})
    assert not whole.same_plain(without), "nobody knows"


def test_a_method_that_did_best_at_its_last_strength_has_a_further_one() -> None:
    tried_at = {name: [entry.value for entry in tried() if entry.name == name] for name in REGULARIZERS}
    assert tried_at["trigger_contrast"] == pytest.approx([0.1, 0.4, 1.6, 6.4])
    assert tried_at["output_preservation"] == pytest.approx([0.025, 0.1, 0.4, 1.6])
    assert tried_at["blank_preservation"] == pytest.approx([0.025, 0.1, 0.4])


def test_another_kind_of_adapter_is_tried_at_several_learning_rates() -> None:
    rates = [entry for entry in tried() if entry.name == "LoHa"]
    assert [entry.label for entry in rates] == [f"plain, LoHa, rate {rate}" for rate in ("0.00025", "0.001", "0.004")]
    assert rates[0].way.training == {
        "adapter": {**ADAPTER, "kind": "loha"}, "optimizer": {"lr": pytest.approx(0.00025)},
    }  # fmt: skip
    assert "plain, LoHa" not in {entry.method for entry in entries(untried(), [])}, "who did not hold stays out"


def test_each_ready_set_is_measured_beside_another_one() -> None:
    assert {name for name in leaderboard.ORDER if leaderboard.beside(name) == name} == set()
    assert leaderboard.beside("second-character") == "crazy-eyes"
    assert {leaderboard.beside(name) for name in leaderboard.ORDER} <= set(leaderboard.ORDER)


def test_the_label_names_method_and_strength() -> None:
    assert Entry("a", "weight 1", tried()[0].way).label == "a, weight 1"


def test_some_methods_only_do_not_touch_the_board(capsys: pytest.CaptureFixture[str]) -> None:
    board, some = leaderboard.FULL, leaderboard.FULL.aside("max_norm")
    assert not {board.runs, board.results, board.page, board.shipped} & {
        some.runs, some.results, some.page, some.shipped,
    }  # fmt: skip
    with pytest.raises(typer.Exit):
        leaderboard.main(method=["max_nrom"])
    with pytest.raises(typer.Exit):
        leaderboard.main(only=["clothes"])
    with pytest.raises(typer.Exit):
        leaderboard.main(on="nowhere")
    assert capsys.readouterr().err.splitlines()[-1].startswith('error: --on nowhere: give "local", or the head of')
