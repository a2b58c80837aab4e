"""Measurements: what is claimed is measured here, never in timed tests."""
