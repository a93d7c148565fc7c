"""Haptera's messaging beside gRPC, ZeroMQ and NATS: the same calls and streams, on the same machine in the same run."""
