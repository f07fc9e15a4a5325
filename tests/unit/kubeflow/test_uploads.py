"""Pipelines and recurring runs are made what they are to be, however often that is asked for."""

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mlplatform.clients.kubeflow_pipelines import KubeflowPipelines, Recurring
from mlplatform.errors import NotFoundError, ServiceError
from mlplatform.settings import KubeflowSettings, PipelineSettings
from pipelines import submit
from tests.unit.kubeflow.stand_in import API, KubeflowApi, serving

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAME = "training-flight_delay"
WANTED = Recurring(
    name=NAME,
    pipeline="training",
    parameters={"usecase": "flight_delay"},
    every=timedelta(days=90),
    enabled=False,
    description="Every 90 days.",
)
OTHERS = {"recurring_run_id": "theirs", "display_name": "of a person", "status": "ENABLED"}


@pytest.fixture
def api() -> Iterator[KubeflowApi]:
    with serving() as served:
        yield served


def client(api: KubeflowApi, **settings: Any) -> KubeflowPipelines:
    return KubeflowPipelines(KubeflowSettings(endpoint=api.url, **settings))


def upload(api: KubeflowApi, version: str) -> tuple[str, bool]:
    return client(api).upload("training", version, version.encode(), "Compiled from here.")


def schedule(api: KubeflowApi, wanted: Recurring | None, now: datetime = NOW) -> str:
    return client(api).schedule(NAME, wanted, now)


def test_an_upload_makes_the_pipeline_and_the_version_and_again_nothing(api: KubeflowApi) -> None:
    assert ("c1-aa", True) == upload(api, "c1-aa")
    assert ("c1-aa", False) == upload(api, "c1-aa")
    assert ("c2-bb", True) == upload(api, "c2-bb")

    assert ["training"] == [item["display_name"] for item in api.pipelines]
    versions = api.versions["id-of-training"]
    assert ["c1-aa", "c2-bb"] == [version["display_name"] for version in versions]
    assert [b"c1-aa", b"c2-bb"] == api.packages
    assert "Compiled from here." == versions[0]["description"]


def test_going_back_to_older_code_makes_it_the_newest_again(api: KubeflowApi) -> None:
    for version in ("c1-aa", "c2-bb"):
        upload(api, version)

    assert ("c1-aa-again-1", True) == upload(api, "c1-aa")
    assert ("c1-aa-again-1", False) == upload(api, "c1-aa")
    assert ("c2-bb-again-1", True) == upload(api, "c2-bb")
    assert b"c1-aa" == api.packages[2]


def test_an_upload_that_nobody_heard_of_is_found_the_next_time(api: KubeflowApi) -> None:
    upload(api, "c1-aa")
    api.breaks("lost", "POST", f"{API}/pipelines/upload_version")
    with pytest.raises(ServiceError, match="POST /pipelines/upload_version of Kubeflow Pipelines"):
        upload(api, "c2-bb")

    assert ("c2-bb", False) == upload(api, "c2-bb")


def test_a_recurring_run_is_made_once_and_switched_off(api: KubeflowApi) -> None:
    api.upload("training", "v1")
    api.recurring.append(OTHERS)

    assert ["made", "unchanged"] == [schedule(api, WANTED), schedule(api, WANTED)]
    theirs, ours = api.recurring
    assert OTHERS == theirs
    assert "DISABLED" == ours["status"]
    assert {"pipeline_id": "id-of-training"} == ours["pipeline_version_reference"]
    assert {"usecase": "flight_delay"} == ours["runtime_config"]["parameters"]
    assert ("1", True) == (ours["max_concurrency"], ours["no_catchup"])
    assert {
        "start_time": "2026-03-01T12:00:00Z",
        "interval_second": "7776000",
    } == ours["trigger"]["periodic_schedule"]


def test_a_recurring_run_is_switched_on_and_off_in_place(api: KubeflowApi) -> None:
    api.upload("training", "v1")
    schedule(api, WANTED)
    on = replace(WANTED, enabled=True)

    assert "switched on" == schedule(api, on)
    assert "unchanged" == schedule(api, on)
    assert "switched off" == schedule(api, WANTED)
    assert ["recurring-1"] == [item["recurring_run_id"] for item in api.recurring]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(WANTED, every=timedelta(days=30)), id="interval"),
        pytest.param(replace(WANTED, parameters={"usecase": "other"}), id="parameters"),
        pytest.param(replace(WANTED, pipeline="batch_scoring"), id="pipeline"),
    ],
)
def test_a_recurring_run_that_differs_is_replaced(api: KubeflowApi, other: Recurring) -> None:
    for name in ("training", "batch_scoring"):
        api.upload(name, "v1")
    schedule(api, WANTED)

    assert "made anew" == schedule(api, other)
    assert "unchanged" == schedule(api, other)
    assert ["recurring-2"] == [item["recurring_run_id"] for item in api.recurring]


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_concurrency", "10"), ("no_catchup", False), ("pipeline_version_reference", {})],
)
def test_what_a_person_changed_by_hand_is_put_right(
    api: KubeflowApi, field: str, value: object
) -> None:
    api.upload("training", "v1")
    schedule(api, WANTED)
    api.recurring[0][field] = value

    assert "made anew" == schedule(api, WANTED)
    assert 1 == len(api.recurring)


def test_of_two_that_two_submitters_made_one_is_left(api: KubeflowApi) -> None:
    api.upload("training", "v1")
    schedule(api, WANTED)
    api.recurring.append(api.recurring[0] | {"recurring_run_id": "twin"})

    assert "removed" == schedule(api, WANTED)
    assert ["recurring-1"] == [item["recurring_run_id"] for item in api.recurring]


def test_a_spec_without_a_schedule_leaves_no_recurring_run(api: KubeflowApi) -> None:
    api.upload("training", "v1")
    api.recurring.append(OTHERS)
    schedule(api, WANTED)

    assert ["removed", "unchanged"] == [schedule(api, None), schedule(api, None)]
    assert [OTHERS] == api.recurring


def test_a_schedule_that_is_replaced_again_and_again_still_falls_due(api: KubeflowApi) -> None:
    api.upload("training", "v1")
    for day in range(0, 200, 10):
        description = {"parameters": {"usecase": str(day)}}
        schedule(api, replace(WANTED, **description), NOW + timedelta(days=day))  # type: ignore[arg-type]

    begins = datetime.fromisoformat(api.recurring[0]["trigger"]["periodic_schedule"]["start_time"])
    assert NOW + timedelta(days=180) == begins, "on the first one's beat, and not in the future"


def test_a_schedule_of_a_pipeline_that_is_not_there_is_refused(api: KubeflowApi) -> None:
    with pytest.raises(NotFoundError, match=r"no pipeline is called training at .*: upload it"):
        schedule(api, WANTED)


def test_kfps_own_client_sends_the_same(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "training.yaml"
    package.write_bytes(b"pipeline")
    client(api).upload("training", "v1", b"pipeline", "For people.")
    schedule(api, WANTED)
    ours = {path: body for method, path, _, body in api.asked if method == "POST"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        import kfp

        monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "none"))
        theirs = kfp.Client(host=api.url, namespace="team-a")
        theirs._context_setting["namespace"] = None
        api.asked.clear()
        theirs.upload_pipeline_version(str(package), "v2", "id-of-training", description="x")
        theirs.create_recurring_run(
            "id-of-retraining", NAME, WANTED.description,
            start_time="2026-03-01T12:00:00Z", interval_second=int(WANTED.seconds),
            max_concurrency=1, no_catchup=True, params=dict(WANTED.parameters),
            pipeline_id="id-of-training", version_id="v2", enabled=False,
        )  # fmt: skip
    (_, path, query, sent), (_, other, _, body) = api.asked

    assert (f"{API}/pipelines/upload_version", b"pipeline") == (path, sent)
    assert {"name": "v2", "pipelineid": "id-of-training", "description": "x"} == query
    assert sent == ours[path]
    # The client wants a version; the API takes the newest where none is named.
    assert "v2" == body["pipeline_version_reference"].pop("pipeline_version_id")
    # Numbers of 64 bits may be sent as they are, and come back as texts.
    body["max_concurrency"] = str(body["max_concurrency"])
    seconds = body["trigger"]["periodic_schedule"]["interval_second"]
    body["trigger"]["periodic_schedule"]["interval_second"] = str(seconds)
    assert _without_nothing(body) == ours[other]


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nothing(item) for name, item in value.items() if item is not None}
    return value


def test_a_version_is_named_after_commit_and_content() -> None:
    one, other = (
        submit.packages(PipelineSettings(image=image), "0123456789abcdef")
        for image in ("python@sha256:1", "python@sha256:2")
    )

    assert ["training", "batch_scoring"] == [package.name for package in one]
    digest = hashlib.sha256(one[0].content).hexdigest()
    assert f"0123456789ab-{digest[:12]}" == one[0].version
    assert one[0].version != other[0].version
    assert one == submit.packages(PipelineSettings(image="python@sha256:1"), "0123456789abcdef")


def test_the_commands_bring_a_fresh_installation_where_it_is_to_be(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLPLATFORM_KUBEFLOW_ENDPOINT", api.url)
    run = ["run", "--usecase", "flight_delay", "--key", "monday", "--as-of", "2013-07-01T00:00:00Z"]
    for _ in range(2):
        for command in (["upload"], ["schedule"], run):
            assert 0 == submit.main(command), capsys.readouterr().err

    assert ["training", "batch_scoring"] == [item["display_name"] for item in api.pipelines]
    assert [NAME] == [item["display_name"] for item in api.recurring]
    (started,) = api.runs
    assert {
        "usecase": "flight_delay",
        "as_of": "2013-07-01T00:00:00+00:00",
        "request": "monday",
    } == started["runtime_config"]["parameters"]
    said = capsys.readouterr().out.splitlines()
    assert "flight_delay: recurring run training-flight_delay: off: the trigger keeps it, made" in (
        said
    )
    assert ["flight_delay: training under key monday is run run-1"] * 2 == [
        line for line in said if "under key" in line
    ]


def test_without_a_key_and_a_time_a_run_is_known_by_when_it_was_asked_for(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.upload("training", "v1")
    monkeypatch.setenv("MLPLATFORM_KUBEFLOW_ENDPOINT", api.url)

    assert 0 == submit.main(["run", "--usecase", "flight_delay"])
    (started,) = api.runs
    assert started["display_name"].startswith("training-by-hand-2")
    assert {"usecase", "request"} == set(started["runtime_config"]["parameters"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--usecase", "nothing"], "there is no use case 'nothing'", id="use case"),
        pytest.param(
            ["--usecase", "flight_delay", "--as-of", "now"], "'now' is not a time", id="time"
        ),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_is_started(
    api: KubeflowApi,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("MLPLATFORM_KUBEFLOW_ENDPOINT", api.url)

    assert 1 == submit.main(["run", *arguments])
    assert said in capsys.readouterr().err
    assert [] == api.asked
