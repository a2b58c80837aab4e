"""Which layers: only, skip and the named blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.adapters.files import read_lora
from tenuto.adapters.onto import attach_file, save_lora
from tenuto.families.base import Base
from tenuto.words import TenutoError


def test_blocks_choose_among_the_parts_and_the_file_holds_just_those(tiny_base: Base, tmp_path: Path) -> None:
    settings = AdapterSettings(
        rank=2, parts=("attention", "feed_forward"), only=("cross_attention",), skip=("cross_keys",)
    )
    adapter = Adapter.attach(tiny_base, settings)
    names = set(adapter.layers())
    assert names
    assert all(".attn2." in name and not name.endswith(".to_k") for name in names)
    save_lora(adapter, tmp_path / "a.safetensors", {})
    adapter.detach()
    assert set(attach_file(tiny_base, read_lora(tmp_path / "a.safetensors")).layers()) == names


def test_nothing_left_is_an_error_that_shows_a_name(tiny_base: Base) -> None:
    with pytest.raises(TenutoError, match=r"none of \d+ layers.*lora_unet\."):
        Adapter.attach(tiny_base, AdapterSettings(only=("*.no_such_block.*",)))
