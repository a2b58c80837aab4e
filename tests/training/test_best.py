"""The best LoRA on the way: a score that drift counts against, and an end when it does not get better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file

from tenuto.adapters.onto import save_lora
from tenuto.families.base import Base
from tenuto.training.best import Best, BestSettings
from tenuto.training.journal import Journal
from tenuto.training.loop import Run, train
from tenuto.training.settings import TrainingSettings
from tenuto.words import Stopped, TenutoError
from tenuto.work.prepare import audited, prepare
from tenuto.work.train import train_all
from tests.steps import equal, make_run
from tests.training.test_job import project

GAINS = {2: 0.1, 4: 0.5, 6: 0.6, 8: 0.7, 10: 0.2}
DRIFTS = {2: 0.0, 4: 0.1, 6: 0.4, 8: 0.9, 10: 0.0}
"""By update; less drift: .1, .4, .2, -.2, .2."""


def scripted(base: Base, folder: Path, **best: Any) -> Run:
    run = make_run(base, folder, steps=10, save_every=5, watch_every=2, best={"keep": True, **best})
    run.watch = [lambda: {"drift": DRIFTS[run.done]}, lambda: {"validation_gain": GAINS[run.done]}]
    run.header = lambda done: {"ss_steps": str(done)}
    return run


def kept_at(folder: Path) -> str:
    with safe_open(folder / "lora-best.safetensors", framework="pt") as file:
        return str((file.metadata() or {})["ss_steps"])


def test_the_score_by_hand() -> None:
    readings = {"validation_gain": 0.3, "drift": 0.2}
    assert BestSettings().score(readings) == pytest.approx(0.1)
    assert BestSettings(drift_weight=0.0).score(readings) == pytest.approx(0.3)
    assert BestSettings().score({"validation_gain": float("nan"), "drift": 0.0}) is None


def test_the_search() -> None:
    best = Best()
    for update, score in enumerate((0.1, 0.4, None, 0.3, 0.5), 1):
        best = best.after(score, update)
        assert best.since == {1: 0, 2: 0, 3: 1, 4: 2, 5: 0}[update]
    assert (best.score, best.update) == (0.5, 5)
    assert Best().after(-3.0, 1).update == 1, "the first reading is the best so far, whatever it is"


def test_the_best_is_kept_as_it_was(tiny_base: Base, tmp_path: Path) -> None:
    run = scripted(tiny_base, tmp_path)
    inner, target = run.apply, tmp_path / "by-hand.safetensors"

    def apply(rows: Any = ()) -> dict[str, float]:
        entry = inner(rows)
        if run.done == 4:
            save_lora(run.adapter, target, {})
        return entry

    run.apply = apply  # type: ignore[method-assign]
    train(run)
    assert kept_at(tmp_path) == "4"
    assert equal(load_file(tmp_path / "lora-best.safetensors"), load_file(target))
    scores = {int(entry["update"]): entry["score"] for entry in run.journal.read() if "score" in entry}
    assert scores == pytest.approx({2: 0.1, 4: 0.4, 6: 0.2, 8: -0.2, 10: 0.2})


def test_without_the_drift_another_one_is_best(tiny_base: Base, tmp_path: Path) -> None:
    train(scripted(tiny_base, tmp_path, drift_weight=0.0))
    assert kept_at(tmp_path) == "8"


def test_it_ends_when_nothing_gets_better_and_stays_ended(tiny_base: Base, tmp_path: Path) -> None:
    run = scripted(tiny_base, tmp_path, patience=2)
    lora = train(run)
    assert (run.done, run.best.update) == (8, 4)
    assert sorted(path.name for path in (tmp_path / "states").glob("*"))[-1] == "000008.safetensors"
    file = load_file(lora)
    run.adapter.detach()
    again = scripted(tiny_base, tmp_path, patience=2)
    assert equal(load_file(train(again)), file)
    assert again.done == 8
    again.adapter.detach()
    longer = scripted(tiny_base, tmp_path, patience=9)
    train(longer)
    assert longer.done == 10, "more patience: it goes on"


def test_a_resumed_search_knows_the_best(tiny_base: Base, tmp_path: Path) -> None:
    run = scripted(tiny_base, tmp_path)
    run.stop = lambda: run.done == 5
    with pytest.raises(Stopped):
        train(run)
    run.adapter.detach()
    train(scripted(tiny_base, tmp_path))
    assert kept_at(tmp_path) == "4"


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValidationError, match="patience needs keep"):
        BestSettings(patience=3)
    with pytest.raises(ValidationError, match="needs readings"):
        TrainingSettings(best={"keep": True}, watch_every=0)


def test_it_needs_pictures_that_are_kept_out(tiny_folder: Path, tmp_path: Path) -> None:
    training = {"steps": 2, "batch": 2, "adapter": {"rank": 2}, "watch_every": 1, "best": {"keep": True}}
    lacking = prepare(project(tmp_path, tiny_folder, {}, training=training))
    assert any("no pictures are kept out" in str(problem) for problem in audited(lacking).errors)
    with pytest.raises(TenutoError, match=r"training\.best: no pictures are kept out of training; set data\.validat"):
        train_all(lacking, tmp_path / "run")
    whole = prepare(project(tmp_path, tiny_folder, {}, training=training, data={"validation": 0.4}))
    train_all(whole, tmp_path / "run")
    scores = [entry["score"] for entry in Journal(tmp_path / "run" / "held" / "seed-0" / "log.jsonl").read()]
    assert kept_at(tmp_path / "run" / "held" / "seed-0") == str(scores.index(max(scores)) + 1)
