"""Model and data in, report out: metrics with intervals, slices, performance, the gate's verdict."""
