"""Random choices that a failure tells how to repeat."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["chance"]


@contextmanager
def chance() -> Iterator[random.Random]:
    """What chooses: anew each time, or as ``CHATSVC_SEED`` says.

    Whatever is raised within tells the seed.
    """
    seed = os.environ.get("CHATSVC_SEED") or secrets.token_hex(4)
    try:
        yield random.Random(seed)
    except Exception as error:
        error.args = (f"with CHATSVC_SEED={seed}: {error}",)
        raise
