"""Families of checkpoints: the contract, noise processes, samplers, and one folder per architecture."""
