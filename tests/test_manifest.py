"""models.yaml as its author meets it: what is read, and what each mistake says."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morpheus_boot.config.redact import Secret
from morpheus_boot.config.settings import OWN_COMFYUI_ARGS, REPOSITORY
from morpheus_boot.errors import ManifestError, MorpheusError, SeveralErrors
from morpheus_boot.manifest import (
    CivitaiSource,
    HuggingFaceSource,
    Manifest,
    UrlSource,
    read_manifest,
)
from morpheus_boot.manifest.tree import Scalar

_SHA256 = "0123456789abcdef" * 4


def read(text: str | bytes, environ: Mapping[str, str] | None = None) -> Manifest:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "models.yaml"
        file.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
        return read_manifest(file, environ or {})


def errors(text: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
    """Each mistake as its line in the log, without the file's folder; none where the text is right."""
    try:
        read(text, environ)
    except MorpheusError as error:
        found = error
    else:
        return []
    each = found.errors if isinstance(found, SeveralErrors) else (found,)
    assert all(isinstance(mistake, ManifestError) for mistake in each)
    return [f"models.yaml{str(mistake).partition('/models.yaml')[2]}" for mistake in each]


def model(fields: str, environ: Mapping[str, str] | None = None) -> Manifest:
    """A manifest of one model with these fields, in line 2."""
    return read(f"version: 1\nmodels: [{{{fields}}}]", environ)


def model_errors(fields: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with a model of these fields, without where it stands."""
    found = errors(f"version: 1\nmodels: [{{{fields}}}]", environ)
    assert all(error.startswith("models.yaml line 2, models[0]") for error in found)
    return [error.removeprefix("models.yaml line 2, models[0]").lstrip(".") for error in found]


# What is read


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

    assert manifest.size_gb == 20.5
    assert manifest.comfyui_args == ("--reserve-vram", "1.5")
    assert manifest.comfyui_env == ("HF_TOKEN",)
    a, b, c = manifest.models
    assert (a.path, a.source) == (
        "checkpoints/sdxl/a.safetensors",
        UrlSource(Secret("https://host/a?type=Model")),
    )
    assert (a.sha256, a.size_bytes, a.required, a.preload, a.links, a.line) == (
        _SHA256,
        6938040706,
        False,
        True,
        ("diffusion_models/a.safetensors",),
        7,
    )
    assert b.source == HuggingFaceSource("owner/name", "folder/b.pth", "v1.0")
    assert c.source == CivitaiSource(131960)
    (node,) = manifest.nodes
    assert (node.name, node.git, node.ref, node.required, node.line) == (
        "ComfyUI-Node",
        Secret("https://github.com/owner/ComfyUI-Node"),
        "1.10",  # as it is written: 1.1 is another tag
        False,
        19,
    )


def test_what_is_left_out_has_its_default() -> None:
    (a,) = model("path: vae/a.pt, url: http://host/a").models

    assert (a.sha256, a.size_bytes, a.required, a.preload, a.links) == (None, None, True, False, ())


def test_the_main_branch_is_the_default_revision() -> None:
    (a,) = model("path: vae/a.pt, huggingface: {repo: o/n, file: a.pt}").models

    assert a.source.identity == "huggingface:o/n/a.pt@main"


@pytest.mark.parametrize("models", ["", "models: []", "models:", "models: ~"])
def test_a_manifest_may_name_no_model(models: str) -> None:
    assert read(f"version: 1\n{models}").models == ()


def test_a_section_whose_entries_are_all_commented_out_is_empty() -> None:
    manifest = read("version: 1\nvolume:\ncomfyui: {args: , env: }\ncustom_nodes:\n  # - name: a\n")

    assert (manifest.size_gb, manifest.comfyui_args, manifest.nodes) == (None, (), ())


def test_a_digest_of_digits_alone_keeps_every_one_of_them() -> None:
    digits = "0" * 24 + "1234567890" * 4

    assert model(f"path: vae/a.pt, url: http://h/a, sha256: {digits}").models[0].sha256 == digits


def test_a_byte_order_mark_and_windows_line_ends_change_nothing() -> None:
    manifest = read(b"\xef\xbb\xbfversion: 1\r\nmodels:\r\n  - path: vae/a\r\n    civitai: 1\r\n")

    assert (manifest.models[0].path, manifest.models[0].line) == ("vae/a", 3)


def test_json_is_yaml() -> None:
    text = '{"version": 1, "models": [{"path": "vae/a", "url": "file:///a", "preload": true}]}'

    assert read(text).models[0].preload is True


# ${NAME}


def test_a_name_from_the_environment_is_put_in() -> None:
    manifest = model(
        "path: 'vae/${KIND}.pt', url: 'https://host/${KIND}?token=${TOKEN}'",
        {"KIND": "sdxl", "TOKEN": "abc-123"},
    )

    assert manifest.models[0].path == "vae/sdxl.pt"
    assert manifest.models[0].source == UrlSource(
        Secret("https://host/sdxl?token=abc-123"), (Secret("sdxl"), Secret("abc-123"))
    )
    assert Secret("abc-123") in manifest.secrets
    assert set(manifest.variables) == {"KIND", "TOKEN"}


def test_a_number_may_come_from_the_environment() -> None:
    manifest = read("version: 1\nvolume:\n  size_gb: ${GB}", {"GB": "2000"})

    assert manifest.size_gb == 2000
    assert manifest.secrets == ()  # else the log would hide every 2000


def test_two_dollars_are_a_literal_one() -> None:
    (a,) = model("path: 'vae/$${HOME}$.pt', url: http://h/a", {"HOME": "x"}).models

    assert a.path == "vae/${HOME}$.pt"


def test_what_is_put_in_is_not_read_again() -> None:
    (a,) = model("path: 'vae/${A}', url: http://h/a", {"A": "${B}", "B": "x"}).models

    assert a.path == "vae/${B}"


def test_a_key_is_not_expanded() -> None:
    assert model_errors("path: vae/a, '${A}': http://h/a", {"A": "url"}) == [
        (": has no source; give exactly one of url, huggingface, civitai"),
        (
            "${A}: '${A}' is not a known key; use path, url, huggingface, civitai, sha256, size,"
            " required, preload, links"
        ),
    ]


def test_an_unset_and_an_empty_name_are_both_named() -> None:
    assert model_errors("path: 'vae/${UNSET}${EMPTY}', url: http://h/a", {"EMPTY": ""}) == [
        "path: the environment variable UNSET is not set; set it, or remove ${UNSET}",
        "path: the environment variable EMPTY is empty; set it, or remove ${EMPTY}",
    ]


def test_a_value_from_the_environment_is_read_as_a_token_is() -> None:
    assert model("path: 'vae/${A}', url: http://h/a", {"A": " a\n"}).models[0].path == "vae/a"
    assert (
        "U+200B, which no token holds"
        in model_errors("path: vae/a, url: 'http://h/a?token=${T}'", {"T": "abc\u200bdef"})[0]
    )


@pytest.mark.parametrize("value", ["${", "${}", "${A", "${A B}", "${1A}", "x${A-b}"])
def test_what_only_looks_like_a_name_is_refused(value: str) -> None:
    assert model_errors(f"path: vae/a, url: 'http://h/{value}'", {"A": "x"}) == [
        "url: a ${ is not followed by NAME}; write ${NAME}, or $${ for a literal ${"
    ]


# Secrets


def test_a_url_does_not_show_itself() -> None:
    manifest = model("path: vae/a, url: 'https://h/a?token=${T}'", {"T": "abc-123"})

    assert "abc-123" not in repr(manifest)
    assert "abc-123" not in str(manifest)


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
    def identity(token: str) -> str:
        return model(f"path: vae/a, url: '{url}'", {"T": token}).models[0].source.identity

    assert "abcd-1234" not in identity("abcd-1234")
    assert identity("abcd-1234") == identity("wxyz-6789")


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
def test_an_error_shows_the_name_and_not_the_token(fields: str) -> None:
    (error,) = model_errors(fields, {"T": "abc 123"})

    assert "${T}" in error
    assert "abc 123" not in error


def test_an_error_hides_a_token_that_stands_in_the_file_itself() -> None:
    (error,) = model_errors("path: vae/a, url: 'htp://h/a?token=abc-123'")

    assert "token=[secret]" in error


def test_a_value_shows_itself_as_it_is_written_even_in_a_bugs_traceback() -> None:
    scalar = Scalar("abc-123", "${T}", plain=True, brought=("abc-123",))

    assert repr(scalar) == "Scalar(written='${T}', plain=True)"


def test_a_mistake_has_no_cause_that_a_traceback_would_show_the_token_of() -> None:
    with pytest.raises(ManifestError) as caught:
        model("path: vae/a, url: 'htp://h/${T}'", {"T": "abc-123"})

    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


# Keys


def test_a_misspelt_key_is_named_with_its_line_and_the_one_that_was_meant() -> None:
    assert errors("version: 1\n\nmodles: []") == [
        "models.yaml line 3, modles: 'modles' is not a known key; did you mean models?"
    ]


@pytest.mark.parametrize(
    ("fields", "key", "meant"),
    [
        ("pth: vae/a, url: http://h/a", "pth", "path"),
        ("path: vae/a, ulr: http://h/a", "ulr", "url"),
        ("path: vae/a, url: http://h/a, SHA256: x", "SHA256", "sha256"),
        ("path: vae/a, url: http://h/a, sha: x", "sha", "sha256"),
        ("path: vae/a, url: http://h/a, preloaded: x", "preloaded", "preload"),
    ],
)
def test_a_misspelt_key_is_one_mistake_and_not_also_a_missing_one(
    fields: str, key: str, meant: str
) -> None:
    assert model_errors(fields) == [f"{key}: '{key}' is not a known key; did you mean {meant}?"]


def test_a_misspelt_key_is_found_at_every_depth() -> None:
    text = """\
        version: 1
        volume: {size_gib: 20}
        comfyui: {arg: []}
        models:
          - path: vae/a
            huggingface:
              repo: o/n
              file: a
              revison: v1
        custom_nodes:
          - name: A
            git: https://h/o/n
            reff: v1
    """

    assert [error.partition(": ")[0] for error in errors(text)] == [
        "models.yaml line 2, volume.size_gib",
        "models.yaml line 3, comfyui.arg",
        "models.yaml line 9, models[0].huggingface.revison",
        "models.yaml line 13, custom_nodes[0].reff",
    ]


def test_a_key_that_is_like_no_other_is_answered_with_all_of_them() -> None:
    assert errors("version: 1\nzzz: 1") == [
        (
            "models.yaml line 2, zzz: 'zzz' is not a known key;"
            " use version, volume, comfyui, models, custom_nodes"
        )
    ]


def test_a_key_that_stands_twice_is_refused_with_both_lines() -> None:
    text = """\
        version: 1
        models:
          - path: vae/a
            url: http://h/a
            path: vae/b
        models: []
    """

    assert errors(text) == [
        "models.yaml line 5, models[0].path: stands here a second time, after line 3; keep one of the two",
        "models.yaml line 6, models: stands here a second time, after line 2; keep one of the two",
    ]


def test_a_version_is_missing() -> None:
    assert errors("models: []") == ["models.yaml line 1, version: is missing; give 1"]


@pytest.mark.parametrize("version", ["2", "1.0", "'1'", "one", "[1]", "~"])
def test_only_version_1_is_read(version: str) -> None:
    (error,) = errors(f"version: {version}")

    assert error.startswith("models.yaml line 1, version: ")
    assert error.endswith("; give 1")


# All at once


def test_all_mistakes_are_named_at_once_in_the_order_of_their_lines() -> None:
    text = """\
        version: 1
        volume: {size_gb: 20 GB}
        models:
          - path: ../a
            url: http://h/a
          - path: vae/b
            sha256: abc
          - path: vae/b
            url: http://h/b
            civitai: 1
          - vae/c
        custom_nodes: {}
        comfy: {}
    """

    assert [error.partition("; ")[0] for error in errors(text)] == [
        "models.yaml line 2, volume.size_gb: '20 GB' is not a number above 0",
        "models.yaml line 4, models[0].path: '../a' leaves its folder",
        "models.yaml line 6, models[1]: has no source",
        "models.yaml line 7, models[1].sha256: 'abc' has 3 characters",
        "models.yaml line 8, models[2]: has url and civitai",
        "models.yaml line 8, models[2].path: is the same place as models[1].path of line 6",
        "models.yaml line 11, models[3]: 'vae/c' is not a mapping",
        "models.yaml line 12, custom_nodes: a mapping is not a list",
        "models.yaml line 13, comfy: 'comfy' is not a known key",
    ]


# Types


@pytest.mark.parametrize(
    ("field", "cause"),
    [
        ("civitai: '131960'", "'131960' is text in quotes"),
        ("civitai: 0", "'0' is not a whole number above 0 in plain digits"),
        ("civitai: 0x1f", "'0x1f' is not a whole number above 0 in plain digits"),
        ("civitai: 1_000", "'1_000' is not a whole number above 0 in plain digits"),
        ("civitai: 1:30", "'1:30' is not a whole number above 0 in plain digits"),
        ("civitai: 9999999999999999999999", "'9999999999999999999999' is not a whole number"),
        ("civitai: [1]", "a list is not a single value"),
        ("civitai: {}", "a mapping is not a single value"),
        ("civitai: ", "is empty"),
        ("url: ", "is empty"),
        ("url: ''", "'' is empty"),
        ("url: [http://h/a]", "a list is not a single value"),
        ("huggingface: o/n/a", "'o/n/a' is not a mapping"),
        ("huggingface: [o/n, a]", "a list is not a mapping"),
        ("huggingface: ", "is empty"),
    ],
)
def test_a_source_of_the_wrong_type_is_refused(field: str, cause: str) -> None:
    (error,) = model_errors(f"path: vae/a, {field}")

    assert error.startswith(f"{field.partition(':')[0]}: {cause}")
    assert "; give " in error


@pytest.mark.parametrize(
    ("field", "cause"),
    [
        ("size: 1.5", "'1.5' is not a whole number above 0 in plain digits"),
        ("size: -1", "'-1' is not a whole number above 0 in plain digits"),
        ("size: 6.9 GB", "'6.9 GB' is not a whole number above 0 in plain digits"),
        ("size: '5'", "'5' is text in quotes"),
        ("required: yes", "'yes' is neither true nor false"),
        ("required: 'true'", "'true' is text in quotes"),
        ("preload: 1", "'1' is neither true nor false"),
        ("links: vae/b", "'vae/b' is not a list"),
        ("links: {vae: b}", "a mapping is not a list"),
        ("sha256: abc", "'abc' has 3 characters"),
        (f"sha256: {'g' * 64}", f"'{'g' * 64}' is not all hex digits"),
        ("sha256: ", "is empty"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused(field: str, cause: str) -> None:
    (error,) = model_errors(f"path: vae/a, url: http://h/a, {field}")

    assert error.startswith(f"{field.partition(':')[0]}: {cause}; give ")


@pytest.mark.parametrize("size", ["0", "-1", "20GB", "1e3", ".inf", ".nan", "'20'", "[20]", "0.0"])
def test_a_volume_has_a_size_above_zero(size: str) -> None:
    (error,) = errors(f"version: 1\nvolume: {{size_gb: {size}}}")

    assert error.startswith("models.yaml line 2, volume.size_gb: ")


# Paths

_WRONG_FILES = [
    ("/vae/a", "is absolute, not relative"),
    ("../a", "leaves its folder"),
    ("vae/../../a", "leaves its folder"),
    ("vae/..", "leaves its folder"),
    ("vae//a", "has an empty component or a ."),
    ("vae/", "has an empty component or a ."),
    ("./vae/a", "has an empty component or a ."),
    ("vae/./a", "has an empty component or a ."),
    (r"vae\\a", "holds a backslash, not a /"),
    ("vae/ a", "has a component that begins or ends with a space"),
    (r"vae/a\n", "holds a character that can't be seen"),
    (r"vae/\u0000", "holds a character that can't be seen"),
    (r"vae/a\u200b", "holds a character that can't be seen"),
    ("vae/" + "é" * 128, "has a component longer than 255 bytes"),
]


@pytest.mark.parametrize(
    ("path", "cause"),
    [*_WRONG_FILES, ("a", "is in no folder"), (".git/a", "begins with a dot")],
)
def test_a_path_or_a_link_that_is_not_below_its_folder_is_refused(path: str, cause: str) -> None:
    (of_path,) = model_errors(f'path: "{path}", url: http://h/a')
    (of_link,) = model_errors(f'path: clip/x, url: http://h/a, links: [clip/y, "{path}"]')

    assert of_path.startswith("path: '")
    assert f"' {cause}; give folder/file" in of_path
    assert of_link.startswith("links[1]: '")
    assert f"' {cause}; give a list of more places" in of_link


@pytest.mark.parametrize(("file", "cause"), _WRONG_FILES)
def test_a_file_of_a_repository_stays_in_it(file: str, cause: str) -> None:
    (error,) = model_errors(f'path: vae/a, huggingface: {{repo: o/n, file: "{file}"}}')

    assert f"' {cause}; give the file's path in the repository" in error


@pytest.mark.parametrize(
    "path",
    ["vae/ñ.safetensors", "vae/a b.pt", "a/b/c/d.e", "vae/.x", "vae/..x", "vae/" + "é" * 127],
)
def test_a_name_may_hold_what_file_systems_take(path: str) -> None:
    assert model(f"path: '{path}', url: http://h/a").models[0].path == path


@pytest.mark.parametrize(
    ("first", "second", "cause"),
    [
        ("path: vae/a", "path: vae/a", "path: is the same place as models[0].path"),
        (
            "path: vae/a",
            "path: vae/b, links: [clip/b, vae/a]",
            "links[1]: is the same place as models[0].path",
        ),
        (
            "path: vae/a, links: [clip/a]",
            "path: clip/a",
            "path: is the same place as models[0].links[0]",
        ),
        (
            "path: vae/a, links: [clip/a]",
            "path: vae/b, links: [clip/a]",
            "links[0]: is the same place as models[0].links[0]",
        ),
        ("path: vae/a", "path: vae/a/b", "path: lies below the file of models[0].path"),
        ("path: vae/a/b/c", "path: vae/a", "path: is a folder of models[0].path"),
    ],
)
def test_two_files_do_not_share_one_place(first: str, second: str, cause: str) -> None:
    text = f"version: 1\nmodels:\n- {{civitai: 1, {first}}}\n- {{civitai: 2, {second}}}"

    assert errors(text) == [
        f"models.yaml line 4, models[1].{cause} of line 3; change or remove one of the two"
    ]


def test_a_model_is_not_linked_onto_itself() -> None:
    assert model_errors("path: vae/a, civitai: 1, links: [vae/a]") == [
        "links[0]: is the same place as models[0].path of line 2; change or remove one of the two"
    ]


def test_a_model_has_exactly_one_source() -> None:
    one_of = "give exactly one of url, huggingface, civitai"

    assert model_errors("path: vae/a") == [f": has no source; {one_of}"]
    assert model_errors(
        "path: vae/a, civitai: 1, url: http://h/a, huggingface: {repo: o/n, file: a}"
    ) == [f": has civitai and url and huggingface; {one_of}"]


# URLs, repositories, nodes


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
    (a,) = model(f"path: vae/a, url: '{url}'").models

    assert a.source == UrlSource(Secret(url))


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("DUMMY_URL", "is not an http, https or file URL"),
        ("ftp://h/a", "is not an http, https or file URL"),
        ("//h/a", "is not an http, https or file URL"),
        ("HTTP://h/a", "is not an http, https or file URL"),
        ("s3://bucket/a", "is not an http, https or file URL"),
        ("http:h/a", "has no host"),
        ("https:///a", "has no host"),
        ("https://:80/a", "has no host"),
        ("http://h:99999/a", "has no valid host and port"),
        ("http://h:port/a", "has no valid host and port"),
        ("http://[::1/a", "has no valid host and port"),
        ("http://h/a b", r"holds a space or a backslash (%20 and %5C in a URL)"),
        (r"http://h\other", r"holds a space or a backslash (%20 and %5C in a URL)"),
        ("file:a", "has no absolute path, as file:///folder/file has"),
        ("file://host/a", "has no absolute path, as file:///folder/file has"),
        ("file://", "has no absolute path, as file:///folder/file has"),
    ],
)
def test_any_other_url_is_refused(url: str, cause: str) -> None:
    assert model_errors(f"path: vae/a, url: '{url}'") == [
        f"url: '{url}' {cause}; give a URL such as https://host/file"
    ]


@pytest.mark.parametrize(
    "repo", ["name", "a/b/c", "/b", "a/", "a/..", "-a/b", "a b/c", "https://x/y"]
)
def test_a_repository_is_owner_and_name(repo: str) -> None:
    assert model_errors(f"path: vae/a, huggingface: {{repo: '{repo}', file: a}}") == [
        f"huggingface.repo: '{repo}' is not owner/name; give owner/name, such as h94/IP-Adapter"
    ]


def test_a_repository_without_repo_and_file_is_refused() -> None:
    assert model_errors("path: vae/a, huggingface: {}") == [
        "huggingface.repo: is missing; give owner/name, such as h94/IP-Adapter",
        "huggingface.file: is missing; give the file's path in the repository",
    ]


def node_errors(name: str = "A", git: str = "https://h/o/n", ref: str = "v1") -> list[str]:
    return errors(f"version: 1\ncustom_nodes: [{{name: '{name}', git: '{git}', ref: '{ref}'}}]")


@pytest.mark.parametrize(
    "git",
    [
        "https://github.com/o/n",
        "https://github.com/o/n.git",
        "http://127.0.0.1:3000/n",
        "ssh://git@host:22/o/n",
        "ssh://git@[::1]/n",
        "file:///srv/n",
        "git@github.com:o/n.git",
    ],
)
def test_a_node_comes_from_what_git_clones(git: str) -> None:
    assert node_errors(git=git) == []


@pytest.mark.parametrize(
    "git",
    [
        "github.com/o/n",
        "--upload-pack=x",
        "ext::sh -c x",
        "git://h/o/n",
        "https://github.com",
        "https:///n",
        "https://h:x/n",
        "https://h/o n",
        "ssh://-oProxyCommand=x/n",
        "git@-x:o/n",
        "git@h:-x",
        "git@h",
        "file://",
    ],
)
def test_what_git_could_take_for_something_else_is_refused(git: str) -> None:
    (error,) = node_errors(git=git)

    assert error.startswith(f"models.yaml line 2, custom_nodes[0].git: '{git}' ")


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "-a", "a b", "a" * 129, r"a\\b"])
def test_a_nodes_name_is_one_folder(name: str) -> None:
    (error,) = node_errors(name=name)

    assert error.startswith("models.yaml line 2, custom_nodes[0].name: ")


@pytest.mark.parametrize(
    "ref", ["v1.0", "main", "feature/x", "9e60d8a9c8016c5315063aa7af66b321a0444df7"]
)
def test_a_ref_is_a_tag_a_commit_or_a_branch(ref: str) -> None:
    assert node_errors(ref=ref) == []


@pytest.mark.parametrize(
    "ref", ["", "-x", "a b", "a..b", "a:b", "a~1", "@{1}", "/a", "a/", "x.lock"]
)
def test_a_ref_that_git_does_not_take_is_refused(ref: str) -> None:
    (error,) = node_errors(ref=ref)

    assert error.startswith("models.yaml line 2, custom_nodes[0].ref: ")


def test_two_nodes_do_not_share_one_folder() -> None:
    text = """\
        version: 1
        custom_nodes:
          - {name: A, git: https://h/o/a, ref: v1}
          - {name: A, git: https://h/o/b, ref: v1}
    """

    assert errors(text) == [
        (
            "models.yaml line 4, custom_nodes[1].name: is the same folder as"
            " custom_nodes[0].name of line 3; change or remove one of the two"
        )
    ]


# ComfyUI


@pytest.mark.parametrize(
    "arg", [*OWN_COMFYUI_ARGS, "--port=9000", "--list", "--output-dir=/x", "--i"]
)
def test_an_argument_that_the_program_sets_is_refused(arg: str) -> None:
    (error,) = errors(f"version: 1\ncomfyui: {{args: ['{arg}']}}")

    assert f"comfyui.args[0]: '{arg}' is set by this program; " in error


def test_two_arguments_in_one_are_refused() -> None:
    (error,) = errors("version: 1\ncomfyui: {args: [--lowvram --cpu]}")

    assert "'--lowvram --cpu' is two arguments in one; " in error


def test_other_arguments_go_through_as_they_are() -> None:
    args = ["--lowvram", "--preview-method", "auto", "--x=a b", "-v", "a b"]

    assert read(f"version: 1\ncomfyui: {{args: {args}}}").comfyui_args == tuple(args)


@pytest.mark.parametrize("name", ["A-B", "1A", "A B", "A=b", "$A", ""])
def test_a_variable_that_no_shell_could_set_is_refused(name: str) -> None:
    (error,) = errors(f"version: 1\ncomfyui: {{env: ['{name}']}}")

    assert error.startswith("models.yaml line 2, comfyui.env[0]: ")


# What is not a manifest at all


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "line 1: is empty; begin with version: 1"),
        ("# nothing yet\n", "line 2: is empty; begin with version: 1"),
        ("---\n", "line 2: is empty; begin with version: 1"),
        ("\n- a", "line 2: is a list at its top, not a mapping of keys; begin with version: 1"),
        ("GIT,a,b", "line 1: is a text at its top, not a mapping of keys; begin with version: 1"),
        ("version: 1\n---\nversion: 1", "line 2: a second document begins here; remove this ---"),
        (
            b"version: 1\n# caf\xe9",
            "line 2: holds the byte 0xe9, which is not UTF-8; save it as UTF-8",
        ),
        ("\ufeffversion: 1".encode("utf-16-le"), "line 1: is UTF-16; save it as UTF-8"),
        (
            "# ñ\nversion: 1\n# \x07".encode(),
            "line 3: holds the character U+0007, which YAML does not allow; remove it",
        ),
        ("version: [", "line 1: is not YAML (did not find expected node content); check the"),
        ("version: 1\nmodels: 'x\n", "line 3: is not YAML (found unexpected end of stream, while"),
        ("version: 1\nmodels:\n\t- path: x", "line 3: is not YAML (found character that cannot"),
        ("x: {a: ${B}}", "line 1: is not YAML (did not find expected ',' or '}'); put quotes"),
        (
            "x: " + "[" * 50 + "]" * 50,
            "line 1: is nested too deeply; remove what is not needed there",
        ),
        ("[" * 100_000, "line 1: is not YAML (exceeded maximum nesting depth)"),
        (
            "&a {version: 1}",
            "line 1: anchors and aliases (&a) are not read here; write the value out",
        ),
    ],
)
def test_what_can_not_be_read_at_all_is_one_error_with_its_line(
    text: str | bytes, error: str
) -> None:
    (found,) = errors(text)

    assert found.startswith(f"models.yaml {error}")


def test_a_tab_is_named_as_what_is_wrong() -> None:
    (error,) = errors("version: 1\nmodels:\n\t- path: x")

    assert error.endswith("; indent with spaces, not with tabs")


def test_anchors_aliases_and_tags_are_refused_each_where_it_stands() -> None:
    text = """\
        version: 1
        models:
          - path: &name vae/a
            url: *name
          - path: !!str vae/b
            civitai: 1
          - &other {path: vae/c, civitai: 1}
          - *other
          - <<: {civitai: 1}
            path: vae/d
    """

    assert [error.partition("; ")[0] for error in errors(text)] == [
        "models.yaml line 3, models[0].path: anchors and aliases (&name) are not read here",
        "models.yaml line 4, models[0].url: anchors and aliases (*name) are not read here",
        "models.yaml line 5, models[1].path: tags (!) are not read here",
        "models.yaml line 7, models[2]: anchors and aliases (&other) are not read here",
        "models.yaml line 8, models[3]: anchors and aliases (*other) are not read here",
        "models.yaml line 9, models[4]: has no source",
        "models.yaml line 9, models[4].<<: '<<' is not a known key",
    ]


def test_a_key_that_is_not_text_is_refused() -> None:
    assert errors("version: 1\n{a: b}: 1\n? [c]\n: 2") == [
        "models.yaml line 2: a key is not text; write a name before the colon",
        "models.yaml line 3: a key is not text; write a name before the colon",
    ]


def test_a_long_or_broken_value_still_makes_one_short_line() -> None:
    (error,) = model_errors(f'path: vae/a, url: "x\\n\\u2028{"y" * 5000}"')

    assert error.startswith(r"url: 'x\n\u2028yyy")
    assert len(error) < 200


def test_a_file_that_is_not_there_is_named_with_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path / "none.yaml", {})

    assert str(caught.value) == (
        f"{tmp_path}/none.yaml: there is no such file;"
        " name one that can be read with --models or MORPHEUS_MODELS"
    )


def test_a_mistake_names_its_file_with_the_whole_path(tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text("version: 2")

    with pytest.raises(ManifestError) as caught:
        read_manifest(file, {})

    assert str(caught.value).startswith(f"{file} line 1, version: ")


def test_a_folder_is_not_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="can't be read"):
        read_manifest(tmp_path, {})


# Any text


_FRAGMENTS = st.sampled_from(
    [
        *("version: 1", "models:", "- path: a/b", "url: http://h/x", "custom_nodes:", "volume:"),
        *("huggingface: {repo: a/b, file: c}", "civitai: 1", "links: [a/b]", "size_gb: 2", "args:"),
        *("${A}", "${", "&a", "*a", "!!int", "<<:", "? ", ": ", "- ", "[", "]", "{", "}", "'", '"'),
        *(
            "\n",
            "\n  ",
            "\n    ",
            "\t",
            "|",
            ">",
            "#",
            "---",
            "...",
            "%YAML 1.1",
            "\\ud800",
            "\x85",
        ),
    ]
)


@given(st.one_of(st.text(), st.lists(_FRAGMENTS | st.text(max_size=3), max_size=30).map("".join)))
def test_any_text_is_a_manifest_or_names_its_mistakes_one_a_line(text: str) -> None:
    for error in errors(text.encode("utf-8", "surrogatepass"), {"A": "a/../${A}\n"}):
        assert error.startswith("models.yaml line ")
        assert error.isprintable()


@given(st.binary())
def test_any_bytes_are_a_manifest_or_name_their_mistakes(content: bytes) -> None:
    assert all(error.startswith("models.yaml line ") for error in errors(content))


@given(st.lists(st.text(alphabet="a./\\ \n", max_size=6), max_size=3))
def test_no_path_that_is_read_leaves_its_folder_or_shares_a_place(paths: list[str]) -> None:
    models = [{"path": path, "civitai": 1} for path in paths]
    text = str({"version": 1, "models": models}).replace("\\\\", "\\")
    try:
        read_paths = [PurePosixPath("/root", m.path) for m in read(text).models]
    except MorpheusError:
        return

    assert all(".." not in path.parts and path.parts[1] == "root" for path in read_paths)
    assert len(set(read_paths)) == len(paths)


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
