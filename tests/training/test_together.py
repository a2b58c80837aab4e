"""Several real processes train one LoRA: as one process would, stopped, resumed, or ended by one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.ranks import RankLost, Ranks
from tenuto.regularizers.cached_prior import CachedPrior
from tenuto.regularizers.l2_to_base import L2ToBase
from tenuto.regularizers.prior_prediction import PriorPrediction
from tenuto.training.loop import NotFinite, Run, train
from tenuto.words import Stopped
from tests.ranks import on_ranks, start_ranks
from tests.regularizers.cases import with_states
from tests.steps import WIDE, equal, make_run, things

MIXED: dict[str, Any] = {
    "regularizers": {"cached_prior": CachedPrior(weight=0.5), "l2_to_base": L2ToBase(weight=0.1)},
    "items": [*things(4), *things(3, bucket=WIDE)],
    "prior": with_states(),
    "ratio": 0.5,
    "steps": 6,
    "save_every": 2,
}
"""Two sizes, a penalty, prior rows that are fewer than the instance rows."""


def trained(base: Base, folder: Path, **more: Any) -> dict[str, Tensor]:
    run = make_run(base, folder, **more)
    try:
        return load_file(train(run))
    finally:
        run.adapter.detach()


def assert_alike(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """But for rounding."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("more", [{}, {"micro_batch": 1}, {"parts": ("attention", "text_encoder")}])
def test_they_make_what_one_makes(more: dict[str, Any], count: int, tiny_base: Base, tmp_path: Path) -> None:
    """Of three, some have no row at all in an update of two or three."""
    on_ranks(lambda ranks: train(make_run(tiny_base, tmp_path / "many", ranks=ranks, **MIXED, **more)), count)
    assert_alike(trained(tiny_base, tmp_path / "one", **MIXED, **more), load_file(tmp_path / "many/lora.safetensors"))


def test_a_rank_without_rows_knows_the_loss_scale(tiny_folder: Path, tmp_path: Path) -> None:
    base = open_base(str(tiny_folder), device="cpu", dtype=torch.float16)
    more: dict[str, Any] = {"items": things(2), "steps": 2, "precision": "fp16"}
    on_ranks(lambda ranks: train(make_run(base, tmp_path / "many", ranks=ranks, **more)), 3)  # updates of two rows
    assert_alike(trained(base, tmp_path / "one", **more), load_file(tmp_path / "many/lora.safetensors"))


def test_the_log_tells_of_all_rows(tiny_base: Base, tmp_path: Path) -> None:
    def logged(folder: Path) -> list[dict[str, float]]:
        return make_run(tiny_base, folder, **MIXED).journal.read()

    on_ranks(lambda ranks: train(make_run(tiny_base, tmp_path / "two", ranks=ranks, **MIXED)))
    trained(tiny_base, tmp_path / "one", **MIXED)
    for own, one in zip(logged(tmp_path / "two"), logged(tmp_path / "one"), strict=True):
        assert own.keys() == one.keys()
        assert own["prior_rows"] == one["prior_rows"]
        for name, value in one.items():
            if name.startswith(("loss.", "weight.", "gradient_norm")):
                assert own[name] == pytest.approx(value, rel=1e-3, abs=1e-7)


def test_stopped_by_the_second_and_gone_on_with(tiny_base: Base, tmp_path: Path) -> None:
    """Both stop after the same update; two go on bit for bit, one goes on but for rounding."""

    def stopped(folder: Path) -> Callable[[Ranks], None]:
        def work(ranks: Ranks) -> None:
            run = make_run(tiny_base, folder, ranks=ranks, **MIXED)
            run.stop = lambda: not ranks.first and run.done == 3
            with pytest.raises(Stopped, match="after update 3 of 6"):
                train(run)

        return work

    for name in ("cut", "then one"):
        on_ranks(stopped(tmp_path / name))
    for name in ("whole", "cut"):
        folder = tmp_path / name
        on_ranks(lambda ranks, folder=folder: train(make_run(tiny_base, folder, ranks=ranks, **MIXED)))
    whole = load_file(tmp_path / "whole" / "lora.safetensors")
    assert equal(load_file(tmp_path / "cut" / "lora.safetensors"), whole)
    assert_alike(whole, trained(tiny_base, tmp_path / "then one", **MIXED))


def test_a_resuming_process_needs_no_shared_disk(tiny_base: Base, tmp_path: Path) -> None:
    """The second has a folder of its own, in which nothing ever lies."""
    whole = tmp_path / "whole"
    on_ranks(lambda ranks: train(make_run(tiny_base, whole, ranks=ranks, **MIXED)))

    def work(ranks: Ranks) -> None:
        run = make_run(tiny_base, tmp_path / f"machine-{ranks.rank}", ranks=ranks, **MIXED)
        run.stop = lambda: run.done == 3
        with pytest.raises(Stopped):
            train(run)

    on_ranks(work)
    on_ranks(lambda ranks: train(make_run(tiny_base, tmp_path / f"machine-{ranks.rank}", ranks=ranks, **MIXED)))
    assert equal(load_file(tmp_path / "machine-0" / "lora.safetensors"), load_file(whole / "lora.safetensors"))
    assert not (tmp_path / "machine-1").exists()


def test_processes_that_round_apart_go_on_from_the_first(tiny_base: Base, tmp_path: Path) -> None:
    def work(ranks: Ranks) -> None:
        run = make_run(tiny_base, tmp_path / "run", ranks=ranks, **MIXED)
        inner = run.apply

        def apply(rows: Any = ()) -> dict[str, float]:
            entry = inner(rows)
            if not ranks.first and run.done == 3:
                with torch.no_grad():
                    run.adapter.parameters()[0].add_(1e-6)
            return entry

        run.apply = apply  # type: ignore[method-assign]
        train(run)
        save_file(run.adapter.state(), tmp_path / f"rank-{ranks.rank}.safetensors")

    on_ranks(work)
    first, second = (load_file(tmp_path / f"rank-{rank}.safetensors") for rank in range(2))
    assert equal(first, second)


def test_a_loss_that_is_not_finite_on_one_ends_all(tiny_base: Base, tmp_path: Path) -> None:
    def work(ranks: Ranks) -> None:
        run = make_run(tiny_base, tmp_path / "run", ranks=ranks, **MIXED)
        inner = run.maker.ask

        def broken(*given: Any, **more: Any) -> Tensor:
            return inner(*given, **more) * (float("nan") if run.done == 3 and not ranks.first else 1.0)

        run.maker.ask = broken  # type: ignore[method-assign]
        with pytest.raises(RankLost if ranks.first else NotFinite):
            train(run)

    processes = start_ranks(work)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.name for path in (tmp_path / "run" / "states").iterdir()] == ["000002.safetensors"]


def test_an_early_end_is_agreed_on(tiny_base: Base, tmp_path: Path) -> None:
    """Only the first takes readings."""
    best = {"keep": True, "patience": 1}

    def work(ranks: Ranks) -> None:
        run: Run = make_run(
            tiny_base, tmp_path / "run", {"p": PriorPrediction()}, ranks=ranks, steps=6, watch_every=1, best=best
        )
        run.watch = [lambda: {"drift": 0.0, "validation_gain": -float(run.done)}] if ranks.first else []
        train(run)
        assert (run.done, run.best.update) == (2, 1)

    on_ranks(work)
