"""RunPod's own cached models: a Hugging Face cache on the volume, which may be read-only and incomplete.

<root>/models--{org}--{name}/refs/{revision} holds a commit, snapshots/{commit}/{file} links to blobs/{digest}.
(https://docs.runpod.io/serverless/endpoints/model-caching)
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.manifest import HuggingFaceSource
from morpheus_boot.volume.digests import sha256_in

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_BELOW: Final = Path("huggingface-cache/hub")
_SERVERLESS_MOUNT: Final = Path("/runpod-volume")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of such a cache: its snapshot's path, commit and size; its SHA-256 where the blob is named by it."""

    path: Path
    commit: str
    size_bytes: int
    sha256: str | None


def hub_roots(volume_root: Path) -> tuple[Path, ...]:
    """Where such a cache may lie."""
    return tuple(dict.fromkeys((volume_root / _BELOW, _SERVERLESS_MOUNT / _BELOW)))


def find_hub_file(source: HuggingFaceSource, roots: Iterable[Path]) -> HubFile | None:
    """The file that a cache holds for this repository and revision; None where it has none, or it dangles."""
    for root in roots:
        for repo in _repositories(root, source):
            found = _in_repository(repo, source)
            if found is not None:
                return found
    return None


def _repositories(root: Path, source: HuggingFaceSource) -> list[Path]:
    wanted = f"{source.kind}s--{source.repo.replace('/', '--')}"
    try:
        names = [entry.name for entry in root.iterdir()]
    except OSError:
        return []
    # The exact name first: RunPod may have written it in another case.
    names.sort(key=lambda name: name != wanted)
    return [root / name for name in names if name.lower() == wanted.lower()]


def _in_repository(repo: Path, source: HuggingFaceSource) -> HubFile | None:
    commit = _commit(repo, source.revision)
    if commit is None:
        return None
    path = repo / "snapshots" / commit / source.file
    try:
        size_bytes = path.stat().st_size
        blob = path.resolve().name
    except OSError:
        return None
    return HubFile(path, commit, size_bytes, sha256_in(blob))


def _commit(repo: Path, revision: str) -> str | None:
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (repo / "refs" / revision).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None
