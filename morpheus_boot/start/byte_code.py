"""Byte code for every start, by content: archives set other mtimes, and images forbid Python to write it at import."""

from pathlib import Path


def compile_command(python: Path, tree: Path, *, edited: bool) -> tuple[str, ...]:
    """The command by which ``python`` compiles everything below ``tree``, which may be renamed afterwards.

    ``edited``: somebody may edit ``tree`` in place, so each import looks at the source; else none does, and all
    processors are used.
    """
    how = ("checked-hash",) if edited else ("unchecked-hash", "-j", "0")
    options = ("-q", "-q", "-s", str(tree), "--invalidation-mode", *how)
    # -I: nothing of the working directory's must be taken for compileall.
    return (str(python), "-I", "-m", "compileall", *options, str(tree))
