"""Whatever a foreign file holds, the answer is a project that loads or one TenutoError: never a traceback."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenuto.formats.catalogue import SYSTEMS, import_project
from tenuto.formats.command_line import commands
from tenuto.formats.imported import Imported
from tenuto.formats.options import CARRIED, LEFT
from tenuto.project.file import load_project
from tenuto.words import TenutoError
from tests.formats.systems import (
    COMMAND,
    D8_CONCEPTS,
    D8_CONFIG,
    DATASET,
    DERRIAN,
    DIFFUSERS,
    KOHYA_SS,
    OPTIONS,
    WINDOWS,
    sets,
)

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
odd = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from(["", "0", "1e-4", "true", "nan", "1e999", "512,512", "x" * 5000, "\0", "~nobody", "../..", "--a"]),
    st.lists(st.one_of(st.integers(-2, 2), st.text(max_size=4)), max_size=3), st.just({}), st.just({"a": [1]}),
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    sets(folder)
    return folder


def holds(file: Path, content: bytes, system: str | None = None) -> Imported | None:
    """The promise: an import whose file loads, or one line."""
    file.write_bytes(content)
    try:
        found = import_project(file, file.parent, system=system)
    except TenutoError:
        return None
    project = file.parent / "fuzzed-project.toml"
    project.write_text(found.to_toml(), encoding="utf-8")
    load_project(project)
    return found


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


names = st.sampled_from(sorted({*KOHYA_SS, *CARRIED, *LEFT, "resolution", "optimizer_args", "network_args", "seed",
                                "lr_scheduler", "lr_warmup_steps", "sample_prompts", "vae", "dataset_config",
                                "config_file", "max_grad_norm", "unet_lr", "output_name"}))  # fmt: skip


@QUICK
@given(st.dictionaries(names, odd, max_size=8))
def test_kohya_ss(place: Path, changes: dict[str, Any]) -> None:
    holds(place / "k.json", dump(KOHYA_SS | changes))


@QUICK
@given(
    st.dictionaries(st.sampled_from(sorted({*D8_CONFIG, *D8_CONCEPTS[0], "num_class_images", "concepts_list"})), odd)
)
def test_d8(place: Path, changes: dict[str, Any]) -> None:
    holds(place / "c.json", dump([D8_CONCEPTS[0] | changes, changes]))
    holds(place / "d.json", dump(D8_CONFIG | {"concepts_list": D8_CONCEPTS} | changes))


toml_odd = st.one_of(
    st.booleans(), st.integers(-(2**60), 2**60), st.floats(), st.text("ab\\/.0, ='\"", max_size=8), st.just([]),
    st.just({}), st.lists(st.integers(-1, 3), max_size=3), st.just([{}]), st.just(["a=1", "b"]),
)  # fmt: skip


@QUICK
@given(st.dictionaries(names, toml_odd, max_size=8), st.booleans())
def test_option_files_and_datasets(place: Path, changes: dict[str, Any], nested: bool) -> None:
    options = {"network_dim": 4, "train_batch_size": 1, "train_data_dir": "train"} | changes
    holds(place / "o.toml", tomli_w.dumps({"all": options} if nested else options).encode())
    subset = {"image_dir": "train/10_sks dog"} | changes
    dataset = {
        "datasets": [{"subsets": [subset, {"image_dir": "reg/1_dog", "is_reg": True}, changes]}],
        "general": changes,
    }
    holds(place / "s.toml", tomli_w.dumps(dataset).encode())


@QUICK
@given(
    st.dictionaries(names, toml_odd, max_size=6), st.sampled_from(["general_args", "network_args", "optimizer_args"])
)
def test_derrian(place: Path, changes: dict[str, Any], section: str) -> None:
    table = {section: {"args": changes, "dataset_args": changes}, "train_mode": {"train_mode": "lora"}}
    holds(place / "e.toml", tomli_w.dumps({**table, "subsets": [{"image_dir": "train/10_sks dog"} | changes]}).encode())


@QUICK
@given(st.text(max_size=80), st.sampled_from([COMMAND, WINDOWS, DIFFUSERS]), st.integers(0, 900))
def test_command_lines(place: Path, text: str, script: str, at: int) -> None:
    spoilt = script[:at] + text + script[at:]
    commands(spoilt)
    holds(place / "r.sh", spoilt.encode(errors="replace"))


trees = st.recursive(odd, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=6), t, max_size=3))


@pytest.mark.parametrize("system", SYSTEMS)
@QUICK
@given(content=st.binary(max_size=60) | st.builds(dump, trees))
def test_anything_read_as_anything(place: Path, system: str, content: bytes) -> None:
    for name in ("x.json", "x.toml", "x.txt"):
        holds(place / name, content, system)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_kind_read_as_every_other(place: Path, system: str) -> None:
    for text in (COMMAND, WINDOWS, DATASET, OPTIONS, DERRIAN, DIFFUSERS, json.dumps(KOHYA_SS), json.dumps(D8_CONCEPTS)):
        for name in ("y.json", "y.toml", "y.sh"):
            holds(place / name, text.encode(), system)
    with pytest.raises(TenutoError):
        import_project(place / "reg" / "1_dog", place)


def _cut(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text))
    return text[:at] + text[at + rng.randrange(1, 30) :]


def _doubled(text: str, rng: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    return "".join([*lines, rng.choice(lines)])


def _swapped(text: str, rng: random.Random) -> str:
    a, b = sorted(rng.sample(range(len(text)), 2))
    return text[:a] + text[b] + text[a + 1 : b] + text[a] + text[b + 1 :]


@pytest.mark.parametrize("spoil", [_cut, _doubled, _swapped])
def test_damaged_files(place: Path, spoil: Callable[[str, random.Random], str]) -> None:
    rng = random.Random(0)
    whole = {"a.sh": COMMAND, "a.bat": WINDOWS, "b.toml": DATASET, "c.toml": OPTIONS, "d.toml": DERRIAN,
             "e.json": json.dumps(KOHYA_SS), "f.json": json.dumps(D8_CONCEPTS), "g.sh": DIFFUSERS}  # fmt: skip
    for name, text in whole.items():
        for _ in range(12):
            holds(place / name, spoil(text, rng).encode())
