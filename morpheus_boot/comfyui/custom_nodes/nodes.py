"""From the custom nodes of models.yaml to folders that ComfyUI loads, told once."""

import logging
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.comfyui.custom_nodes.fetch import is_commit
from morpheus_boot.comfyui.custom_nodes.interpreter import Interpreter, compile_tree, look_at
from morpheus_boot.comfyui.custom_nodes.manager import configure_manager, is_manager
from morpheus_boot.comfyui.custom_nodes.packages import (
    PACKAGES,
    LeftOut,
    Outcome,
    Requirements,
    install_packages,
    read_outcome,
    read_requirements,
    site_key,
)
from morpheus_boot.comfyui.custom_nodes.python_path import write_python_path
from morpheus_boot.comfyui.custom_nodes.trees import Tree, Trees
from morpheus_boot.comfyui.custom_nodes.uv import Uv, find_uv
from morpheus_boot.comfyui.environment import comfyui_environment
from morpheus_boot.comfyui.find import ComfyUI
from morpheus_boot.config.settings import REPOSITORY
from morpheus_boot.errors import MorpheusError, all_of, local_error
from morpheus_boot.manifest import NodeSpec
from morpheus_boot.volume.archive import ArchiveLock, provide
from morpheus_boot.volume.layout import Layout
from morpheus_boot.work.background import begin, together

_LOG: Final = logging.getLogger("morpheus.nodes")
_AT_ONCE: Final = 8
_SITE: Final = "site-"
# main.py, execute_prestartup_script.
_PRESTARTUP: Final = "prestartup_script.py"


@dataclass(frozen=True, slots=True)
class _Brought:
    """The nodes' own files on local disk, and what they ask for; their packages will be in ``site``, if any."""

    trees: tuple[Tree, ...]
    asked: tuple[Requirements, ...]
    python: Interpreter
    site: Path | None


class CustomNodes:
    """The custom nodes of one boot, from archives on the volume where it has them: then no network is needed, no git.

    bring(), then ComfyUI may be started, then provide(): it imports torch for seconds before it looks at a node, and
    then waits for the file ``gate`` (guard/installation.py). Its folder and its Python are read, never written.
    """

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        *,
        comfyui: ComfyUI,
        layout: Layout,
        local: Path,
        user: Path,
        environ: Mapping[str, str],
        named: Iterable[str] = (),
        archive_lock: ArchiveLock,
        stopping: threading.Event,
    ) -> None:
        """All is put below ``local``. ``archive_lock`` keeps several workers from making the same at once.

        ``user`` is ComfyUI's user directory. ``named``: the variables that models.yaml names, see
        comfyui_environment().
        """
        self._nodes = nodes
        self._comfyui = comfyui
        self._shelf = layout.archives / "packages"
        self._home = local / "nodes"
        self._folder = self._home / "custom_nodes"
        self._gate = self._home / "packages-are-there"
        self._user = user
        self._archive_lock = archive_lock
        self._stopping = stopping
        # What builds a package is other people's code, as ComfyUI's nodes are; how to reach an index it must know.
        settings = [name for name in environ if name.startswith(("PIP_", "UV_"))]
        self._environ = comfyui_environment(
            environ, settings, REPOSITORY, layout.node_cache, named=named
        )
        self._trees = Trees(
            layout,
            self._folder,
            python=comfyui.python,
            environ=environ,
            archive_lock=archive_lock,
            stopping=stopping,
        )
        self._brought: _Brought | None = None
        self.folders: tuple[Path, ...] = ()
        """Further ``custom_nodes`` folders for ComfyUI."""
        self.packages: Path | None = None
        """Where the nodes' packages will be; None where no node asks for any."""
        self.python_path: Path | None = None
        """What comes first on ComfyUI's PYTHONPATH: its sitecustomize puts ``packages`` last on sys.path."""
        self.gate: Path | None = None
        """The file that ComfyUI waits for; None where there is nothing to wait for."""
        self.left_out: tuple[LeftOut, ...] = ()
        """The nodes that are not required and have failed."""

    def bring(self) -> None:
        """Puts the nodes' own files in place; all of provide(), too, where a script of theirs runs before ComfyUI.

        Raises:
            ManifestError: a required node has no such ref, or its requirements can't be met.
            OriginUnavailable, OriginDenied: a required node, or what it needs, can't be fetched.
            NotSetUp: there is no git or no uv, or ComfyUI's Python can't be run.
            StorageFailed: ``local`` can't be written.
            WaitedTooLong: another worker, git or uv took too long.
            Stopped: ``stopping`` was set.
        """
        if not self._nodes:
            return
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._gate.unlink(missing_ok=True)  # an earlier boot of this container opened it
            trees, self.left_out, python = self._bring_trees()
            self._trees.drop_all_but(trees)
            read = [
                read_requirements(t.node.name, t.folder, required=t.node.required) for t in trees
            ]
            asked = tuple(one for one in read if one is not None)
            site = self._home / f"{_SITE}{site_key(asked, python)}" if asked else None
            if site is not None:
                self.packages = site / PACKAGES
                self.python_path = write_python_path(self._home / "python-path", self.packages)
        self.folders, self.gate = (self._folder,), self._gate
        self._brought = _Brought(trees, asked, python, site)
        if any((tree.folder / _PRESTARTUP).is_file() for tree in trees):
            self.provide()

    def provide(self) -> None:
        """Gives the nodes their packages, and opens the gate. Raises as bring() does."""
        brought = self._brought
        if brought is None or self._gate.exists():
            return
        with self._writing():
            outcome = self._packages_of(brought)
            self.left_out += outcome.left_out
            losers = {loser.name for loser in outcome.left_out}
            kept = [tree for tree in brought.trees if tree.node.name not in losers]
            self._trees.drop_all_but(kept)
            for tree in kept:
                self._look_over(tree)
            for node in self.left_out:
                _LOG.warning("custom node %s is left out: %s", node.name, node.reason)
            self._gate.touch()
        _LOG.info("the custom nodes and their packages are in place")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise local_error("custom nodes", self._home, error) from error

    def _bring_trees(self) -> tuple[tuple[Tree, ...], tuple[LeftOut, ...], Interpreter]:
        """All nodes' files at once, while ComfyUI's Python says what it holds."""
        look = begin(
            lambda: look_at(
                self._comfyui.python,
                environ=self._environ,
                folder=self._home,
                stopping=self._stopping,
            ),
            "look at ComfyUI's Python",
        )
        outcomes = list(
            zip(self._nodes, together(self._bring_tree, self._nodes, _AT_ONCE), strict=True)
        )
        failed = [(node, error) for node, error in outcomes if isinstance(error, MorpheusError)]
        if refused := [error for node, error in failed if node.required]:
            raise all_of(refused)
        return (
            tuple(tree for _, tree in outcomes if isinstance(tree, Tree)),
            tuple(LeftOut(node.name, f"{e.cause}; {e.mend}") for node, e in failed),
            look.result(),
        )

    def _bring_tree(self, node: NodeSpec) -> Tree | MorpheusError:
        try:
            return self._trees.bring(node)
        except MorpheusError as error:
            return error

    def _packages_of(self, brought: _Brought) -> Outcome:
        """What came of the requirements: here or on the volume, else installed now."""
        for other in self._home.glob(f"{_SITE}*"):
            if other != brought.site or not read_outcome(other).lasting:
                shutil.rmtree(other)
        if brought.site is None:
            return Outcome()
        key = brought.site.name.removeprefix(_SITE)
        provide(
            brought.site,
            self._shelf / f"{key}.tar.gz",
            lambda staging: self._install(brought, staging),
            self._archive_lock(f"packages/{key}"),
        )
        return read_outcome(brought.site)

    def _install(self, brought: _Brought, site: Path) -> bool:
        """Installs the packages into ``site``; whether what came of it lasts."""
        _LOG.info("installing what the nodes need beside what ComfyUI's Python holds")
        scratch = self._home / "scratch"

        def find() -> Uv:
            return Uv(
                find_uv(self._environ, self._home, self._shelf.with_name("uv")),
                brought.python,
                environ=self._environ,
                scratch=scratch,
                stopping=self._stopping,
            )

        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            outcome = install_packages(brought.asked, find, site)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        _LOG.info("installed: %s", ", ".join(outcome.packages) or "nothing was missing")
        compile_tree(
            self._comfyui.python,
            site,
            edited=False,
            environ=self._environ,
            stopping=self._stopping,
        )
        return outcome.lasting

    def _look_over(self, tree: Tree) -> None:
        """Says what a user should know of a node that ComfyUI gets; the Manager is kept from changing anything."""
        name, ref = tree.node.name, tree.node.ref
        if not is_commit(ref):
            _LOG.warning(
                "%s: ref '%s' may move; pin what it is here with ref: %s", name, ref, tree.commit
            )
        if (tree.folder / "install.py").is_file():
            _LOG.warning(
                "%s: its install.py is not run; what it fetches or builds is missing", name
            )
        if (self._comfyui.folder / "custom_nodes" / name).exists():
            _LOG.warning("%s: ComfyUI's own custom_nodes has one, too, and loads both", name)
        if is_manager(tree.folder):
            configure_manager(tree.folder, self._comfyui.folder, self._user)
