"""Whatever lies in a file, reading it ends in a LoRA or in a TenutoError of one line; never in a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from tenuto.adapters.files import parse_lora, read_lora, write_lora
from tenuto.adapters.info import describe
from tenuto.adapters.kinds import FIELDS, FOREIGN
from tenuto.adapters.names import WORDS, from_dotted, from_kohya, kohya_name
from tenuto.adapters.onto import fit
from tenuto.adapters.surgery import Cut, fold_alpha, merge, resize
from tenuto.words import TenutoError
from tests.adapters.made_up import random_lora

NAMES = ("lora_unet_mid_block_attentions_0_proj_in", "lora_unet_mid_block_resnets_0_conv1", "lora_te_text_projection")
SHAPES = {NAMES[0]: (8, 6), NAMES[1]: (8, 6, 3, 3), NAMES[2]: (8, 6)}
MODULES = {
    "lora_unet": nn.ModuleDict({"mid_block": nn.ModuleDict({
        "attentions": nn.ModuleDict({"0": nn.ModuleDict({"proj_in": nn.Linear(6, 8)})}),
        "resnets": nn.ModuleDict({"0": nn.ModuleDict({"conv1": nn.Conv2d(6, 8, 3)})}),
    })}),
    "lora_te": nn.ModuleDict({"text_projection": nn.Linear(6, 8)}),
}  # fmt: skip
PEFT = {
    f"{name}.{factor}.weight": torch.ones(2, 2)
    for name in ("unet.mid_block.attentions.0.proj_in", "text_encoder.text_model.encoder.layers.0.mlp.fc1")
    for factor in ("lora_A", "lora_B")
}
CONFIG = {"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {"proj_in": 1.0}, "unet.use_rslora": True}
VALID = (
    save({f"{n}.{f}": t for n in NAMES for f, t in random_lora(SHAPES[n]).layer(torch.float16).tensors.items()}),
    save(PEFT, metadata={"lora_adapter_metadata": json.dumps(CONFIG)}),
)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def ended_well(step: Callable[[], Any]) -> Any:
    """What a step returns; None where it refused in one line."""
    try:
        return step()
    except TenutoError as error:
        told = str(error)
    assert "\n" not in told
    return None


def whole_way(read: Callable[[], Any], folder: Path) -> None:
    """Read, then everything that is done with what was read."""
    file = ended_well(read)
    if file is None:
        return
    ended_well(lambda: describe(file))
    ended_well(lambda: fit(file, MODULES))
    ended_well(lambda: resize(file, Cut(rank=2)))
    ended_well(lambda: merge([file, fold_alpha(file)], [1.0, 2.0]))
    ended_well(lambda: write_lora(file, folder / "kohya"))
    ended_well(lambda: write_lora(file, folder / "diffusers", "diffusers"))


@quick
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=3)), max_size=3),
    st.just(9999) | st.just(9999) | st.integers(0, 2500),
)
def test_changed_bytes(tmp_path: Path, valid: bytes, changes: list[tuple[int, bytes]], length: int) -> None:
    """In the header, where they matter most, as well as in the data; the end may be missing."""
    data = bytearray(valid)
    for at, new in changes:
        data[at % len(data) : at % len(data) + len(new)] = new
    path = tmp_path / "a.safetensors"
    path.write_bytes(bytes(data[:length]))
    whole_way(lambda: read_lora(path), tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 65) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@quick
@given(st.sampled_from(VALID), st.data())
def test_changed_headers(tmp_path: Path, valid: bytes, data: st.DataObject) -> None:
    """The header stays JSON; one entry, or one value within it, becomes something else."""
    length = int.from_bytes(valid[:8], "little")
    header = json.loads(valid[8 : 8 + length])
    name = data.draw(st.sampled_from(sorted(header.keys() - {"__metadata__"})))
    what = data.draw(st.sampled_from(["entry", "metadata", "name", "dtype", "shape", "turned", "data_offsets"]))
    if what == "entry":
        header[data.draw(st.sampled_from([name, "__metadata__", "x"]))] = data.draw(json_values)
    elif what == "metadata":
        header["__metadata__"] = {"lora_adapter_metadata": json.dumps(data.draw(json_values | st.just(CONFIG)))}
    elif what == "name":
        header[data.draw(st.sampled_from([name + "x", name.replace(".", "_"), name[5:], "x", ""]))] = header.pop(name)
    elif what == "dtype":
        header[name][what] = data.draw(
            st.sampled_from(["F32", "BF16", "I16", "I64", "BOOL", "F8_E4M3", "F4", "U16", "C64"])
        )
    elif what == "turned":
        header[name]["shape"] = header[name]["shape"][::-1] + data.draw(st.sampled_from([[], [1], [1, 1]]))
    else:
        header[name][what] = data.draw(st.lists(st.integers(0, 40), max_size=5))
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + valid[8 + length :])
    whole_way(lambda: read_lora(path), tmp_path)


shapes = st.lists(st.sampled_from([0, 1, 2, 2, 3, 4, 6, 8, 9, 18]), max_size=5).map(tuple)
kinds = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
fields = st.sampled_from([*sorted(FIELDS), *FOREIGN, "lora_A.weight", "lora_magnitude_vector", ""])
places = st.sampled_from([*NAMES, "unet.mid_block.attentions.0.proj_in", "unet.mid_block.resnets.0.conv1", "x", ""])


@quick
@given(st.dictionaries(st.tuples(places, fields).map(".".join), st.tuples(shapes, kinds), max_size=9),
       st.dictionaries(st.sampled_from(["lora_adapter_metadata", "ss_network_dim"]), st.text(max_size=20)))  # fmt: skip
def test_any_tensors_under_any_names(
    tmp_path: Path, made: dict[str, tuple[tuple[int, ...], torch.dtype]], metadata: dict[str, str]
) -> None:
    tensors = {name: torch.ones(shape, dtype=kind) for name, (shape, kind) in made.items()}
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(tensors, metadata=metadata or None))
    whole_way(lambda: parse_lora(path, tensors, metadata), tmp_path)


def families(o: int, i: int, r: int) -> list[dict[str, tuple[int, ...]]]:
    """Shapes that belong together, of every kind of layer."""
    down, up, mid, alpha, dora = "lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha", "dora_scale"
    a, b = {f"hada_w{n}_a": (o, r) for n in (1, 2)}, {f"hada_w{n}_b": (r, i * 9) for n in (1, 2)}
    turned = {f"hada_w{n}_{end}": (r, size) for n in (1, 2) for end, size in (("a", o), ("b", i))}
    return [
        {down: (r, i), up: (o, r), alpha: (), dora: (o, 1)},
        {down: (r, i, 3, 3), up: (o, r, 1, 1), alpha: (1,), dora: (o, 1, 1, 1)},
        {down: (r, i, 1, 1), up: (o, r, 1, 1), mid: (r, r, 3, 3)},
        {**a, **b, alpha: (), dora: (o, 1)},
        {**turned, **{f"hada_t{n}": (r, r, 3, 3) for n in (1, 2)}, alpha: ()},
        {"lokr_w1": (2, 2), "lokr_w2_a": (o, r), "lokr_w2_b": (r, i), alpha: ()},
        {"lokr_w1_a": (2, r), "lokr_w1_b": (r, 3), "lokr_w2": (o, i, 3, 3)},
        {"lokr_w1": (2, 2), "lokr_w2_a": (r, o), "lokr_w2_b": (r, i), "lokr_t2": (r, r, 3, 3), alpha: ()},
        {"oft_blocks": (o, r, r), alpha: ()},
        {"oft_blocks": (2, 4, r, r)},
    ]


sizes = st.sampled_from([1, 2, 3, 6])
spoils = st.sampled_from(["nothing", "nothing", "missing", "turned", "larger", "flat", "not finite"])


@quick
@given(st.sampled_from(NAMES[:2]), sizes | st.just(8), sizes, sizes, st.integers(0, 9), st.integers(0, 6), spoils)
def test_layers_with_one_fault(
    tmp_path: Path, name: str, o: int, i: int, r: int, kind: int, which: int, spoil: str
) -> None:
    own = families(o, i, r)[kind]
    field = sorted(own)[which % len(own)]
    if spoil == "missing":
        del own[field]
    elif spoil != "nothing":
        shape = own[field]
        own[field] = {"turned": shape[::-1], "larger": (*shape[:-1], 5), "flat": shape[:1]}.get(spoil, shape)
    tensors = {f"{name}.{each}": torch.ones(shape) for each, shape in own.items()}
    if spoil == "not finite":
        tensors[f"{name}.{field}"][...] = float("inf")
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(tensors))
    whole_way(lambda: parse_lora(path, tensors, {}), tmp_path)


@quick
@given(
    st.text(max_size=60) | st.lists(st.sampled_from([*WORDS, "0", "10", "lora_unet", "unet"]), max_size=9).map("_".join)
)
def test_any_name(name: str) -> None:
    for read in (from_kohya, from_dotted):
        for text in (name, f"lora_unet_{name}", f"lora_te1_{name}", f"unet.{name.replace('_', '.')}", f".{name}."):
            found = read(text)
            assert found is None or kohya_name(found, "sdxl")


@pytest.mark.parametrize("depth", [100_000])
def test_a_bottomless_header(depth: int, tmp_path: Path) -> None:
    text = b'{"a":' + b"[" * depth
    path = tmp_path / "deep.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(TenutoError):
        read_lora(path)
    with pytest.raises(TenutoError, match="damaged"):
        parse_lora(path, PEFT, {"lora_adapter_metadata": "[" * depth})
