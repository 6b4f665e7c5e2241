"""From a model to a smaller one that learns its answers."""
