import copy
import json
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from morpheus_boot.comfyui.guard.node_errors import refused
from morpheus_boot.comfyui.guard.paths import Places, Sender
from morpheus_boot.comfyui.guard.prompts import Decision, Destination, decide


class Node:
    """A node class as ComfyUI knows it."""

    inputs: ClassVar[dict[str, Any]] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return cls.inputs


class LoadImage(Node):
    inputs: ClassVar = {"required": {"image": (["x.png", "../fonts/a.ttf"], {})}}


class LoadImageV3(Node):
    inputs: ClassVar = {"optional": {"image": ("COMBO", {"options": ["x.png"]})}}


class LoadImageOutput(Node):
    inputs: ClassVar = {"required": {"image": ("COMBO", {"remote": {"route": "/internal/files"}})}}


class LoadPath(Node):
    inputs: ClassVar = {"required": {"path": ("STRING", {}), "view": ("LOAD_3D", {})}}


class SaveImage(Node):
    OUTPUT_NODE = True


class Broken(Node):
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        raise RuntimeError("a stranger's bug")


CLASSES = {
    "LoadImage": LoadImage,
    "LoadImageV3": LoadImageV3,
    "LoadImageOutput": LoadImageOutput,
    "LoadPath": LoadPath,
    "Broken": Broken,
    **dict.fromkeys(
        ("SaveImage", "SaveLoRANode", "SaveLoRA", "Other", "SaveImageDataSetToFolder"), SaveImage
    ),
}
LOADERS = ["LoadImage", "LoadImageV3", "LoadImageOutput"]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    jobs = tmp_path / "job_data" / "jobs"
    (jobs / "j1" / "input").mkdir(parents=True)
    (jobs / "j1" / "link").symlink_to(tmp_path)
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "link").symlink_to(tmp_path / "job_data" / "model_cache" / "vae")
    (tmp_path / "input" / "inside").symlink_to(jobs / "j1" / "input")
    others = ("/workspace/jobs", "/runpod-volume/jobs")
    return Places(str(jobs), str(tmp_path / "input"), str(tmp_path / "temp"), others)


def asked(places: Places, kind: str, **inputs: object) -> Decision:
    prompt = {"1": {"class_type": kind, "inputs": inputs}}
    before = copy.deepcopy(prompt)
    decision = decide(prompt, CLASSES, places, Sender("pod-1"))
    assert prompt == before
    return decision


def given(decision: Decision) -> Any:
    assert not decision.refusals
    return decision.prompt["1"]["inputs"]


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("mount", ["/workspace", "/runpod-volume", "ours"])
@pytest.mark.parametrize("annotation", ["", " [output]", " [input]"])
def test_an_absolute_path_below_jobs_becomes_an_annotated_one(
    places: Places, kind: str, mount: str, annotation: str
) -> None:
    jobs = places.jobs if mount == "ours" else f"{mount}/jobs"

    decision = asked(places, kind, image=f"{jobs}/j1/input/x.png{annotation}")

    assert given(decision) == {"image": "j1/input/x.png [output]"}


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize(
    "name",
    [
        "x.png",
        "sub/x.png",
        "x.png [input]",
        "clipspace/x.png [temp]",
        "j1/input/x.png [output]",
        "../input/x.png",
        "not there.png",
        "",
        7,
        None,
        ["other node", 0],
    ],
)
def test_other_names_stay(places: Places, kind: str, name: object) -> None:
    assert given(asked(places, kind, image=name)) == {"image": name}


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "//etc/passwd",
        "/workspace/model_cache/vae/x.png",
        "/workspace/jobs/../model_cache/x.png",
        "/workspace/jobs",
        "../../x.png",
        "../x.png [output]",
        "../x.png[output]x[output]",
        "a/../../x.png [temp]",
        "link/x.png",
        "link/../x.png",
        "inside/../../x.png",
        "j1/link/x.png [output]",
        "j1/link/job_data/model_cache/x.png [output]",
        "x\0.png",
        "\ud800.png",
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_outside_is_refused(places: Places, kind: str, name: str, *, wrapped: bool) -> None:
    value = {"__value__": ["x.png", name]} if wrapped else name

    decision = asked(places, kind, image=value)

    [refusal] = decision.refusals
    assert (refusal.node_id, refusal.input_name) == ("1", "image")


def test_a_name_that_the_class_offers_stays_whatever_it_is(places: Places) -> None:
    assert given(asked(places, "LoadImage", image="../fonts/a.ttf")) == {"image": "../fonts/a.ttf"}


def test_a_wrapped_list_of_files_is_put_right_one_by_one(places: Places) -> None:
    value = {"__value__": ["/workspace/jobs/j1/input/a.png", "x.png"]}

    decision = asked(places, "LoadImage", image=value)

    assert given(decision) == {"image": {"__value__": ["j1/input/a.png [output]", "x.png"]}}


def test_any_other_string_is_translated_to_this_mount_and_never_annotated(places: Places) -> None:
    theirs, ours = "/workspace/jobs/j1/input/x.glb", f"{places.jobs}/j1/input/x.glb"
    inputs = {"path": theirs, "view": {"image": theirs, "more": [theirs, 3]}, "undeclared": theirs}

    decision = asked(places, "LoadPath", **inputs)

    assert given(decision) == {
        "path": ours,
        "view": {"image": ours, "more": [ours, 3]},
        "undeclared": ours,
    }


@pytest.mark.parametrize(
    "text",
    [
        "a house at /workspace/jobs/j1/x",
        "/workspace/jobs",
        "/workspace/jobs/../x",
        "/etc/passwd",
        "../x",
        "a [output]",
    ],
)
def test_text_that_is_no_path_of_another_mount_stays(places: Places, text: str) -> None:
    assert given(asked(places, "LoadPath", path=text)) == {"path": text}


def test_our_own_absolute_path_stays_in_a_text(places: Places) -> None:
    path = f"{places.jobs}/j1/input/x"
    assert given(asked(places, "LoadPath", path=path)) == {"path": path}


@pytest.mark.parametrize(
    ("kind", "inputs", "expected", "folder"),
    [
        (
            "SaveImage",
            {"filename_prefix": "x"},
            {"filename_prefix": "pod-1/output/x"},
            "pod-1/output",
        ),
        (
            "SaveImage",
            {"filename_prefix": "j/output/a/x"},
            {"filename_prefix": "j/output/a/x"},
            "j/output/a",
        ),
        (
            "SaveImage",
            {"filename_prefix": {"__value__": "x"}},
            {"filename_prefix": "pod-1/output/x"},
            "pod-1/output",
        ),
        (
            "SaveImage",
            {"filename_prefix": 5},
            {"filename_prefix": "pod-1/output/5"},
            "pod-1/output",
        ),
        (
            "SaveLoRANode",
            {"prefix": "loras/x"},
            {"prefix": "pod-1/output/loras/x"},
            "pod-1/output/loras",
        ),
        ("SaveLoRA", {"prefix": "x"}, {"prefix": "pod-1/output/x"}, "pod-1/output"),
        (
            "SaveImageDataSetToFolder",
            {"folder_name": "set", "filename_prefix": "x"},
            {"folder_name": "pod-1/output/set", "filename_prefix": "x"},
            "pod-1/output/set",
        ),
        (
            "SaveImageDataSetToFolder",
            {"folder_name": "j/output", "filename_prefix": "x"},
            {"folder_name": "j/output", "filename_prefix": "x"},
            "j/output",
        ),
    ],
)
def test_what_saves_gets_its_folder(
    places: Places, kind: str, inputs: dict[str, Any], expected: dict[str, str], folder: str
) -> None:
    decision = asked(places, kind, **inputs)

    assert given(decision) == expected
    assert decision.destinations == (Destination("1", next(iter(inputs)), folder),)


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("Other", {"prefix": "x"}),
        ("SaveImage", {"filename_prefix": ["2", 0]}),
        ("SaveImage", {}),
        ("SaveImageDataSetToFolder", {"filename_prefix": "x"}),
    ],
)
def test_what_is_no_prefix_or_can_not_be_seen_is_left(
    places: Places, kind: str, inputs: dict[str, Any]
) -> None:
    decision = asked(places, kind, **inputs)

    assert given(decision) == inputs
    assert not decision.destinations


@pytest.mark.parametrize(
    ("kind", "inputs", "name"),
    [
        ("SaveImage", {"filename_prefix": "../x"}, "filename_prefix"),
        ("SaveImage", {"filename_prefix": {"/../../../x": 1}}, "filename_prefix"),
        ("SaveLoRA", {"prefix": "/etc/x"}, "prefix"),
        (
            "SaveImageDataSetToFolder",
            {"folder_name": "a", "filename_prefix": "../../x"},
            "folder_name",
        ),
        (
            "SaveImageDataSetToFolder",
            {"folder_name": "a", "filename_prefix": ["2", 0]},
            "filename_prefix",
        ),
    ],
)
def test_what_saves_outside_is_refused(
    places: Places, kind: str, inputs: dict[str, Any], name: str
) -> None:
    decision = asked(places, kind, **inputs)

    assert [(r.node_id, r.input_name) for r in decision.refusals] == [("1", name)]
    assert not decision.destinations


@pytest.mark.parametrize(
    "prompt",
    [
        {"1": None},
        {"1": []},
        {"1": {}},
        {"1": {"class_type": ["LoadImage"], "inputs": {"image": "/etc/passwd"}}},
        {"1": {"class_type": "Unknown", "inputs": {"image": "/etc/passwd"}}},
        {"1": {"class_type": "LoadImage"}},
        {"1": {"class_type": "LoadImage", "inputs": "/etc/passwd"}},
        {"1": {"class_type": "Broken", "inputs": {"image": "x"}}},
    ],
)
def test_what_is_no_node_is_left_for_comfyui_to_refuse(
    places: Places, prompt: dict[str, Any]
) -> None:
    assert decide(prompt, CLASSES, places, Sender("pod-1")) == Decision(prompt)


def test_with_a_fresh_value_each_node_that_saves_gets_an_input_of_its_own(places: Places) -> None:
    prompt = {
        "a": {"class_type": "LoadPath", "inputs": {"path": "x"}},
        "b": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}},
        "c": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}},
    }

    once, again = (decide(prompt, CLASSES, places, Sender("j"), fresh).prompt for fresh in "12")

    assert once["a"] == prompt["a"]
    inputs = [node[name]["inputs"] for node in (once, again) for name in "bc"]
    assert len({json.dumps(one) for one in inputs}) == 4
    assert all(one["filename_prefix"] == "j/output/x" for one in inputs)


def test_a_refusal_speaks_as_comfyui_does(places: Places) -> None:
    prompt = {
        "a": {"class_type": "LoadImage", "inputs": {"image": "/etc/passwd"}},
        "b": {"class_type": "LoadPath", "inputs": {"path": ["a", 0]}},
        "c": {"class_type": "SaveImage", "inputs": {"images": ["b", 0]}},
        "d": {"class_type": "SaveImage", "inputs": {"filename_prefix": "../x"}},
        "e": {"class_type": ["odd"], "inputs": {"images": ["a", 0]}},
        "f": 7,
    }
    decision = decide(prompt, CLASSES, places, Sender("pod-1"))

    body = json.loads(json.dumps(refused(prompt, decision.refusals, CLASSES)))

    assert body["error"]["type"] == "prompt_outputs_failed_validation"
    assert "image - '/etc/passwd' lies outside" in body["error"]["details"]
    assert list(body["node_errors"]) == ["a", "d"]
    assert body["node_errors"]["a"]["class_type"] == "LoadImage"
    assert body["node_errors"]["a"]["dependent_outputs"] == ["c"]
    assert body["node_errors"]["d"]["dependent_outputs"] == ["d"]
    [error] = body["node_errors"]["a"]["errors"]
    assert error["type"] == "custom_validation_failed"
    assert error["extra_info"] == {"input_name": "image"}


@pytest.mark.parametrize("form", ["chain", "one value"])
def test_of_thousands_of_refusals_the_first_hundred_are_told(places: Places, form: str) -> None:
    class Counted(LoadImage):
        asked = 0

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            cls.asked += 1
            return cls.inputs

    outside = [f"/etc/{number}" for number in range(5000)]
    prompt: dict[str, Any] = {
        str(n): {"class_type": "Counted", "inputs": {"image": path, "mask": [str(n - 1), 0]}}
        for n, path in enumerate(outside)
    }
    if form == "one value":
        prompt = {"0": {"class_type": "Counted", "inputs": {"image": {"__value__": outside}}}}
    last = str(len(prompt) - 1)
    prompt["save"] = {"class_type": "SaveImage", "inputs": {"images": [last, 0]}}
    classes = {**CLASSES, "Counted": Counted}
    began = time.monotonic()

    decision = decide(prompt, classes, places, Sender("pod-1"))
    body = refused(prompt, decision.refusals, classes)

    assert len(decision.refusals) == 100
    assert body["node_errors"]["0"]["dependent_outputs"] == ["save"]
    assert len(json.dumps(body)) < 100_000
    # A directory is listed for each such question.
    assert Counted.asked == 1
    # It took minutes when each refusal went through all nodes once for each node.
    assert time.monotonic() - began < 10
