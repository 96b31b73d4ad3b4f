"""SHA-256 digests as others write them."""

import re
from typing import Final

_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")


def sha256_in(text: str) -> str | None:
    """The digest that ``text`` is, in lower case; None where it is none."""
    return text.lower() if _SHA256.fullmatch(text) else None
