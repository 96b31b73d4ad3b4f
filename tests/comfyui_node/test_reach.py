"""From ComfyUI's port nothing on the volume outside of jobs/ can be read or written."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from morpheus_boot.smoke import safetensors
from tests.comfyui_node.served import (
    PICTURE,
    REAL,
    SECRET,
    Served,
    copied,
    node,
    node_errors,
    plain,
    real_only,
)

# How a file beside jobs/ may be named, seen from the input, temp or output directory.
LEAVING = [
    "{cache}/checkpoints/secret.{kind}",
    "/{cache}/checkpoints/secret.{kind}",
    "{jobs}/../model_cache/checkpoints/secret.{kind}",
    "../../volume/model_cache/checkpoints/secret.{kind}",
    "../model_cache/checkpoints/secret.{kind} [output]",
    "{cache}/checkpoints/secret.{kind} [output]",
    "j1/../../model_cache/checkpoints/secret.{kind} [output]",
    "j1/link/checkpoints/secret.{kind} [output]",
    "j1/link/../secret.{kind} [output]",
    "../../volume/secret.{kind} [temp]",
]
READERS = [
    ("LoadImage", "image", "png"),
    ("LoadImageMask", "image", "png"),
    ("LoadImageOutput", "image", "png"),
    ("LoadAudio", "audio", "wav"),
    ("LoadVideo", "file", "mp4"),
    ("LoadLatent", "latent", "latent"),
]


def named(closed: Served, form: str, kind: str) -> str:
    return form.format(cache=closed.volume.model_cache, jobs=closed.jobs, kind=kind)


def everything(folder: Path) -> dict[str, bytes | None]:
    """All names on the volume outside of jobs/, with their content."""
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if "jobs" not in path.parts
    }


@pytest.mark.parametrize("form", LEAVING)
@pytest.mark.parametrize(("reader", "name", "kind"), READERS)
def test_no_node_reads_outside(
    closed: Served, reader: str, name: str, kind: str, form: str
) -> None:
    if not REAL and reader != "LoadImage":
        pytest.skip("the stand-in has no such node")
    graph = {
        "load": node(reader, **{name: named(closed, form, kind)}, channel="alpha"),
        "show": node("PreviewImage", images=["load", 0]),
    }

    answer = closed.prompt(graph)

    errors = node_errors(answer)
    assert errors["load"] == ["custom_validation_failed"]
    assert answer.json()["node_errors"]["load"]["dependent_outputs"] == ["show"]


@pytest.mark.parametrize("form", LEAVING)
def test_no_wrapped_name_reads_outside(closed: Served, form: str) -> None:
    name = {"__value__": named(closed, form, "png")}

    assert node_errors(closed.prompt(copied(name, "j1/output/x"))) == {
        "load": ["custom_validation_failed"]
    }


def test_a_link_among_the_inputs_is_refused(closed: Served) -> None:
    link = closed.local / "input" / "link.png"
    link.symlink_to(closed.volume.model_cache / "checkpoints" / "secret.png")

    answer = closed.prompt(copied("link.png", "j1/output/x"))

    assert "load" in node_errors(answer)


@real_only
@pytest.mark.parametrize("form", LEAVING)
def test_no_node_with_an_input_of_its_own_kind_reads_outside(closed: Served, form: str) -> None:
    name = named(closed, form, "png")
    webcam = node("WebcamCapture", image=name, width=0, height=0, capture_on_queue=False)
    answer = closed.prompt({"load": webcam, "show": node("PreviewImage", images=["load", 0])})
    prompt_id = answer.json().get("prompt_id")

    if prompt_id is not None:
        entry = closed.finished(prompt_id)
        assert entry["status"]["status_str"] == "error"
        assert "Invalid file path" in json.dumps(entry["status"])


@real_only
@pytest.mark.parametrize("form", LEAVING)
def test_no_picture_inside_a_value_reads_outside(closed: Served, form: str) -> None:
    name = named(closed, form, "png")
    view = {"image": name, "mask": name, "normal": name, "lineart": name, "recording": ""}
    model = closed.local / "input" / "3d" / "m.glb"
    model.parent.mkdir(exist_ok=True)
    model.touch()
    load = node("Load3D", model_file="3d/m.glb", image=view, width=8, height=8)

    answer = closed.prompt({"load": load, "show": node("PreviewImage", images=["load", 0])})

    assert answer.status_code == 200, answer.text
    status = closed.finished(answer.json()["prompt_id"])["status"]
    assert status["status_str"] == "error"
    # "link/.." is nothing to a ComfyUI that normalizes first.
    assert "Invalid file path" in str(status) or "FileNotFoundError" in str(status)


@pytest.mark.parametrize(
    "prefix",
    [
        "../x",
        "../model_cache/x",
        "j1/output/../../../model_cache/x",
        "j1/link/x",
        "{cache}/x",
        "/{cache}/x",
        "{jobs}/../model_cache/x",
        "/workspace/jobs/../x",
        {"__value__": "../x"},
        {"../../../../../../{cache}/x": 1},
        "../x%year%",
    ],
)
def test_no_prefix_writes_outside(closed: Served, prefix: Any) -> None:
    before = everything(closed.volume.root)
    if isinstance(prefix, str):
        prefix = named(closed, prefix, "png")
    answer = closed.prompt(plain(prefix, color=9))
    if answer.status_code == 200:
        # Below our worker's folder nothing leads outside: "j1/link/x" names no job's output.
        entry = closed.finished(answer.json()["prompt_id"])
        [image] = entry["outputs"]["save"]["images"]
        assert image["subfolder"].startswith("pod-1/output")
    else:
        assert node_errors(answer) == {"save": ["custom_validation_failed"]}
    assert everything(closed.volume.root) == before


def test_a_prefix_through_a_link_is_refused(closed: Served) -> None:
    (closed.jobs / "through").mkdir()
    (closed.jobs / "through" / "output").symlink_to(closed.volume.model_cache)

    answer = closed.prompt(plain("through/output/sub/x"))

    assert node_errors(answer) == {"save": ["custom_validation_failed"]}
    assert not (closed.volume.model_cache / "sub").exists()


@real_only
def test_a_linked_prefix_writes_nothing_outside(closed: Served) -> None:
    before = everything(closed.volume.root)
    for text in ("../model_cache/x", "j1/link/x", str(closed.volume.model_cache / "x")):
        graph = {**plain(["text", 0]), "text": node("PrimitiveString", value=text)}
        answer = closed.prompt(graph)
        assert answer.status_code == 200, answer.text
        assert closed.finished(answer.json()["prompt_id"])["status"]["status_str"] == "error"
    assert everything(closed.volume.root) == before


@real_only
def test_a_dataset_is_saved_below_a_job_alone(closed: Served) -> None:
    if not closed.get("/object_info/SaveImageDataSetToFolder").json():
        pytest.skip("this ComfyUI has no such node")
    before = everything(closed.volume.root)

    def saving(folder: object, prefix: object) -> dict[str, Any]:
        graph = plain("unused")
        save = node(
            "SaveImageDataSetToFolder",
            images=["make", 0],
            folder_name=folder,
            filename_prefix=prefix,
            mode="overwrite",
        )
        text = node("PrimitiveString", value="../../../model_cache/x")
        return {"make": graph["make"], "save": save, "text": text}

    for folder, prefix in (
        ("set", "../../model_cache/x"),
        ("../model_cache", "x"),
        ("set", str(closed.volume.model_cache / "x")),
        ("set", ["text", 0]),
        (["text", 0], "x"),
    ):
        assert "save" in node_errors(closed.prompt(saving(folder, prefix)))
    closed.run(saving("set", "x"))
    closed.run(saving("j1/output/set", "x"))

    assert (closed.jobs / "pod-1/output/set/x_00000.png").is_file()
    assert (closed.jobs / "j1/output/set/x_00000.png").is_file()
    assert everything(closed.volume.root) == before


@pytest.mark.parametrize(
    ("filename", "fields"),
    [
        ("x.png", {"subfolder": "../model_cache"}),
        ("x.png", {"subfolder": "../model_cache/checkpoints"}),
        ("x.png", {"subfolder": "j1/../../model_cache"}),
        ("x.png", {"subfolder": "{cache}"}),
        ("x.png", {"subfolder": "j1/link"}),
        ("x.png", {"subfolder": "j1/link/checkpoints"}),
        ("link.png", {"subfolder": "j1/input"}),
        ("../model_cache/x.png", {}),
        ("{jobs}/j1/input/y.png", {"subfolder": "../model_cache/made"}),
        ("../jobs/j1/input/y.png", {"subfolder": "../model_cache"}),
        ("x.png", {"subfolder": "checkpoints"}),
        ("x.png", {"subfolder": "j1/../loras/sub"}),
        ("vae/x.png", {}),
    ],
)
@pytest.mark.parametrize("route", ["/upload/image", "/api/upload/image", "/upload/mask"])
@pytest.mark.parametrize("overwrite", ["true", "false"])
def test_no_upload_writes_outside(
    closed: Served, route: str, filename: str, fields: dict[str, str], overwrite: str
) -> None:
    if not REAL and "mask" in route:
        pytest.skip("the stand-in has no such route")
    before = everything(closed.volume.root)
    sent = {name: named(closed, value, "") for name, value in fields.items()}
    reference = {
        "original_ref": json.dumps({"filename": "x.png [output]", "subfolder": "j1/input"})
    }

    answer = closed.upload(
        route,
        PICTURE,
        named(closed, filename, ""),
        type="output",
        overwrite=overwrite,
        **sent,
        **reference,
    )

    assert answer.status_code == 400
    assert everything(closed.volume.root) == before
    assert not (closed.jobs / "checkpoints").exists()


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
    "query",
    [
        {"filename": "secret.png", "subfolder": "../model_cache/checkpoints"},
        {"filename": "secret.png", "subfolder": "j1/link/checkpoints"},
        {"filename": "secret.txt", "subfolder": "j1/link/.."},
        {"filename": "link.png", "subfolder": "j1/input"},
        {"filename": "link.png [output]", "subfolder": "j1/input", "type": "temp"},
        {"filename": "link.png", "subfolder": "j1/input", "preview": "webp"},
        {"filename": "link.png", "subfolder": "j1/input", "channel": "rgb"},
        {"filename": "{cache}/secret.txt"},
        {"filename": "../secret.txt"},
        {"filename": "secret.txt", "subfolder": "{cache}"},
        {"filename": "secret.txt", "subfolder": "../../volume", "type": "input"},
        {"filename": "secret.txt", "subfolder": "../../volume", "type": "temp"},
        {"filename": "blake3:" + "0" * 64},
    ],
)
@pytest.mark.parametrize("path", ["/view", "/api/view"])
def test_nothing_outside_can_be_viewed(closed: Served, path: str, query: dict[str, str]) -> None:
    asked = {name: named(closed, value, "") for name, value in query.items()}

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
        answer = closed.raw(head.encode() + b"X-Morpheus-Token: s3cret +/\xc3\xb1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 404 ")


@real_only
def test_a_models_own_preview_is_shown(closed: Served) -> None:
    folder = closed.local / "models" / "checkpoints"
    (folder / "m.safetensors").write_bytes(safetensors.filler(1000, seed=1))
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
        f"/view_metadata/{folder}", params={"filename": named(closed, name, "") + ".safetensors"}
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
