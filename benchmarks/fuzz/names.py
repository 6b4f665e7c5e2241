"""What the cases and the server that they are sent to agree on."""

MAX_BODY = 2**20
REGION = "fairway-fuzz"
"""The shared memory object that exists while this runs."""
SPARE = "spare"
"""The one model that is loaded and unloaded meanwhile."""
