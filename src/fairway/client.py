"""Talks to any V2 server."""
