"""Kept states of base paths: they agree with the base, are found, extended and mended."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tenuto.events import Event
from tenuto.families.base import Base
from tenuto.families.sampling import SamplerSettings
from tenuto.prior.build import build, lacking
from tenuto.prior.states import evenly, kept_steps
from tenuto.prior.store import PriorStore
from tenuto.words import TenutoError
from tests.prior.test_build import SAMPLER, make_plan

HALF = {"rtol": 2e-3, "atol": 2e-3}
"""What half precision loses of x_t, of the answer, and of the answer to an x_t that was rounded."""


def open_store(base: Base, folder: Path) -> PriorStore:
    return PriorStore.open(base.hash, folder)


@pytest.mark.parametrize(
    ("fixture", "sampler"),
    [("tiny_base", "dpmpp_2m"), ("tiny_base", "euler"), ("tiny_xl_base", "euler_a"), ("tiny_xl_snr_base", "euler")],
)
def test_what_is_kept_is_what_the_base_answers(
    fixture: str, sampler: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """38: cached and online targets agree on the same state within the stored precision, in every family."""
    tiny_base: Base = request.getfixturevalue(fixture)
    own = SamplerSettings.model_validate(SAMPLER.model_dump() | {"sampler": sampler, "guidance": 3.0, "steps": 6})
    store = open_store(tiny_base, tmp_path)
    images = build(make_plan(sampler=own), tiny_base, store, states=3)
    for image in images:
        path = store.path(image.id, 3)
        assert path.count == 3
        for state in (path.read(index) for index in range(3)):
            assert state.blank is not None
            x_t, t = state.x_t[None], torch.tensor([state.t])
            for words, kept in ((path.prompt, state.answer), (path.negative, state.blank)):
                cond = tiny_base.encode_text([words], [path.size], path.chunks)
                with torch.no_grad():
                    torch.testing.assert_close(tiny_base.predict(x_t, t, cond)[0].float(), kept, **HALF)


def test_listening_changes_no_picture(tiny_base: Base, tmp_path: Path) -> None:
    plain, heard = open_store(tiny_base, tmp_path / "a"), open_store(tiny_base, tmp_path / "b")
    images = build(make_plan(), tiny_base, plain)
    build(make_plan(), tiny_base, heard, states=2)
    assert all(torch.equal(plain.latents(image.id), heard.latents(image.id)) for image in images)


def test_a_set_without_states_is_extended_and_keeps_its_pictures(tiny_base: Base, tmp_path: Path) -> None:
    store = open_store(tiny_base, tmp_path)
    before = build(make_plan(), tiny_base, store)
    with pytest.raises(TenutoError, match="tenuto prior build"):
        store.path(before[0].id, 2)
    assert lacking(make_plan(), tiny_base, store, states=2)
    after = build(make_plan(), tiny_base, store, states=2)
    assert after == before
    again = open_store(tiny_base, tmp_path)
    assert lacking(make_plan(), tiny_base, again, states=2) == []
    assert again.path(after[0].id, 2).read(1).x_t.shape == tiny_base.geometry.latent(after[0].bucket)


def test_damaged_states_are_made_again(tiny_base: Base, tmp_path: Path) -> None:
    store = open_store(tiny_base, tmp_path)
    images = build(make_plan(), tiny_base, store, states=2)
    kept = store.path(images[0].id, 2).read(0)
    for number, path in enumerate(sorted((tmp_path / "states").glob("*.safetensors"))):
        data = bytearray(path.read_bytes())
        data[-1 - number] ^= 0xFF
        path.write_bytes(bytes(data[: len(data) // 2] if number == 1 else data))
    said: list[Event] = []
    again = open_store(tiny_base, tmp_path)
    build(make_plan(), tiny_base, again, states=2, listener=said.append)
    assert any("damaged" in event.data.get("text", "") for event in said)
    mended = again.path(images[0].id, 2).read(0)
    assert torch.equal(mended.x_t, kept.x_t)
    assert torch.equal(mended.answer, kept.answer)


def test_without_guidance_there_is_one_answer(tiny_base: Base, tmp_path: Path) -> None:
    store = open_store(tiny_base, tmp_path)
    plan = make_plan(sampler=SAMPLER.model_copy(update={"guidance": 1.0}))
    images = build(plan, tiny_base, store, states=2)
    assert store.path(images[0].id, 2).read(0).blank is None


def test_paths_differ_in_the_steps_that_are_kept() -> None:
    chosen = {kept_steps(seed, 20, 4) for seed in range(50)}
    assert len(chosen) > 10
    assert {step for steps in chosen for step in steps} == set(range(20))
    assert all(low // 5 == n for steps in chosen for n, low in enumerate(steps))
    assert kept_steps(0, 3, 8) == (0, 1, 2)


def test_states_nearest_to_even_places_of_t() -> None:
    eight_steps = [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    assert evenly(eight_steps, 4) == [1, 3, 5, 7]
    assert evenly([1.0, 0.9, 0.1], 4) == [0, 1, 2], "no more than there are"
    assert evenly([1.0, 0.95, 0.9], 2) == [1, 2], "none twice"


def test_states_of_another_base_are_refused(tiny_base: Base, tmp_path: Path) -> None:
    store, plan = open_store(tiny_base, tmp_path), make_plan()
    build(plan, tiny_base, store, states=2)
    batch = plan.batches(tiny_base.chunks)[0]
    store.base_hash = "0" * 64
    with pytest.raises(TenutoError, match="another base"):
        store.take_states(batch.key, 2, [image.id for image in batch.images])
