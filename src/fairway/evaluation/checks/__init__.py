"""Checks of the data that a model is evaluated on: one file per question, each giving findings with a severity."""
