"""Checkpoints and data files in: converted to bundles, checked against the original."""
