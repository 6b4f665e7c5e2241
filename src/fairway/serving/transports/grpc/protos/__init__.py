"""The messages' definitions. ``python -m fairway.serving.transports.grpc.protos`` compiles them into ``descriptors.binpb``."""
