"""A sweep: arms from a file, the work as tasks, one comparison; stopped anywhere, it ends the same."""

from __future__ import annotations

import json
import pickle
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import tomli_w
import torch
from PIL import Image
from safetensors.torch import load_file

from tenuto.evaluation.answers import Answers
from tenuto.evaluation.sweep import SweepResult
from tenuto.evaluation.sweep_page import table_of
from tenuto.evaluation.wording import number_text
from tenuto.events import Listener
from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.words import Stopped, TenutoError
from tenuto.work.sweep import PriorTask, plan_sweep, run_sweep
from tenuto.work.sweep_file import load_sweep
from tenuto.work.tasks import Task, in_sequence
from tests.children import running, said
from tests.cli.test_commands import call
from tests.jobs import until
from tests.still import still_once

T = TypeVar("T")


def paint(folder: Path, shade: int) -> None:
    """Three captioned pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        Image.new("RGB", (16, 16), (60 * number, 90, shade)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"zxq, 1girl, place {number}")


def write(folder: Path, base: Path, sweep: dict[str, Any]) -> Path:
    """A project of three pictures and a sweep file beside it."""
    paint(folder / "pictures", 20)
    project = {
        "seed": 1,
        "base": {"model": str(base), "device": "cpu"},
        "concepts": [{"name": "c", "images": "pictures", "trigger": "zxq", "class_word": "hat"}],
        "prior": {"per_image": 2, "ratio": 0.5, "store": "store", "sampler": {"steps": 2}},
        "regularizers": {"prior_prediction": {"weight": 2.0}},
        "training": {"steps": 2, "batch": 2, "save_every": 1, "watch_every": 0, "adapter": {"rank": 2}},
        "comparison": {
            "seeds": [0], "prompts": 1, "drift_prompts": 1, "states": 2, "steps": 2, "weights": [],
            "curve_weights": [0.5], "curve_checkpoints": 1, "curve_prompts": 1,
        },
    }  # fmt: skip
    (folder / "project.toml").write_text(tomli_w.dumps(project))
    (folder / "ask.toml").write_text(tomli_w.dumps({"project": "project.toml", **sweep}))
    return folder / "ask.toml"


ASK: dict[str, Any] = {
    "about": "Does it hold?",
    "seeds": [3, 4],
    "axes": {"regularizers.prior_prediction.weight": [4.0]},
    "arms": {"none": {"regularizers": {}}, "many": {"prior.per_image": 3, "prior.ratio": 1.0}},
}


def test_arms_of_a_file(tiny_folder: Path, tmp_path: Path) -> None:
    axes = {"training.adapter.rank": [1, 2], "prior.prompts": ["match", "none"]}
    arms = {"none": {"regularizers": {}}, "half": {"concepts.0.trigger": "place"}}
    settings = {"training.steps": 5, "comparison.prompts": 2}
    file = write(tmp_path, tiny_folder, {"settings": settings, "axes": axes, "arms": arms, "seeds": [7]})
    sweep = load_sweep(file, ["training.batch=1"])
    assert [arm.name for arm in sweep.arms] == [
        "none", "half",
        "rank=1, prompts=match", "rank=1, prompts=none", "rank=2, prompts=match", "rank=2, prompts=none",
    ]  # fmt: skip
    assert {arm.project.training.steps for arm in sweep.arms} == {5}
    assert {arm.project.training.batch for arm in sweep.arms} == {1}
    assert sweep.arms[0].project.regularizers == {}
    assert sweep.arms[1].project.concepts[0].trigger == "place"
    assert sweep.project.concepts[0].trigger == "zxq"
    assert sweep.arms[3].project.prior.prompts == "none"
    assert sweep.arms[3].project.training.adapter.rank == 1
    assert Path(sweep.arms[0].project.concepts[0].images) == tmp_path / "pictures"
    assert sweep.compared_with() == "none"
    assert sweep.seeds == (7,)


def test_names_of_arms_say_as_much_as_is_needed(tiny_folder: Path, tmp_path: Path) -> None:
    axes = {
        "regularizers.prior_prediction.weight": [0.25],
        "regularizers.l2_to_base.weight": [1],
        "prior.own": {"one list": "a/b.txt"},
    }
    sweep = load_sweep(write(tmp_path, tiny_folder, {"axes": axes}))
    assert sweep.arms[0].name == "prior_prediction.weight=0.25, l2_to_base.weight=1, own=one list"


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        ({}, "no arm"),
        ({"project": "nowhere.toml"}, "nowhere.toml: no such project file"),
        ({"seedz": [1]}, "did you mean 'seeds'"),
        ({"axes": {"training.stepz": [1]}}, "arm 'stepz=1'.*did you mean 'steps'"),
        ({"axes": {"training.steps": []}}, "training.steps has no values"),
        ({"axes": {"concepts.0.prior": [{"ratio": 1}]}}, "give long values names"),
        ({"axes": {"base.model": ["a"]}}, "one checkpoint"),
        ({"arms": {"a": {"comparison.prompts": 1}}}, "measured alike"),
        ({"arms": {"a": {"prior": {"ratio": 1}}}}, 'a whole section; name one setting, in quotes: "prior.ratio"'),
        ({"arms": {"a": {"concepts.4.trigger": "x"}}}, "arm 'a': name one of the 1 entries by its number"),
        ({"arms": {"a/b": {"training.steps": 1}}}, "cannot name an arm"),
        ({"arms": {"..": {"training.steps": 1}}}, "cannot name an arm"),
        ({"arms": {"base": {"training.steps": 1}}}, "cannot name an arm"),
        ({"arms": {"a": {"training.steps": 1}, "b": {"training.steps": 1}}}, "'a' and 'b' are the same training"),
        ({"arms": {"a": {}}, "reference": "b"}, "reference 'b' is no arm"),
        ({"arms": {"a": {}}, "seeds": [1, 1]}, "hold one twice"),
        ({"arms": {"a": {"concepts.0.name": "other"}}}, "teaches 'other'"),
        ({"arms": {"a": {"concepts.0.images": "nowhere"}}}, "arm 'a'.*nowhere"),
        ({"arms": {"a": {}, "b": {"regularizers": {"masked_prior": {}}}}}, "arm 'b'.*needs masks"),
        ({"arms": {"a": {}}, "settings": {"comparison.weights": [1.0]}}, "comparison.weights must hold 0"),
        ({"arms": {"a": {}}, "settings": {"comparison.other_base": "pocket"}}, "arm 'a'.*other layers"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(
    sweep: dict[str, Any], says: str, tiny_folder: Path, tmp_path: Path
) -> None:
    file = write(tmp_path, tiny_folder, sweep)
    with pytest.raises(TenutoError, match=says) as error:
        run_sweep(load_sweep(file), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def sent(tasks: Sequence[Task[T]], listener: Listener, stop: Callable[[], bool]) -> list[T]:
    """A runner as one that sends tasks away has to be: tasks and answers travel as bytes; the last task comes first."""
    results = [pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(task))(listener, stop))) for task in tasks[::-1]]
    return results[::-1]


def test_the_same_is_asked_on_another_checkpoint(tiny_folder: Path, tiny_v_folder: Path, tmp_path: Path) -> None:
    ask = {"settings": {"comparison.other_base": str(tiny_v_folder)}, "arms": {"a": {}, "b": {"training.steps": 3}}}
    result = run_sweep(load_sweep(write(tmp_path, tiny_folder, {**ask, "seeds": [0]})), tmp_path / "out")
    on = result.concepts["c"]
    assert list(on.elsewhere) == list(on.arms) == ["a", "b"]
    for arm in on.arms:
        here, there = on.arms[arm]["drift"].mean, on.elsewhere[arm]["drift"].mean
        assert None not in (here, there)
        assert here != there
    page = (tmp_path / "out" / "sweep.html").read_text(encoding="utf-8")
    own = page.partition("On another checkpoint")[2]
    assert str(tiny_v_folder) in own
    assert (
        f"{number_text(on.arms['b']['drift'].mean, 'drift')} → {number_text(on.elsewhere['b']['drift'].mean, 'drift')}"
        in own
    )
    assert SweepResult.load(tmp_path / "out" / "sweep.json") == result


def test_from_file_to_page(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = load_sweep(write(tmp_path, tiny_folder, ASK))
    result = run_sweep(sweep, tmp_path / "out", runner=sent)
    on = result.concepts["c"]
    names = ["none", "many", "weight=4"]
    assert list(on.arms) == [record.name for record in result.arms] == names
    assert all(len(on.arms[name]["drift"].per_seed) == 2 for name in names), "one entry per training"
    assert result.reference == "none"
    assert set(on.matched) == set(names[1:])
    pools = {record.name: (record.pool, record.ratio["c"], record.prior_rows, record.used) for record in result.arms}
    assert pools == {"none": (0, 0.0, 0, 0), "many": (9, 1.0, 4, 4), "weight=4": (6, 0.5, 2, 2)}
    assert SweepResult.load(tmp_path / "out" / "sweep.json") == result

    page = (tmp_path / "out" / "sweep.html").read_text(encoding="utf-8")
    assert "Does it hold?" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("data:image/webp") >= 5 * len(on.arms)
    table = table_of(result, "c")
    assert [row[0].text for row in table.rows.values()] == ["0", "9", "6"]
    assert {len(row) for row in table.rows.values()} == {len(table.columns)}
    assert "Drift (nD)" in table.columns
    assert "Bake" not in table.columns, "nobody can read these pictures"
    assert "Bake (no tagger" in page

    def never(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("tenuto.evaluation.bench.Bench._sampled", never)
    monkeypatch.setattr("tenuto.training.loop.Run.learn", never)
    monkeypatch.setattr(Answers, "of_base", never)
    assert run_sweep(sweep, tmp_path / "out") == result


def test_the_checkpoint_is_opened_once_for_arms_of_one_precision(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[torch.dtype] = []

    def counted(model: str, *, dtype: torch.dtype, **more: Any) -> Base:
        opened.append(dtype)
        return open_base(model, dtype=dtype, **more)

    monkeypatch.setattr("tenuto.work.prepare.open_base", counted)
    arms = {**ASK["arms"], "half": {"training.precision": "bf16"}}
    plans = plan_sweep(load_sweep(write(tmp_path, tiny_folder, {**ASK, "arms": arms})))
    assert [plan.arm for plan in plans] == ["none", "many", "half", "weight=4"]
    assert opened == [torch.float32, torch.bfloat16, torch.float32], "none beside another"


def test_stopping_between_tasks(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="goes on from there"):
        in_sequence([lambda listener, stop: 1], stop=lambda: True)  # type: ignore[list-item]


def test_prior_sets_are_shared(tiny_folder: Path, tmp_path: Path) -> None:
    light = {"regularizers.prior_prediction.weight": 1}
    arms = {"x2": {"prior.per_image": 2}, "x4": {"prior.per_image": 4}, "x2, light": light}
    sweep = load_sweep(write(tmp_path, tiny_folder, {"arms": arms, "settings": {"prior.batch": 2}}))
    assert [plan.generation for plan in plan_sweep(sweep)] == [6 * 2 * 2, 12 * 2 * 2, 6 * 2 * 2]
    assert in_sequence([PriorTask(arm.name, arm.project) for arm in sweep.arms]) == [6, 12, 6]
    shards = list((tmp_path / "store").rglob("*.safetensors"))
    assert len(shards) == 6, "the largest pool begins with the smaller ones"


def test_an_arm_is_compared_on_the_concepts_that_it_teaches(tiny_folder: Path, tmp_path: Path) -> None:
    one = {"name": "c", "images": "pictures", "trigger": "zxq", "class_word": "hat"}
    other = {"name": "d", "images": "others", "trigger": "zxq", "class_word": "cat"}
    paint(tmp_path / "others", 200)
    arms = {"both": {"regularizers": {}}, "alone": {"regularizers": {}, "concepts": [other]}}
    file = write(tmp_path, tiny_folder, {"seeds": [0], "settings": {"concepts": [one, other]}, "arms": arms})
    result = run_sweep(load_sweep(file), tmp_path / "out")
    assert {name: list(on.arms) for name, on in result.concepts.items()} == {"c": ["both"], "d": ["both", "alone"]}


def test_sigkill_anywhere_then_the_same_command(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process, killed while it trains and while it reads, ends in the same bits as one that was left alone."""
    small = {"seeds": [3], "arms": {"none": {"regularizers": {}}, "held": {}}}
    files = {name: write(tmp_path / name, tiny_folder, small) for name in ("whole", "cut")}

    own, command = files["cut"].parent, ("sweep", "ask.toml", "--out", "out", "--json")
    for pattern, count in (("out/arms/**/*.safetensors", 3), ("out/**/readings/*", 9)):
        there = lambda pattern=pattern, count=count: len(list(own.glob(pattern))) >= count  # noqa: E731
        with running(command, own, still_once(there)) as process:
            until(there)
        assert process.exitcode == -signal.SIGKILL, said(own)
        assert not (own / "out" / "sweep.json").exists()
    monkeypatch.chdir(own)
    status, out, errors = call(*command)
    assert status == 0, errors
    assert Path(json.loads(out)["page"]).name == "sweep.html"
    run_sweep(load_sweep(files["whole"]), tmp_path / "whole" / "out")
    for whole in (tmp_path / "whole" / "out" / "arms").rglob("lora.safetensors"):
        a, b = load_file(whole), load_file(tmp_path / "cut" / whole.relative_to(tmp_path / "whole"))
        assert all(torch.equal(a[name], b[name]) for name in a)
    results = [SweepResult.load(tmp_path / name / "out" / "sweep.json").concepts["c"] for name in files]
    for arm, numbers in results[0].arms.items():
        for name in numbers.keys() - {"seconds"}:
            assert numbers[name].per_seed == results[1].arms[arm][name].per_seed, (arm, name)


def test_the_command(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = {"regularizers.prior_prediction.weight": [4.0]}
    file = write(tmp_path, tiny_folder, {"seeds": [3], "axes": axes, "arms": {"none": {"regularizers": {}}}})
    monkeypatch.chdir(tmp_path)
    status, out, errors = call("sweep", str(file), "--plan", "--json")
    assert status == 0, errors
    plan = json.loads(out)
    assert [(arm["arm"], arm["pool"]) for arm in plan["arms"]] == [("none", 0), ("weight=4", 6)]
    assert plan["trainings"] == 2
    status, out, errors = call("sweep", str(file), "--plan")
    assert status == 0, errors
    assert "2 trainings" in out
    assert not Path("runs").exists()
    status, out, errors = call("sweep", str(file), "--set", "training.steps=1")
    assert status == 0, errors
    assert "weight=4" in out
    assert Path("runs/ask/sweep.html").is_file()
    status, _, errors = call("sweep", "nothing.toml")
    assert status == 1
    assert errors.strip() == "error: nothing.toml: no such sweep file; the README shows one"
