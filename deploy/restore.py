"""`make restore`: a backup put back, so that the loop goes on from where it was.

Before anything is touched: every file is what the manifest says, the models can be verified by this
cluster's key, and nothing is there that would be lost. Then whoever writes is stopped, and every
part is brought in beside the old one and checked there; only when all are whole do they take their
places. Gateways and model servers run on throughout. What was replaced is kept until the next
restore.

It may be killed anywhere and given again: what has been put back is recognised.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from deploy import credentials, namespaces
from deploy.backup import DATABASES, ROLLOUTS, SECRETS, STATEFUL_SET, VOLUMES, signing_key
from deploy.backups import manifest, rollouts
from deploy.backups.aftermath import Aftermath
from deploy.backups.copied_rows import verified_head
from deploy.backups.databases import CONTAINER, POD, Databases
from deploy.backups.manifest import PARTS, Copied, Manifest, Part
from deploy.backups.shell import Shell
from deploy.backups.standstill import WRITERS, Standstill
from deploy.backups.volumes import ARTIFACTS, MountedVolume, is_there, mounted
from deploy.progress import Progress
from deploy.target import Target
from mlplatform.clients.kubernetes import SECRETS as SECRET_KIND
from mlplatform.clients.kubernetes import STATEFUL_SETS, Cluster
from mlplatform.errors import DataError, PlatformError, ServiceError, SettingsError

REGISTRY: Final = ARTIFACTS.deployment


class Restore:
    """One run of `make restore`.

    Args:
        target: What is restored.
        folder: Of a backup.
        progress: Where it is told.
        parts: Which; none: all that the backup holds.
        replace: Whether parts that hold something are replaced.

    Raises:
        ServiceError: There is no cluster.
    """

    def __init__(
        self,
        target: Target,
        folder: Path,
        progress: Progress,
        *,
        parts: Sequence[Part] = (),
        replace: bool = False,
    ) -> None:
        self._target, self._folder, self._progress = target, folder, progress
        self._parts, self._replace = tuple(parts), replace
        self._cluster = Cluster.connect(target.namespace, target.context)
        self._databases = Databases(Shell(target, POD, CONTAINER))

    def run(self) -> None:
        """Put the parts back.

        Raises:
            DataError: The backup is not whole; nothing was touched.
            PlatformError: Something cannot be done. The message says what, and whether writers
                stay stopped until the command is given again.
        """
        found = manifest.read(self._folder)
        parts = self._chosen(found)
        made_at = f"{found.made_at:%Y-%m-%d %H:%M:%S}"
        self._progress.say("backup", f"{self._folder} of {made_at} is whole")
        standstill = Standstill(self._cluster, found.digest)
        begun = standstill.begun()
        if begun == "placed":
            self._progress.say("target", "all parts are in their places: what follows goes on")
        else:
            step = self._progress.step
            again = begun is not None
            step("target", lambda: self._check_target(found, parts, again=again))
            self._place(found, parts, standstill, again=again)
        self._go_on(found, parts, standstill)
        self._progress.say("restored", ", ".join(parts), style="bold green")

    def _place(
        self, found: Manifest, parts: Collection[Part], standstill: Standstill, *, again: bool
    ) -> None:
        """Stop who writes, bring all parts in beside what is there, and swap them."""
        components = {component for part in parts for component in WRITERS[part]}
        standstill.refuse_long_jobs(components)
        with ExitStack() as stack:
            try:
                self._progress.step("stopped", lambda: standstill.stop(components))
                volumes = {
                    part: stack.enter_context(mounted(self._cluster, self._target, VOLUMES[part]))
                    for part in parts
                    if part in VOLUMES
                }
                ready = self._prepare(found, parts, volumes)
            except PlatformError:
                self._give_up(standstill, again=again)
                raise
            standstill.mark("placing")
            for part in parts:
                swap = partial(self._swap, part, ready, volumes, standstill.attempt)
                self._progress.step(part, swap)
        standstill.mark("placed")

    def _go_on(self, found: Manifest, parts: Collection[Part], standstill: Standstill) -> None:
        """Let everything run again, and make what follows from the parts."""
        step, after = self._progress.step, Aftermath(self._cluster, self._target)
        if "registry" in parts:
            step("registry", lambda: f"{standstill.start([REGISTRY])} is ready")
            step("accounts", after.accounts)
        step("started", standstill.start)
        step("features", after.materialize)
        if "ledger" in parts:
            (copy,) = found.of("ledger")
            step("ledger", lambda: after.verify(copy.head))
        step("serving", after.serving)
        standstill.forget()

    def _chosen(self, found: Manifest) -> tuple[Part, ...]:
        lacking = [part for part in self._parts if part not in found.parts]
        if lacking:
            why = "; ".join(found.left_out.get(part, "it was not copied") for part in lacking)
            raise SettingsError(f"the backup holds no {', '.join(lacking)}: {why}")
        for part in found.parts:
            if part in VOLUMES:
                (copy,) = found.of(part)
                files = manifest.check_archive(self._folder / copy.file, VOLUMES[part].folders)
                if files != copy.files:
                    raise DataError(
                        f"{copy.file} holds {files} files, and {copy.files} were copied"
                    )
        return tuple(part for part in PARTS if part in (self._parts or found.parts))

    def _check_target(self, found: Manifest, parts: Collection[Part], *, again: bool) -> str:
        """Refuse a cluster that cannot take the backup, or has something to lose."""
        if (
            set(parts) & {"registry", "artifacts"}
            and signing_key(self._cluster) != found.signing_key
        ):
            raise SettingsError(
                "the backup's models are signed with another key than this cluster's: restore the "
                "Secrets first, into a namespace without a platform (`python -m deploy restore "
                "FOLDER --secrets`, then `make deploy`), or bring the key yourself"
            )
        managed = self._cluster.find(STATEFUL_SETS, STATEFUL_SET) is None
        if managed and set(parts) & set(DATABASES):
            raise SettingsError(
                "PostgreSQL is a managed one here: restore the dumps with its own means "
                "(pg_restore --no-owner), and the rest with --parts"
            )
        for part in set(parts) & set(VOLUMES):
            if not is_there(self._cluster, VOLUMES[part]):
                raise SettingsError(
                    f"this platform has no volume for {part}: leave it out, --parts"
                )
        if again:
            return "a restore of this backup was begun here: it goes on"
        full = [part for part in PARTS if part in parts and self._holds_something(part)]
        if full and not self._replace:
            raise SettingsError(
                f"{', '.join(full)}: not empty here; leave out what is to stay (--parts), or have "
                "it replaced (--replace), after a backup of what is there"
            )
        return f"replaces {', '.join(full)}" if full else "nothing is lost: the parts are empty"

    def _holds_something(self, part: Part) -> bool:
        if part in DATABASES:
            return any(self._databases.holds_something(name) for name in DATABASES[part])
        if part in VOLUMES:
            with mounted(self._cluster, self._target, VOLUMES[part]) as volume:
                return volume.files() > 0
        return rollouts.hold_something(self._cluster)

    def _prepare(
        self, found: Manifest, parts: Collection[Part], volumes: Mapping[Part, MountedVolume]
    ) -> set[str]:
        """Bring everything in beside what is there; return the databases that are to be swapped."""
        ready = set()
        for copy in found.copies:
            if copy.part not in parts:
                continue
            if copy.database and self._is_in_place(copy):
                self._progress.say(copy.database, "is what the backup holds")
            elif copy.database:
                self._progress.step(copy.database, partial(self._prepare_database, copy))
                ready.add(copy.database)
        for part, volume in volumes.items():
            (copy,) = found.of(part)
            volume.unpack(self._folder / copy.file, copy.sha256)
            self._progress.say(part, f"{copy.files:,} files arrived")
        return ready

    def _is_in_place(self, copy: Copied) -> bool:
        """Return whether a database is what was copied: an earlier attempt got so far."""
        if not self._databases.exists(copy.database):
            return False
        found = self._databases.contents(copy.database)
        same = found.rows == copy.rows
        return same and (copy.head is None or verified_head(found) == copy.head)

    def _prepare_database(self, copy: Copied) -> str:
        beside = self._databases.prepare(copy.database, self._folder / copy.file)
        found = self._databases.contents(beside)
        if found.rows != copy.rows:
            raise DataError(
                f"{copy.file} was restored with other rows than were copied: {found.rows}, not "
                f"{copy.rows}; take another backup"
            )
        said = f"{sum(found.rows.values()):,} rows"
        if copy.head is not None:
            said += f", the chain of {verified_head(found, copy.head).count:,} decisions is whole"
        return said

    def _swap(
        self, part: Part, ready: Collection[str], volumes: Mapping[Part, MountedVolume], name: str
    ) -> str:
        if part in DATABASES:
            for database in DATABASES[part]:
                if database in ready:
                    self._databases.swap(database)
        elif part in volumes:
            volumes[part].swap(name)
        else:
            rollouts.restore(self._cluster, rollouts.load(self._folder / ROLLOUTS))
        return "in its place"

    def _give_up(self, standstill: Standstill, *, again: bool) -> None:
        """Nothing was replaced: let everything run as before, unless an earlier attempt got on."""
        if again and standstill.begun() == "placing":
            said = "some parts are in their places, so writers stay stopped: give it again"
            self._progress.say("stopped", said, style="yellow")
            return
        self._progress.say("started", "nothing was replaced: writers run again", style="yellow")
        standstill.start()
        standstill.forget()


def restore_secrets(target: Target, folder: Path) -> str:
    """Put a backup's Secrets into a namespace that has no others; return what was done, in words.

    Raises:
        DataError: The backup is not whole, or holds none.
        SettingsError: There is a Secret of that name with another value.
        ServiceError: The API server is away, or refuses.
    """
    found = manifest.read(folder)
    if not found.of("secrets"):
        raise DataError(f"{folder} holds no Secrets: it was made without SECRETS=1")
    kept: dict[str, dict[str, str]] = json.loads((folder / SECRETS).read_text(encoding="utf-8"))
    cluster = Cluster.connect(target.namespace, target.context)
    namespaces.ensure(cluster)
    there = credentials.read(cluster)
    others = [name for name, values in kept.items() if there.get(name, values) != values]
    if others:
        raise SettingsError(
            f"these Secrets are there with other values: {', '.join(others)}; a platform may "
            "depend on them: remove it first (`make destroy`)"
        )
    made = [name for name in kept if name not in there]
    for name in made:
        cluster.create(SECRET_KIND, credentials.secret(name, kept[name]))
    if signing_key(cluster) not in {"", found.signing_key}:
        raise ServiceError(f"the ConfigMap {credentials.SIGNING} holds another key: delete it")
    return f"{len(made)} Secrets made, {len(kept) - len(made)} were there; deploy next"
