"""Which form to try next: a space, a journal of what was found, and a pure decision. It knows nothing of models."""
