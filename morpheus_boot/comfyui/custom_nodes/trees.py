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
from morpheus_boot.volume.archive import ArchiveLock, provide, stray_links
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
        commit = self._meaning(node)
        if commit is None:
            with self._archive_lock(f"refs/{node.name}"):
                commit = self._meaning(node) or self._ask_for_meaning(node)
        folder = self._folder / node.name
        if _commit_in(folder) != commit and folder.exists():
            shutil.rmtree(folder)
        provide(
            folder,
            self._shelf / f"{node.name}-{commit}.tar.gz",
            lambda staging: self._fetch(node, commit, staging),
            self._archive_lock(f"nodes/{node.name}"),
        )
        return Tree(node, commit, folder)

    def drop_all_but(self, trees: Collection[Tree]) -> None:
        """Removes what lies beside ``trees``, of nodes that are left out or that models.yaml lists no more.

        Raises OSError.
        """
        kept = {tree.folder for tree in trees}
        for path in self._folder.iterdir():
            if path not in kept:
                shutil.rmtree(path)

    def _fetch(self, node: NodeSpec, commit: str, folder: Path) -> bool:
        _LOG.info("%s: fetching %s", node.name, commit)
        self._repository(node).fetch(commit, folder)
        for link in stray_links(folder):
            where = link.relative_to(folder)
            _LOG.warning("%s: %s leads out of it and is left out", node.name, where)
            link.unlink()
        (folder / _COMMIT).write_text(commit, "utf-8")
        compile_tree(
            self._python, folder, edited=True, environ=self._environ, stopping=self._stopping
        )
        return True

    def _repository(self, node: NodeSpec) -> Repository:
        return Repository(node.name, node.git, environ=self._environ, stopping=self._stopping)

    def _meaning(self, node: NodeSpec) -> str | None:
        """The commit that the node's ref stands for; None where this volume does not know it yet."""
        if is_commit(node.ref):
            return node.ref
        try:
            meaning = from_document(_Meaning, self._meaning_file(node).read_bytes())
        except (OSError, ValueError):
            return None
        return meaning.commit if is_commit(meaning.commit) else None

    def _ask_for_meaning(self, node: NodeSpec) -> str:
        commit = self._repository(node).commit_of(node.ref)
        meaning = _Meaning(without_secrets(node.git.reveal()), node.ref, commit)
        try:
            write_whole(self._meaning_file(node), to_document(meaning))
        except OSError as error:
            said = "%s: what '%s' means can't be kept on the volume (%s)"
            _LOG.warning(said, node.name, node.ref, error.strerror)
        return commit

    def _meaning_file(self, node: NodeSpec) -> Path:
        identity = f"{without_secrets(node.git.reveal())} {node.ref}"
        key = hashlib.sha256(identity.encode()).hexdigest()[:16]
        return self._shelf / f"{node.name}-{key}.json"


def _commit_in(folder: Path) -> str | None:
    try:
        return (folder / _COMMIT).read_text("utf-8")
    except (OSError, UnicodeError):
        return None
