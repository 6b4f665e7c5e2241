"""HTTP/2 for gRPC, on asyncio protocols: see ``docs/decisions/0011-grpc-transport.md``."""
