"""What the docs' commands find in their folder: configs of every trainer, pictures, a LoRA or two, checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.adapters.onto import save_lora
from tenuto.families.checkpoints import find_base, open_base
from tenuto.pocket.concepts import write_instances

FILES = Path(__file__).with_name("staged")
PROJECT = "project.toml"
PICTURES = 4
LORAS = ("lora.safetensors", "a.safetensors", "b.safetensors")


def set_up(folder: Path, home: Path) -> Path:
    """The folder of one page. What takes a while lies in `home`, and is made once."""
    shutil.copytree(FILES, folder)
    write_instances("crazy-eyes", folder / "pictures", PICTURES)
    write_instances("crazy-eyes", folder / "my-lora" / "train" / "10_vexlum 1girl", PICTURES)
    write_instances("character", folder / "my-lora" / "reg" / "1_1girl", PICTURES)
    write_instances("crazy-eyes", folder / "uncaptioned", PICTURES)
    for caption in (folder / "uncaptioned").glob("*.txt"):
        caption.unlink()
    weights = home / "weights"
    if not weights.exists():
        _make_weights(weights)
    shutil.copytree(weights, folder, dirs_exist_ok=True)
    return folder


def _make_weights(folder: Path) -> None:
    folder.mkdir(parents=True)
    base = open_base("pocket", device="cpu")
    for number, name in enumerate(LORAS):
        adapter = Adapter.attach(base, AdapterSettings(rank=4), seed=number)
        save_lora(adapter, folder / name, {})
        adapter.detach()
    torch.save({"state_dict": {"w": torch.ones(2, 2)}}, folder / "old.ckpt")
    for name in ("base", "tuned"):
        shutil.copytree(find_base("pocket"), folder / "models" / name)
    unet = next((folder / "models" / "tuned" / "unet").glob("*.safetensors"))
    save_file({name: weight * 1.01 for name, weight in load_file(unet).items()}, unet)
