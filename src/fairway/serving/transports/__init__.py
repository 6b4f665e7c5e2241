"""Wires: decode, call the core, encode."""
