"""What each mistake in models.yaml says: its line, its field, what is wrong and what was expected; all at once."""

from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morpheus_boot.config.settings import OWN_COMFYUI_ARGS
from morpheus_boot.errors import ManifestError, MorpheusError
from morpheus_boot.manifest import read_manifest
from tests.manifest.reading import errors, model_errors, read

_PATH = "give folder/file as below ComfyUI's models/, such as checkpoints/x.safetensors"


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
        ("version: 1\n\nmodles: []", "line 3, modles: {} is not a known key; did you mean models?"),
        (
            "version: 1\nzzz: 1",
            "line 2, zzz: {} is not a known key; use version, volume, comfyui, models, custom_nodes",
        ),
        ("models: []", "line 1, version: is missing; give 1"),
        ("version: 1\n{a: b}: 1", "line 2: a key is not text; write a name before the colon"),
        ("version: 1\n? [c]\n: 2", "line 2: a key is not text; write a name before the colon"),
        (
            "version: 1\nvolume: {size_gib: 20}",
            "line 2, volume.size_gib: {} is not a known key; did you mean size_gb?",
        ),
        (
            "version: 1\ncomfyui: {arg: []}",
            "line 2, comfyui.arg: {} is not a known key; did you mean args?",
        ),
        (
            "version: 1\nmodels:\n- path: vae/a\n  huggingface:\n    repo: o/n\n    file: a\n    revison: b",
            "line 7, models[0].huggingface.revison: {} is not a known key; did you mean revision?",
        ),
        (
            "version: 1\ncustom_nodes:\n- {name: A, git: https://h/o/n, reff: v1}",
            "line 3, custom_nodes[0].reff: {} is not a known key; did you mean ref?",
        ),
        (
            "version: 1\nmodels:\n- path: vae/a\n  url: http://h/a\n  path: vae/b",
            "line 5, models[0].path: stands here a second time, after line 3; keep one of the two",
        ),
    ],
)
def test_a_key_that_is_wrong_is_named_with_the_one_that_was_meant(text: str, error: str) -> None:
    key = error.partition(":")[0].rpartition(" ")[2].rpartition(".")[2]

    assert errors(text) == [f"models.yaml {error.format(repr(key))}"]


@pytest.mark.parametrize("version", ["2", "1.0", "'1'", "one", "[1]", "~"])
def test_only_version_1_is_read(version: str) -> None:
    (error,) = errors(f"version: {version}")

    assert error.startswith("models.yaml line 1, version: ")
    assert error.endswith("; give 1")


# What a model of these fields says, without its place; "..." stands for the rest of a line.
_MODELS = r"""
pth: vae/a, url: http://h/a            => pth: 'pth' is not a known key; did you mean path?
path: vae/a, ulr: http://h/a           => ulr: 'ulr' is not a known key; did you mean url?
path: vae/a, civitai: 1, SHA256: x     => SHA256: 'SHA256' is not a known key; did you mean sha256?
path: vae/a, civitai: 1, sha: x        => sha: 'sha' is not a known key; did you mean sha256?
path: vae/a, civitai: 1, preloaded: x  => preloaded: 'preloaded' is not a known key; did you mean preload?
path: vae/a, civitai: 1, size_bytes: 1 => size_bytes: 'size_bytes' is not a known key; use path, ..., preload, links
path: vae/a, civitai: 1, <<: {civitai: 1} => <<: '<<' is not a known key; use path, url, huggingface, ...
path: vae/a, '${A}': 1                 => ${A}: '${A}' is not a known key; use ... & : has no source; give exactly ...
path: vae/a                            => : has no source; give exactly one of url, huggingface, civitai
path: vae/a, civitai: 1, url: file:/a  => : has civitai and url; give exactly one of url, huggingface, civitai
path: vae/a, civitai: 1, links: [vae/a] => links[0]: is the same place as models[0].path of line 2; change or remove ...
path: vae/a, civitai: '131960'         => civitai: '131960' is text in quotes; give a model version's id, such as 131960
path: vae/a, civitai: 0                => civitai: '0' is not a whole number above 0 in plain digits; ...
path: vae/a, civitai: 0x1f             => civitai: '0x1f' is not a whole number above 0 in plain digits; ...
path: vae/a, civitai: 1_000            => civitai: '1_000' is not a whole number above 0 in plain digits; ...
path: vae/a, civitai: 1:30             => civitai: '1:30' is not a whole number above 0 in plain digits; ...
path: vae/a, civitai: 9999999999999999999 => civitai: '9999999999999999999' is not a whole number above 0 ...
path: vae/a, civitai: [1]              => civitai: a list is not a single value; ...
path: vae/a, civitai: {}               => civitai: a mapping is not a single value; ...
path: vae/a, civitai:                  => civitai: is empty; ...
path: vae/a, url:                      => url: is empty; ...
path: vae/a, url: ''                   => url: '' is empty; ...
path: vae/a, url: [http://h/a]         => url: a list is not a single value; ...
path: vae/a, url: !secret x            => url: tags (!secret) are not read here; remove it, and put text in quotes
path: vae/a, huggingface: o/n/a        => huggingface: 'o/n/a' is not a mapping; give {repo: owner/name, file: ...
path: vae/a, huggingface: [o/n, a]     => huggingface: a list is not a mapping; ...
path: vae/a, huggingface:              => huggingface: is empty; ...
path: vae/a, civitai: 1, size: 1.5     => size: '1.5' is not a whole number above 0 in plain digits; give the file's ...
path: vae/a, civitai: 1, size: -1      => size: '-1' is not a whole number above 0 in plain digits; ...
path: vae/a, civitai: 1, size: 6.9 GB  => size: '6.9 GB' is not a whole number above 0 in plain digits; ...
path: vae/a, civitai: 1, size: '5'     => size: '5' is text in quotes; ...
path: vae/a, civitai: 1, required: yes => required: 'yes' is neither true nor false; give true or false
path: vae/a, civitai: 1, required: 'true' => required: 'true' is text in quotes; give true or false
path: vae/a, civitai: 1, preload: 1    => preload: '1' is neither true nor false; give true or false
path: vae/a, civitai: 1, links: vae/b  => links: 'vae/b' is not a list; give a list of more places ...
path: vae/a, civitai: 1, links: {a: b} => links: a mapping is not a list; ...
path: vae/a, civitai: 1, sha256: abc   => sha256: 'abc' has 3 characters; give 64 hex digits
path: vae/a, civitai: 1, sha256:       => sha256: is empty; give 64 hex digits
path: vae/a, url: DUMMY_URL            => url: 'DUMMY_URL' is not an http, https or file URL; give a URL such as ...
path: vae/a, url: 'ftp://h/a'          => url: 'ftp://h/a' is not an http, https or file URL; ...
path: vae/a, url: //h/a                => url: '//h/a' is not an http, https or file URL; ...
path: vae/a, url: 'HTTP://h/a'         => url: 'HTTP://h/a' is not an http, https or file URL; ...
path: vae/a, url: 's3://bucket/a'      => url: 's3://bucket/a' is not an http, https or file URL; ...
path: vae/a, url: 'http:h/a'           => url: 'http:h/a' has no host; give a URL such as https://host/file
path: vae/a, url: 'https:///a'         => url: 'https:///a' has no host; ...
path: vae/a, url: 'https://:80/a'      => url: 'https://:80/a' has no host; ...
path: vae/a, url: 'http://h:99999/a'   => url: 'http://h:99999/a' has no valid host and port; ...
path: vae/a, url: 'http://h:port/a'    => url: 'http://h:port/a' has no valid host and port; ...
path: vae/a, url: 'http://[::1/a'      => url: 'http://[::1/a' has no valid host and port; ...
path: vae/a, url: 'http://h/a b'       => url: 'http://h/a b' holds a space or a backslash (%20 and %5C in a URL); ...
path: vae/a, url: 'http://h\other'     => url: 'http://h\other' holds a space or a backslash (%20 and %5C in a URL); ...
path: vae/a, url: 'file:a'             => url: 'file:a' has no absolute path, as file:///folder/file has; ...
path: vae/a, url: 'file://host/a'      => url: 'file://host/a' has no absolute path, as file:///folder/file has; ...
path: vae/a, url: 'file://'            => url: 'file://' has no absolute path, as file:///folder/file has; ...
path: vae/a, url: 'http://h/${'        => url: a ${ is not followed by NAME}; write ${NAME}, or $${ for a literal ${
path: vae/a, url: 'http://h/${}'       => url: a ${ is not followed by NAME}; ...
path: vae/a, url: 'http://h/${A'       => url: a ${ is not followed by NAME}; ...
path: vae/a, url: 'http://h/${A B}'    => url: a ${ is not followed by NAME}; ...
path: vae/a, url: 'http://h/${1A}'     => url: a ${ is not followed by NAME}; ...
path: vae/a, url: 'http://h/${EMPTY}'  => url: the environment variable EMPTY is empty; set it, or remove ${EMPTY}
path: 'vae/${X}${Y}', civitai: 1       => path: the environment variable X is not set; ... & path: the environment ...
path: vae/a, huggingface: {repo: name, file: a} => huggingface.repo: 'name' is not owner/name; give owner/name, ...
path: vae/a, huggingface: {repo: a/b/c, file: a} => huggingface.repo: 'a/b/c' is not owner/name; ...
path: vae/a, huggingface: {repo: /b, file: a}   => huggingface.repo: '/b' is not owner/name; ...
path: vae/a, huggingface: {repo: a/, file: a}   => huggingface.repo: 'a/' is not owner/name; ...
path: vae/a, huggingface: {repo: a/.., file: a} => huggingface.repo: 'a/..' is not owner/name; ...
path: vae/a, huggingface: {repo: -a/b, file: a} => huggingface.repo: '-a/b' is not owner/name; ...
path: vae/a, huggingface: {repo: a b/c, file: a} => huggingface.repo: 'a b/c' is not owner/name; ...
path: vae/a, huggingface: {repo: a/b, file: a, type: x} => huggingface.type: 'x' ...; give model, dataset or space
path: vae/a, huggingface: {} => huggingface.repo: is missing; give owner/name, ... & huggingface.file: is missing; ...
""".strip().splitlines()


@pytest.mark.parametrize("line", _MODELS)
def test_what_is_wrong_with_a_model_is_said_with_what_was_expected(line: str) -> None:
    fields, _, said = line.partition("=>")

    found = model_errors(fields, {"A": "x", "EMPTY": ""})

    patterns = [w.replace("[", "[[]").replace("...", "*") for w in said.strip().split(" & ")]
    assert len(found) == len(patterns)
    assert all(map(fnmatchcase, found, patterns)), found


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
def test_a_path_a_link_or_a_file_that_is_not_below_its_folder_is_refused(
    path: str, cause: str
) -> None:
    (of_path,) = model_errors(f'path: "{path}", url: http://h/a')
    (of_link,) = model_errors(f'path: clip/x, url: http://h/a, links: [clip/y, "{path}"]')
    of_file = model_errors(f'path: vae/a, huggingface: {{repo: o/n, file: "{path}"}}')

    assert of_path.startswith("path: '")
    assert of_path.endswith(f"' {cause}; {_PATH}")
    assert of_link.startswith("links[1]: '")
    assert f"' {cause}; give a list of more places" in of_link
    # A repository may have files at its top, and hidden ones.
    assert len(of_file) == ((path, cause) in _WRONG_FILES)
    for error in of_file:
        assert error.startswith("huggingface.file: '")
        assert error.endswith(f"' {cause}; give the file's path in the repository")


@pytest.mark.parametrize("size", ["0", "-1", "20GB", "1e3", ".inf", ".nan", "'20'", "[20]", "0.0"])
def test_a_volume_has_a_size_above_zero(size: str) -> None:
    (error,) = errors(f"version: 1\nvolume: {{size_gb: {size}}}")

    assert error.startswith("models.yaml line 2, volume.size_gb: ")
    assert error.endswith("; give the volume's size as bought, in GB, such as 20")


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
        (
            "version: 1\nmodels:\n\t- path: x",
            "line 3: is not YAML (found character that cannot start any token); indent with spaces, not with tabs",
        ),
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
