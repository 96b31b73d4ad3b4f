"""How a browser is told to treat a file: its type, its name, and that nothing in it runs."""

import mimetypes
from typing import Final
from urllib.parse import quote

# Types that a browser may show in place. Not SVG: it is a document that can hold scripts.
_SHOWN: Final = ("image/", "video/", "audio/")
_NEVER_SHOWN: Final = frozenset({"image/svg+xml"})
# What RFC 8187 lets stand for itself.
_PLAIN: Final = "!#$&+-.^_`|~"

# Whatever comes out of a job was made by somebody else's prompt: no sniffing, no scripts, no frames.
_GUARDS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; sandbox"),
    (b"cache-control", b"private, no-cache"),
)

# The system's own table differs from image to image, and may be absent.
_TYPES: Final = mimetypes.MimeTypes()
for _type, _suffix in (
    ("image/webp", ".webp"),
    ("image/avif", ".avif"),
    ("image/jxl", ".jxl"),
    ("video/mp4", ".mp4"),
    ("video/webm", ".webm"),
    ("video/x-matroska", ".mkv"),
    ("audio/flac", ".flac"),
    ("audio/ogg", ".opus"),
    ("audio/mp4", ".m4a"),
):
    _TYPES.add_type(_type, _suffix)


def media_type(name: str) -> str:
    """The type by the name's suffix; bytes where it says nothing, or where the file is compressed."""
    kind, encoding = _TYPES.guess_type(name, strict=True)
    return kind if kind is not None and encoding is None else "application/octet-stream"


def file_headers(name: str, *, inline: bool) -> list[tuple[bytes, bytes]]:
    """Type, disposition and guards for a file called ``name``; ``inline`` holds for pictures, video and sound."""
    kind = media_type(name)
    shown = inline and kind.startswith(_SHOWN) and kind not in _NEVER_SHOWN
    return [
        (b"content-type", kind.encode("ascii")),
        (b"content-disposition", disposition("inline" if shown else "attachment", name)),
        *_GUARDS,
    ]


def disposition(kind: str, name: str) -> bytes:
    """Content-Disposition for any name (RFC 6266): ASCII for all, and RFC 8187 where that is not the name."""
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in name)
    value = f'{kind}; filename="{plain}"'
    if plain != name:
        encoded = quote(name.encode(errors="replace"), safe=_PLAIN)
        value = f"{value}; filename*=UTF-8''{encoded}"
    return value.encode("ascii")
