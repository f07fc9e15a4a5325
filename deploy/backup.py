"""`make backup`: what cannot be made again, copied out of the cluster while it serves.

Nothing is stopped. Parts are copied in an order in which what refers to something comes before it:
rollouts and the ledger at one moment, then the registry's tables, then the models they name. What
follows from these is not copied: online features are materialized again, routes published again by
the operator, users and rights in Redis made again from the Secrets. The rows of the prediction
stream are in the archive within seconds.

Each file is read back before it counts, and the manifest comes last.
"""

import hashlib
import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from deploy.backups import manifest, rollouts
from deploy.backups.copied_rows import verified_head
from deploy.backups.databases import CONTAINER, POD, Databases
from deploy.backups.manifest import Copied, Manifest, Part
from deploy.backups.shell import Shell
from deploy.backups.volumes import ARTIFACTS, DATA, Volume, is_there, mounted
from deploy.credentials import PUBLIC, SIGNING, read
from deploy.progress import Progress
from deploy.target import Target
from mlplatform.clients.kubernetes import CONFIG_MAPS, DEPLOYMENTS, STATEFUL_SETS, Cluster, Object
from mlplatform.errors import ServiceError, SettingsError

FOLDER: Final = Path("build/cluster/backups")
"""Where backups go that were given no place of their own."""
STATEFUL_SET: Final = "mlplatform-postgres"
SECRETS: Final = "secrets.json"
DATABASES: Final[dict[Part, tuple[str, ...]]] = {
    "ledger": ("ledger",),
    "registry": ("registry", "registry_auth"),
}
VOLUMES: Final[dict[Part, Volume]] = {"artifacts": ARTIFACTS, "data": DATA}
ROLLOUTS: Final = "rollouts.json"

_STILL: Final = 5
"""Attempts to copy the ledger between two turns of a rollout, which are minutes or hours apart."""
_MANAGED: Final = (
    "PostgreSQL is a managed one: switch its own backups on, with recovery to a point in time"
)
_BUCKET: Final = "the registry's artifacts are in a bucket: switch its versioning on"


def default_folder(now: datetime) -> Path:
    """Return where a backup of this moment goes."""
    return FOLDER / now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


class Backup:
    """One run of `make backup`.

    Args:
        target: What is backed up.
        folder: Where the files go; made. One with a finished backup is refused.
        progress: Where it is told.
        with_secrets: Whether Secrets go into a file beside the rest.

    Raises:
        ServiceError: There is no cluster.
    """

    def __init__(
        self, target: Target, folder: Path, progress: Progress, *, with_secrets: bool
    ) -> None:
        self._target, self._folder, self._progress = target, folder, progress
        self._with_secrets = with_secrets
        self._cluster = Cluster.connect(target.namespace, target.context)
        self._databases = Databases(Shell(target, POD, CONTAINER))
        self._copies: list[Copied] = []
        self._left_out: dict[str, str] = {}
        self._versions: dict[str, str] = {}

    def run(self) -> Manifest:
        """Copy everything; return what the backup holds.

        Raises:
            PlatformError: Something cannot be copied. The folder has no manifest then, and the
                command may be given again.
        """
        step = self._progress.step
        step("platform", self._look)
        if "ledger" in self._left_out:
            step("rollouts", self._rollouts)
        else:
            step("ledger", self._ledger)
            for name in DATABASES["registry"]:
                step(name.replace("_", " "), partial(self._database, "registry", name))
        for part, volume in VOLUMES.items():
            if part not in self._left_out:
                step(part, partial(self._volume, part, volume))
        if self._with_secrets:
            step("secrets", self._secrets)
        made = Manifest(
            made_at=datetime.now(UTC),
            namespace=self._target.namespace,
            versions=self._versions,
            signing_key=signing_key(self._cluster),
            copies=tuple(self._copies),
            left_out=self._left_out,
        )
        manifest.write(self._folder, made)
        self._tell(made)
        return made

    def _look(self) -> str:
        if (self._folder / manifest.NAME).exists():
            raise SettingsError(f"{self._folder} holds a finished backup: name another folder")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        registry = self._cluster.get(DEPLOYMENTS, ARTIFACTS.deployment)
        chart = registry["metadata"].get("labels", {}).get("helm.sh/chart", "")
        self._versions = {"kubernetes": self._cluster.server_version(), "chart": chart}
        if self._cluster.find(STATEFUL_SETS, STATEFUL_SET) is None:
            self._left_out |= dict.fromkeys(DATABASES, _MANAGED)
        else:
            self._versions["postgresql"] = self._databases.version()
        if not is_there(self._cluster, ARTIFACTS):
            self._left_out["artifacts"] = _BUCKET
        self._left_out["online store"] = "made again: by materialization, and by the operator"
        return f"{chart} in {self._target.namespace}, into {self._folder}"

    def _rollouts(self) -> str:
        return self._keep_rollouts(rollouts.read(self._cluster))

    def _ledger(self) -> str:
        """Copy the ledger and the states that it belongs to: no rollout turned in between."""
        for _ in range(_STILL):
            before = rollouts.read(self._cluster)
            said = self._database("ledger", "ledger")
            if rollouts.states(before) == rollouts.states(rollouts.read(self._cluster)):
                return f"{said}; {self._keep_rollouts(before)}"
            self._copies.pop()
        raise ServiceError(
            f"a rollout turned in each of {_STILL} attempts to copy the ledger: pause it "
            "(`spec.paused: true`), or try again later"
        )

    def _keep_rollouts(self, objects: list[Object]) -> str:
        text = json.dumps(objects, indent=1, sort_keys=True) + "\n"
        path = manifest.private(self._folder / ROLLOUTS)
        path.write_text(text, encoding="utf-8")
        self._add("rollouts", path, files=len(objects))
        return f"{len(objects)} ModelRollouts"

    def _database(self, part: Part, name: str) -> str:
        path = manifest.private(self._folder / f"{name}.dump")
        found = self._databases.dump(name, path)
        head = verified_head(found) if part == "ledger" else None
        copy = self._add(part, path, database=name, rows=found.rows, head=head)
        size = f"{sum(found.rows.values()):,} rows in {len(found.rows)} tables, {_size(copy.size)}"
        return size if head is None else f"{size}; the chain of {head.count:,} decisions is whole"

    def _volume(self, part: Part, volume: Volume) -> str:
        path = manifest.private(self._folder / f"{part}.tar")
        with mounted(self._cluster, self._target, volume) as found:
            files = found.pack(path)
        manifest.check_archive(path, volume.folders)
        copy = self._add(part, path, files=files)
        return f"{files:,} files, {_size(copy.size)}"

    def _secrets(self) -> str:
        found = read(self._cluster)
        path = manifest.private(self._folder / SECRETS)
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        self._add("secrets", path, files=len(found))
        return f"{len(found)} Secrets, readable by their owner only: {path}"

    def _add(self, part: Part | str, path: Path, **more: object) -> Copied:
        size, digest = manifest.described(path)
        found = {"part": part, "file": path.name, "size": size, "sha256": digest}
        copy = Copied.model_validate(found | more)
        self._copies.append(copy)
        return copy

    def _tell(self, made: Manifest) -> None:
        for part, where in made.left_out.items():
            self._progress.say(part, f"not copied: {where}", style="yellow")
        ledger = made.of("ledger")
        if ledger and ledger[0].head is not None:
            head = ledger[0].head
            self._progress.say("head", f"{head.count}:{head.hash} (keep it elsewhere)")
        if not self._with_secrets:
            self._progress.say(
                "secrets",
                f"not copied: without the key in the Secret {SIGNING} no model of this backup can "
                "be served in another cluster; keep it elsewhere, or back up with SECRETS=1",
                style="yellow",
            )
        self._progress.say("backup", f"{self._folder} is whole; `make restore FROM=` puts it back")


def signing_key(cluster: Cluster) -> str:
    """Return what the public key is told from others by; empty: there is none.

    Raises:
        ServiceError: The API server is away, or refuses.
    """
    found = cluster.find(CONFIG_MAPS, SIGNING) or {}
    text = (found.get("data") or {}).get(PUBLIC, "")
    return hashlib.sha256(text.strip().encode()).hexdigest() if text else ""


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
