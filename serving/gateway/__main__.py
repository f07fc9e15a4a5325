"""Start the gateway: `python -m serving.gateway`; all settings come from the environment."""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from typing import Final

from feature_repo import catalog
from mlplatform.errors import PlatformError
from mlplatform.settings import PlatformSettings
from mlplatform.settings.serving import GatewaySettings, RedisSettings

_SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"
_REFUSED: Final = 2


def main() -> int:
    """Serve until SIGTERM; return 0 when everything was drained, 2 when it could not start."""
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
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    shared = None
    if settings.workers > 1:
        # prometheus_client looks at it when it is imported: the values of all workers lie there.
        shared = os.environ[_SHARED] = tempfile.mkdtemp(prefix="gateway-metrics-")
    try:
        from serving.gateway.process import Plan, serve

        serve(Plan(settings, redis_url, platform.git_commit, codes))
    finally:
        if shared is not None:
            shutil.rmtree(shared, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
