"""A cold cache fills from its origins: whole or absent, checked as it arrives, a record last."""

import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from morpheus_boot.cache.records import read_record
from morpheus_boot.errors import (
    Exit,
    OriginDenied,
    OriginUnavailable,
    SeveralErrors,
    StorageFailed,
)
from morpheus_boot.work.stopping import Stopped
from tests.cache.worker import MIB, Worker, model
from tests.testbed.content import (
    Content,
    literal,
    read_all,
    safetensors,
    sha256,
    torch_pickle,
    torch_zip,
    write_to,
)
from tests.testbed.faults import (
    Corrupt,
    Fault,
    Gate,
    Gzip,
    IgnoresRange,
    LoginPage,
    ResetAt,
    Status,
    TooMuch,
    Truncated,
)
from tests.testbed.origin import Origin

WEIGHTS = safetensors(3 * MIB)
PATH = "checkpoints/a.safetensors"


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


def published(worker: Worker, path: str = PATH) -> bytes:
    return worker.layout.model(path).read_bytes()


def test_a_missing_model_is_fetched_once_and_recorded(worker: Worker, origin: Origin) -> None:
    url = origin.serve("/a.safetensors", WEIGHTS)

    (cached,) = worker.fill(model(PATH, url))

    assert cached.file.read_bytes() == read_all(WEIGHTS)
    record = read_record(worker.layout, PATH)
    assert record is not None
    assert (record.sha256, record.size_bytes) == (sha256(WEIGHTS), WEIGHTS.size_bytes)
    assert record.origin == url
    assert origin.count().body_bytes <= WEIGHTS.size_bytes + 1


def test_a_second_fill_of_a_warm_volume_asks_nobody(worker: Worker, origin: Origin) -> None:
    wanted = model(PATH, origin.serve("/a.safetensors", WEIGHTS))
    worker.fill(wanted)
    before = origin.count()

    (cached,) = worker.fill(wanted)

    assert cached.file.read_bytes() == read_all(WEIGHTS)
    assert origin.count() == before


def test_nothing_is_left_beside_the_model_and_its_record(worker: Worker, origin: Origin) -> None:
    worker.fill(model(PATH, origin.serve("/a.safetensors", WEIGHTS)))

    files = {p.relative_to(worker.root).parts[0:2] for p in worker.root.rglob("*") if p.is_file()}
    assert files == {
        ("model_cache", "checkpoints"),
        (".morpheus", "records"),
        (".morpheus", "locks"),
    }


def test_a_token_in_a_url_is_in_no_record(worker: Worker, origin: Origin) -> None:
    url = origin.serve("/a.safetensors", WEIGHTS)

    worker.fill(model(PATH, f"{url}?type=Model&token=s3cret-s3cret"))

    record = worker.layout.record(PATH).read_text()
    assert "s3cret" not in record
    assert "type=Model" in record


def test_a_broken_connection_goes_on_where_it_stopped(worker: Worker, origin: Origin) -> None:
    url = origin.serve("/a.safetensors", WEIGHTS)
    origin.misbehave("/a.safetensors", ResetAt(2 * MIB), after=1, times=1)

    worker.fill(model(PATH, url))

    assert published(worker) == read_all(WEIGHTS)
    assert origin.count().body_bytes < WEIGHTS.size_bytes + MIB


def test_an_origin_that_ignores_ranges_is_read_from_the_start(
    worker: Worker, origin: Origin
) -> None:
    url = origin.serve("/a.safetensors", WEIGHTS)
    origin.misbehave("/a.safetensors", IgnoresRange())
    origin.misbehave("/a.safetensors", ResetAt(2 * MIB), after=1, times=1)

    worker.fill(model(PATH, url))

    assert published(worker) == read_all(WEIGHTS)


LOGIN: Final = literal(b"<!DOCTYPE html><html>Log in</html>")


@pytest.mark.parametrize(
    ("content", "faults", "digest", "said"),
    [
        (WEIGHTS, [LoginPage()], None, "web page"),
        (LOGIN, [], None, "HTML"),
        (WEIGHTS, [Status(404)], None, "404"),
        (WEIGHTS, [Status(410)], None, "410"),
        (WEIGHTS, [Status(500)], None, "500"),
        (WEIGHTS, [Gzip()], None, "gzip"),
        (WEIGHTS, [TooMuch(10, declared=True)], None, "changed"),
        (WEIGHTS, [Truncated(at=0)], None, "broke off"),
        (WEIGHTS, [], "0" * 64, "SHA-256"),
        (WEIGHTS, [Corrupt(at=2 * MIB)], sha256(WEIGHTS), "SHA-256"),
    ],
)
def test_an_origin_that_sends_no_model_is_named_and_nothing_is_published(
    worker: Worker,
    origin: Origin,
    *,
    content: Content,
    faults: list[Fault],
    digest: str | None,
    said: str,
) -> None:
    url = origin.serve("/a.safetensors", content)
    origin.misbehave("/a.safetensors", *faults)

    with pytest.raises(OriginUnavailable) as caught:
        worker.fill(model(PATH, url, sha256=digest))

    assert PATH in str(caught.value)
    assert said in str(caught.value)
    assert not worker.layout.model(PATH).exists()
    assert not digest or list(worker.layout.parts.iterdir()) == []
    assert caught.value.exit_code == Exit.UNAVAILABLE


def test_an_origin_that_refuses_is_denied_with_exit_77(worker: Worker, origin: Origin) -> None:
    url = origin.serve("/a.safetensors", WEIGHTS)
    origin.misbehave("/a.safetensors", Status(403))

    with pytest.raises(OriginDenied) as caught:
        worker.fill(model(PATH, url))

    assert caught.value.exit_code == 77


def test_an_origin_that_is_down_is_unavailable_with_exit_69(worker: Worker, origin: Origin) -> None:
    url = origin.serve("/a.safetensors", WEIGHTS)
    origin.close()

    with pytest.raises(OriginUnavailable, match="refused") as caught:
        worker.fill(model(PATH, url))

    assert caught.value.exit_code == 69
    assert PATH in str(caught.value)


def test_a_wrong_size_in_models_yaml_is_named_before_a_byte_is_fetched(
    worker: Worker, origin: Origin
) -> None:
    url = origin.serve("/a.safetensors", WEIGHTS)

    with pytest.raises(OriginUnavailable, match=f"size 5.*{WEIGHTS.size_bytes}"):
        worker.fill(model(PATH, url, size_bytes=5))

    assert origin.count().body_bytes <= 1


def test_all_models_that_fail_are_named_and_the_others_are_there(
    worker: Worker, origin: Origin
) -> None:
    good = model(PATH, origin.serve("/a.safetensors", WEIGHTS))
    gone = model("loras/gone.safetensors", f"{origin.url}/gone")
    closed = model("vae/closed.safetensors", origin.serve("/closed", WEIGHTS))
    origin.misbehave("/closed", Status(401))

    with pytest.raises(SeveralErrors) as caught:
        worker.fill(gone, good, closed)

    assert [e.exit_code for e in caught.value.errors] == [69, 77]
    assert "loras/gone.safetensors" in str(caught.value)
    assert "vae/closed.safetensors" in str(caught.value)
    assert published(worker) == read_all(WEIGHTS)


def test_a_directory_in_the_way_is_named_and_left(worker: Worker, origin: Origin) -> None:
    url = origin.serve("/a.safetensors", WEIGHTS)
    worker.layout.model(PATH).mkdir(parents=True)

    with pytest.raises(StorageFailed, match=r"move .* away"):
        worker.fill(model(PATH, url))

    assert worker.layout.model(PATH).is_dir()


def test_a_symlink_in_the_way_is_replaced_and_its_target_is_untouched(
    worker: Worker, origin: Origin, tmp_path: Path
) -> None:
    url = origin.serve("/a.safetensors", WEIGHTS)
    elsewhere = tmp_path / "somebody-elses"
    elsewhere.write_bytes(b"precious")
    worker.layout.model(PATH).parent.mkdir(parents=True)
    worker.layout.model(PATH).symlink_to(elsewhere)

    worker.fill(model(PATH, url))

    assert not worker.layout.model(PATH).is_symlink()
    assert published(worker) == read_all(WEIGHTS)
    assert elsewhere.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("controlnet/a.pth", torch_zip(2 * MIB)),
        ("ipadapter/a.bin", torch_pickle(2 * MIB)),
        ("checkpoints/a.ckpt", torch_pickle(2 * MIB)),
    ],
)
def test_torch_files_of_both_formats_pass_their_check(
    worker: Worker, origin: Origin, path: str, content: Content
) -> None:
    worker.fill(model(path, origin.serve("/a", content)))

    assert published(worker, path) == read_all(content)


def test_a_file_url_is_copied(worker: Worker, tmp_path: Path) -> None:
    source = write_to(WEIGHTS, tmp_path / "elsewhere" / "a file.safetensors")

    worker.fill(model(PATH, source.as_uri()))

    assert published(worker) == read_all(WEIGHTS)


def test_stopping_in_the_middle_leaves_a_part_that_the_next_fill_goes_on_with(
    worker: Worker, origin: Origin
) -> None:
    wanted = model(PATH, origin.serve("/a.safetensors", WEIGHTS))
    gate = Gate(2 * MIB)
    origin.misbehave("/a.safetensors", gate, after=1, times=1)
    stopped = threading.Event()

    def fill() -> None:
        with suppress(Stopped):
            worker.fill(wanted)
        stopped.set()

    threading.Thread(target=fill, daemon=True).start()
    gate.wait_reached()
    worker.stopping.set()
    gate.open()
    assert stopped.wait(10)
    before = origin.count().body_bytes

    Worker(worker.root).fill(wanted)

    assert published(worker) == read_all(WEIGHTS)
    assert origin.count().body_bytes - before <= WEIGHTS.size_bytes - MIB + 1
