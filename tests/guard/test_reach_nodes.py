"""From ComfyUI's port no node reads or writes on the volume outside of jobs/."""

from typing import Any

import pytest

from tests.guard.served import (
    REAL,
    Served,
    copied,
    everything,
    named,
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


@pytest.mark.parametrize("form", LEAVING)
@pytest.mark.parametrize(("reader", "name", "kind"), READERS)
def test_no_node_reads_outside(
    closed: Served, reader: str, name: str, kind: str, form: str
) -> None:
    if not REAL and reader != "LoadImage":
        pytest.skip("the stand-in has no such node")
    file = named(closed, form, kind)
    show = node("PreviewImage", images=["load", 0])

    for value in (file, {"__value__": file}):
        load = node(reader, **{name: value}, channel="alpha")
        answer = closed.prompt({"load": load, "show": show})

        assert node_errors(answer)["load"] == ["custom_validation_failed"]
        assert answer.json()["node_errors"]["load"]["dependent_outputs"] == ["show"]


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
        assert "Invalid file path" in str(entry["status"])


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
