"""A pipeline of two steps and an exit handler that leave files, in place of the one that trains.

Run as a command it is `python -m pipelines.job` with this pipeline.
"""

import sys
from pathlib import Path

from kfp import compiler, dsl

from mlplatform.settings import PipelineSettings
from pipelines import job


@dsl.component(base_image="python", install_kfp_package=False)  # type: ignore[untyped-decorator]
def note(usecase: str, as_of: str, request: str, run_id: str) -> None:
    """Leave what the step was told."""
    import json
    import os
    from pathlib import Path

    told = {"usecase": usecase, "as_of": as_of, "request": request, "run_id": run_id}
    told["threads"] = os.environ["OMP_NUM_THREADS"]
    Path(os.environ["NOTES"], "noted").write_text(json.dumps(told))


@dsl.component(base_image="python", install_kfp_package=False)  # type: ignore[untyped-decorator]
def work(seconds: float) -> None:
    """Leave the process id; wait, unless the work is planned to fail."""
    import os
    import time
    from pathlib import Path

    notes = Path(os.environ["NOTES"])
    (notes / "working").write_text(str(os.getpid()))
    if (notes / "fail").exists():
        raise SystemExit(1)
    time.sleep(float(os.environ.get("SECONDS_OF_WORK", seconds)))


@dsl.component(base_image="python", install_kfp_package=False)  # type: ignore[untyped-decorator]
def close(status: dsl.PipelineTaskFinalStatus) -> None:
    """Leave how it ended."""
    import os
    from pathlib import Path

    Path(os.environ["NOTES"], "closed").write_text(status.state)


@dsl.pipeline(name="small")  # type: ignore[untyped-decorator]
def small(usecase: str, as_of: str, request: str = "") -> None:
    """Note, then work."""
    run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    with dsl.ExitHandler(close()):
        noted = note(usecase=usecase, as_of=as_of, request=request, run_id=run)
        work(seconds=0.0).set_caching_options(enable_caching=False).after(noted)


def compiled(out: Path, settings: PipelineSettings) -> tuple[Path, ...]:
    """Stand for `pipelines.compile.compile_all`."""
    del settings
    package = out / "small.yaml"
    compiler.Compiler().compile(small, str(package))
    return (package,)


if __name__ == "__main__":
    vars(job)["compile_all"] = compiled
    sys.exit(job.main())
