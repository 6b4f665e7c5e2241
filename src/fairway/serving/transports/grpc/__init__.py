"""gRPC: messages, codec and handlers. What carries them is in :mod:`fairway.serving.transports.http2`."""
