"""The journal of one run: what each step found, where the exit handler can read it.

KFP gives an exit handler no outputs of the tasks before it, because they may not exist. Each step
therefore leaves its result under `<root>/runs/<usecase>/<run>/<step>.json`, on disk or on S3, and
the exit handler turns what is there into rows of the ledger.
"""

import json
import re
from dataclasses import dataclass

from pyarrow import fs
from pydantic import JsonValue

from feature_repo import parts
from mlplatform.errors import ServiceError, shorten


@dataclass(frozen=True)
class Journal:
    """The folder of one run's step results."""

    root: str
    usecase: str
    run: str

    def write(self, step: str, record: dict[str, JsonValue]) -> None:
        """Keep `record` as the result of `step`; a retried step replaces its own.

        Raises:
            ServiceError: the data root cannot be written.
        """
        filesystem, folder = self._folder()
        try:
            filesystem.create_dir(folder, recursive=True)
            with filesystem.open_output_stream(f"{folder}/{step}.partial") as stream:
                stream.write(json.dumps(record, indent=1, allow_nan=False).encode())
            filesystem.move(f"{folder}/{step}.partial", f"{folder}/{step}.json")
        except OSError as error:
            raise ServiceError(
                f"cannot write {folder}/{step}.json: {shorten(error)}; check the data root"
            ) from error

    def read(self) -> dict[str, dict[str, JsonValue]]:
        """Return the records so far, by step; empty when no step has finished."""
        filesystem, folder = self._folder()
        selector = fs.FileSelector(folder, allow_not_found=True)
        records: dict[str, dict[str, JsonValue]] = {}
        for info in filesystem.get_file_info(selector):
            if info.extension == "json":
                with filesystem.open_input_stream(info.path) as stream:
                    records[info.base_name.removesuffix(".json")] = json.loads(stream.read())
        return records

    def clear(self) -> None:
        """Forget what an earlier attempt at this run left, which would pass for its results.

        Raises:
            ServiceError: the data root cannot be written.
        """
        filesystem, folder = self._folder()
        try:
            filesystem.delete_dir_contents(folder, missing_dir_ok=True)
        except OSError as error:
            raise ServiceError(
                f"cannot empty {folder}: {shorten(error)}; check the data root"
            ) from error

    def _folder(self) -> tuple[fs.FileSystem, str]:
        run = re.sub(r"[^A-Za-z0-9_.-]", "-", self.run)
        place = parts.folder(self.root, f"runs/{self.usecase}/{run}")
        return place.files, place.path
