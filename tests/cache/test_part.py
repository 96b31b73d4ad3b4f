"""A part between two workers: what one continues or copies is what its journal names, in an inode of its own."""

import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Final

import pytest

from morpheus_boot.cache.parts import ModelPart, Version, open_part
from morpheus_boot.volume.journal import Journal, journal_of, read_journal
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.part import Part
from tests.cache.worker import MIB
from tests.wait import wait_until

PATH: Final = "checkpoints/a.safetensors"
VERSION: Final = Version("https://example.org/a", 4 * MIB, None, '"1"')
CONTENT: Final = memoryview(os.urandom(MIB))


def begin(root: Path) -> ModelPart:
    """An open part with its first MiB written and named."""
    part = open_again(root, inherits=True)
    part.write(0, CONTENT)
    part.sync()
    return part


def open_again(root: Path, *, inherits: bool) -> ModelPart:
    return open_part(Layout(root), PATH, VERSION, inherits=inherits, chunk_bytes=MIB)


def journal_now(part: ModelPart) -> Journal[Version]:
    journal = read_journal(part.path, Version)
    assert journal is not None
    return journal


def test_a_part_that_was_removed_meanwhile_is_not_made_again(tmp_path: Path) -> None:
    part = begin(tmp_path)
    journal = journal_now(part)
    part.discard()

    with pytest.raises(FileNotFoundError):
        Part(part.path, VERSION, journal)

    assert list(Layout(tmp_path).parts.iterdir()) == []


def test_a_part_that_lost_its_journal_meanwhile_is_not_continued(tmp_path: Path) -> None:
    part = begin(tmp_path)
    part.close()
    journal = journal_now(part)
    journal_of(part.path).unlink()

    with pytest.raises(FileNotFoundError):
        Part(part.path, VERSION, journal)

    assert not journal_of(part.path).exists()


def test_a_part_that_was_begun_anew_since_its_journal_was_read_is_not_continued(
    tmp_path: Path,
) -> None:
    part = begin(tmp_path)
    journal = journal_now(part)
    part.restart()
    part.close()

    with pytest.raises(BlockingIOError):
        Part(part.path, VERSION, journal)


def test_a_finished_part_is_continued_by_nobody_until_it_is_published(tmp_path: Path) -> None:
    part = begin(tmp_path)

    part.finish()

    with pytest.raises(BlockingIOError):
        Part(part.path, VERSION, journal_now(part))


def test_what_a_silent_worker_has_begun_anew_in_the_meantime_is_not_copied(tmp_path: Path) -> None:
    silent = begin(tmp_path)
    silent.close()
    journal = journal_of(silent.path)
    header = json.dumps(asdict(VERSION)) + "\n"
    journal.unlink()
    # Each reading of a pipe has a text of its own.
    os.mkfifo(journal)

    def answer() -> None:
        journal.write_text(f"{header}[0,{MIB}]\n")
        wait_until(lambda: len(list(silent.path.parent.glob("*.part"))) > 1)
        journal.write_text(header)

    writer = threading.Thread(target=answer, daemon=True)
    writer.start()
    part = open_again(tmp_path, inherits=False)
    writer.join(30)

    assert part.front == part.written_bytes == 0
    assert part.path != silent.path


def test_a_finished_part_is_dated_by_its_end(tmp_path: Path) -> None:
    """MooseFS shows other hosts an older mtime for a while after the last write, unless it is set."""
    part = begin(tmp_path)
    os.utime(part.path, (1, 1))

    assert part.finish().st_mtime > 1
    part.close()
