"""From ComfyUI's port no route reads or writes on the volume outside of jobs/."""

import json
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

from morpheus_boot.smoke import samples
from tests.guard.served import (
    PICTURE,
    REAL,
    SECRET,
    Served,
    everything,
    named,
    plain,
    real_only,
)


def list_of(jobs: Path) -> set[str]:
    """All that lies below jobs/ but for what jobs have and make."""
    found = (str(path.relative_to(jobs)) for path in jobs.rglob("*"))
    return {name for name in found if "/input/" not in name and "/output/" not in name}


SUBFOLDERS = """
../model_cache ../model_cache/checkpoints j1/../../model_cache {cache} j1/link j1/link/checkpoints linked/input
linked/input/checkpoints checkpoints/input j1/../loras/input j1 j1/input/.. not-yet-there j1/other j1/inputs
j1/other/input .morpheus/input -no-job/input
"""
NOT_UPLOADED = [
    *(("x.png", subfolder) for subfolder in SUBFOLDERS.split()),
    *(("job.json", subfolder) for subfolder in ("", "j1", "j1/input/..", "new")),
    *(("link.png", "j1/input"), ("input", "j1"), ("vae/x.png", ""), ("../model_cache/x.png", "")),
    *((f"{jobs}/j1/input/y.png", "../model_cache/new") for jobs in ("{jobs}", "../jobs")),
]


@pytest.mark.parametrize(("filename", "subfolder"), NOT_UPLOADED)
@pytest.mark.parametrize("route", ["/upload/image", "/api/upload/image", "/upload/mask"])
@pytest.mark.parametrize("overwrite", ["true", "false"])
def test_no_upload_writes_outside(
    closed: Served, route: str, filename: str, subfolder: str, overwrite: str
) -> None:
    if not REAL and "mask" in route:
        pytest.skip("the stand-in has no such route")
    before, jobs = everything(closed.volume.root), list_of(closed.jobs)
    reference = json.dumps({"filename": "x.png [output]", "subfolder": "j1/input"})
    fields = {"type": "output", "overwrite": overwrite, "original_ref": reference}

    answer = closed.upload(
        route,
        PICTURE,
        named(closed, filename),
        subfolder=named(closed, subfolder),
        **fields,
    )

    assert answer.status_code == 400
    assert "subfolder" in answer.json()["detail"]
    assert everything(closed.volume.root) == before
    assert list_of(closed.jobs) == jobs


@pytest.mark.parametrize("kind", ["input", "temp"])
def test_no_upload_leaves_a_local_directory(closed: Served, kind: str) -> None:
    fields = {"type": kind, "subfolder": "../../volume/model_cache"}

    answer = closed.upload("/upload/image", PICTURE, "x.png", overwrite="true", **fields)

    assert answer.status_code == 400
    assert not (closed.volume.model_cache / "x.png").exists()


def test_uploads_inside_work(closed: Served) -> None:
    answer = closed.upload(
        "/upload/image", PICTURE, "up.png", type="output", subfolder="j2/input", overwrite="true"
    )

    assert answer.json() == {"name": "up.png", "subfolder": "j2/input", "type": "output"}
    assert (closed.jobs / "j2" / "input" / "up.png").read_bytes() == PICTURE
    assert closed.upload("/upload/image", PICTURE, "up.png").json()["type"] == "input"
    assert (closed.local / "input" / "up.png").read_bytes() == PICTURE


def test_nothing_is_stored_while_the_volume_is_away(closed: Served) -> None:
    """After an unmount its path names the bare mount point."""
    root = closed.volume.root
    away = root.rename(root.with_name("away"))
    root.mkdir()
    fields = {"type": "output", "subfolder": "j3/input"}
    try:
        answers = [
            closed.upload("/upload/image", PICTURE, "x.png", **fields),
            closed.prompt(plain("j3/output/x")),
        ]
        left = list(root.iterdir())
    finally:
        shutil.rmtree(root)
        away.rename(root)

    assert {answer.status_code for answer in answers} == {503}
    assert "volume: it is not mounted" in answers[0].json()["detail"]
    assert left == []
    assert closed.upload("/upload/image", PICTURE, "x.png", **fields).ok


@real_only
@pytest.mark.parametrize(
    "reference",
    [
        {"filename": "secret.png", "subfolder": "../model_cache/checkpoints"},
        {"filename": "secret.png", "subfolder": "j1/link/checkpoints"},
        {"filename": "link.png", "subfolder": "j1/input"},
        {"filename": "link.png [output]", "subfolder": "j1/input", "type": "input"},
    ],
)
def test_no_mask_is_put_on_a_picture_outside(closed: Served, reference: dict[str, str]) -> None:
    answer = closed.upload(
        "/upload/mask", PICTURE, "masked.png", original_ref=json.dumps(reference)
    )

    assert answer.status_code == 403
    assert not (closed.local / "input" / "masked.png").exists()


@real_only
def test_a_mask_is_put_on_a_picture_of_a_job(closed: Served) -> None:
    reference = json.dumps({"filename": "x.png", "subfolder": "j1/input", "type": "output"})

    answer = closed.upload(
        "/upload/mask", PICTURE, "painted.png", subfolder="clipspace", original_ref=reference
    )

    assert answer.ok
    assert (closed.local / "input" / "clipspace" / "painted.png").is_file()


@pytest.mark.parametrize(
    ("filename", "query"),
    [
        ("secret.png", {"subfolder": "../model_cache/checkpoints"}),
        ("secret.png", {"subfolder": "j1/link/checkpoints"}),
        ("secret.txt", {"subfolder": "j1/link/.."}),
        ("secret.txt", {"subfolder": "{cache}"}),
        ("secret.txt", {"subfolder": "linked/input"}),
        *(("secret.txt", {"subfolder": "../../volume", "type": t}) for t in ("input", "temp")),
        *(("link.png", {"subfolder": "j1/input", **m}) for m in ({}, {"preview": "webp"})),
        ("link.png", {"subfolder": "j1/input", "channel": "rgb"}),
        ("x/../link.png", {"subfolder": "j1/input"}),
        ("link.png [output]", {"subfolder": "j1/input", "type": "temp"}),
        ("x.png", {"subfolder": "\0"}),
        *(("{cache}/secret.txt", {}), ("../secret.txt", {}), ("blake3:" + "0" * 64, {})),
    ],
)
@pytest.mark.parametrize("path", ["/view", "/api/view"])
def test_nothing_outside_can_be_viewed(
    closed: Served, path: str, filename: str, query: dict[str, str]
) -> None:
    asked = {k: named(closed, value) for k, value in {"filename": filename, **query}.items()}

    answer = closed.get(path, params=asked)

    assert answer.status_code in {400, 403, 404}
    assert SECRET not in answer.content
    assert PICTURE not in answer.content


def test_what_lies_in_a_job_can_be_viewed(closed: Served) -> None:
    asked = {"filename": "x.png", "subfolder": "j1/input", "type": "output"}

    assert closed.get("/view", params=asked).content == PICTURE
    assert closed.get("/view", params={**asked, "filename": "no.png"}).status_code == 404


@real_only
@pytest.mark.parametrize("folder", ["checkpoints", "loras", "configs", "custom_nodes"])
@pytest.mark.parametrize(
    "filename",
    [
        "..%2f..%2f..%2fvolume%2fmodel_cache%2fcheckpoints%2fsecret.png",
        "..%2f..%2f",
        "../../../volume/model_cache/checkpoints/secret",
        "%2e%2e/%2e%2e/%2e%2e/volume/model_cache/checkpoints/secret.png",
        "a%2f..%2f..%2f..%2f..%2fvolume%2fsecret.png",
        "{cache}%2fcheckpoints%2fsecret.png",
        "%2f{cache}/checkpoints/secret",
        "*%2f..%2f..%2f..%2f..%2fvolume%2fmodel_cache%2fcheckpoints%2fsecret.png",
    ],
)
@pytest.mark.parametrize("start", ["/experiment", "/api/experiment"])
def test_no_preview_comes_from_outside(
    closed: Served, start: str, folder: str, filename: str
) -> None:
    cache = quote(str(closed.volume.model_cache), safe="")
    places = closed.get("/internal/folder_paths").json()[folder]
    for index in range(len(places)):
        target = f"{start}/models/preview/{folder}/{index}/{filename.format(cache=cache)}"
        head = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        answer = closed.raw(head.encode() + b"X-Morpheus-Token: s3cret +/&\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 404 ")


@real_only
def test_a_models_own_preview_is_shown(closed: Served) -> None:
    folder = closed.local / "models" / "checkpoints"
    (folder / "m.safetensors").write_bytes(samples.filler(1000, seed=1))
    (folder / "m.png").write_bytes(PICTURE)
    places = closed.get("/internal/folder_paths").json()["checkpoints"]
    index = places.index(str(folder))

    answer = closed.get(f"/experiment/models/preview/checkpoints/{index}/m.safetensors")

    assert answer.headers["content-type"] == "image/webp"


@real_only
@pytest.mark.parametrize("folder", ["checkpoints", "custom_nodes"])
@pytest.mark.parametrize("name", ["../secret", "{cache}/checkpoints/secret", "..%2fsecret"])
def test_no_header_is_read_outside(closed: Served, folder: str, name: str) -> None:
    header = {"__metadata__": {"secret": SECRET.decode()}}
    content = json.dumps(header).encode()
    secret = closed.volume.model_cache / "checkpoints" / "secret.safetensors"
    secret.write_bytes(len(content).to_bytes(8, "little") + content)

    answer = closed.get(
        f"/view_metadata/{folder}", params={"filename": named(closed, name) + ".safetensors"}
    )

    assert answer.status_code == 404


@real_only
@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2f..%2fvolume%2fsecret.txt",
        "%252e%252e%252f%252e%252e%252f%252e%252e%252fvolume%252fsecret.txt",
        "{cache}%2fsecret.txt",
    ],
)
@pytest.mark.parametrize("start", ["/userdata", "/api/userdata"])
def test_user_data_stays_in_its_directory(closed: Served, start: str, name: str) -> None:
    before = everything(closed.volume.root)
    target = f"{start}/{name.format(cache=quote(str(closed.volume.model_cache), safe=''))}"
    (closed.local / "user" / "default").mkdir(exist_ok=True)
    mine = closed.request("POST", f"{start}/mine.txt", data=b"mine")
    assert mine.ok

    for method, path in (
        ("GET", target),
        ("POST", target),
        ("DELETE", target),
        ("POST", f"{start}/mine.txt/move/{target.rpartition('/')[2]}"),
        ("POST", f"{target}/move/stolen.txt"),
    ):
        answer = closed.request(method, path, data=b"written")
        assert answer.status_code in {403, 404, 500}, (method, path)
        assert SECRET not in answer.content
    for listing in (
        "/userdata?dir=..%2f..%2f..%2fvolume",
        "/v2/userdata?path=..%2f..%2f..%2fvolume",
    ):
        assert closed.get(listing).status_code in {400, 403, 404}
    assert everything(closed.volume.root) == before


@real_only
@pytest.mark.parametrize("path", ["/api/assets", "/api/assets/hash/blake3:0", "/api/assets/seed"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_assets_are_closed(closed: Served, method: str, path: str) -> None:
    assert closed.request(method, path).status_code in {404, 405}
