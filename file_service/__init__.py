"""A streaming file store: bytes of any size in by HTTP, kept durably under a UUID, streamed back out."""

__version__ = "0.1.0"
