"""One exported program on several processes, each of which holds a part of its weights."""
