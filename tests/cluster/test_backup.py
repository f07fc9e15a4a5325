"""A platform that has lost its volumes comes back from a backup, and the loop goes on."""

from pathlib import Path

from deploy.backups import manifest
from mlplatform.clients.kubernetes import MODEL_ROLLOUTS, VOLUME_CLAIMS
from mlplatform.contracts import Rollout
from serving.rollout import machine
from tests.cluster.clients import Answers
from tests.cluster.installation import NAME, USECASE, Installation
from tests.cluster.plans import QUICK
from tests.cluster.test_faults import PER_SECOND, Seen, sound_copy, under_load, verdicts
from tests.cluster.test_faults import _logged as logged
from tests.cluster.waiting import wait

STATEFUL = ("postgres", "redis")
PSQL = 'PGPASSWORD="$POSTGRES_PASSWORD" psql -qtA -h 127.0.0.1 -U postgres -d registry -c "$0"'
VERSIONS = "SELECT name, version, run_id FROM model_versions ORDER BY name, version"


def test_what_was_lost_with_its_volumes_is_restored_while_requests_are_answered(
    platform: Installation, seen: Seen, tmp_path: Path
) -> None:
    with under_load(platform) as before:
        pass
    asked = {scored.request_id for _, scored in before.scored}
    wait(lambda: asked <= set(logged(platform)), 120)
    wait(lambda: platform.status.get("phase") in {"serving", "promoted", "rolled_back"}, 60)
    champion, versions = platform.status["champion"], _versions(platform)
    folder = tmp_path / "backup"

    platform.command("backup", "--out", str(folder))
    made = manifest.read(folder)
    (ledger,) = made.of("ledger")
    assert ledger.head is not None
    assert "secrets" not in {copy.part for copy in made.copies}

    with under_load(platform) as answers:
        _lose_everything(platform)
        platform.command("restore", str(folder), "--replace")
        wait(lambda: _by_the_model(answers, champion), 120, lambda: str(answers.scored[-1:]))
    seen.append((answers, "the model answers, with fresh features"))

    assert (0, 0) == (answers.lost, answers.refused)
    assert platform.ledger.verify(ledger.head) >= ledger.head.count
    assert versions == _versions(platform)
    assert champion == platform.status["champion"]
    assert asked <= set(logged(platform))
    assert f"version {champion} is in" in _fetched(platform, champion)


def test_the_loop_goes_on_after_a_restore(platform: Installation, seen: Seen) -> None:
    version = sound_copy(platform)
    with under_load(platform) as answers:
        platform.ask(plan=QUICK, version=version)
        platform.until("promoted", version=version, seconds=900)

    seen.append((answers, f"version {version} is promoted"))
    assert "promoted" == verdicts(platform, version)[-1]
    assert version == platform.status["champion"]


def test_a_restore_into_a_platform_with_something_to_lose_is_refused(
    platform: Installation, tmp_path: Path
) -> None:
    folder = tmp_path / "backup"
    platform.command("backup", "--out", str(folder))
    before = platform.cluster.get(MODEL_ROLLOUTS, NAME)["metadata"]["uid"]

    try:
        said = platform.command("restore", str(folder))
    except AssertionError as error:
        said = str(error)

    assert "not empty here" in said
    assert before == platform.cluster.get(MODEL_ROLLOUTS, NAME)["metadata"]["uid"]
    assert platform.ready("operator")


def _lose_everything(platform: Installation) -> None:
    """Take the databases' volumes away, and empty the others."""
    names = [f"mlplatform-{name}" for name in STATEFUL]
    for name in names:
        platform.kubectl("scale", f"statefulset/{name}", "--replicas=0")
    wait(lambda: not any(platform.pods(name) for name in STATEFUL), 180)
    for name in names:
        platform.cluster.delete(VOLUME_CLAIMS, f"data-{name}-0")
    claims = [f"data-{name}-0" for name in names]
    wait(lambda: not any(platform.cluster.find(VOLUME_CLAIMS, claim) for claim in claims), 120)
    for deployment, gone in (
        ("registry", "/artifacts/*"),
        ("archiver", "/data/predictions/* /data/features/raw /data/features/offline"),
    ):
        script = ("sh", "-c", f"rm -rf {gone}")
        platform.kubectl("exec", f"deployment/mlplatform-{deployment}", "--", *script)
    for name in names:
        platform.kubectl("scale", f"statefulset/{name}", "--replicas=1")
    wait(lambda: all(platform.ready(name) for name in STATEFUL), 240)


def _versions(platform: Installation) -> list[str]:
    said = platform.kubectl("exec", "mlplatform-postgres-0", "--", "sh", "-c", PSQL, VERSIONS)
    return said.split()


def _by_the_model(answers: Answers, champion: int) -> bool:
    """Whether nearly all newest answers are the model's: a busy machine misses some budgets."""
    newest = [scored for _, scored in answers.scored[-PER_SECOND:]]
    whole = [one for one in newest if one.version == champion and not one.degraded]
    return len(whole) > 0.9 * PER_SECOND


def _fetched(platform: Installation, champion: int) -> str:
    """Fetch and verify the champion where models are served."""
    body = platform.status.get("rollout")
    digest = _digest(platform, body, champion)
    return platform.kubectl(
        "exec", "deployment/mlplatform-operator", "--", "python", "-m", "serving.triton.fetch",
        "--usecase", USECASE, "--version", str(champion), "--digest", digest,
        "--target", "embedded", "--out", f"/tmp/fetched-{champion}",  # noqa: S108 (in the pod)
    )  # fmt: skip


def _digest(platform: Installation, body: object, champion: int) -> str:
    if body is not None:
        return machine.serves(Rollout.model_validate(body)).digest
    (pod,) = platform.pods("triton", **{"mlplatform.dev/version": str(champion)})
    return str(pod["metadata"]["annotations"]["mlplatform.dev/model-digest"])
