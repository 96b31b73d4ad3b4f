"""The custom nodes' folders on local disk: each unpacked from its archive on the volume, else fetched by git."""

import hashlib
import logging
import shutil
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.comfyui.custom_nodes.fetch import Repository, is_commit
from morpheus_boot.comfyui.custom_nodes.interpreter import compile_tree
from morpheus_boot.config.redact import without_secrets
from morpheus_boot.manifest import NodeSpec
from morpheus_boot.volume.archive import ArchiveLock, pack, staged, stray_links, unpack
from morpheus_boot.volume.documents import from_document, to_document
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.publish import write_whole

_LOG: Final = logging.getLogger("morpheus.nodes")
# In each node's folder: which commit it is. Written before the folder gets its name.
_COMMIT: Final = ".morpheus-commit"


@dataclass(frozen=True, slots=True)
class Tree:
    """A node's files in ``folder``, of ``commit``."""

    node: NodeSpec
    commit: str
    folder: Path


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What a tag or branch of a repository stood for when it was first fetched."""

    git: str
    ref: str
    commit: str


class Trees:
    """All custom nodes of this container, in one folder, as ComfyUI wants them."""

    def __init__(
        self,
        layout: Layout,
        folder: Path,
        *,
        python: Path,
        environ: Mapping[str, str],
        archive_lock: ArchiveLock,
        stopping: threading.Event,
    ) -> None:
        """``folder``: on local disk, of this alone. ``environ``: git's."""
        self._shelf = layout.archives / "nodes"
        self._folder = folder
        self._python = python
        self._environ = environ
        self._archive_lock = archive_lock
        self._stopping = stopping

    def bring(self, node: NodeSpec) -> Tree:
        """Puts the node's files in place; safe from several threads, for different nodes.

        What is there already, of the same commit, is left as it is. A tag or branch means what it meant when this
        volume first had it, so that all workers run the same.

        Raises MorpheusError and Stopped as Repository does; OSError where the local disk can't be written.
        """
        tree = self._unpacked(node)
        if tree is not None:
            return tree
        with self._archive_lock(f"nodes/{node.name}"):
            return self._unpacked(node) or self._fetched(node)

    def drop_all_but(self, trees: Collection[Tree]) -> None:
        """Removes what lies beside ``trees``, of nodes that are left out or that models.yaml lists no more.

        Raises OSError.
        """
        kept = {tree.folder for tree in trees}
        for path in self._folder.iterdir():
            if path not in kept:
                shutil.rmtree(path)

    def _unpacked(self, node: NodeSpec) -> Tree | None:
        """The tree where neither git nor a network is needed."""
        commit = self._known_commit(node)
        if commit is None:
            return None
        folder = self._folder / node.name
        if _commit_in(folder) != commit:
            if folder.exists():
                shutil.rmtree(folder)
            if not unpack(self._archive(node, commit), folder):
                return None
        return Tree(node, commit, folder)

    def _fetched(self, node: NodeSpec) -> Tree:
        repository = Repository(node.name, node.git, environ=self._environ, stopping=self._stopping)
        known = self._known_commit(node)
        commit = known or repository.commit_of(node.ref)
        folder = self._folder / node.name
        if folder.exists():
            shutil.rmtree(folder)
        _LOG.info("%s: fetching %s", node.name, commit)
        with staged(folder) as staging:
            repository.fetch(commit, staging)
            for link in stray_links(staging):
                _LOG.warning(
                    "%s: %s leads out of it and is left out", node.name, link.relative_to(staging)
                )
                link.unlink()
            (staging / _COMMIT).write_text(commit, "utf-8")
            compile_tree(
                self._python,
                staging,
                edited=True,
                environ=self._environ,
                stopping=self._stopping,
            )
        self._keep(node, commit, folder)
        return Tree(node, commit, folder)

    def _keep(self, node: NodeSpec, commit: str, folder: Path) -> None:
        """Leaves the tree on the volume for the next worker; where it doesn't fit, that one fetches it, too."""
        try:
            pack(folder, self._archive(node, commit))
            if not is_commit(node.ref):
                meaning = _Meaning(without_secrets(node.git.reveal()), node.ref, commit)
                write_whole(self._meaning_file(node), to_document(meaning))
        except OSError as error:
            _LOG.warning("%s: it can't be kept on the volume (%s)", node.name, error.strerror)

    def _known_commit(self, node: NodeSpec) -> str | None:
        if is_commit(node.ref):
            return node.ref
        try:
            meaning = from_document(_Meaning, self._meaning_file(node).read_bytes())
        except (OSError, ValueError):
            return None
        return meaning.commit if is_commit(meaning.commit) else None

    def _archive(self, node: NodeSpec, commit: str) -> Path:
        return self._shelf / f"{node.name}-{commit}.tar.gz"

    def _meaning_file(self, node: NodeSpec) -> Path:
        identity = f"{without_secrets(node.git.reveal())} {node.ref}"
        key = hashlib.sha256(identity.encode()).hexdigest()[:16]
        return self._shelf / f"{node.name}-{key}.json"


def _commit_in(folder: Path) -> str | None:
    try:
        return (folder / _COMMIT).read_text("utf-8")
    except (OSError, UnicodeError):
        return None
