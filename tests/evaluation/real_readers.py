"""Tiny taggers and encoders in the files that people download: an ONNX graph, DINOv2 and CLIP folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, Dinov2Config, Dinov2Model

from tests.tiny import tiny_tokenizer

SIDE = 16
ROWS = (
    ("general", "9"), ("sensitive", "9"), ("1girl", "0"), ("red", "0"), ("city", "0"), ("long_hair", "0"),
    ("line", "0"), ("zxq_(series)", "4"),
)  # fmt: skip


def wd_folder(folder: Path, weights: Sequence[Sequence[float]], rows: Sequence[tuple[str, str]] = ROWS) -> Path:
    """A graph whose answer is (mean of each channel / 255) @ weights [3, tags], channels in the order they come in."""
    folder.mkdir(parents=True, exist_ok=True)
    flat = [value / 255 for row in weights for value in row]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["output"]),
        ],
        "tagger",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", len(weights[0])])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("weights", TensorProto.FLOAT, [3, len(weights[0])], flat),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    lines = [f"{n},{tag},{category},{1000 - n}" for n, (tag, category) in enumerate(rows)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines]) + "\n")
    return folder


def _preparation(folder: Path) -> None:
    table = {
        "size": {"shortest_edge": 20}, "crop_size": {"height": SIDE, "width": SIDE}, "do_center_crop": True,
        "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "resample": 3,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(table))


def dino_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE, patch_size=8)
    Dinov2Model(config).save_pretrained(folder)
    _preparation(folder)
    return folder


def clip_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    small = {"hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, **small
    )
    vision = CLIPVisionConfig(image_size=SIDE, patch_size=8, **small)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _preparation(folder)
    return folder
