"""Scanning, signing and verifying the images that a deployment takes."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deploy import provenance, vulnerabilities
from deploy.progress import Progress
from deploy.provenance import Image, Signer
from deploy.vulnerabilities import Acceptance, Vulnerability
from mlplatform.errors import ServiceError, SettingsError

GATEWAY = Image(repository="registry.example/mlplatform-gateway", digest=f"sha256:{'a' * 64}")
FEATURES = Image(repository="registry.example/mlplatform-features", digest=f"sha256:{'b' * 64}")
IMAGES = {"gateway": GATEWAY, "features": FEATURES}
SIGNER = Signer("https://github.com/o/r/.github/workflows/images.yml@refs/heads/main", "https://i")
TODAY = date(2026, 3, 1)
OPENSSL = {
    "VulnerabilityID": "CVE-2026-0001",
    "PkgName": "libssl3",
    "InstalledVersion": "3.0.1",
    "FixedVersion": "3.0.2",
    "Severity": "HIGH",
}
UNMENDED = OPENSSL | {"VulnerabilityID": "CVE-2026-0002", "FixedVersion": ""}
STAND_IN = """#!/usr/bin/env python3
# Writes down how it was called and answers as it was told.
import json, os, pathlib, sys
folder = pathlib.Path(__file__).parent
name = pathlib.Path(__file__).name
given = sys.argv[1:]
with (folder / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps([name, *given]) + "\\n")
if "--output" in given:
    pathlib.Path(given[given.index("--output") + 1]).write_text('{"components": [{}, {}]}')
refuses = folder / "refuses"
if refuses.exists() and refuses.read_text() in given[0]:
    sys.exit("Error: no matching signatures")
answer = folder / "report.json"
if name == "trivy" and given[0] == "sbom" and answer.exists():
    print(answer.read_text())
elif name == "trivy":
    print("{}")
"""


class Programs:
    """Stand-ins of trivy and cosign: neither their databases nor Sigstore are in a test's reach."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("trivy", "cosign"):
            program = folder / name
            program.write_text(STAND_IN)
            program.chmod(0o755)

    def report(self, *found: dict[str, Any]) -> None:
        (self.folder / "report.json").write_text(
            json.dumps({"Results": [{"Target": "debian"}, {"Vulnerabilities": found}]})
        )

    def refuse(self, command: str) -> None:
        (self.folder / "refuses").write_text(command)

    @property
    def calls(self) -> list[list[str]]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}", prepend=":")
    monkeypatch.chdir(tmp_path)
    return Programs(tmp_path / "bin")


@pytest.fixture
def progress() -> Progress:
    return Progress(Console(record=True, width=200))


def test_what_is_pushed_is_scanned_and_what_is_in_it_is_kept(
    programs: Programs, progress: Progress
) -> None:
    programs.report(UNMENDED)

    provenance.scan(IMAGES, progress)

    scanned = [call for call in programs.calls if call[:2] == ["trivy", "image"]]
    assert [GATEWAY.reference, FEATURES.reference] == [call[-1] for call in scanned]
    assert all("remote" in call for call in scanned)
    assert provenance.bill("gateway").is_file()
    assert "2 components, 1 known" in progress.console.export_text()


def test_a_vulnerability_that_is_mended_elsewhere_stops_the_delivery(
    programs: Programs, progress: Progress
) -> None:
    programs.report(OPENSSL)

    with pytest.raises(ServiceError, match="2 known vulnerabilities have a mended version"):
        provenance.scan(IMAGES, progress)

    said = progress.console.export_text()
    assert "gateway: high CVE-2026-0001 in libssl3 3.0.1, mended in 3.0.2" in said


def test_an_accepted_vulnerability_lets_the_delivery_through(
    programs: Programs, progress: Progress
) -> None:
    programs.report(OPENSSL)
    vulnerabilities.ACCEPTED.parent.mkdir()
    vulnerabilities.ACCEPTED.write_text(
        "accepted:\n  - {identifier: CVE-2026-0001, package: libssl3, until: 2999-01-01,\n"
        "     reason: not reachable from outside the pod}\n"
    )

    provenance.scan(IMAGES, progress)

    assert provenance.bill("features").is_file()


@pytest.mark.parametrize(
    ("until", "stops"),
    [
        pytest.param(date(2026, 3, 1), False, id="last day"),
        pytest.param(date(2026, 2, 28), True, id="the day after"),
    ],
)
def test_an_acceptance_ends(until: date, stops: bool) -> None:
    found = vulnerabilities.found(
        "gateway", json.dumps({"Results": [{"Vulnerabilities": [OPENSSL]}]})
    )
    accepted = Acceptance(
        identifier="CVE-2026-0001", package="libssl3", reason="base not rebuilt yet", until=until
    )  # fmt: skip

    assert stops == bool(vulnerabilities.blocking(found, [accepted], TODAY))


def test_an_acceptance_is_of_one_package() -> None:
    one = Vulnerability("gateway", "CVE-1", "libssl3", "1", "2", "HIGH")
    other = Acceptance(identifier="CVE-1", package="zlib", reason="of another package", until=TODAY)

    assert [one] == vulnerabilities.blocking([one], [other], TODAY)


def test_nobody_can_act_on_what_is_not_mended_anywhere() -> None:
    one = Vulnerability("gateway", "CVE-1", "libssl3", "1", "", "CRITICAL")

    assert [] == vulnerabilities.blocking([one], [], TODAY)


def test_a_vulnerability_that_two_layers_have_is_one() -> None:
    report = json.dumps(
        {"Results": [{"Vulnerabilities": [OPENSSL]}, {"Vulnerabilities": [OPENSSL]}]}
    )

    assert 1 == len(vulnerabilities.found("gateway", report))


def test_an_acceptance_without_a_reason_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "accepted.yaml"
    path.write_text("accepted: [{identifier: CVE-1, package: zlib, until: 2026-01-01}]")

    with pytest.raises(SettingsError, match=r"accepted\.yaml.*reason"):
        vulnerabilities.read(path)


def test_the_digest_is_signed_with_what_is_in_the_image(
    programs: Programs, progress: Progress
) -> None:
    provenance.scan({"gateway": GATEWAY}, progress)
    provenance.sign({"gateway": GATEWAY}, progress)

    bill = str(provenance.bill("gateway"))
    assert [
        ["cosign", "sign", "--yes"],
        ["cosign", "attest", "--yes", "--type", "cyclonedx", "--predicate", bill],
    ] == [call[:-1] for call in programs.calls[-2:]]
    assert [GATEWAY.reference] * 2 == [call[-1] for call in programs.calls[-2:]]


def test_what_was_not_scanned_is_not_signed(programs: Programs, progress: Progress) -> None:
    with pytest.raises(SettingsError, match=r"gateway, features not scanned"):
        provenance.sign(IMAGES, progress)

    assert [] == programs.calls


def test_an_image_is_verified_by_digest_against_one_signer(
    programs: Programs, progress: Progress
) -> None:
    provenance.verify({"gateway": GATEWAY}, SIGNER, progress)

    for call in programs.calls:
        assert f"--certificate-identity={SIGNER.identity}" in call
        assert "--certificate-oidc-issuer=https://i" in call
        assert GATEWAY.reference == call[-1]
    assert ["verify", "verify-attestation"] == [call[1] for call in programs.calls]


@pytest.mark.parametrize("missing", ["verify", "verify-attestation"])
def test_an_image_without_a_signature_is_refused(
    programs: Programs, progress: Progress, missing: str
) -> None:
    programs.refuse(missing)

    with pytest.raises(ServiceError, match="no matching signatures"):
        provenance.verify(IMAGES, SIGNER, progress)


def test_a_missing_program_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, progress: Progress
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SettingsError, match="cosign is not on PATH"):
        provenance.verify(IMAGES, SIGNER, progress)


def test_roles_that_share_an_image_have_it_signed_once() -> None:
    shared = {"features": FEATURES, "archiver": FEATURES, "gateway": GATEWAY}

    assert {"features": FEATURES, "gateway": GATEWAY} == provenance.own(shared)


def test_the_server_of_gpu_nodes_is_its_makers_to_sign() -> None:
    server = Image(repository="nvcr.io/nvidia/tritonserver", digest=f"sha256:{'c' * 64}")

    assert {"gateway": GATEWAY} == provenance.own({"gateway": GATEWAY, "triton-gpu": server})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("images: {gateway: {repository: r, tag: v1}}", "digest", id="a tag"),
        pytest.param(
            "images: {gateway: {repository: r, digest: latest}}", "digest", id="no digest"
        ),
        pytest.param("images: {}", "names no image", id="none"),
        pytest.param("images: [", "repository and digest", id="not YAML"),
    ],
)
def test_only_digests_are_delivered(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "images.yaml"
    path.write_text(text)

    with pytest.raises(SettingsError, match=said):
        provenance.read(path)


def test_verifying_needs_to_know_who_must_have_signed(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SIGNER_IDENTITY", raising=False)
    provenance.IMAGES.parent.mkdir(parents=True)
    provenance.IMAGES.write_text(
        f"images: {{gateway: {{repository: r, digest: {GATEWAY.digest}}}}}"
    )

    assert 1 == provenance.main(["verify"])
    assert "SIGNER_IDENTITY is not set" in capsys.readouterr().out
    assert [] == programs.calls
