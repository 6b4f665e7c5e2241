"""The command line: one command per file, each a thin layer over a verb of ``fairway.loop``."""

from fairway.cli.app import main

__all__ = ["main"]
