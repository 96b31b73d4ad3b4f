"""Clients that send their prompts straight to ComfyUI's port of a booted worker: their files, and nobody else's."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from morpheus_boot.smoke.samples import gradient
from tests.boot.given import START_LIMIT_S, run_prompt, site_with_comfyui
from tests.boot.program import Program, Site
from tests.guard.served import copied, plain

PICTURE = gradient(8, 4)
WORKERS = 5


def pixels(content: bytes) -> tuple[int, int, bytes]:
    """Width, height and the RGB bytes of a PNG file of 8 bits a sample; each row has its filter (PNG, 9.2)."""
    width, height, depth, kind = struct.unpack_from(">IIBB", content, 16)
    assert (depth, kind) == (8, 2)
    at, packed = 8, b""
    while at < len(content):
        size, name = struct.unpack_from(">I4s", content, at)
        packed += content[at + 8 : at + 8 + size] if name == b"IDAT" else b""
        at += size + 12
    raw, rows = zlib.decompress(packed), [bytes(3 * width)]
    for begin in range(0, len(raw), 3 * width + 1):
        row = bytearray(raw[begin + 1 : begin + 3 * width + 1])
        for i, value in enumerate(row):
            left, above = row[i - 3] if i > 2 else 0, rows[-1][i]
            corner = rows[-1][i - 3] if i > 2 else 0
            guess = left + above - corner
            nearest = min(
                (abs(guess - near), n, near) for n, near in enumerate((left, above, corner))
            )[2]
            row[i] = (value + (0, left, above, (left + above) // 2, nearest)[raw[begin]]) & 0xFF
        rows.append(bytes(row))
    return width, height, b"".join(rows[1:])


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Site, Program]]]:
    """Five workers on one volume, each with a ComfyUI of its own, all ready."""
    root = tmp_path_factory.mktemp("fleet")
    (root / "volume").mkdir()
    with ExitStack() as stack:
        fleet = []
        for number in range(WORKERS):
            site = site_with_comfyui(root / str(number))
            (site.root / "volume").symlink_to(root / "volume")
            fleet.append((site, stack.enter_context(site.start("up"))))
        for _, up in fleet:
            up.wait_until_ready(START_LIMIT_S)
        yield fleet


def worker_of(up: Program) -> str:
    return str(up.get("/status").json()["worker"])


def uploaded(up: Program) -> tuple[str, str]:
    """The job and the absolute path of a picture that was uploaded to a new one."""
    answer = up.post("/upload", files={"file": ("x.png", PICTURE)})
    assert answer.status_code == 200, answer.text
    return answer.json()["worker_job_id"], answer.json()["pod_path"]


@pytest.mark.parametrize("owner", ["job", "worker"])
def test_an_uploaded_picture_comes_back_with_the_same_pixels_and_is_gone_after_its_cleanup(
    workers: list[tuple[Site, Program]], owner: str
) -> None:
    site, up = workers[0]
    job, pod_path = uploaded(up)
    folder, prefix = (job, f"{job}/output/copy") if owner == "job" else (worker_of(up), "copy")

    saved = run_prompt(up, site.comfyui_port, copied(pod_path, prefix))

    assert saved == [f"{folder}/output/copy_00001_.png"]
    answer = up.get(f"/download/{folder}/copy_00001_.png")
    assert pixels(answer.content) == pixels(PICTURE)
    for name in {job, folder}:
        assert up.post(f"/cleanup/{name}").status_code == 200
        assert not (site.volume / "jobs" / name).exists()
    assert up.get(f"/download/{folder}/copy_00001_.png").status_code == 404


def test_five_workers_with_one_prefix_on_one_volume_each_get_their_own_bytes(
    workers: list[tuple[Site, Program]],
) -> None:
    names = [worker_of(up) for _, up in workers]
    for number, (site, up) in enumerate(workers):
        saved = run_prompt(up, site.comfyui_port, plain("same", number + 1))
        assert saved == [f"{names[number]}/output/same_00001_.png"]

    for number, (_, up) in enumerate(workers):
        answer = up.get(f"/download/{names[number]}/same_00001_.png")
        assert pixels(answer.content) == (8, 4, bytes((0, 0, number + 1)) * 32)
