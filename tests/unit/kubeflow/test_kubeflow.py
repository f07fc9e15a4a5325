"""A request is one run in a cluster, whatever the API server answers, or does not."""

import time
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlplatform.clients.kubeflow import KubeflowOrchestrator
from mlplatform.contracts.retrain import RunState
from mlplatform.errors import NotFoundError, ServiceError
from mlplatform.settings import KubeflowSettings
from monitoring.submit import CLAIM
from tests.unit.kubeflow.stand_in import API, KubeflowApi, serving

KEY = "0123456789abcdef" * 2
PARAMETERS = {"usecase": "flight_delay", "as_of": "2013-07-01T02:00:00+00:00"}


@pytest.fixture
def api() -> Iterator[KubeflowApi]:
    with serving() as served:
        served.upload("training", "v1", "v2")
        served.upload("batch_scoring", "v9")
        yield served


def client(api: KubeflowApi, **settings: Any) -> KubeflowOrchestrator:
    return KubeflowOrchestrator(KubeflowSettings(endpoint=api.url, **settings))


def submit(api: KubeflowApi, **settings: Any) -> str:
    return client(api, **settings).submit("training", PARAMETERS, KEY)


def test_the_newest_version_runs_with_the_key_in_its_name_and_its_parameters(
    api: KubeflowApi,
) -> None:
    assert "run-1" == submit(api)

    (run,) = api.runs
    assert f"training-{KEY}" == run["display_name"]
    assert {**PARAMETERS, "request": KEY} == run["runtime_config"]["parameters"]
    assert {
        "pipeline_id": "id-of-training",
        "pipeline_version_id": "v2",
    } == run["pipeline_version_reference"]
    assert "id-of-retraining" == run["experiment_id"]
    assert "service_account" not in run


@pytest.mark.parametrize("state", ["PENDING", "SUCCEEDED", "FAILED", "CANCELED"])
def test_a_run_that_carries_the_key_is_the_keys_run_however_it_is(
    api: KubeflowApi, state: str
) -> None:
    first = submit(api)
    api.runs[0]["state"] = state
    api.upload("training-later", "v1")

    assert first == submit(api)
    assert 1 == len(api.runs)


@pytest.mark.parametrize("name", [f"training-{KEY[:-1]}0", f"training-{KEY}1", KEY])
def test_a_run_of_another_key_is_another_one(api: KubeflowApi, name: str) -> None:
    api.runs.append({"run_id": "other", "display_name": name, "state": "SUCCEEDED"})

    assert "other" != submit(api)


@pytest.mark.parametrize("fault", ["lost", "slow"])
def test_a_run_whose_start_nobody_heard_of_is_found_the_next_time(
    api: KubeflowApi, fault: str
) -> None:
    api.breaks(fault, "POST", f"{API}/runs")
    with pytest.raises(ServiceError, match=r"POST /runs of Kubeflow Pipelines at .* failed"):
        submit(api, timeout_seconds=0.3)

    found = submit(api)

    assert [found] == [run["run_id"] for run in api.runs]


FAULTS = ["503", "404 of a proxy", "login page", "redirect", "a list", "lost", "slow"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("path", ["runs", "pipelines", "experiments"])
def test_nothing_is_started_on_an_answer_that_is_none(
    api: KubeflowApi, path: str, fault: str
) -> None:
    api.breaks(fault, "GET", f"{API}/{path}")

    begun = time.monotonic()
    with pytest.raises(ServiceError, match=rf"GET /{path} of Kubeflow Pipelines"):
        submit(api, timeout_seconds=0.3)
    assert time.monotonic() - begun < 5
    assert [] == api.runs
    assert submit(api)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_state_is_not_guessed_from_an_answer_that_is_none(api: KubeflowApi, fault: str) -> None:
    run = submit(api)
    api.breaks(fault, "GET", f"{API}/runs/{run}")

    with pytest.raises(ServiceError):
        client(api, timeout_seconds=0.3).state(run)


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("RUNTIME_STATE_UNSPECIFIED", "running"),
        ("PENDING", "running"),
        ("RUNNING", "running"),
        ("CANCELING", "running"),
        ("PAUSED", "running"),
        (None, "running"),
        ("SUCCEEDED", "succeeded"),
        ("SKIPPED", "failed"),
        ("FAILED", "failed"),
        ("CANCELED", "failed"),
    ],
)
def test_every_state_of_a_run_is_one_of_ours(
    api: KubeflowApi, said: str | None, state: RunState
) -> None:
    run = submit(api)
    api.runs[0]["state"] = said

    assert state == client(api).state(run)


def test_a_run_that_was_deleted_is_unknown(api: KubeflowApi) -> None:
    assert "unknown" == client(api).state("gone/../elsewhere?x")
    assert f"{API}/runs/gone%2F..%2Felsewhere%3Fx" == api.asked[-1][1]


def test_a_pipeline_that_is_not_there_is_named(api: KubeflowApi) -> None:
    api.upload("empty")

    with pytest.raises(NotFoundError, match="no pipeline is called trainig at http"):
        client(api).submit("trainig", PARAMETERS, KEY)
    with pytest.raises(NotFoundError, match="the pipeline empty has no version"):
        client(api).submit("empty", PARAMETERS, KEY)
    assert [] == api.runs


def test_a_multi_user_installation_is_told_the_namespace(api: KubeflowApi) -> None:
    api.multi_user = True
    with pytest.raises(ServiceError, match="namespace is empty"):
        submit(api)

    submit(api, namespace="team-a", service_account="trainer")

    assert "team-a" == api.experiments[0]["namespace"]
    assert "trainer" == api.runs[0]["service_account"]


def test_an_experiment_that_another_submitter_made_meanwhile_is_used(api: KubeflowApi) -> None:
    """It takes the most calls: all of them time out before another submitter takes over."""
    hidden = {"display_name": "retraining", "experiment_id": "id-of-retraining"}
    answer = api.answer

    def late(method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if method == "POST" and path.endswith("/experiments"):
            api.experiments.append(hidden)
        return answer(method, path, query, body)

    api.answer = late  # type: ignore[method-assign]
    submit(api)

    assert [hidden] == api.experiments
    assert "id-of-retraining" == api.runs[0]["experiment_id"]
    bounds = KubeflowSettings.model_fields["timeout_seconds"].metadata
    (longest,) = (bound.le for bound in bounds if hasattr(bound, "le"))
    others = 1  # the pipelines of all namespaces, after those of its own
    assert (len(api.asked) + others) * timedelta(seconds=longest) < CLAIM


def test_the_token_is_read_for_each_call(api: KubeflowApi, tmp_path: Path) -> None:
    token = tmp_path / "token"
    runs = client(api, token_file=str(token))
    with pytest.raises(ServiceError, match=r"token .* cannot be read .*KUBEFLOW_TOKEN_FILE"):
        runs.state("x")
    token.write_text("first\n")
    runs.state("x")
    token.write_text("second\n")
    runs.state("x")

    assert ["Bearer first", "Bearer second"] == api.tokens


def test_nobody_there_is_an_error_that_says_where() -> None:
    with pytest.raises(ServiceError, match=r"at http://127.0.0.1:9 failed: .*refused"):
        KubeflowOrchestrator(KubeflowSettings(endpoint="http://127.0.0.1:9")).state("x")


def test_certificates_that_cannot_be_read_are_named() -> None:
    with pytest.raises(ServiceError, match="the certificates in /none cannot be read"):
        KubeflowOrchestrator(KubeflowSettings(endpoint="https://kfp", ca_file="/none"))


def test_kfps_own_client_asks_the_same(
    api: KubeflowApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    submit(api)
    ours, api.asked = api.asked, []
    api.runs.clear()
    api.experiments.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        import kfp

        monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "none"))
        theirs = kfp.Client(host=api.url, namespace="team-a")
        theirs._context_setting["namespace"] = None
        pipeline = theirs.get_pipeline_id("training")
        version = theirs.list_pipeline_versions(pipeline, page_size=1, sort_by="created_at desc")
        newest = version.pipeline_versions[0].pipeline_version_id
        experiment = theirs.create_experiment("retraining")
        run = theirs.run_pipeline(
            experiment.experiment_id,
            f"training-{KEY}",
            pipeline_id=pipeline,
            version_id=newest,
            params={**PARAMETERS, "request": KEY},
        )
        theirs.get_run(run.run_id)
    client(api).state(run.run_id)
    ours.append(api.asked.pop())

    said = [(method, path, query.get("filter"), body) for method, path, query, body in ours]
    for method, path, query, body in api.asked:
        assert (method, path, query.get("filter"), body) in said
