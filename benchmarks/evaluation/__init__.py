"""``make bench-evaluation``: how large data are evaluated, and how fast."""
