"""The loop: exact zeros, resuming, checkpointing, non-finite losses, logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tenuto.families.base import Base, Conditioning
from tenuto.regularizers.prior_prediction import PriorPrediction
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.training.folder import RunFolder
from tenuto.training.journal import Journal
from tenuto.training.loop import NotFinite, train
from tenuto.training.plan import Plan
from tenuto.training.state import load_state
from tenuto.words import TenutoError
from tests.steps import SQUARE, WIDE, equal, make_run, things


def test_a_zero_adapter_has_a_distillation_loss_of_exactly_zero(tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, {"p": PriorPrediction(weight=5.0)}, prior=things(4, "prior", WIDE))
    rows = next(run.remaining())
    terms = run.learn(rows)
    assert terms["p"] == 0.0
    assert terms["instance"] > 0
    for parameter in run.adapter.parameters():
        parameter.grad = None
    run.learn([row for row in rows if row.role == "prior"])
    assert all(p.grad is None or not p.grad.any() for p in run.adapter.parameters())


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, 5.0])
def test_ratio_decides_how_many_prior_rows_there_are(ratio: float, tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, {"p": PriorPreservation()}, ratio=ratio, steps=4)
    train(run)
    assert sum(entry["prior_rows"] for entry in run.journal.read()) == ratio * 8


@pytest.mark.parametrize(("ratio", "weight"), [(2.0, 1.0), (0.5, 1.0), (0.25, 2.0), (0.125, 4.0)])
def test_a_prior_term_counts_the_same_in_however_few_updates_its_rows_come(
    ratio: float, weight: float, tiny_base: Base, tmp_path: Path
) -> None:
    """E[stochastic rows] = full rows: the mean over updates is the mean over prior rows."""
    run = make_run(tiny_base, tmp_path, {"p": PriorPreservation(weight=0.5)}, ratio=ratio, steps=16)
    assert run.importance == {"instance": 1.0, "prior": weight}
    drafts = [run.maker.draft(row, 0.0) for update in range(16) for row in run._rows(update)]
    errors = [run.maker.alone([draft]).error([0]).item() for draft in drafts if draft.role == "prior"]
    losses = [run.learn(run._rows(update)).get("p", 0.0) for update in range(16)]
    assert sum(losses) / 16 == pytest.approx(0.5 * sum(errors) / len(errors), rel=1e-4)


def test_gradient_checkpointing_changes_nothing(tiny_base: Base, tmp_path: Path) -> None:
    def gradients(on: bool) -> list[torch.Tensor]:
        run = make_run(tiny_base, tmp_path, {"p": PriorPrediction(weight=1.0)}, parts=("attention", "text_encoder"))
        for parameter in run.adapter.parameters():
            parameter.data.add_(0.01)
        tiny_base.checkpointing(on)
        run.learn(next(run.remaining()))
        tiny_base.checkpointing(False)
        found = [parameter.grad.clone() for parameter in run.adapter.parameters()]
        run.adapter.detach()
        return found

    for plain, recomputed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-5, atol=1e-7)
    assert any(g.abs().max() > 0 for g in gradients(False)[-4:]), "the text encoder gets gradients"


def test_a_loss_that_is_not_finite_stops_and_names_the_rows(tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, steps=3, save_every=1)
    inner = run.maker.ask

    def broken(x_t, t, cond, *, adapter):  # type: ignore[no-untyped-def]
        return inner(x_t, t, cond, adapter=adapter) * (float("nan") if run.done == 2 else 1.0)

    run.maker.ask = broken  # type: ignore[method-assign]
    with pytest.raises(NotFinite, match=r"update 3: .*instance-16x16-.*states") as caught:
        train(run)
    assert "\n" not in str(caught.value)
    saved = sorted((tmp_path / "states").glob("*"))
    assert load_state(saved[-1]).update == 2
    assert all(value.isfinite().all() for value in load_state(saved[-1]).adapter.values())


def test_another_plan_is_refused(tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, steps=2)
    train(run)
    run.adapter.detach()
    other = make_run(tiny_base, tmp_path, steps=2)
    other.plan = Plan({"test": 2})
    with pytest.raises(TenutoError, match="another plan: test is 2 and was 1; put that back"):
        train(other)


def test_rows_of_both_roles_share_one_forward(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With gradients: the base's own answers are another one, of the prior rows alone."""
    methods = {"a": PriorPreservation(weight=0.5), "b": PriorPrediction(weight=1.0)}
    run = make_run(tiny_base, tmp_path, methods, prior=things(4, "prior"), ratio=1.0)
    rows = next(run.remaining())
    prior = sum(row.role == "prior" for row in rows)
    inner, asked = tiny_base.predict, []

    def predict(x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        asked.append((len(x_t), torch.is_grad_enabled()))
        return inner(x_t, t, cond)

    monkeypatch.setattr(tiny_base, "predict", predict)
    run.learn(rows)
    assert 0 < prior < len(rows)
    assert asked == [(len(rows), True), (prior, False)]


def test_mixed_sizes_and_a_trained_text_encoder(tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(
        tiny_base, tmp_path, {"p": PriorPrediction(weight=1.0)}, items=[*things(3), *things(3, bucket=WIDE)],
        prior=[*things(3, "prior"), *things(2, "prior", WIDE)], parts=("attention", "text_encoder"), steps=3,
    )  # fmt: skip
    before = run.adapter.state()
    train(run)
    after = run.adapter.state()
    assert any(n.startswith("lora_te") and not torch.equal(after[n], before[n]) for n in before)


def test_the_log_is_cut_back_to_where_a_resumed_training_stands(tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, steps=5, save_every=2)
    train(run)
    run.adapter.detach()
    whole = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for state in sorted((tmp_path / "states").glob("*"))[-1:]:
        state.unlink()  # as if killed after update 4 was saved and 5 was logged
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"update": 6, "half a li')
    again = make_run(tiny_base, tmp_path, steps=5, save_every=2)
    train(again)
    resumed = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    timeless = [[{k: v for k, v in entry.items() if k != "seconds"} for entry in log] for log in (whole, resumed)]
    assert timeless[0] == timeless[1]


def test_snapshots_are_kept_as_asked(tiny_base: Base, tmp_path: Path) -> None:
    train(make_run(tiny_base, tmp_path, steps=6, save_every=1, keep=2))
    assert [path.name for path in sorted((tmp_path / "snapshots").glob("*"))] == [
        "lora-000005.safetensors",
        "lora-000006.safetensors",
    ]


def test_a_rows_prediction_does_not_depend_on_its_neighbours(tiny_base: Base) -> None:
    torch.manual_seed(0)
    x, t = torch.randn(3, 4, 8, 8), torch.tensor([10, 500, 900])
    cond = tiny_base.encode_text(["a", "b c", "d"], [SQUARE] * 3)
    together = tiny_base.predict(x, t, cond)
    for i in range(3):
        torch.testing.assert_close(tiny_base.predict(x[i : i + 1], t[i : i + 1], cond.rows([i]))[0], together[i])


def test_same_seed_same_tensors(tiny_base: Base, tmp_path: Path) -> None:
    states = []
    for name in "ab":
        run = make_run(tiny_base, tmp_path / name, {"p": PriorPreservation()})
        train(run)
        states.append(run.adapter.state())
        run.adapter.detach()
    assert equal(*states)


def test_a_turned_bit_in_a_state_is_noticed(tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, steps=2, save_every=1)
    train(run)
    newest = sorted((tmp_path / "states").glob("*"))[-1]
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(data)
    told: list[str] = []
    state = RunFolder(tmp_path, lambda event: told.append(event.data["text"])).newest_state(run.plan)
    assert state is not None
    assert state.update == 1
    assert "does not match its checksum" in told[0]


def test_damaged_lines_of_the_log_are_left_out(tmp_path: Path) -> None:
    """As a power cut leaves them."""
    log = Journal(tmp_path / "log.jsonl")
    whole = b'{"update": 1, "lr": 0.1}\n'
    odd = (
        b'{"update": [1]}', b'{"update": 1e999}', b'{"update": 2, "lr": "x"}', b'{"update": 2, "lr": {}}', b"[1]",
        b'{"lr": 0.1}', b"\xc3(", b"\0" * 80, b"[" * 50_000, b'{"update": 3',
    )  # fmt: skip
    log.path.write_bytes(whole + b"\n".join(odd))
    assert log.read() == [{"update": 1, "lr": 0.1}]
    log.cut(1)
    assert log.path.read_bytes() == whole
