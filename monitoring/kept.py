"""What was seen of each window, kept: one folder for each, `<out>/<usecase>/<start>-<end>/`.

`report.json` in it is the window's `WindowReport` and stays for good (tens of kilobytes);
`drift.html` beside it is Evidently's page (megabytes), of which the newest are kept. Beside the
folders lie the estimates (`monitoring.estimate.keep`). A report that another release wrote and this
one cannot read is refused by name, never skipped.
"""

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from mlplatform.contracts import Window
from mlplatform.contracts.watch import WindowReport
from mlplatform.errors import DataError, shorten

REPORT: Final = "report.json"
PAGE: Final = "drift.html"
_STAMP: Final = "%Y%m%dT%H%M%SZ"


def folder(out: Path, usecase: str, window: Window) -> Path:
    """Return where a window is kept."""
    return out / usecase / f"{window.start.strftime(_STAMP)}-{window.end.strftime(_STAMP)}"


def write(out: Path, report: WindowReport) -> Path:
    """Keep a report in place of what was kept of its window; return the file."""
    path = folder(out, report.usecase, report.window) / REPORT
    put(path, report.model_dump_json(indent=1))
    return path


def put(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all, whoever else writes it at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def newest(out: Path, usecase: str, most: int) -> tuple[WindowReport, ...]:
    """Return the reports of the newest windows, at most so many, oldest first.

    Raises:
        DataError: A report cannot be read.
    """
    return tuple(_load(path) for path in _reports(out, usecase)[-most:])


def one(out: Path, usecase: str, window: Window) -> WindowReport | None:
    """Return what was kept of a window; None: it was not judged.

    Raises:
        DataError: The report cannot be read.
    """
    path = folder(out, usecase, window) / REPORT
    return _load(path) if path.exists() else None


def last(out: Path, usecase: str, before: datetime | None = None) -> WindowReport | None:
    """Return the report of the newest window, or of the newest that had ended by then.

    Raises:
        DataError: The report cannot be read.
    """
    paths = _reports(out, usecase)
    if before is not None:
        paths = [path for path in paths if _window(path).end <= before]
    return _load(paths[-1]) if paths else None


def judged(out: Path, usecase: str) -> tuple[Window, ...]:
    """Return the windows of which a report is kept, oldest first; none of them is read."""
    return tuple(_window(path) for path in _reports(out, usecase))


def forget_pages(out: Path, usecase: str, keep: int) -> None:
    """Remove all pages but those of the newest windows; the reports stay."""
    pages = sorted((out / usecase).glob(f"*/{PAGE}"), reverse=True)
    for page in pages[keep:]:
        page.unlink(missing_ok=True)


def _reports(out: Path, usecase: str) -> list[Path]:
    return sorted((out / usecase).glob(f"*/{REPORT}"))


def _window(path: Path) -> Window:
    start, end = (
        datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
        for stamp in path.parent.name.split("-")
    )
    return Window(start=start, end=end)


def _load(path: Path) -> WindowReport:
    try:
        return WindowReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(
            f"the report {path} cannot be read: {shorten(error)}; judge its window again, or move "
            "the file away"
        ) from error
