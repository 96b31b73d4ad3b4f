"""What is read from a right models.yaml, and what never shows itself."""

import subprocess
import sys

import pytest

from morpheus_boot.config.redact import Secret
from morpheus_boot.config.settings import REPOSITORY
from morpheus_boot.errors import ManifestError, SeveralErrors, UsageError
from morpheus_boot.manifest import CivitaiSource, HuggingFaceSource, Manifest, UrlSource
from tests.manifest.reading import model, model_errors, read

_SHA256 = "0123456789abcdef" * 4


def test_every_field_is_read() -> None:
    manifest = read(f"""\
        version: 1
        volume: {{size_gb: 20.5}}
        comfyui:
          args: [--reserve-vram, 1.5]
          env: [HF_TOKEN]
        models:
          - path: checkpoints/sdxl/a.safetensors
            url: https://host/a?type=Model
            sha256: {_SHA256.upper()}
            size: 6938040706
            required: false
            preload: true
            links: [diffusion_models/a.safetensors]
          - path: controlnet/b.pth
            huggingface: {{repo: owner/name, file: folder/b.pth, revision: v1.0}}
          - path: loras/c.safetensors
            civitai: 131960
        custom_nodes:
          - name: ComfyUI-Node
            git: https://github.com/owner/ComfyUI-Node
            ref: 1.10
            required: false
    """)

    assert manifest.volume.size_gb == 20.5
    assert manifest.comfyui.args == ("--reserve-vram", "1.5")
    assert manifest.comfyui.env == ("HF_TOKEN",)
    a, b, c = manifest.models
    assert (a.path, a.source) == (
        "checkpoints/sdxl/a.safetensors",
        UrlSource(Secret("https://host/a?type=Model")),
    )
    assert (a.sha256, a.size_bytes, a.required, a.preload, a.links) == (
        _SHA256,
        6938040706,
        False,
        True,
        ("diffusion_models/a.safetensors",),
    )
    assert b.source == HuggingFaceSource("owner/name", "folder/b.pth", "v1.0")
    assert c.source == CivitaiSource(131960)
    (node,) = manifest.nodes
    assert (node.name, node.git, node.ref, node.required) == (
        "ComfyUI-Node",
        Secret("https://github.com/owner/ComfyUI-Node"),
        "1.10",  # as it is written: 1.1 is another tag
        False,
    )


def test_what_is_left_out_has_its_default() -> None:
    (a,) = model("path: vae/a.pt, huggingface: {repo: o/n, file: a.pt}").models

    assert a.source.identity == "huggingface:o/n/a.pt@main"
    assert (a.sha256, a.size_bytes, a.required, a.preload, a.links) == (None, None, True, False, ())


@pytest.mark.parametrize(
    "text",
    [
        *("", "models: []", "models:", "models: ~"),
        "volume:\ncomfyui: {args: , env: }\ncustom_nodes:\n  # - name: a\n",
    ],
)
def test_a_section_may_be_missing_empty_or_all_commented_out(text: str) -> None:
    manifest = read(f"version: 1\n{text}")

    assert (manifest.models, manifest.nodes, manifest.volume.size_gb) == ((), (), None)
    assert (manifest.comfyui.args, manifest.comfyui.env) == ((), ())


def test_a_digest_of_digits_alone_keeps_every_one_of_them() -> None:
    digits = "0" * 24 + "1234567890" * 4

    assert model(f"path: vae/a.pt, url: http://h/a, sha256: {digits}").models[0].sha256 == digits


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfversion: 1\r\nmodels:\r\n  - path: vae/a\r\n    civitai: 1\r\n",
        b'{"version": 1, "models": [{"path": "vae/a", "civitai": 1}]}',
        b"version: 1\nmodels:\n- &one {path: &name vae/a, civitai: 1, links: [&b clip/a]}",
        b"version: !!int 1\nmodels: [{path: !!str vae/a, civitai: 1}]",
    ],
    ids=["Windows", "JSON", "anchors", "tags"],
)
def test_a_manifest_may_be_written_in_all_of_yamls_ways(text: bytes) -> None:
    assert [(m.path, m.source.identity) for m in read(text).models] == [("vae/a", "civitai:1")]


def test_an_alias_stands_for_what_its_anchor_named() -> None:
    manifest = read("""\
        version: 1
        models:
          - {path: vae/a, huggingface: {repo: &repo o/n, file: a, revision: &commit abcdef}}
          - {path: vae/b, huggingface: {repo: *repo, file: b, revision: *commit}}
    """)

    assert [m.source.identity for m in manifest.models] == [
        "huggingface:o/n/a@abcdef",
        "huggingface:o/n/b@abcdef",
    ]


@pytest.mark.parametrize(
    "path",
    ["vae/ñ.safetensors", "vae/a b.pt", "a/b/c/d.e", "vae/.x", "vae/..x", "vae/" + "é" * 127],
)
def test_a_name_may_hold_what_file_systems_take(path: str) -> None:
    assert model(f"path: '{path}', url: http://h/a").models[0].path == path


@pytest.mark.parametrize(
    "url",
    [
        "https://civitai.com/api/download/models/2211429?type=Model&format=SafeTensor&token=x",
        "http://127.0.0.1:8080/a",
        "http://[::1]:80/a",
        "https://user:password@host/a,b",
        "file:///srv/a%20b",
        "file://localhost/srv/a",
        "file:/srv/a",
    ],
)
def test_a_url_is_http_https_or_a_file(url: str) -> None:
    assert model(f"path: vae/a, url: '{url}'").models[0].source == UrlSource(Secret(url))


@pytest.mark.parametrize(
    ("git", "ref"),
    [
        ("https://github.com/o/n", "v1.0"),
        ("https://github.com/o/n.git", "main"),
        ("http://127.0.0.1:3000/n", "feature/x"),
        ("ssh://git@host:22/o/n", "9e60d8a9c8016c5315063aa7af66b321a0444df7"),
        ("ssh://git@[::1]/n", "1.10"),
        ("file:///srv/n", "HEAD"),
        ("git@github.com:o/n.git", "v1"),
    ],
)
def test_a_node_comes_from_what_git_clones(git: str, ref: str) -> None:
    manifest = read(f"version: 1\ncustom_nodes: [{{name: A, git: '{git}', ref: '{ref}'}}]")

    assert [(node.git, node.ref) for node in manifest.nodes] == [(Secret(git), ref)]


def test_other_arguments_go_through_as_they_are() -> None:
    args = ["--lowvram", "--preview-method", "auto", "--x=a b", "-v", "a b"]

    assert read(f"version: 1\ncomfyui: {{args: {args}}}").comfyui.args == tuple(args)


def test_a_pyyaml_without_its_c_parser_reads_the_same() -> None:
    program = """\
import sys, yaml
from pathlib import Path
del yaml.CSafeLoader
from morpheus_boot.manifest import read_manifest
print(len(read_manifest(Path("models.yaml"), {}).models))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert (ran.stdout, ran.stderr) == ("7\n", "")


# ${NAME}


def test_a_name_from_the_environment_is_put_in() -> None:
    manifest = model(
        "path: 'vae/${KIND}.pt', url: 'https://host/${KIND}?token=${TOKEN}'",
        {"KIND": "sdxl", "TOKEN": " abc-123\n"},  # as secrets arrive
    )

    assert manifest.models[0].path == "vae/sdxl.pt"
    assert manifest.models[0].source == UrlSource(
        Secret("https://host/sdxl?token=abc-123"), (Secret("sdxl"), Secret("abc-123"))
    )
    assert Secret("abc-123") in manifest.secrets
    assert set(manifest.variables) == {"KIND", "TOKEN"}


def test_a_number_may_come_from_the_environment() -> None:
    manifest = read("version: 1\nvolume:\n  size_gb: ${GB}", {"GB": "2000"})

    assert manifest.volume.size_gb == 2000
    assert manifest.secrets == ()  # else the log would hide every 2000


@pytest.mark.parametrize(
    ("written", "path"),
    [("vae/$${HOME}$.pt", "vae/${HOME}$.pt"), ("vae/${A}", "vae/${B}")],
    ids=["two dollars are a literal one", "what is put in is not read again"],
)
def test_a_dollar_may_stand_for_itself(written: str, path: str) -> None:
    environ = {"HOME": "x", "A": "${B}", "B": "x"}

    assert model(f"path: '{written}', url: http://h/a", environ).models[0].path == path


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        ("abc\u200bdef", "its character 4 is U+200B"),
        ("{{ RUNPOD_SECRET_T }}", "RunPod left {{ RUNPOD_SECRET_T }} as it is"),
    ],
)
def test_a_variable_that_holds_no_token_is_what_is_wrong_beside_the_files_mistakes(
    value: str, cause: str
) -> None:
    with pytest.raises(SeveralErrors) as caught:
        model("path: /a, url: 'http://h/a?token=${T}'", {"T": value})

    of_variable, of_path = caught.value.errors
    assert (type(of_path), type(of_variable)) == (ManifestError, UsageError)
    assert str(of_variable).startswith(f"T: {cause}")
    assert "def" not in str(of_variable)


# Secrets


@pytest.mark.parametrize(
    "url",
    [
        "https://host/a?token=${T}",
        "https://user:${T}@host/a",
        "https://host/${T}/a",
        "https://${T}.host/a",
    ],
)
def test_no_record_ever_holds_a_token_wherever_it_stands_in_the_url(url: str) -> None:
    def read_with(token: str) -> Manifest:
        return model(f"path: vae/a, url: '{url}'", {"T": token})

    one, other = read_with("abcd-1234"), read_with("wxyz-6789")

    assert "abcd-1234" not in repr(one) + str(one) + one.models[0].source.identity
    assert one.models[0].source.identity == other.models[0].source.identity


def test_a_mirror_from_the_environment_is_part_of_a_models_name() -> None:
    def identity(mirror: str) -> str:
        return model("path: vae/a, url: '${M}/a'", {"M": mirror}).models[0].source.identity

    assert identity("https://one.example") == "https://one.example/a"
    assert identity("https://two.example") == "https://two.example/a"


@pytest.mark.parametrize(
    "fields",
    [
        "path: vae/a, url: 'htp://h/${T}'",
        "path: vae/a, url: 'http://h:${T}/'",
        "path: '/vae/${T}', url: http://h/a",
        "path: vae/a, url: http://h/a, sha256: '${T}'",
        "path: vae/a, url: http://h/a, size: '${T}'",
        "path: vae/a, url: http://h/a, links: ['${T}']",
        "path: vae/a, huggingface: {repo: '${T}', file: a}",
    ],
)
def test_an_error_shows_the_name_and_not_the_token_nor_does_its_traceback(fields: str) -> None:
    with pytest.raises(ManifestError) as caught:
        model(fields, {"T": "abc 123"})

    assert "${T}" in str(caught.value)
    assert "abc 123" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_an_error_hides_a_token_that_stands_in_the_file_itself() -> None:
    (error,) = model_errors("path: vae/a, url: 'htp://h/a?token=abc-123'")

    assert "token=[secret]" in error
