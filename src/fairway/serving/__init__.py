"""The serving core: decode, validate, schedule, infer, encode, whatever the wire."""
