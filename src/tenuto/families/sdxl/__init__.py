"""Stable Diffusion XL: SDXL 1.0 and its children (Pony, Illustrious, NoobAI)."""
