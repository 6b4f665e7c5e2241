"""Reads ``fairway.toml``: the only reader of settings files and environment variables."""
