"""Bundles in the layouts of other servers: one file per target."""
