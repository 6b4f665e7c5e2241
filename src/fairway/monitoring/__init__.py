"""What is watched at constant memory: sketches per window, drift against the baseline."""
