"""How the page calls settings whose names say too little by themselves. Everything else is named by the schema."""

from __future__ import annotations

LABELS = {
    "concepts": "What is learned",
    "base": "The checkpoint",
    "training": "Training",
    "regularizers": "Methods that hold the rest",
    "prior": "Prior set",
    "data": "Pictures and captions",
    "arms": "Trainings to make",
    "comparison": "Comparison",
    "lr": "Learning rate",
    "vae": "VAE",
    "per_image": "Pool: prior images per picture",
    "ratio": "Ratio: prior rows per instance row",
    "clip_skip": "CLIP skip",
    "fp8": "U-Net in 8 bits (fp8)",
    "zero_terminal_snr": "Zero terminal SNR",
    "images": "Folder of pictures",
    "test_images": "Test pictures",
    "masks": "Masks",
    "tag_csv": "Tag list (CSV)",
}
"""Dotted place or last name of a setting -> what stands beside its input."""
