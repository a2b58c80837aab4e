"""Thin commands over `tenuto.work`."""
