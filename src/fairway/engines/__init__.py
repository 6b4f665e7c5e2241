"""What runs a graph: one adapter per engine, found through the entry-point group ``fairway.engines``."""
