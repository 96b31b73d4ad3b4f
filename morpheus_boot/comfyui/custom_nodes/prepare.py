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
from morpheus_boot.comfyui.custom_nodes.interpreter import Interpreter, look_at
from morpheus_boot.comfyui.custom_nodes.packages import (
    PACKAGES,
    Builder,
    LeftOut,
    Outcome,
    read_outcome,
    site_key,
)
from morpheus_boot.comfyui.custom_nodes.python_path import write_python_path
from morpheus_boot.comfyui.custom_nodes.requirements import Asked, read_asked
from morpheus_boot.comfyui.custom_nodes.trees import Tree, Trees
from morpheus_boot.comfyui.environment import comfyui_environment
from morpheus_boot.comfyui.find import ComfyUI
from morpheus_boot.config.settings import REPOSITORY
from morpheus_boot.errors import MorpheusError, all_of, local_error
from morpheus_boot.manifest import NodeSpec
from morpheus_boot.volume.archive import Turn, pack, staged, unpack
from morpheus_boot.volume.layout import Layout
from morpheus_boot.work.background import begin, together

_LOG: Final = logging.getLogger("morpheus.nodes")
_AT_ONCE: Final = 8
_SITE: Final = "site-"
# main.py, execute_prestartup_script.
_PRESTARTUP: Final = "prestartup_script.py"


@dataclass(frozen=True, slots=True)
class BroughtNodes:
    """The nodes' own files on local disk, and what they ask for.

    ``python_path`` comes first on ComfyUI's PYTHONPATH: the folder whose sitecustomize puts ``site`` last on sys.path,
    where the packages will be; None where no node asks for any. ``packages_first``: a node has a prestartup script,
    which ComfyUI runs before all else, so that its start has to wait for provide().
    """

    trees: tuple[Tree, ...]
    left_out: tuple[LeftOut, ...]
    asked: tuple[Asked, ...]
    python: Interpreter
    site: Path | None
    python_path: Path | None

    @property
    def packages_first(self) -> bool:
        """Whether ComfyUI must not be started before the packages are there."""
        return any((tree.folder / _PRESTARTUP).is_file() for tree in self.trees)


@dataclass(frozen=True, slots=True)
class PreparedNodes:
    """What ComfyUI gets: the ``trees`` of the nodes that it loads, and their packages in ``site``, where there are any.

    ``left_out`` are the nodes that are not required and have failed; ``warnings`` are sentences for the log.
    """

    trees: tuple[Path, ...] = ()
    site: Path | None = None
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()


class Preparation:
    """The custom nodes of one boot, from archives on the volume where it has them: then no network is needed, no git.

    In two steps, since ComfyUI can be started between them: it imports torch for seconds before it looks at a node.
    ComfyUI's own folder and Python are read and never written.
    """

    def __init__(
        self,
        *,
        comfyui: ComfyUI,
        layout: Layout,
        local: Path,
        environ: Mapping[str, str],
        named: Iterable[str] = (),
        turn: Turn,
        stopping: threading.Event,
    ) -> None:
        """All is put below ``local``. ``turn`` keeps several workers from making the same at once.

        ``named``: the variables that models.yaml names, see comfyui_environment().
        """
        self._comfyui = comfyui
        self._shelf = layout.archives / "packages"
        self._home = local / "nodes"
        self._turn = turn
        self._stopping = stopping
        # What builds a package is other people's code, as ComfyUI's nodes are. pip's own settings it must have.
        settings = [name for name in environ if name.startswith("PIP_")]
        self._environ = comfyui_environment(
            environ, settings, REPOSITORY, layout.node_cache, named=named
        )
        self._trees = Trees(
            layout,
            self.folder,
            python=comfyui.python,
            environ=environ,
            turn=turn,
            stopping=stopping,
        )

    @property
    def folder(self) -> Path:
        """The further ``custom_nodes`` folder of ComfyUI's, for the extra-model-paths file."""
        return self._home / "custom_nodes"

    def bring(self, nodes: Sequence[NodeSpec]) -> BroughtNodes:
        """Puts the nodes' own files into ``folder``, all at once, and asks ComfyUI's Python meanwhile what it holds.

        Raises:
            ManifestError: a required node has no such ref.
            OriginUnavailable, OriginDenied: a required node can't be fetched.
            NotSetUp: there is no git, or ComfyUI's Python can't be run.
            StorageFailed: ``local`` can't be written.
            WaitedTooLong: another worker or git took too long.
            Stopped: ``stopping`` was set.
        """
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            trees, left_out, python = self._bring(nodes)
            self._trees.drop_all_but(trees)
            asked = [read_asked(t.node.name, t.folder, required=t.node.required) for t in trees]
            asking = tuple(one for one in asked if one.lines)
            site = self._home / f"{_SITE}{site_key(asking, python)}" if asking else None
            path = site and write_python_path(self._home / "python-path", site / PACKAGES)
        return BroughtNodes(trees, left_out, asking, python, site, path)

    def provide(self, brought: BroughtNodes) -> PreparedNodes:
        """Puts the packages that the nodes need into ``site``, and lets ``folder`` show the nodes that have them.

        Raises:
            ManifestError: a required node's requirements can't be met.
            OriginUnavailable, OriginDenied: what a required node needs can't be fetched.
            NotSetUp, StorageFailed, WaitedTooLong, Stopped: as bring() does, of pip.
        """
        with self._writing():
            outcome = self._provide(brought)
            losers = {loser.name for loser in outcome.left_out}
            self._trees.enable(brought.trees, losers)
        kept = [tree for tree in brought.trees if tree.node.name not in losers]
        return PreparedNodes(
            trees=tuple(self.folder / tree.node.name for tree in kept),
            site=brought.site / PACKAGES if brought.site and outcome.packages else None,
            left_out=(*brought.left_out, *outcome.left_out),
            warnings=(*self._warnings(kept), *outcome.warnings),
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise local_error("custom nodes", self._home, error) from error

    def _bring(
        self, nodes: Sequence[NodeSpec]
    ) -> tuple[tuple[Tree, ...], tuple[LeftOut, ...], Interpreter]:
        look = begin(
            lambda: look_at(
                self._comfyui.python,
                environ=self._environ,
                folder=self._home,
                stopping=self._stopping,
            ),
            "look at ComfyUI's Python",
        )
        outcomes = list(zip(nodes, together(self._bring_one, nodes, _AT_ONCE), strict=True))
        failed = [(node, error) for node, error in outcomes if isinstance(error, MorpheusError)]
        if refused := [error for node, error in failed if node.required]:
            raise all_of(refused)
        return (
            tuple(tree for _, tree in outcomes if isinstance(tree, Tree)),
            tuple(LeftOut(node.name, f"{e.cause}; {e.mend}") for node, e in failed),
            look.result(),
        )

    def _bring_one(self, node: NodeSpec) -> Tree | MorpheusError:
        try:
            return self._trees.bring(node)
        except MorpheusError as error:
            return error

    def _provide(self, brought: BroughtNodes) -> Outcome:
        """What came of the requirements, here or on the volume, else built now."""
        site = brought.site
        if site is None:
            return Outcome()
        key = site.name.removeprefix(_SITE)
        archive = self._shelf / f"{key}.tar.gz"
        outcome = _kept(site, archive)
        if outcome is None:
            with self._turn(f"packages/{key}"):
                outcome = _kept(site, archive) or self._build(brought, site, archive)
        for other in self._home.glob(f"{_SITE}*"):
            if other != site:
                shutil.rmtree(other, ignore_errors=True)
        return outcome

    def _build(self, brought: BroughtNodes, site: Path, archive: Path) -> Outcome:
        scratch = self._home / "scratch"
        scratch.mkdir(exist_ok=True)
        try:
            builder = Builder(
                brought.asked,
                brought.python,
                environ=self._environ,
                scratch=scratch,
                stopping=self._stopping,
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
            if (self.folder / name / "install.py").is_file():
                yield f"{name}: its install.py is not run; what it fetches or builds is missing"
            if (self._comfyui.folder / "custom_nodes" / name).exists():
                yield f"{name}: ComfyUI's own custom_nodes has one, too, and loads both"


def _kept(site: Path, archive: Path) -> Outcome | None:
    """The outcome of an earlier build, here or on the volume."""
    if not site.is_dir() and not unpack(archive, site):
        return None
    try:
        return read_outcome(site)
    except (OSError, ValueError, KeyError, TypeError):
        shutil.rmtree(site, ignore_errors=True)  # another version's
        return None
