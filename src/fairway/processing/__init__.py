"""Declared pre- and post-processing steps that run beside the graph."""
