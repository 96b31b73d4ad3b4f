"""The page at ``/``: the state document, which it asks for again and again."""

import base64
import hashlib
import re
from pathlib import Path

from fastapi.responses import HTMLResponse

_FILE = Path(__file__).with_name("page.html")


def make_page() -> HTMLResponse:
    """The page, whose policy lets nothing run but its own script: the state's texts come from outside."""
    text = _FILE.read_text("utf-8")
    policy = (
        "default-src 'none'",
        "connect-src 'self'",
        f"script-src {_hash_of('script', text)}",
        f"style-src {_hash_of('style', text)}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return HTMLResponse(
        text,
        headers={
            "content-security-policy": "; ".join(policy),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
        },
    )


def _hash_of(element: str, text: str) -> str:
    """The source expression for the one inline ``element`` (CSP Level 3, hash-source)."""
    content = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
    digest = hashlib.sha256(content[0].encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
