"""A self-hosted chat backend: direct messages, groups and topics as JSON over WebSocket."""

from typing import Final

__all__ = ["__version__"]

__version__: Final = "0.1.0"
