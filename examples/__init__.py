"""Runnable examples; CI runs each."""
