"""`make submit`: asks the platform's orchestrator for a training, as the trigger does.

`pipelines.submit` does it; this module gives it what it needs to reach a cluster from outside: the
namespace for Jobs, or a port to Kubeflow's API and the image by its digest.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from deploy import registry_images, values
from deploy.forwards import Service, forwarded
from deploy.target import Target
from mlplatform.clients.kubernetes import CONFIG_MAPS, Cluster
from mlplatform.errors import NotFoundError, ServiceError

_ORCHESTRATOR: Final = "MLPLATFORM_MONITORING_ORCHESTRATOR"
_API: Final = Service("Kubeflow API", "ml-pipeline", 8888)
_MODULE: Final = "pipelines.submit"


def orchestrator(cluster: Cluster) -> str:
    """Return what runs pipelines there: `job` or `kubeflow`.

    Raises:
        NotFoundError: There is no platform in the namespace.
    """
    try:
        settings = cluster.get(CONFIG_MAPS, "mlplatform")["data"]
    except NotFoundError as error:
        raise NotFoundError(
            f"there is no platform in the namespace {cluster.namespace}: install it with "
            "`make deploy`"
        ) from error
    return str(settings.get(_ORCHESTRATOR, "kubeflow"))


def submit(target: Target, usecase: str, as_of: str, key: str) -> None:
    """Start a training under a key, unless there is one of it.

    Args:
        target: Where.
        usecase: Its name.
        as_of: The time that it looks from; empty: the platform's.
        key: What it is known by; empty: one is made from the time.

    Raises:
        NotFoundError: There is no platform.
        ServiceError: It could not be started.
    """
    cluster = Cluster.connect(target.namespace, target.context)
    arguments = ["run", "--usecase", usecase]
    arguments += ["--as-of", as_of] if as_of else []
    arguments += ["--key", key] if key else []
    if orchestrator(cluster) == "job":
        place = ["--to", "job", "--namespace", target.namespace, "--context", target.context]
        _call([*arguments, *place], {})
    else:
        with forwarded(target, _API) as url:
            _call([*arguments, "--to", "kubeflow"], _environment(url))


def upload(target: Target) -> str:
    """Give Kubeflow the pipelines of this code, and its recurring runs; return what was done.

    Args:
        target: Where.

    Raises:
        NotFoundError: There is no platform.
        ServiceError: It could not be done.
    """
    if orchestrator(Cluster.connect(target.namespace, target.context)) == "job":
        return "nothing to upload: here a Job runs the pipeline of its image"
    with forwarded(target, _API) as url:
        said = [_call([name], _environment(url), shown=False) for name in ("upload", "schedule")]
    return "; ".join(" ".join(text.split("\n")).strip() for text in said)


def _environment(url: str) -> Mapping[str, str]:
    image = registry_images.images(values.IMAGES)["pipeline"]
    return {
        "MLPLATFORM_KUBEFLOW_ENDPOINT": url,
        "MLPLATFORM_PIPELINE_IMAGE": f"{image['repository']}@{image['digest']}",
        # The image's digest says which code runs; a checkout may have moved on.
        "MLPLATFORM_GIT_COMMIT": image["digest"].removeprefix("sha256:"),
    }


def _call(arguments: list[str], settings: Mapping[str, str], *, shown: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-m", _MODULE, *arguments],
        env=os.environ | settings,
        stdout=None if shown else subprocess.PIPE,
        stderr=None if shown else subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        said = "see above" if shown else done.stdout
        raise ServiceError(f"`python -m {_MODULE} {arguments[0]}` failed: {said}")
    return done.stdout or ""
