"""The process of one step: its lines on stderr, its record in the journal, its exit code.

A step that fails on purpose leaves its message in the journal and exits with 1, without a
traceback.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pydantic import JsonValue

from mlplatform.errors import PlatformError
from pipelines.journal import Journal


@contextmanager
def step_process(step: str, journal: Journal) -> Iterator[dict[str, JsonValue]]:
    """Give a step its journal record; keep it whether the step ends well or not.

    Raises:
        SystemExit: The step failed on purpose.
        ServiceError: The record cannot be kept.
    """
    log_to_stderr()
    content: dict[str, JsonValue] = {"started_at": datetime.now(UTC).isoformat()}
    started = time.perf_counter()
    try:
        yield content
    except PlatformError as error:
        content["error"] = str(error)
        logging.getLogger(f"mlplatform.{step}").error("%s", error)  # noqa: TRY400  # expected: no traceback
        sys.exit(1)
    except Exception as error:
        content["error"] = f"{type(error).__name__}: {error}"
        raise
    except BaseException:
        content["error"] = "interrupted"
        raise
    finally:
        content["seconds"] = round(time.perf_counter() - started, 3)
        journal.write(step, content)


def log_to_stderr() -> None:
    """Send the platform's own lines to stderr as `mlplatform.<step> | text`."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s | %(levelname)s | %(message)s"))
    logger = logging.getLogger("mlplatform")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
