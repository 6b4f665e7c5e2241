"""Builders and fakes for tests: ours, and those of plug-in authors."""
