"""From the custom nodes of models.yaml to folders that ComfyUI loads, told once."""

import logging
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.archive import pack, staged, unpack
from morpheus_boot.comfyui.environment import comfyui_environment
from morpheus_boot.comfyui.find import ComfyUI
from morpheus_boot.comfyui.nodes.fetch import is_commit
from morpheus_boot.comfyui.nodes.interpreter import Interpreter, look_at
from morpheus_boot.comfyui.nodes.packages import (
    PACKAGES,
    Builder,
    LeftOut,
    Outcome,
    read_outcome,
    site_key,
)
from morpheus_boot.comfyui.nodes.python_path import write_python_path
from morpheus_boot.comfyui.nodes.requirements import Asked, read_asked
from morpheus_boot.comfyui.nodes.trees import Tree, Trees, Turn
from morpheus_boot.errors import MorpheusError, StorageFailed, all_of
from morpheus_boot.layout import Layout
from morpheus_boot.manifest import NodeSpec
from morpheus_boot.settings import REPOSITORY

_LOG: Final = logging.getLogger("morpheus.nodes")
_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class PreparedNodes:
    """What ComfyUI is to be started with.

    ``folders`` are its further ``custom_nodes`` folders, for the extra-model-paths file, and ``trees`` the nodes' own
    in them. ``python_path`` comes first on its PYTHONPATH: the folder whose sitecustomize puts ``site`` last on
    sys.path. ``left_out`` are the nodes that are not required and have failed; ``warnings`` are sentences for the log.
    """

    folders: tuple[Path, ...] = ()
    trees: tuple[Path, ...] = ()
    python_path: Path | None = None
    site: Path | None = None
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()


def prepare_nodes(
    nodes: Sequence[NodeSpec],
    *,
    comfyui: ComfyUI,
    layout: Layout,
    local: Path,
    environ: Mapping[str, str],
    turn: Turn,
    stopping: threading.Event,
) -> PreparedNodes:
    """Puts ``nodes`` and the packages that they need below ``local``, from archives on the volume where it has them.

    Then no network is needed, and no git. ComfyUI's own folder and Python are read and never written. ``turn`` keeps
    several workers from making the same at once.

    Raises:
        ManifestError: a required node has no such ref, or its requirements can't be met.
        OriginUnavailable, OriginDenied: a required node or what it needs can't be fetched.
        NotSetUp: there is no git, or ComfyUI's Python can't be run.
        StorageFailed: ``local`` can't be written.
        WaitedTooLong: another worker, git or pip took too long.
        Stopped: ``stopping`` was set.
    """
    if not nodes:
        return PreparedNodes()
    home = local / "nodes"
    try:
        home.mkdir(parents=True, exist_ok=True)
        return _Preparation(
            comfyui, layout, home, environ=environ, turn=turn, stopping=stopping
        ).carry_out(nodes)
    except OSError as error:
        raise StorageFailed(
            "MORPHEUS_LOCAL_DIR",
            f"{home} can't be written ({error.strerror or error})",
            "set it to a folder on local disk with room that this user may write",
        ) from error


class _Preparation:
    def __init__(
        self,
        comfyui: ComfyUI,
        layout: Layout,
        home: Path,
        *,
        environ: Mapping[str, str],
        turn: Turn,
        stopping: threading.Event,
    ) -> None:
        self._comfyui = comfyui
        self._shelf = layout.archives / "packages"
        self._home = home
        self._turn = turn
        self._stopping = stopping
        # What builds a package is other people's code, as ComfyUI's nodes are. pip's own settings it must have.
        settings = [name for name in environ if name.startswith("PIP_")]
        self._environ = comfyui_environment(environ, settings, REPOSITORY, layout.node_cache)
        self._folder = home / "custom_nodes"
        self._trees = Trees(
            layout,
            self._folder,
            python=comfyui.python,
            environ=environ,
            turn=turn,
            stopping=stopping,
        )

    def carry_out(self, nodes: Sequence[NodeSpec]) -> PreparedNodes:
        trees, left_out, python = self._bring(nodes)
        asked = [read_asked(t.node.name, t.folder, required=t.node.required) for t in trees]
        outcome, site = self._provide([a for a in asked if a.lines], python)
        losers = {loser.name for loser in outcome.left_out}
        self._trees.enable(trees, losers)
        kept = [tree for tree in trees if tree.node.name not in losers]
        return PreparedNodes(
            folders=(self._folder,),
            trees=tuple(self._folder / tree.node.name for tree in kept),
            python_path=site and write_python_path(self._home / "python-path", site),
            site=site,
            left_out=(*left_out, *outcome.left_out),
            warnings=(*self._warnings(kept), *outcome.warnings),
        )

    def _bring(
        self, nodes: Sequence[NodeSpec]
    ) -> tuple[tuple[Tree, ...], tuple[LeftOut, ...], Interpreter]:
        """All nodes at once, and meanwhile what ComfyUI's Python holds."""
        with ThreadPoolExecutor(_AT_ONCE, "nodes") as pool:
            look = pool.submit(
                look_at,
                self._comfyui.python,
                environ=self._environ,
                folder=self._home,
                stopping=self._stopping,
            )
            work = [(node, pool.submit(self._trees.bring, node)) for node in nodes]
        outcomes = [(node, _outcome(future)) for node, future in work]
        failed = [(node, error) for node, error in outcomes if isinstance(error, MorpheusError)]
        if refused := [error for node, error in failed if node.required]:
            raise all_of(refused)
        return (
            tuple(tree for _, tree in outcomes if isinstance(tree, Tree)),
            tuple(LeftOut(node.name, f"{e.cause}; {e.mend}") for node, e in failed),
            look.result(),
        )

    def _provide(self, asked: Sequence[Asked], python: Interpreter) -> tuple[Outcome, Path | None]:
        """The packages for all requirements, and the folder to put behind ComfyUI's own; None where none are needed."""
        if not asked:
            return Outcome(), None
        key = site_key(asked, python)
        site, archive = self._home / f"site-{key}", self._shelf / f"{key}.tar.gz"
        outcome = _kept(site, archive)
        if outcome is None:
            with self._turn(f"packages/{key}"):
                outcome = _kept(site, archive) or self._build(asked, python, site, archive)
        for other in self._home.glob("site-*"):
            if other != site:
                shutil.rmtree(other, ignore_errors=True)
        return outcome, site / PACKAGES if outcome.packages else None

    def _build(
        self, asked: Sequence[Asked], python: Interpreter, site: Path, archive: Path
    ) -> Outcome:
        scratch = self._home / "scratch"
        scratch.mkdir(exist_ok=True)
        try:
            builder = Builder(
                asked, python, environ=self._environ, scratch=scratch, stopping=self._stopping
            )
            with staged(site) as staging:
                outcome = builder.build(staging)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if not outcome.lasting:
            shutil.rmtree(site)
            return outcome
        try:
            pack(site, archive)
        except OSError as error:
            _LOG.warning("the nodes' packages can't be kept on the volume (%s)", error.strerror)
        return outcome

    def _warnings(self, trees: Iterable[Tree]) -> Iterable[str]:
        for tree in trees:
            name, ref = tree.node.name, tree.node.ref
            if not is_commit(ref):
                yield f"{name}: ref '{ref}' may move; pin what it is here with ref: {tree.commit}"
            if (self._folder / name / "install.py").is_file():
                yield f"{name}: its install.py is not run; what it fetches or builds is missing"
            if (self._comfyui.folder / "custom_nodes" / name).exists():
                yield f"{name}: ComfyUI's own custom_nodes has one, too, and loads both"


def _outcome(future: "Future[Tree]") -> Tree | MorpheusError:
    try:
        return future.result()
    except MorpheusError as error:
        return error


def _kept(site: Path, archive: Path) -> Outcome | None:
    """The outcome of an earlier build, here or on the volume."""
    if not site.is_dir() and not unpack(archive, site):
        return None
    try:
        return read_outcome(site)
    except (OSError, ValueError, KeyError, TypeError):
        shutil.rmtree(site, ignore_errors=True)  # another version's
        return None
