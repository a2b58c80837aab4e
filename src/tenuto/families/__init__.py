"""Families of checkpoints: the contract, noise processes, samplers, and one folder per architecture."""

from tenuto import lightly

with lightly.imported():
    import diffusers as diffusers  # remembers what is there
