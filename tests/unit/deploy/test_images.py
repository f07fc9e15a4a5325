"""The images: what they hold, when they are made anew, and how Helm gets to know them."""

import ast
import http.server
import json
import os
import re
import shutil
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from deploy import image_recipes, images
from deploy.container_tool import ContainerTool
from deploy.image_recipes import RECIPES, Recipe
from deploy.image_registry import stored
from mlplatform.errors import ServiceError, SettingsError

ROOT = Path(__file__).parents[3]
OURS = ("mlplatform", "usecases", "feature_repo", "pipelines", "serving", "monitoring", "local")
DIGEST = "sha256:" + "a" * 64
EACH = pytest.mark.parametrize("recipe", [pytest.param(it, id=it.role) for it in RECIPES])
DOCKERFILE = """
ARG PYTHON=docker.io/library/python:3.11
FROM ${PYTHON} AS first
COPY uv.lock ./
FROM ${PYTHON}
COPY --from=first /lock /lock
COPY --chmod=0644 app \\
     /app
"""


def _text(recipe: Recipe) -> str:
    return (ROOT / recipe.file).read_text(encoding="utf-8")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one image that copies `app` and `uv.lock`."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.Dockerfile").write_text(DOCKERFILE)
    (tmp_path / ".dockerignore").write_text("*\n!app\n!uv.lock\n**/__pycache__\n**/*.pyc\n")
    (tmp_path / "app" / "__pycache__").mkdir(parents=True)
    (tmp_path / "app" / "main.py").write_text("answer = 42")
    (tmp_path / "uv.lock").write_text("version = 1")
    (tmp_path / "README.md").write_text("read me")
    return tmp_path


@pytest.fixture
def tag(repository: Path) -> Callable[..., str]:
    return lambda **bases: image_recipes.tag(Recipe("one"), repository, bases)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        pytest.param("app/main.py", "answer = 43", id="source"),
        pytest.param("app/more.py", "", id="new-file"),
        pytest.param("uv.lock", "version = 2", id="pins"),
        pytest.param("images/one.Dockerfile", f"# New.{DOCKERFILE}", id="dockerfile"),
    ],
)
def test_an_image_has_another_tag_when_what_it_is_made_of_changes(
    file: str, text: str, repository: Path, tag: Callable[..., str]
) -> None:
    before = tag()

    (repository / file).write_text(text)

    assert before != tag()


@pytest.mark.parametrize("file", ["README.md", "app/__pycache__/main.pyc", "app/main.pyc"])
def test_an_image_keeps_its_tag_when_something_else_changes(
    file: str, repository: Path, tag: Callable[..., str]
) -> None:
    before = tag()

    (repository / file).write_text("other")

    assert before == tag()


def test_a_program_that_may_be_run_from_now_on_is_another_image(
    repository: Path, tag: Callable[..., str]
) -> None:
    before = tag()

    (repository / "app" / "main.py").chmod(0o755)

    assert before != tag()


def test_the_base_image_counts_where_it_is_used(tag: Callable[..., str]) -> None:
    assert tag() != tag(PYTHON=f"python@{DIGEST}")
    assert tag() == tag(REDIS=f"redis@{DIGEST}")


@EACH
def test_an_image_runs_as_nobody_in_particular(recipe: Recipe) -> None:
    users = re.findall(r"^USER (.*)$", _text(recipe), re.MULTILINE)

    assert ["10001:10001"] == users


@EACH
def test_an_image_says_what_it_is_and_of_which_commit(recipe: Recipe) -> None:
    text = _text(recipe)

    assert f'org.opencontainers.image.title="mlplatform-{recipe.role}"' in text
    assert 'org.opencontainers.image.revision="${GIT_COMMIT}"' in text


@EACH
def test_a_base_image_is_an_argument_with_a_tag(recipe: Recipe) -> None:
    text = _text(recipe)
    bases = re.findall(r"^FROM \$\{(\w+)\}", text, re.MULTILINE)

    assert len(bases) == len(re.findall(r"^FROM ", text, re.MULTILINE))
    for base in bases:
        assert re.search(rf"^ARG {base}=docker\.io/[\w./-]+:\d[\w.-]+$", text, re.MULTILINE)


@EACH
def test_an_image_holds_whatever_of_ours_it_imports(recipe: Recipe) -> None:
    copied = {path.relative_to(ROOT) for path in image_recipes.inputs(_text(recipe), ROOT)}
    modules = [path for path in copied if path.parts[0] in OURS and path.suffix == ".py"]

    imported = set()
    for path in modules:
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])

    # A mirror of the base image, or the model server, runs no code of ours.
    folders = {path.parts[0] for path in copied}
    # The registry's accounts need the kernel alone.
    assert imported & set(OURS) <= folders


@EACH
def test_a_build_may_see_all_that_an_image_copies(recipe: Recipe) -> None:
    allowed = [
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]

    for path in image_recipes.inputs(_text(recipe), ROOT):
        name = str(path.relative_to(ROOT))
        assert any(name == it or name.startswith(f"{it}/") for it in allowed), name


def test_an_image_installs_groups_that_exist_each_on_top_of_the_one_before() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    known = groups["dependency-groups"]

    for recipe in RECIPES:
        text = _text(recipe)
        exported = re.findall(r"^RUN \./export\.sh (.+)$", text, re.MULTILINE)
        installed = re.findall(r"install\.sh /opt/locked/\w+/(\w+)\.txt", text)
        if exported:
            assert exported[0].split() == installed
            assert set(installed) <= set(known)


def test_images_share_the_layers_of_the_groups_that_they_share() -> None:
    """A layer is shared when all before it is the same, to the letter."""
    heads: dict[str, set[str]] = {}
    for recipe in RECIPES:
        runtime = _text(recipe).rpartition("\nFROM ${PYTHON}\n")[2]
        first = re.search(r"/opt/locked/(\w+)/\1\.txt\n", runtime)
        if first:
            heads.setdefault(first[1], set()).add(runtime[: first.end()])

    assert {1} == {len(texts) for texts in heads.values()}
    assert {"serving", "features", "registry", "triton"} == set(heads)


def test_images_are_built_with_the_uv_that_everybody_uses() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    version = re.search(r"^UV_VERSION \?= (.+)$", makefile, re.MULTILINE)
    asked = {
        found
        for recipe in RECIPES
        for found in re.findall(r"^ARG UV_VERSION=(.+)$", _text(recipe), re.MULTILINE)
    }

    assert version is not None
    assert {version[1]} == asked


def test_no_recipe_is_without_a_dockerfile_nor_the_other_way_round() -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "images").glob("*.Dockerfile")}

    assert files == {recipe.file for recipe in RECIPES}


def test_a_role_without_an_image_of_its_own_names_the_one_that_it_runs_from() -> None:
    assert ["features"] == [it.role for it in image_recipes.chosen(["archiver"])]
    assert [it.role for it in RECIPES] == [it.role for it in image_recipes.chosen([])]
    with pytest.raises(SettingsError, match="no image is for gatway: there are those for gateway"):
        image_recipes.chosen(["gatway"])


@pytest.mark.parametrize(
    "reference", ["nvcr.io/nvidia/tritonserver:26.07-py3", f"@{DIGEST}", "x@sha256:12", ""]
)
def test_a_server_for_gpus_that_is_not_named_by_digest_is_refused(reference: str) -> None:
    with pytest.raises(SettingsError, match="look it up with `docker buildx imagetools inspect"):
        image_recipes.by_digest(reference)


def test_helm_gets_each_role_by_digest_and_keeps_what_was_not_made() -> None:
    made = images.Made(Recipe("features", runs=("archiver",)), "r/f", DIGEST, True, 1.0, 5, None)
    before = {"gateway": {"repository": "r/g", "digest": DIGEST}}

    found = images.merged(before, [made], f"nvcr.io/nvidia/tritonserver@{DIGEST}")

    assert found["gateway"] == before["gateway"]
    assert found["features"] == found["archiver"] == {"repository": "r/f", "digest": DIGEST}
    assert found["triton-gpu"]["repository"] == "nvcr.io/nvidia/tritonserver"


class _Registry(http.server.BaseHTTPRequestHandler):
    """A registry that knows one image under any tag, or none."""

    there = False

    def do_GET(self) -> None:
        body = json.dumps({"layers": [{"digest": "sha256:1", "size": 7}]}).encode()
        self.send_response(200 if self.there else 404)
        self.send_header("Docker-Content-Digest", DIGEST)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name)
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    _Registry.there = False
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Registry) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A podman that writes down what it is asked for, and pushes to nowhere."""
    log, folder = tmp_path / "calls", tmp_path / "bin"
    folder.mkdir()
    program = folder / "podman"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\n'
        "for word; do case $word in --digestfile=*) "
        f'printf %s {DIGEST} > "${{word#--digestfile=}}";; esac; done\n'
        '[ "$1" != image ] || echo \'[{"Size": 12}]\'\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda: log.read_text().splitlines() if log.exists() else []


def test_an_image_is_built_with_its_inputs_as_a_label_and_pushed(
    registry: str, calls: Callable[[], list[str]]
) -> None:
    made = images.Workshop(ContainerTool("podman"), registry, {}).make(Recipe("redis"))

    build, push, *_ = calls()
    assert made.built
    assert (DIGEST, 12) == (made.digest, made.on_disk)
    inputs = image_recipes.tag(Recipe("redis"), ROOT, {})
    assert f"--label=mlplatform.dev/inputs={inputs}" in build
    assert f"--tag {registry}/mlplatform-redis:{inputs}" in build
    assert push.startswith("push --quiet --tls-verify=false")


def test_an_image_that_is_in_the_registry_is_not_built_again(
    registry: str, calls: Callable[[], list[str]]
) -> None:
    _Registry.there = True

    made = images.Workshop(ContainerTool("podman"), registry, {}).make(Recipe("redis"))

    assert not made.built
    assert DIGEST == made.digest
    assert not [call for call in calls() if call.startswith(("build", "push"))]


def test_a_registry_that_does_not_answer_does_not_know_the_image(registry: str) -> None:
    assert stored(f"{registry}/x", "tag") is None
    assert stored("127.0.0.1:1/x", "tag") is None


def test_a_build_that_fails_says_what_the_tool_said(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "podman").write_text("#!/bin/sh\necho no space left >&2\nexit 1\n")
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    with pytest.raises(ServiceError, match="no space left"):
        images.Workshop(ContainerTool("podman"), registry, {}).make(Recipe("redis"))


def test_a_tool_that_is_neither_is_refused() -> None:
    with pytest.raises(SettingsError, match="CONTAINER_TOOL is 'nerdctl'"):
        ContainerTool("nerdctl")


def test_without_a_repository_of_git_the_commit_is_unknown(tmp_path: Path) -> None:
    assert "unknown" == images.commit(tmp_path, [])
    if shutil.which("git"):
        assert re.fullmatch(
            r"[0-9a-f]{40}(-changed)?|unknown", images.commit(ROOT, [ROOT / "uv.lock"])
        )


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://someone:secret@git.example.com/team/ml.git", "https://git.example.com/team/ml"),
        ("git@git.example.com:team/ml.git", "https://git.example.com/team/ml"),
        ("ssh://git@git.example.com:2222/team/ml", "https://git.example.com/team/ml"),
        ("/srv/git/ml", None),
        ("", None),
    ],
)
def test_an_image_names_its_source_without_credentials(remote: str, address: str | None) -> None:
    assert address == images.public_address(remote)


def test_values_are_written_for_helm(
    registry: str,
    calls: Callable[[], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    assert 0 == images.main(["--only", "redis", "--registry", registry, "--tool", "podman"])

    written = yaml.safe_load((tmp_path / "build/cluster/images.yaml").read_text())
    image = {"repository": f"{registry}/mlplatform-redis", "digest": DIGEST}
    assert {"images": {"redis": image}} == written
    assert calls()
