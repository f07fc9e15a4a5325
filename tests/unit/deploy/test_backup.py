"""A backup is refused unless it is whole, and says what it holds from what was written."""

import io
import json
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deploy.backups import manifest, rollouts
from deploy.backups.copied_rows import LEDGER, Contents, contents, verified_head
from deploy.backups.manifest import Copied, Manifest
from deploy.backups.volumes import DATA, pod
from mlplatform.contracts import Decision
from mlplatform.errors import DataError, LedgerError
from mlplatform.ledger import Head
from mlplatform.ledger.chain import GENESIS, link, text

FILE = "ledger.dump"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished backup of one file."""
    (tmp_path / FILE).write_bytes(b"rows" * 1000)
    size, digest = manifest.described(tmp_path / FILE)
    copy = Copied(part="ledger", file=FILE, size=size, sha256=digest, database="ledger")
    made = Manifest(
        made_at=datetime(2026, 3, 1, tzinfo=UTC),
        namespace="mlplatform",
        versions={},
        signing_key="",
        copies=(copy,),
        left_out={},
    )
    manifest.write(tmp_path, made)
    return tmp_path


def test_a_whole_backup_is_read(folder: Path) -> None:
    found = manifest.read(folder)

    assert ("ledger",) == found.parts
    assert 0o600 == (folder / manifest.NAME).stat().st_mode & 0o777


def cut_short(folder: Path) -> None:
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-1])


def changed(folder: Path) -> None:
    (folder / FILE).write_bytes(b"rowz" * 1000)


def removed(folder: Path) -> None:
    (folder / FILE).unlink()


def without_manifest(folder: Path) -> None:
    (folder / manifest.NAME).unlink()


def of_a_later_release(folder: Path) -> None:
    found = json.loads((folder / manifest.NAME).read_text())
    (folder / manifest.NAME).write_text(json.dumps(found | {"format": 2}))


def that_leads_elsewhere(folder: Path) -> None:
    path = folder / manifest.NAME
    path.write_text(path.read_text().replace(FILE, "../ledger.dump"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(cut_short, "cut short", id="cut short"),
        pytest.param(changed, "was changed", id="changed"),
        pytest.param(removed, "is missing", id="missing"),
        pytest.param(without_manifest, "did not end", id="unfinished"),
        pytest.param(of_a_later_release, "another release", id="later release"),
        pytest.param(that_leads_elsewhere, "cannot be read", id="leads elsewhere"),
    ],
)
def test_a_backup_that_is_not_whole_is_refused(
    folder: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(folder)

    with pytest.raises(DataError, match=said):
        manifest.read(folder)


def archive(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, kind in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            file.addfile(member, io.BytesIO())
    return path


def test_a_copied_volume_holds_files_and_folders_of_its_own(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "data.tar",
        ("predictions", tarfile.DIRTYPE),
        ("predictions/a.parquet", tarfile.REGTYPE),
        ("features/raw/b.parquet", tarfile.REGTYPE),
    )

    assert 2 == manifest.check_archive(path, DATA.folders)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param("predictions/link", tarfile.SYMTYPE, id="link"),
        pytest.param("predictions/device", tarfile.CHRTYPE, id="device"),
        pytest.param("predictions/../../etc/passwd", tarfile.REGTYPE, id="upwards"),
        pytest.param("/predictions/a", tarfile.REGTYPE, id="absolute"),
        pytest.param("features/registry.db", tarfile.REGTYPE, id="another folder"),
    ],
)
def test_a_copied_volume_with_anything_else_is_refused(
    tmp_path: Path, name: str, kind: bytes
) -> None:
    path = archive(tmp_path / "data.tar", (name, kind))

    with pytest.raises(DataError, match="holds"):
        manifest.check_archive(path, DATA.folders)


def test_what_is_no_copied_volume_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.tar").write_bytes(b"<html>" * 500)

    with pytest.raises(DataError, match="cannot be read"):
        manifest.check_archive(tmp_path / "data.tar", ())


def dumped(*decisions: Decision) -> list[str]:
    """The text of a dump of a ledger with these decisions."""

    def cell(value: object) -> str:
        found = str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
        return found.replace("\r", "\\r")

    rows, last = [], GENESIS
    for seq, decision in enumerate(decisions, start=1):
        written = text(decision)
        previous, last = last, link(seq, last, written)
        cells = (seq, decision.key, decision.usecase, decision.kind, decision.subject, written,
                 previous, last)  # fmt: skip
        rows.append("\t".join(map(cell, cells)))
    columns = "seq, key, usecase, kind, subject, decision, prev_hash, hash"
    return [
        "-- PostgreSQL database dump",
        f"COPY public.ledger_entries ({columns}) FROM stdin;", *rows, "\\.",
        "COPY public.ledger_head (id, count, hash) FROM stdin;",
        f"1\t{len(rows)}\t{last}", "\\.",
        'COPY public."values" ("order", note) FROM stdin;', "1\t\\N", "\\.",
        "SELECT pg_catalog.setval('public.runs_id_seq', 7, true);",
    ]  # fmt: skip


@pytest.fixture
def decide() -> Callable[..., Decision]:
    def make(key: str, **changes: Any) -> Decision:
        found = {
            "key": key, "usecase": "flight_delay", "kind": "gate", "subject": "xgboost",
            "verdict": "accepted", "reason": "tab\tline\nback\\slash ü", "actor": "test",
            "evidence": {"margin": 0.01}, "at": "2013-12-31T23:59:59.123456Z",
        }  # fmt: skip
        return Decision.model_validate(found | changes)

    return make


def test_the_rows_of_a_dump_are_counted_and_its_chain_is_checked(
    decide: Callable[..., Decision],
) -> None:
    found = contents(dumped(decide("a"), decide("b\\t")), LEDGER)

    assert {"ledger_entries": 2, "ledger_head": 1, "values": 1} == found.rows
    assert "values" not in found.kept
    assert 2 == verified_head(found).count


def test_a_dump_that_ends_within_a_table_is_refused(decide: Callable[..., Decision]) -> None:
    with pytest.raises(DataError, match="cut short"):
        contents(dumped(decide("a"))[:3], LEDGER)


def test_a_ledger_that_was_edited_is_refused(decide: Callable[..., Decision]) -> None:
    lines = [line.replace("accepted", "rejected") for line in dumped(decide("a"), decide("b"))]

    with pytest.raises(LedgerError, match="row 1"):
        verified_head(contents(lines, LEDGER))


def test_a_ledger_with_another_past_than_was_known_is_refused(
    decide: Callable[..., Decision],
) -> None:
    found = contents(dumped(decide("a"), decide("b")), LEDGER)

    with pytest.raises(LedgerError, match="row 1"):
        verified_head(found, Head(count=1, hash="0" * 64))


def test_a_dump_without_a_ledger_is_refused() -> None:
    with pytest.raises(DataError, match="no ledger"):
        verified_head(Contents(rows={"runs": 3}))


def rollout(spec: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {"name": "flight-delay", "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("now", "then", "wanted"),
    [
        pytest.param(None, {"id": 3}, {"id": 3}, id="none since"),
        pytest.param({"id": 5}, {"id": 3}, {"id": 5}, id="a later one stays"),
        pytest.param({"id": 1}, {"id": 3}, {"id": 3}, id="an earlier one gives way"),
        pytest.param({"id": 1}, None, {"id": 1}, id="the first one stays"),
    ],
)
def test_the_id_of_an_order_never_falls(
    now: dict[str, int] | None, then: dict[str, int] | None, wanted: dict[str, int]
) -> None:
    found = {"spec": {"usecase": "flight_delay"} | ({"order": now} if now else {})}
    kept = rollout({"usecase": "flight_delay", "version": 7} | ({"order": then} if then else {}))

    assert {"usecase": "flight_delay", "version": 7, "order": wanted} == rollouts.spec(found, kept)


def test_two_looks_at_rollouts_differ_only_by_their_states() -> None:
    before = [rollout({"usecase": "flight_delay"}, rollout={"step": 1}, message="waits")]
    after = [rollout({"usecase": "flight_delay"}, rollout={"step": 1}, message="still waits")]
    turned = [rollout({"usecase": "flight_delay"}, rollout={"step": 2}, message="waits")]

    assert rollouts.states(before) == rollouts.states(after)
    assert rollouts.states(before) != rollouts.states(turned)


@pytest.mark.parametrize("content", ["[1", "{}x", '[{"name": "a"}]', "[7]"])
def test_a_list_of_rollouts_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "rollouts.json").write_text(content)

    with pytest.raises(DataError, match="ModelRollout"):
        rollouts.load(tmp_path / "rollouts.json")


DEPLOYMENT: dict[str, Any] = {
    "spec": {
        "template": {
            "spec": {
                "serviceAccountName": "mlplatform-archiver",
                "securityContext": {"runAsUser": 10001, "fsGroup": 10001},
                "nodeSelector": {"pool": "ml"},
                "tolerations": [{"key": "ml", "operator": "Exists"}],
                "containers": [
                    {
                        "image": "registry.example/mlplatform-features@sha256:" + "0" * 64,
                        "securityContext": {"readOnlyRootFilesystem": True},
                        "env": [{"name": "MLPLATFORM_REDIS_URL"}],
                    }
                ],
            }
        }
    }
}


def test_the_pod_that_mounts_a_volume_may_no_more_than_the_one_that_uses_it() -> None:
    spec = pod(DEPLOYMENT, DATA, "mlplatform-data", "node-1")["spec"]
    (container,) = spec["containers"]

    assert {"runAsUser": 10001, "fsGroup": 10001} == spec["securityContext"]
    assert {"readOnlyRootFilesystem": True} == container["securityContext"]
    assert container["image"].endswith("0" * 64)
    assert "env" not in container
    assert not spec["automountServiceAccountToken"]
    assert {"pool": "ml", "kubernetes.io/hostname": "node-1"} == spec["nodeSelector"]


def test_a_volume_that_no_pod_mounts_may_be_mounted_anywhere() -> None:
    spec = pod(DEPLOYMENT, DATA, "mlplatform-data", "")["spec"]

    assert {"pool": "ml"} == spec["nodeSelector"]
    assert spec["tolerations"]
