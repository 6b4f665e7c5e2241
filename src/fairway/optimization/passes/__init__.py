"""Optimization passes, one per file: a pure function from a graph file to a graph file."""
