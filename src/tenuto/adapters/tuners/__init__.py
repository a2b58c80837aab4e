"""Kinds of adapters: one file each, and the table of them (`catalogue.py`)."""
