"""What each mistake in models.yaml says: its line, its field, what is wrong and what was expected; all at once."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morpheus_boot.config.settings import OWN_COMFYUI_ARGS
from morpheus_boot.errors import ManifestError, MorpheusError
from morpheus_boot.manifest import read_manifest
from tests.manifest.reading import errors, model_errors, read

_PATH = "give folder/file as below ComfyUI's models/, such as checkpoints/x.safetensors"
_ONE_SOURCE = "give exactly one of url, huggingface, civitai"
_WHOLE = "is not a whole number above 0 in plain digits"


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
        models: []
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
        "models.yaml line 14, models: stands here a second time, after line 3",
    ]


# Keys


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "version: 1\n\nmodles: []",
            "line 3, modles: 'modles' is not a known key; did you mean models?",
        ),
        (
            "version: 1\nzzz: 1",
            (
                "line 2, zzz: 'zzz' is not a known key;"
                " use version, volume, comfyui, models, custom_nodes"
            ),
        ),
        ("models: []", "line 1, version: is missing; give 1"),
        (
            "version: 1\nmodels: [{path: vae/a, civitai: 1, size_bytes: 1}]",
            (
                "line 2, models[0].size_bytes: 'size_bytes' is not a known key; use path, url,"
                " huggingface, civitai, sha256, size, required, preload, links"
            ),
        ),
        ("version: 1\n{a: b}: 1", "line 2: a key is not text; write a name before the colon"),
        ("version: 1\n? [c]\n: 2", "line 2: a key is not text; write a name before the colon"),
        (
            "version: 1\nvolume: {size_gib: 20}",
            "line 2, volume.size_gib: 'size_gib' is not a known key; did you mean size_gb?",
        ),
        (
            "version: 1\ncomfyui: {arg: []}",
            "line 2, comfyui.arg: 'arg' is not a known key; did you mean args?",
        ),
        (
            "version: 1\nmodels:\n- path: vae/a\n  huggingface:\n    repo: o/n\n    file: a\n    revison: b",
            (
                "line 7, models[0].huggingface.revison: 'revison' is not a known key;"
                " did you mean revision?"
            ),
        ),
        (
            "version: 1\ncustom_nodes:\n- {name: A, git: https://h/o/n, reff: v1}",
            "line 3, custom_nodes[0].reff: 'reff' is not a known key; did you mean ref?",
        ),
        (
            "version: 1\nmodels:\n- path: vae/a\n  url: http://h/a\n  path: vae/b",
            "line 5, models[0].path: stands here a second time, after line 3; keep one of the two",
        ),
        (
            "version: 1\nmodels:\n- <<: {civitai: 1}\n  civitai: 1\n  path: vae/a",
            (
                "line 3, models[0].<<: '<<' is not a known key; use path, url, huggingface, civitai,"
                " sha256, size, required, preload, links"
            ),
        ),
    ],
)
def test_a_key_that_is_wrong_is_named_with_the_one_that_was_meant(text: str, error: str) -> None:
    assert errors(text) == [f"models.yaml {error}"]


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


def test_a_key_is_not_expanded() -> None:
    of_key, of_source = model_errors("path: vae/a, '${A}': http://h/a", {"A": "url"})

    assert of_key.startswith("${A}: '${A}' is not a known key; use path,")
    assert of_source == f": has no source; {_ONE_SOURCE}"


@pytest.mark.parametrize("version", ["2", "1.0", "'1'", "one", "[1]", "~"])
def test_only_version_1_is_read(version: str) -> None:
    (error,) = errors(f"version: {version}")

    assert error.startswith("models.yaml line 1, version: ")
    assert error.endswith("; give 1")


# Values of a model

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
    assert of_path.endswith(f"' {cause}; {_PATH}")
    assert of_link.startswith("links[1]: '")
    assert f"' {cause}; give a list of more places" in of_link


@pytest.mark.parametrize(("file", "cause"), _WRONG_FILES)
def test_a_file_of_a_repository_stays_in_it(file: str, cause: str) -> None:
    (error,) = model_errors(f'path: vae/a, huggingface: {{repo: o/n, file: "{file}"}}')

    assert error.startswith("huggingface.file: '")
    assert error.endswith(f"' {cause}; give the file's path in the repository")


@pytest.mark.parametrize(
    ("field", "cause"),
    [
        ("civitai: '131960'", "'131960' is text in quotes"),
        *((f"civitai: {n}", f"'{n}' {_WHOLE}") for n in ("0", "0x1f", "1_000", "1:30", "9" * 22)),
        ("civitai: [1]", "a list is not a single value"),
        ("civitai: {}", "a mapping is not a single value"),
        ("civitai: ", "is empty"),
        ("url: ", "is empty"),
        ("url: ''", "'' is empty"),
        ("url: [http://h/a]", "a list is not a single value"),
        ("huggingface: o/n/a", "'o/n/a' is not a mapping"),
        ("huggingface: [o/n]", "a list is not a mapping"),
        ("huggingface: ", "is empty"),
        *((f"url: h, size: {n}", f"'{n}' {_WHOLE}") for n in ("1.5", "-1", "6.9 GB")),
        ("url: h, size: '5'", "'5' is text in quotes"),
        ("url: h, required: yes", "'yes' is neither true nor false"),
        ("url: h, required: 'true'", "'true' is text in quotes"),
        ("url: h, preload: 1", "'1' is neither true nor false"),
        ("url: h, links: vae/b", "'vae/b' is not a list"),
        ("url: h, links: {vae: b}", "a mapping is not a list"),
        ("url: h, sha256: abc", "'abc' has 3 characters"),
        (f"url: h, sha256: {'g' * 64}", f"'{'g' * 64}' is not all hex digits"),
        ("url: h, sha256: ", "is empty"),
        ("url: !secret x", "tags (!secret) are not read here"),
    ],
)
def test_a_field_of_the_wrong_type_or_form_is_refused(field: str, cause: str) -> None:
    (error,) = model_errors(f"path: vae/a, {field}".replace("url: h,", "url: http://h/a,"))

    name = field.rpartition(", ")[2].partition(":")[0]
    assert error.startswith(f"{name}: {cause}; ")


@pytest.mark.parametrize("size", ["0", "-1", "20GB", "1e3", ".inf", ".nan", "'20'", "[20]", "0.0"])
def test_a_volume_has_a_size_above_zero(size: str) -> None:
    (error,) = errors(f"version: 1\nvolume: {{size_gb: {size}}}")

    assert error.startswith("models.yaml line 2, volume.size_gb: ")
    assert error.endswith("; give the volume's size as bought, in GB, such as 20")


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        *(
            (url, "is not an http, https or file URL")
            for url in ("DUMMY_URL", "ftp://h/a", "//h/a", "HTTP://h/a", "s3://bucket/a")
        ),
        *((url, "has no host") for url in ("http:h/a", "https:///a", "https://:80/a")),
        *(
            (url, "has no valid host and port")
            for url in ("http://h:99999/a", "http://h:port/a", "http://[::1/a")
        ),
        ("http://h/a b", r"holds a space or a backslash (%20 and %5C in a URL)"),
        (r"http://h\other", r"holds a space or a backslash (%20 and %5C in a URL)"),
        *(
            (url, "has no absolute path, as file:///folder/file has")
            for url in ("file:a", "file://host/a", "file://")
        ),
    ],
)
def test_a_url_that_no_model_can_have_is_refused(url: str, cause: str) -> None:
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


def test_an_unset_and_an_empty_name_are_both_named() -> None:
    assert model_errors("path: 'vae/${UNSET}${EMPTY}', url: http://h/a", {"EMPTY": ""}) == [
        "path: the environment variable UNSET is not set; set it, or remove ${UNSET}",
        "path: the environment variable EMPTY is empty; set it, or remove ${EMPTY}",
    ]


@pytest.mark.parametrize("value", ["${", "${}", "${A", "${A B}", "${1A}", "x${A-b}"])
def test_what_only_looks_like_a_name_is_refused(value: str) -> None:
    assert model_errors(f"path: vae/a, url: 'http://h/{value}'", {"A": "x"}) == [
        "url: a ${ is not followed by NAME}; write ${NAME}, or $${ for a literal ${"
    ]


def test_a_long_or_broken_value_still_makes_one_short_line() -> None:
    (error,) = model_errors(f'path: vae/a, url: "x\\n\\u2028{"y" * 5000}"')

    assert error.startswith(r"url: 'x\n\u2028yyy")
    assert len(error) < 200


# Between models


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
    assert model_errors("path: vae/a") == [f": has no source; {_ONE_SOURCE}"]
    assert model_errors(
        "path: vae/a, civitai: 1, url: http://h/a, huggingface: {repo: o/n, file: a}"
    ) == [f": has civitai and url and huggingface; {_ONE_SOURCE}"]


# Nodes and ComfyUI


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (
            "git",
            (
                *("github.com/o/n", "--upload-pack=x", "ext::sh -c x", "git://h/o/n"),
                *("https://github.com", "https:///n", "https://h:x/n", "https://h/o n"),
                *("ssh://-oProxyCommand=x/n", "git@-x:o/n", "git@h:-x", "git@h", "file://"),
            ),
        ),
        ("name", ("", ".", "..", ".x", "a/b", "-a", "a b", "a" * 129, r"a\\b")),
        ("ref", ("", "-x", "a b", "a..b", "a:b", "a~1", "@{1}", "/a", "a/", "x.lock")),
    ],
)
def test_what_git_or_a_folder_could_take_for_something_else_is_refused(
    field: str, values: tuple[str, ...]
) -> None:
    for value in values:
        node = {"name": "A", "git": "https://h/o/n", "ref": "v1"} | {field: value}
        (error,) = errors(f"version: 1\ncustom_nodes: [{node}]")
        assert error.startswith(f"models.yaml line 2, custom_nodes[0].{field}: '")


def test_two_nodes_do_not_share_one_folder() -> None:
    node = "- {name: A, git: https://h/o/a, ref: v1}\n"

    assert errors(f"version: 1\ncustom_nodes:\n{node}{node}") == [
        (
            "models.yaml line 4, custom_nodes[1].name: is the same folder as"
            " custom_nodes[0].name of line 3; change or remove one of the two"
        )
    ]


@pytest.mark.parametrize(
    ("arg", "cause"),
    [
        *((arg, "is set by this program") for arg in OWN_COMFYUI_ARGS),
        *((arg, "is set by this program") for arg in ("--port=9", "--list", "--output-dir=/x")),
        ("--i", "is set by this program"),
        ("--lowvram --cpu", "is two arguments in one"),
    ],
)
def test_an_argument_that_comfyui_must_not_get_is_refused(arg: str, cause: str) -> None:
    (error,) = errors(f"version: 1\ncomfyui: {{args: ['{arg}']}}")

    assert f"comfyui.args[0]: '{arg}' {cause}; " in error


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
        ("x: *none", "line 1: is not YAML (found undefined alias"),
        (
            "x: " + "[" * 50 + "]" * 50,
            "line 1: is nested too deeply; remove what is not needed there",
        ),
        ("[" * 100_000, "line 1: is not YAML (exceeded maximum nesting depth)"),
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


def test_aliases_of_aliases_and_of_themselves_are_read_once() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]

    found = errors("\n".join(["version: 1", *lines, "models: &m [*m]"]))

    assert len(found) == 61
    assert "models[0]: a list is not a mapping" in found[-1]


def test_a_file_that_can_not_be_read_is_named_with_how_to_name_another(tmp_path: Path) -> None:
    for path, cause in ((tmp_path / "none.yaml", "there is no such file"), (tmp_path, "can't be")):
        with pytest.raises(ManifestError) as caught:
            read_manifest(path, {})

        assert str(caught.value).startswith(f"{path}: {cause}")
        assert str(caught.value).endswith("; name one that can be read with --models or MORPHEUS_MODELS")  # fmt: skip


def test_a_mistake_names_its_file_with_the_whole_path(tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text("version: 2")

    with pytest.raises(ManifestError) as caught:
        read_manifest(file, {})

    assert str(caught.value).startswith(f"{file} line 1, version: ")


# Any text

_FRAGMENTS = st.sampled_from(
    [
        *("version: 1", "models:", "- path: a/b", "url: http://h/x", "custom_nodes:", "volume:"),
        *("huggingface: {repo: a/b, file: c}", "civitai: 1", "links: [a/b]", "size_gb: 2", "args:"),
        *("${A}", "${", "&a", "*a", "!!int", "!x", "<<:", "? ", ": ", "- ", "[", "]", "{", "}"),
        *("'", '"', "\n", "\n  ", "\n    ", "\t", "|", ">", "#", "---", "...", "%YAML 1.1"),
        *("\\ud800", "\x85"),
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
