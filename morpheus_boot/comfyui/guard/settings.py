"""What the boot tells our node, through ComfyUI's environment."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from .paths import is_job_id  # noqa: TID252 - found by its folder

_PREFIX = "MORPHEUS_NODE_"
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Settings:
    """The node's configuration, parsed.

    ``jobs`` is ComfyUI's output directory; ``mounts`` are the paths under which workers may see the same volume;
    ``token_digest`` is the token's SHA-256, None where ComfyUI is open.
    """

    jobs: str
    worker: str
    mounts: tuple[str, ...]
    token_digest: bytes | None


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Reads MORPHEUS_NODE_JOBS, _WORKER, _MOUNTS (parted by colons) and _TOKEN_SHA256 (hex digits).

    Raises ValueError that names the variable.
    """
    return Settings(
        jobs=_jobs(environ),
        worker=_worker(environ),
        mounts=tuple(filter(None, environ.get(f"{_PREFIX}MOUNTS", "").split(":"))),
        token_digest=_digest(environ),
    )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(_PREFIX + name, "")
    if not value:
        raise ValueError(f"{_PREFIX}{name} is not set")
    return value


def _worker(environ: Mapping[str, str]) -> str:
    value = _required(environ, "WORKER")
    if not is_job_id(value):
        raise ValueError(f"{_PREFIX}WORKER can't name a folder of jobs: {value}")
    return value


def _jobs(environ: Mapping[str, str]) -> str:
    value = _required(environ, "JOBS")
    if not posixpath.isabs(value):
        raise ValueError(f"{_PREFIX}JOBS is not an absolute path: {value}")
    return posixpath.normpath(value)


def _digest(environ: Mapping[str, str]) -> bytes | None:
    name = f"{_PREFIX}TOKEN_SHA256"
    value = environ.get(name, "")
    if not value:
        return None
    try:
        digest = bytes.fromhex(value)
    except ValueError:
        digest = b""
    if len(digest) != _DIGEST_BYTES:
        raise ValueError(f"{name} is not a SHA-256 in hex digits")
    return digest
