"""A whole comparison on the tiny base: numbers, pairing, resuming, and weights left as they were."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.adapters.onto import save_lora
from tenuto.data.bank import Bank
from tenuto.data.dataset import Concept, Item
from tenuto.evaluation.arms import Arm, Trained
from tenuto.evaluation.bench import Bench, Wanted, sampler_of
from tenuto.evaluation.comparison import compare
from tenuto.evaluation.groups import groups_of_concept
from tenuto.evaluation.metrics import METRICS
from tenuto.evaluation.readings import Store
from tenuto.evaluation.record import Comparison, Number
from tenuto.evaluation.settings import ComparisonSettings
from tenuto.evaluation.taggers import Tagger
from tenuto.families.base import Base, Conditioning
from tenuto.families.sampling import SamplerSettings
from tenuto.words import Size, TenutoError

GROUPS = {
    "subject": ("1girl", "1boy"),
    "hair": ("red", "blue", "green", "black"),
    "place": ("city", "beach"),
    "view": ("front", "side"),
    "style": ("line", "flat"),
}
BANK = Bank(GROUPS, dict.fromkeys(GROUPS, 1.0), name="test")
CONCEPT = Concept("eyes", "concept", "zxq")
SETTINGS = ComparisonSettings(
    seeds=(0, 1), prompts=1, drift_prompts=2, states=2, steps=2, guidance=2.0, weights=(0.0, 1.0), strip_prompts=2,
    curve_weights=(0.5,), curve_checkpoints=1, curve_prompts=1, curve_seeds=1, loss_times=(0.5,), shown=1,
)  # fmt: skip
SIZE = Size(16, 16)
Watch = Callable[[Tensor, Tensor], None] | None


class Brightness:
    """A tagger that reads mean colours: deterministic, no weights."""

    groups: Mapping[str, tuple[str, ...]] = {"style": ("line", "flat"), "place": ("city", "beach")}
    single: tuple[str, ...] = ("style", "place")
    concepts: tuple[str, ...] = ("eyes",)
    hash = "brightness"

    def read(self, pixels: Tensor) -> dict[str, Tensor]:
        red, green, blue = (pixels.mean(dim=(2, 3)) * 20).sigmoid().unbind(dim=1)
        return {
            "style": torch.stack([red, 1 - red], 1),
            "place": torch.stack([green, 1 - green], 1),
            "concepts": blue[:, None],
        }


def lora(base: Base, path: Path, size: float, seed: int = 0) -> Path:
    if path.exists():
        return path
    adapter = Adapter.attach(base, AdapterSettings(rank=2), seed=seed)
    state = adapter.state()
    generator = torch.Generator().manual_seed(seed)
    adapter.load(
        {k: size * torch.randn(v.shape, generator=generator) if k.endswith("lora_B") else v for k, v in state.items()}
    )
    save_lora(adapter, path, {})
    adapter.detach()
    return path


def items(folder: Path, count: int = 2) -> list[Item]:
    found = []
    for n in range(count):
        path = folder / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE, (40 * n, 90, 10)).save(path)
        found.append(
            Item(f"item{n}", path, f"zxq, 1girl, {'red' if n else 'blue'}, city, front, line", "eyes", SIZE, SIZE)
        )
    return found


def arms(base: Base, folder: Path) -> list[Arm]:
    strong, weak = lora(base, folder / "strong.safetensors", 1.0), lora(base, folder / "weak.safetensors", 0.2)
    half = lora(base, folder / "half.safetensors", 0.5)
    return [
        Arm("plain", (Trained(0, strong, {1: half}, steps=2, seconds=10.0, forwards=100.0),)),
        Arm("held", (Trained(0, weak, {1: weak}, steps=2, seconds=20.0, forwards=300.0, setup_seconds=8.0),)),
    ]


def run(
    base: Base, folder: Path, settings: ComparisonSettings = SETTINGS, tagger: Tagger | None = None, **more: object
) -> Comparison:
    pictures = items(folder / "set", 3)
    result = compare(
        base,
        arms(base, folder),
        CONCEPT,
        pictures[:2],
        BANK,
        settings,
        folder / "out",
        tagger=tagger,
        held_out=pictures[2:],
        **more,  # type: ignore[arg-type]
    )
    result.save(folder / "out" / "comparison.json")
    return result


@pytest.fixture
def weights(tiny_base: Base) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in tiny_base.denoiser.state_dict().items()}


def test_as_many_far_prompts_are_read_as_there_are_near_ones(tiny_base: Base, tmp_path: Path) -> None:
    """Both count alike in the drift, also where a set has not so many near it."""
    run(tiny_base, tmp_path, SETTINGS.model_copy(update={"seeds": (0,), "drift_prompts": 30, "weights": ()}))
    (reading, *_) = sorted((tmp_path / "out" / "readings").glob("plain-0-predictions-*.json"))
    kinds = {(gap["kind"], gap["prompt"]) for gap in json.loads(reading.read_text())["reading"]["gaps"]}
    count = Counter(kind for kind, _ in kinds)
    assert 5 < count["near"] == count["far"] < 30


def test_whole_comparison_then_nothing_is_read_twice(
    tiny_base: Base, tmp_path: Path, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    second = lora(tiny_base, tmp_path / "second.safetensors", 0.5, seed=3)
    settings = SETTINGS.model_copy(update={"second_lora": second, "second_prompt": "cat"})
    result = run(tiny_base, tmp_path, settings, Brightness())
    data = json.loads((tmp_path / "out" / "comparison.json").read_text())
    for arm in ("plain", "held"):
        for name in (*METRICS, "seconds", "forwards"):
            number = data["arms"][arm][name]
            assert number["mean"] is not None or number["reason"], name
        assert len(data["arms"][arm]["drift"]["per_seed"]) == 2
    assert data["arms"]["plain"]["seconds"] == {
        "mean": 10.0,
        "per_seed": [10.0],
        "interval": None,
        "reason": None,
        "detail": [{}],
    }
    assert data["arms"]["plain"]["drift"]["mean"] > data["arms"]["held"]["drift"]["mean"] > 0
    assert data["arms"]["plain"]["drift"]["detail"][0]["floor"] == 0.0
    assert set(data["arms"]["plain"]["style_bleed"]["detail"][0]) == {"style", "a", "b", "c"}
    assert all(0 < value < 2 for arm in ("plain", "held") for value in data["arms"][arm]["additivity"]["per_seed"])
    parts = {arm: data["arms"][arm]["additivity"]["detail"][0] for arm in ("plain", "held")}
    assert parts["plain"]["share"] > parts["held"]["share"] > 0
    assert {own["states"] for own in parts.values()} == {3 * settings.states}  # near, far, empty
    assert [(p["step"], p["strength"]) for p in data["curves"]["held"][:3]] == [(1, 1.0), (2, 1.0), (2, 0.5)]
    assert data["curves"]["held"][0]["seconds"] == pytest.approx(8 + 6)
    assert all(
        p[name] is not None for p in data["curves"]["held"] for name in ("drift", "bake", "bleed", "tag_compliance")
    )
    assert (tmp_path / "out" / result.pictures["plain"]["trained"][0]).is_file()
    assert all(torch.equal(v, weights[k]) for k, v in tiny_base.denoiser.state_dict().items())
    assert Comparison.load(tmp_path / "out" / "comparison.json") == result

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(Bench, "_sampled", never)
    monkeypatch.setattr(Bench, "predict", never)
    assert run(tiny_base, tmp_path, settings, Brightness()) == result


def test_interrupted_equals_uninterrupted(tiny_base: Base, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls in (4, 9, 20):
            raise Enough

    small = SETTINGS.model_copy(update={"seeds": (0,), "prompts": 1, "curve_checkpoints": 0, "curve_weights": ()})
    for _ in range(3):
        with pytest.raises(Enough):
            run(tiny_base, tmp_path, small, Brightness(), stop=stop)
    broken = run(tiny_base, tmp_path, small, Brightness(), stop=stop)
    shutil.rmtree(tmp_path / "out")
    whole = run(tiny_base, tmp_path, small, Brightness())
    assert broken.arms == whole.arms
    assert broken.curves == whole.curves


def test_the_rows_of_a_model_are_drawn_together(tiny_base: Base, tmp_path: Path) -> None:
    """Of a size and a length of text, up to `batch` pictures at once, whatever row they belong to; seen alike."""
    small = SETTINGS.model_copy(update={"seeds": (0,), "curve_checkpoints": 0, "curve_weights": (), "weights": ()})

    def drawn(batch: int) -> tuple[list[int], Comparison]:
        settings, sizes = small.model_copy(update={"batch": batch}), list[int]()
        own = sampler_of(tiny_base, settings.sampler_settings())

        def counted(
            cond: Conditioning, uncond: Conditioning, size: Size, seeds: Sequence[int], watch: Watch = None
        ) -> Tensor:
            if watch is None:  # a picture, not a path
                sizes.append(len(seeds))
            return own(cond, uncond, size, seeds, watch)

        folder = tmp_path / str(batch)
        return sizes, run(tiny_base, folder, settings, Brightness(), sampler=counted)

    together, result = drawn(16)
    rows = len({prompt.row for prompt in result.prompts})
    assert together == [rows + 1] * 3, "base, plain and held: every row's one picture, and one more about the trigger"
    one_by_one, same = drawn(1)
    assert one_by_one == [1] * sum(together)
    for arm, numbers in result.arms.items():
        for name, number in numbers.items():
            assert same.arms[arm][name].mean == (None if number.mean is None else pytest.approx(number.mean, abs=1e-3))
    assert {arm: set(own) for arm, own in result.pictures.items()} == {
        arm: set(own) for arm, own in same.pictures.items()
    }
    assert set(result.pictures["held"]) == {prompt.row for prompt in result.prompts} | {"without"}


def test_a_picture_that_is_gone_is_drawn_anew(tiny_base: Base, tmp_path: Path) -> None:
    small = SETTINGS.model_copy(update={"seeds": (0,), "curve_checkpoints": 0, "curve_weights": (), "weights": ()})
    result = run(tiny_base, tmp_path, small, Brightness())
    picture = tmp_path / "out" / result.pictures["plain"]["trained"][0]
    before = picture.read_bytes()
    picture.unlink()
    assert run(tiny_base, tmp_path, small, Brightness()) == result
    assert picture.read_bytes() == before


def test_a_reading_that_was_changed_is_read_anew(tmp_path: Path) -> None:
    store, key = Store(tmp_path), {"model": "a", "noise": 0}
    assert store.keep("part", key, lambda: [1.25, 2.0]) == [1.25, 2.0]
    file = next(tmp_path.iterdir())
    whole = file.read_text()
    for changed in ("", whole[:-9], "[]", whole.replace("1.25", "9.25"), whole.replace('"a"', '"b"')):
        file.write_text(changed)
        assert store.keep("part", key, lambda: [1.25, 2.0]) == [1.25, 2.0], changed
        assert file.read_text() == whole
    assert store.keep("part", key, lambda: pytest.fail("read twice")) == [1.25, 2.0]


def test_without_tagger_only_predictions_speak(tiny_base: Base, tmp_path: Path) -> None:
    result = run(tiny_base, tmp_path)
    held = result.arms["held"]
    assert held["drift"].mean is not None
    assert held["fit"].mean is not None
    assert held["additivity"].reason == "no second LoRA was named"
    for name in ("concept_strength", "bake", "style_bleed", "tag_compliance", "trigger_necessity", "usable_weight"):
        assert held[name].mean is None
        assert "tagger" in (held[name].reason or "")
    assert result.pictures["held"]["trained"]
    assert result.matched
    assert all(ratio.mean is None for ratio in result.matched)


def test_several_trainings_give_one_entry_each(tiny_base: Base, tmp_path: Path) -> None:
    files = [lora(tiny_base, tmp_path / f"{n}.safetensors", 0.3, seed=n) for n in range(2)]
    arm = Arm("plain", tuple(Trained(n, file) for n, file in enumerate(files)))
    small = SETTINGS.model_copy(update={"weights": (), "curve_weights": (), "seeds": (0,), "curve_seeds": None})
    result = compare(
        tiny_base, [arm], CONCEPT, items(tmp_path / "set"), BANK, small, tmp_path / "out", tagger=Brightness()
    )
    assert len(result.arms["plain"]["drift"].per_seed) == 2
    assert result.per_seed_means == "trainings"
    assert {p.seed for p in result.curves["plain"]} == {0, 1}
    assert result.arms["plain"]["seconds"].reason


def test_bad_input_is_refused_before_any_work(tiny_base: Base, tmp_path: Path) -> None:
    def ask(settings: ComparisonSettings, chosen: list[Arm]) -> None:
        compare(tiny_base, chosen, CONCEPT, items(tmp_path / "set"), BANK, settings, tmp_path / "out")

    good = Arm("plain", (Trained(0, lora(tiny_base, tmp_path / "x.safetensors", 0.1)),))
    with pytest.raises(TenutoError, match="no such LoRA"):
        ask(SETTINGS, [Arm("plain", (Trained(0, tmp_path / "none.safetensors"),))])
    with pytest.raises(TenutoError, match="same name"):
        ask(SETTINGS, [good, good])
    with pytest.raises(TenutoError, match="no training"):
        ask(SETTINGS, [Arm("plain", ())])
    with pytest.raises(TenutoError, match="must hold 0"):
        ask(SETTINGS.model_copy(update={"weights": (1.0,)}), [good])
    with pytest.raises(TenutoError, match="seeds is empty"):
        ask(SETTINGS.model_copy(update={"seeds": ()}), [good])
    with pytest.raises(TenutoError, match="second_lora"):
        ask(SETTINGS.model_copy(update={"second_lora": tmp_path / "none"}), [good])
    with pytest.raises(TenutoError, match="not a comparison"):
        Comparison.load(tmp_path / "nothing.json")


def test_paths_are_the_samplers_own(tiny_base: Base) -> None:
    bench = Bench(tiny_base, sampler_of(tiny_base, SamplerSettings(steps=4, guidance=2.0)))
    wanted = [Wanted("1girl", 1, SIZE), Wanted("1boy, city", 2, SIZE)]
    states = bench.paths(wanted, [("near", "zxq, 1girl"), ("far", None)], 4)
    assert len(states) == 8
    first = states[0]
    assert first.x_t.shape == tiny_base.geometry.latent(SIZE)
    assert float(first.t) > float(states[3].t)
    alone = bench.paths(wanted[1:], [("far", None)], 4)
    torch.testing.assert_close(alone[0].x_t, states[4].x_t)
    torch.testing.assert_close(alone[3].x_t, states[7].x_t, rtol=1e-4, atol=1e-4)


def test_groups_a_concept_may_change() -> None:
    groups = ("eyes", "hair color", "style", "outfit", "place")
    assert groups_of_concept(Concept("crazy-eyes"), groups) == {"eyes"}
    assert groups_of_concept(Concept("x", "style"), groups) == {"style"}
    assert groups_of_concept(Concept("x", "character"), groups) == {"eyes", "hair color", "outfit"}


def test_numbers_that_were_changed_afterwards_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    result = Comparison(arms={"plain": {"drift": Number(mean=0.5, per_seed=[0.5, None], interval=(0.25, 1.0))}})
    result.save(path)
    assert Comparison.load(path) == result
    path.write_text(path.read_text().replace("0.25", "0.35"))
    with pytest.raises(TenutoError, match="changed since it was measured"):
        Comparison.load(path)
    result.save(path)
    older = json.loads(path.read_text())
    del older["check"]
    path.write_text(json.dumps(older))
    assert Comparison.load(path) == result
