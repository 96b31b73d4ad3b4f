"""A part: whoever goes on with it has the bytes that its journal names, and no others."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from morpheus_boot.volume.journal import Journal, journal_of, read_journal
from morpheus_boot.volume.part import Part, remove_part


@dataclass(frozen=True)
class Head:
    name: str
    size_bytes: int


HEAD = Head("a photo of 10 bytes", 10)


def journal_at(path: Path) -> Journal[Head]:
    journal = read_journal(path, Head)
    assert journal is not None
    return journal


def begin(path: Path, text: bytes = b"") -> Part[Head]:
    part = Part(path, HEAD)
    part.write(0, memoryview(text))
    part.sync()
    return part


def test_what_was_synced_is_gone_on_with(tmp_path: Path) -> None:
    part = begin(tmp_path / "a.part", b"01234")
    part.write(5, memoryview(b"56"))  # not synced
    part.close()

    journal = journal_at(part.path)
    again = Part(part.path, HEAD, journal)

    assert (journal.head, journal.front) == (HEAD, 5)
    assert again.gaps(10) == [range(5, 10)]
    again.write(5, memoryview(b"56789"))
    again.finish()
    again.close()
    assert part.path.read_bytes() == b"0123456789"


def test_bytes_come_in_any_order(tmp_path: Path) -> None:
    part = begin(tmp_path / "a.part")
    for at in (6, 0, 3):
        part.write(at, memoryview(b"abc"))
        part.sync()

    assert journal_at(part.path).done == (range(9),)
    part.close()


@pytest.mark.parametrize(
    "torn", [b"[5,10", b"[5,10]", b"[5,\0\0]\n", b"[5,10]x\n", b"[5]\n", b"7\n", b"\0\0\0\n"]
)
def test_a_line_that_was_torn_counts_as_none_and_swallows_no_other(
    tmp_path: Path, torn: bytes
) -> None:
    begin(tmp_path / "a.part", b"01234").close()
    with journal_of(tmp_path / "a.part").open("ab") as journal:
        journal.write(torn)

    part = Part(tmp_path / "a.part", HEAD, journal_at(tmp_path / "a.part"))
    part.write(8, memoryview(b"89"))
    part.sync()
    part.close()

    assert journal_at(part.path).done == (range(5), range(8, 10))


@pytest.mark.parametrize(
    "text", [b"", b'{"name": "a"}\n', b"[1,2]\n", b'{"name":"a","size_bytes":1}']
)
def test_what_is_no_journal_is_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.journal").write_bytes(text)

    assert read_journal(tmp_path / "a.part", Head) is None
    assert read_journal(tmp_path / "b.part", Head) is None


def test_two_can_not_write_one_part(tmp_path: Path) -> None:
    part = begin(tmp_path / "a.part", b"01234")

    with pytest.raises(BlockingIOError):
        Part(part.path, HEAD, journal_at(part.path))

    part.close()
    Part(part.path, HEAD, journal_at(part.path)).close()


def test_who_has_lost_its_name_can_make_nothing_durable(tmp_path: Path) -> None:
    part = begin(tmp_path / "a.part", b"01234")
    remove_part(part.path)
    other = begin(part.path)

    part.write(5, memoryview(b"5"))
    with pytest.raises(FileNotFoundError):
        part.sync()

    part.close()
    other.close()


def test_after_bytes_were_lost_nothing_more_is_named(tmp_path: Path) -> None:
    """The kernel tells of it once, to the write or the sync that comes first."""
    part = begin(tmp_path / "a.part", b"01234")
    part.write(5, memoryview(b"56"))
    with pytest.raises(OSError, match="Invalid argument"):
        part.write(-1, memoryview(b"0"))

    for end in (part.sync, part.finish, part.sync):
        with pytest.raises(OSError, match="Invalid argument"):
            end()

    assert journal_at(part.path).front == 5
    part.close()


def test_a_part_that_begins_anew_names_nothing(tmp_path: Path) -> None:
    part = Part(tmp_path / "a.part", HEAD, size_bytes=10)
    part.write(0, memoryview(b"01234"))
    part.sync()

    part.restart()

    assert (part.front, part.written_bytes, part.path.stat().st_size) == (0, 0, 10)
    assert journal_at(part.path).done == ()
    part.close()


def test_its_journal_can_be_made_young(tmp_path: Path) -> None:
    part = begin(tmp_path / "a.part")
    os.utime(journal_of(part.path), (1, 1))
    assert journal_at(part.path).touched_at == 1

    part.touch()

    assert journal_at(part.path).touched_at > 1
    part.close()


def test_nothing_stays_of_one_that_was_given_up(tmp_path: Path) -> None:
    begin(tmp_path / "a.part", b"01234").discard()

    with pytest.raises(FileNotFoundError):
        Part(tmp_path / "gone" / "a.part", HEAD)

    assert list(tmp_path.iterdir()) == []
