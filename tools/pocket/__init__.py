"""Trains pocket, the embedded base, from nothing: `python -m tools.pocket all`. See docs/pocket.md."""
