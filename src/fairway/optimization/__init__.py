"""One pass per file; each candidate is evaluated, and the best that passes the gate is chosen."""
