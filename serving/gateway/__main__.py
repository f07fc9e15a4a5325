"""Start the gateway: `python -m serving.gateway`; all settings come from the environment."""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from feature_repo import catalog
from mlplatform.errors import PlatformError, SettingsError, shorten
from mlplatform.settings import PlatformSettings
from mlplatform.settings.serving import GatewaySettings, RedisSettings
from serving.gateway.admission import Admission
from serving.gateway.request import Requests

_SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"
_BROKEN: Final = 1
_REFUSED: Final = 2


def main() -> int:
    """Serve until SIGTERM.

    Returns:
        0: all workers have drained and ended; 1: one had to be ended before its connections were,
        or failed; 2: it could not start.
    """
    parser = argparse.ArgumentParser(
        prog="python -m serving.gateway",
        description=__doc__,
        epilog="Settings: MLPLATFORM_GATEWAY_*, MLPLATFORM_REDIS_URL; docs/settings.md lists them.",
    )
    parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        settings, platform = GatewaySettings.load(), PlatformSettings.load()
        redis_url = RedisSettings.load().url.get_secret_value()
        codes = {name: catalog.load_serving(name) for name in settings.usecases}
        for name, code in codes.items():  # here, and not in workers that would be tried again
            Requests(name, code.spec.serving)
            Admission.of(name, code.spec.serving)
            _check_spill(settings.spill / name)
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    shared = None
    os.environ.pop(_SHARED, None)  # somebody else's folder: their values are not ours
    if settings.workers > 1:
        # prometheus_client looks at it when it is imported: the values of all workers lie there.
        shared = os.environ[_SHARED] = tempfile.mkdtemp(prefix="gateway-metrics-")
    try:
        from serving.gateway.process import Plan, serve

        return 0 if serve(Plan(settings, redis_url, platform.git_commit, codes)) else _BROKEN
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    finally:
        if shared is not None:
            shutil.rmtree(shared, ignore_errors=True)


def _check_spill(folder: Path) -> None:
    """Refuse a spill that no row could be written to; the workers would fail one after another."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"row")
    except OSError as error:
        raise SettingsError(
            f"the prediction log cannot write {folder}: {shorten(error)}; set "
            "MLPLATFORM_GATEWAY_SPILL to a folder on a disk that this process may write"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
