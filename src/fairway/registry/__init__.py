"""Versions, aliases, releases, windows and their audit trail, in one database; blobs beside it."""
