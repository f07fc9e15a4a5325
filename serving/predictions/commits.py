"""What the archive has taken: numbered commits, each of which exists for all or not at all.

A commit adds one Parquet file and moves the state (the highest sequence of each gateway) at once:

1. the rows are written to `_commits/tmp-<number>-….parquet` and synced;
2. the record `_commits/<number>.json`, which names that file, its place and the new state, appears
   by a hard link, which fails if another archiver has made a commit of this number: *the commit*;
3. the file is renamed to its place, where readers see it.

After a kill between 2 and 3, whoever comes next does 3: the temporary file is still there. Records
are kept until `_KEPT` newer ones exist, so that an archiver that slept through some commits finds
its number taken, or a higher one. It refuses file systems without hard links.
"""

import logging
import os
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import polars as pl
from pydantic import Field, ValidationError

from feature_repo.predictions import part_name
from mlplatform.contracts.base import Contract
from mlplatform.errors import DataError, ServiceError, shorten

_KEPT: Final = 16
"""Newest records that stay: a listing of the folder takes milliseconds, 16 commits take seconds."""
_RECORD: Final = re.compile(r"(\d{12})\.json")
_TEMPORARY: Final = re.compile(r"tmp-(\d{12})-.*")

_log: Final = logging.getLogger(__name__)

At = Callable[[str], None]
"""Called with the name of each step that is done: where tests kill the process."""


class Seen(Contract):
    """How far a gateway's rows have been taken."""

    sequence: int = Field(description="Highest so far: what is not above it is a duplicate.")
    at: float = Field(description="When it was taken, seconds since 1970.")


class Commit(Contract):
    """One file of the archive, and the state after it."""

    number: int = Field(ge=1)
    part: str = Field(description="Its place, relative to the use case's folder.")
    temporary: str = Field(description="Where it lies until it is in its place; as above.")
    rows: int = Field(ge=1)
    gateways: dict[str, Seen]


class Commits:
    """The commits of one use case.

    Args:
        folder: The use case's folder in the archive; made when it is missing.
        at: See `At`.

    Raises:
        ServiceError: The folder cannot be written.
    """

    def __init__(self, folder: Path, at: At) -> None:
        self._folder, self._own = folder, folder / "_commits"
        self._at = at
        try:
            make_folder(self._own)
        except OSError as error:
            raise ServiceError(
                f"the archive cannot write {folder}: {shorten(error)}; set "
                "MLPLATFORM_ARCHIVE_ROOT to a folder that this process may write"
            ) from error

    def latest(self) -> Commit | None:
        """Return the newest commit, its file in its place; None when there is none.

        Raises:
            DataError: Its record is damaged.
        """
        numbers = self._numbers()
        if not numbers:
            return None
        record = self._record(numbers[-1])
        try:
            commit = Commit.model_validate_json(record.read_bytes())
        except (ValidationError, OSError) as error:
            raise DataError(
                f"{record} is no record of a commit: {shorten(error)}; restore it from a backup: "
                "it says which rows have been archived"
            ) from error
        self._publish(commit)
        self._tidy(numbers, keep=commit.temporary)
        return commit

    def add(
        self,
        after: Commit | None,
        rows: pl.DataFrame,
        hour: str,
        gateways: Mapping[str, Seen],
    ) -> Commit | None:
        """Commit rows; return None when another archiver was first and nothing was added.

        Args:
            after: The newest commit as we know it.
            rows: With the columns of `feature_repo.predictions.SCHEMA`.
            hour: Folder of the file, relative to the use case's.
            gateways: The state after these rows.

        Raises:
            OSError: The disk is full or fails.
            PolarsError: As above; Polars says it so.
        """
        number = after.number + 1 if after else 1
        name = f"tmp-{number:012d}-{uuid.uuid4().hex}"
        commit = Commit(
            number=number,
            part=f"{hour}/{part_name(number, number)}",
            temporary=f"_commits/{name}.parquet",
            rows=rows.height,
            gateways=dict(gateways),
        )
        temporary, draft = self._folder / commit.temporary, self._own / f"{name}.json"
        recorded = False
        try:
            rows.write_parquet(temporary)
            sync(temporary)
            draft.write_text(commit.model_dump_json(), encoding="utf-8")
            sync(draft)
            self._at("written")
            recorded = self._link(draft, number)
            recorded = recorded and self._is_newest(number)
        except FileNotFoundError:  # tidied away by the archiver that was first
            return None
        finally:  # also on a full disk: what failed must not fill it
            draft.unlink(missing_ok=True)
            if not recorded:
                temporary.unlink(missing_ok=True)
        if not recorded:
            return None
        sync(self._own)
        self._at("committed")
        self._publish(commit)
        self._at("published")
        return commit

    def _link(self, draft: Path, number: int) -> bool:
        """Let the record appear; return False when the number is taken."""
        try:
            os.link(draft, self._record(number))
        except FileExistsError:
            return False
        return True

    def _is_newest(self, number: int) -> bool:
        """Take our record back when its number was in the past: others had tidied it away."""
        if self._numbers()[-1] == number:
            return True
        self._record(number).unlink(missing_ok=True)
        return False

    def _publish(self, commit: Commit) -> None:
        temporary, part = self._folder / commit.temporary, self._folder / commit.part
        if not temporary.exists():
            return
        make_folder(part.parent)
        try:
            temporary.rename(part)
        except FileNotFoundError:  # another archiver has just done it
            return
        sync(part.parent)

    def _tidy(self, numbers: list[int], keep: str) -> None:
        """Remove old records, and files of commits that were lost or never made."""
        for number in numbers[:-_KEPT]:
            self._record(number).unlink(missing_ok=True)
        for path in self._own.glob("tmp-*"):
            found = _TEMPORARY.fullmatch(path.name)
            if found and int(found[1]) <= numbers[-1] and path.name != Path(keep).name:
                path.unlink(missing_ok=True)

    def _numbers(self) -> list[int]:
        found = (_RECORD.fullmatch(path.name) for path in self._own.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def _record(self, number: int) -> Path:
        return self._own / f"{number:012d}.json"


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each of which the disk keeps before the next is made."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(path: Path) -> None:
    """Have the disk keep a file or folder before anything that depends on it is done."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
