"""What a delivery promises: make has the logic, nobody has more rights than the job needs."""

import re
from collections import defaultdict

import pytest
import yaml

from tests.conftest import ROOT
from tests.delivery.workflows import (
    ACTIONS,
    GITHUB,
    NAMES,
    WORKFLOWS,
    Job,
    jobs,
    read,
    steps,
    targets,
)

PINNED = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")
WRITES = {
    "images:images": {"id-token"},
    "deploy:images": {"id-token"},
    "deploy:deploy": {"id-token"},
    "drift:drift": {"id-token", "issues"},
}
"""Jobs that may do more than read; the others have nobody's rights to lose."""
DOCUMENT = ROOT / "docs" / "delivery.md"
MAKEFILE = (ROOT / "Makefile").read_text()
CALLED = sorted({name for _, step in steps() for name in targets(step.get("run", ""))})
RUNNING = [job for job in jobs() if not job.calls]
ALL_TEXT = {path.name: path.read_text() for path in [*WORKFLOWS, *ACTIONS]}


@pytest.mark.parametrize("target", CALLED)
def test_every_target_that_a_workflow_calls_is_in_the_makefile(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", MAKEFILE, re.MULTILINE)


def test_a_step_is_one_command_that_a_person_has_too() -> None:
    commands = [step["run"].strip() for _, step in steps() if "run" in step]

    odd = [one for one in commands if not re.fullmatch(r"make [^\n;|&]+|\.github/[\w-]+\.sh", one)]
    assert [] == odd


def test_nothing_from_outside_is_written_into_a_script() -> None:
    assert [] == [place for place, step in steps() if "${{" in step.get("run", "")]


def test_every_action_is_pinned_by_its_commit() -> None:
    used = [step["uses"] for _, step in steps() if "uses" in step]
    foreign = [one for one in used if not one.startswith("./")]

    assert [] == [one for one in foreign if not PINNED.match(one)]
    assert foreign


def test_every_pin_says_which_version_it_is_and_all_uses_of_an_action_agree() -> None:
    pins = defaultdict(set)
    for text in ALL_TEXT.values():
        for action, pin in re.findall(r"uses: ([\w.-]+/[\w./-]+)@(.+)", text):
            pins[action].add(pin)

    assert dict.fromkeys(pins, 1) == {action: len(found) for action, found in pins.items()}
    unsaid = [pin for found in pins.values() for pin in found if not re.search(r" # v\d+\.", pin)]
    assert [] == unsaid


def test_what_is_used_from_this_repository_is_there() -> None:
    own = [step["uses"] for _, step in steps() if step.get("uses", "").startswith("./")]
    own += [job.body["uses"] for job in jobs() if job.calls]

    files = [path if path.endswith(".yml") else f"{path}/action.yml" for path in own]
    assert [] == [path for path in files if not (ROOT / path).is_file()]


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_has_no_permission_that_its_jobs_do_not_name(name: str) -> None:
    assert {} == read(name)["permissions"]


@pytest.mark.parametrize("job", jobs(), ids=str)
def test_a_job_names_its_permissions_and_writes_only_what_the_table_says(job: Job) -> None:
    given = job.body["permissions"]

    assert WRITES.get(str(job), set()) == {name for name, how in given.items() if how == "write"}
    assert "read" == given["contents"]


@pytest.mark.parametrize("job", RUNNING, ids=str)
def test_a_job_ends(job: Job) -> None:
    assert 0 < job.body["timeout-minutes"] <= 180


@pytest.mark.parametrize("job", RUNNING, ids=str)
def test_a_checkout_leaves_no_token_behind(job: Job) -> None:
    checkouts = [step for step in job.steps if "actions/checkout@" in step.get("uses", "")]

    assert [False] == [step["with"]["persist-credentials"] for step in checkouts]


@pytest.mark.parametrize("name", ALL_TEXT)
def test_there_is_no_secret_to_steal(name: str) -> None:
    text = ALL_TEXT[name]

    assert "secrets." not in text
    assert "secrets:" not in text
    assert ("github.token" in text) == (name == "drift.yml")


@pytest.mark.parametrize("name", NAMES)
def test_a_stranger_starts_nothing_that_has_rights(name: str) -> None:
    triggers = set(read(name)["on"])
    delivers = any(job.startswith(f"{name}:") for job in WRITES)

    assert set() == triggers & {"pull_request_target", "workflow_run", "issue_comment"}
    assert not (delivers and "pull_request" in triggers)


@pytest.mark.parametrize("job", [job for job in RUNNING if str(job) in WRITES], ids=str)
def test_a_job_with_rights_takes_no_packages_from_a_cache(job: Job) -> None:
    setup = [step for step in job.steps if step.get("uses") == "./.github/actions/setup"]

    assert [{"cache": "false"}] == [step["with"] for step in setup]
    assert all("actions/cache" not in step.get("uses", "") for step in job.steps)


def test_a_delivery_waits_for_the_checks_and_a_release_for_the_loop() -> None:
    deploy = read("deploy")

    assert {"push": {"branches": ["main"], "tags": ["v*"]}} == deploy["on"]
    assert ["check", "cluster"] == deploy["jobs"]["images"]["needs"]
    assert "images" == deploy["jobs"]["deploy"]["needs"]
    assert "github.ref_type == 'tag'" == deploy["jobs"]["cluster"]["if"]
    assert deploy["concurrency"]["cancel-in-progress"] is False


def test_a_tag_goes_to_prod_and_a_merge_to_dev() -> None:
    chosen = "${{ github.ref_type == 'tag' && 'prod' || 'dev' }}"
    found = read("deploy")["jobs"]

    assert chosen == found["images"]["with"]["environment"]
    assert chosen == found["deploy"]["environment"]
    assert chosen == found["deploy"]["env"]["ENVIRONMENT"]


def test_images_are_verified_before_they_are_deployed_and_asked_afterwards() -> None:
    commands = [step["run"].split()[1] for step in read("deploy")["jobs"]["deploy"]["steps"]
                if "run" in step]  # fmt: skip

    assert ["verify", "deploy", "upload", "predict", "doctor"] == commands


def test_images_are_scanned_before_they_are_signed() -> None:
    commands = [step["run"] for step in read("images")["jobs"]["images"]["steps"] if "run" in step]

    assert ["make images", "make scan", "make sign"] == commands


def test_the_signer_that_is_asked_for_is_the_workflow_that_signs() -> None:
    verify = next(step for _, step in steps() if step.get("run") == "make verify")
    signing = read("deploy")["jobs"]["images"]["uses"].removeprefix("./")

    expected = f"https://github.com/${{{{ github.repository }}}}/{signing}@${{{{ github.ref }}}}"
    assert expected == verify["env"]["SIGNER_IDENTITY"]


def test_uv_and_python_are_those_of_the_makefile_and_the_images() -> None:
    setup = yaml.safe_load((GITHUB / "actions" / "setup" / "action.yml").read_text())
    given = setup["runs"]["steps"][0]["with"]
    python = re.search(r"python:([\d.]+)-", (ROOT / "images" / "gateway.Dockerfile").read_text())

    assert re.search(rf"^UV_VERSION \?= {re.escape(given['version'])}$", MAKEFILE, re.MULTILINE)
    assert python is not None
    assert python.group(1) == given["python-version"]


def test_a_program_has_one_version_in_all_workflows() -> None:
    versions = defaultdict(set)
    for _, step in steps():
        action = step.get("uses", "").partition("@")[0]
        for key, value in (step.get("with") or {}).items():
            if key == "version" or key.endswith("_version"):
                program = "kubectl" if key == "kubectl_version" else action
                program = program.replace("azure/setup-", "")
                versions[program].add(value)

    assert dict.fromkeys(versions, 1) == {k: len(v) for k, v in versions.items()}
    assert {"kubectl", "helm", "hashicorp/setup-terraform"} <= set(versions)


def test_updates_come_for_every_folder_that_pins_something() -> None:
    updates = yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]
    folders = {
        entry["package-ecosystem"]: entry.get("directories") or [entry["directory"]]
        for entry in updates
    }

    assert {"uv", "github-actions", "terraform", "docker"} == set(folders)
    expected = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("local/*/uv.lock")} | {"."}
    assert expected == {one.strip("/") or "." for one in folders["uv"]}
    patterns = [one.strip("/") for found in folders.values() for one in found if one != "/"]
    assert [] == [one for one in patterns if not list(ROOT.glob(one))]


def test_the_document_names_every_workflow_environment_and_variable() -> None:
    text = DOCUMENT.read_text()
    variables = {name for one in ALL_TEXT.values() for name in re.findall(r"vars\.(\w+)", one)}
    environments = [
        f"{name}{what}" for name in ("dev", "prod") for what in ("", "-images", "-plan")
    ]

    assert [] == [name for name in NAMES if f"`{name}.yml`" not in text]
    assert [] == [name for name in sorted(variables) if f"`{name}`" not in text]
    assert [] == [name for name in environments if f"`{name}`" not in text]


def test_every_make_command_of_the_document_is_in_the_makefile() -> None:
    named = set(re.findall(r"`make ([a-z-]+)", DOCUMENT.read_text()))

    assert set() == {one for one in named if not re.search(rf"^{one}:", MAKEFILE, re.MULTILINE)}
