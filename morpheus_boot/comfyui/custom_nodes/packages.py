"""The packages that custom nodes need beside ComfyUI's own: found together, installed into one folder, kept as one.

Where their requirements can't be met together, the node that is last by precedence loses: required nodes come before
the others, and within each the order of models.yaml counts.
"""

import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.comfyui.custom_nodes.interpreter import Interpreter
from morpheus_boot.comfyui.custom_nodes.pip import (
    ASKED,
    Absent,
    Package,
    Pip,
    Unbuildable,
    Unsolvable,
)
from morpheus_boot.comfyui.custom_nodes.requirements import Asked, Needs, constraints_of, needs_of
from morpheus_boot.errors import ManifestError, MorpheusError, OriginUnavailable, all_of
from morpheus_boot.start.installed import compile_command
from morpheus_boot.work.program import run_program

_LOG: Final = logging.getLogger("morpheus.nodes")
_COMPILE_TIMEOUT_S: Final = 900.0
_FORMAT: Final = "1"
_OUTCOME: Final = "outcome.json"
PACKAGES: Final = "packages"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A custom node that ComfyUI does not get, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of all requirements together: who lost, which lines were not taken, which packages were installed.

    ``lasting`` unless the network alone was the cause, so that the next boot tries again.
    """

    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    lasting: bool = True


def site_key(asked: Iterable[Asked], python: Interpreter) -> str:
    """What a folder of packages depends on, in 32 hex digits: interpreter, platform, what it holds, what is asked."""
    content = (_FORMAT, python.identity, sorted(python.held.items()), [*map(asdict, asked)])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def read_outcome(site: Path) -> Outcome:
    """What build() left in ``site``. Raises OSError, ValueError."""
    document = json.loads((site / _OUTCOME).read_text("utf-8"))
    return Outcome(
        tuple(LeftOut(**entry) for entry in document["left_out"]),
        tuple(document["warnings"]),
        tuple(document["packages"]),
        document["lasting"],
    )


@dataclass(frozen=True, slots=True)
class _Loss:
    """A node that loses. ``lasting`` unless another day may bring what is missing now."""

    node: str
    reason: str
    lasting: bool = True


class Builder:
    """Builds one folder of packages, once."""

    def __init__(
        self,
        asked: Sequence[Asked],
        python: Interpreter,
        *,
        environ: Mapping[str, str],
        scratch: Path,
        stopping: threading.Event,
    ) -> None:
        self._asked = asked
        self._python = python
        self._environ = environ
        self._scratch = scratch
        self._stopping = stopping
        self._constraints = constraints_of(python.held)
        self._pip: Pip | None = None
        self._lost: dict[str, LeftOut] = {}
        self._lasting = True
        self._required = frozenset(one.name for one in asked if one.required)

    def build(self, site: Path) -> Outcome:
        """Installs into the folder ``site`` what the nodes need, and leaves the outcome there, too.

        Raises:
            ManifestError: a required node's requirements can't be met.
            OriginUnavailable: the package index can't be reached, and a required node needs it.
            NotSetUp, StorageFailed, WaitedTooLong, Stopped, OSError: as Pip does.
        """
        needs = [
            needs_of(one, self._python) for one in sorted(self._asked, key=lambda a: not a.required)
        ]
        self._lose(_Loss(n.node, "; ".join(n.conflicts)) for n in needs if n.conflicts)
        packages = self._install(needs, site / PACKAGES)
        outcome = Outcome(
            tuple(self._lost.values()),
            tuple(f"{need.node}: {text}" for need in needs for text in need.ignored),
            tuple(package.pin for package in packages),
            self._lasting,
        )
        (site / _OUTCOME).write_text(json.dumps(asdict(outcome), indent=1), "utf-8")
        return outcome

    def _install(self, needs: Sequence[Needs], target: Path) -> tuple[Package, ...]:
        """Installs for the nodes that are left, and when some lose, again for the rest."""
        while kept := [n for n in needs if n.missing and n.node not in self._lost]:
            try:
                packages = self._resolve(kept)
                pins = ", ".join(package.pin for package in packages)
                _LOG.info("installing what ComfyUI's Python lacks: %s", pins or "nothing")
                self._tool().install(packages, _sources(kept), target)
            except Unbuildable as error:
                shutil.rmtree(target, ignore_errors=True)
                self._lose(self._who_needs(error.name, kept, str(error)))
            except Unsolvable:
                self._lose(self._who_disagrees(kept))
            except OriginUnavailable as error:
                if not self._required.isdisjoint(need.node for need in kept):
                    raise
                cause = f"{error.subject} {error.cause}"
                self._lose(_Loss(need.node, cause, lasting=False) for need in kept)
            else:
                self._compile(target)
                return packages
        return ()

    def _resolve(self, needs: Sequence[Needs]) -> tuple[Package, ...]:
        missing = dict.fromkeys(text for need in needs for text in need.missing)
        return self._tool().resolve(missing, _sources(needs), self._constraints)

    def _who_disagrees(self, needs: Sequence[Needs]) -> Iterator[_Loss]:
        """The nodes that can't come to those before them, each with pip's account of both sides."""
        together: list[Needs] = []
        for need in needs:
            try:
                self._resolve([*together, need])
            except Unsolvable as error:
                reason = _named(str(error), [*together, need])
                yield _Loss(need.node, reason, lasting=not isinstance(error, Absent))
            else:
                together.append(need)

    def _who_needs(self, package: str, needs: Sequence[Needs], cause: str) -> Iterator[_Loss]:
        """The nodes that need ``package``, by what each comes to alone."""
        alone = [need for need in needs if len(needs) == 1 or package in self._names([need])]
        yield from (_Loss(need.node, cause) for need in alone or needs)

    def _names(self, needs: Sequence[Needs]) -> frozenset[str]:
        return frozenset(package.name for package in self._resolve(needs))

    def _lose(self, losses: Iterable[_Loss]) -> None:
        """Raises ManifestError, OriginUnavailable where a required node is among the losers."""
        lost = [*losses]
        refused = [_refusal(loss) for loss in lost if loss.node in self._required]
        if refused:
            raise all_of(refused)
        self._lost.update((loss.node, LeftOut(loss.node, loss.reason)) for loss in lost)
        self._lasting &= all(loss.lasting for loss in lost)

    def _compile(self, target: Path) -> None:
        # Its exit code says that some package ships a file which is no Python of this version.
        run_program(
            compile_command(self._python.python, target, edited=False),
            environ=self._environ,
            folder=self._scratch,
            timeout_s=_COMPILE_TIMEOUT_S,
            stopping=self._stopping,
        )

    def _tool(self) -> Pip:
        if self._pip is None:
            self._pip = Pip(
                self._python,
                environ=self._environ,
                scratch=self._scratch,
                stopping=self._stopping,
            )
        return self._pip


def _refusal(loss: _Loss) -> MorpheusError:
    kind = ManifestError if loss.lasting else OriginUnavailable
    return kind(
        f"custom node {loss.node}",
        f"its requirements can't be met: {loss.reason}",
        "take another ref of it or of the other side, or say required: false",
    )


def _sources(needs: Iterable[Needs]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for need in needs for text in need.sources))


def _named(account: str, needs: Iterable[Needs]) -> str:
    """The account of pip, with the nodes in the place of "the user"."""
    for need in needs:
        for text in need.missing:
            account = account.replace(ASKED + text, f"{need.node} asks for {text}")
    return account
