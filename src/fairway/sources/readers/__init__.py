"""Rows of named columns, wherever they lie, read batch by batch: one file per kind."""
