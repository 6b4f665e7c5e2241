"""Analyses: what an evaluation looks for beyond metrics. One file each, run by name, kept in the report."""
