"""Run a compiled pipeline on this machine: `python -m pipelines.local_run PACKAGE --as-of …`.

The process that `make demo` starts. It hands the very YAML file that Kubeflow would get to KFP's
own local runner; each step is a process of this Python, without a virtual environment of its own.
"""

import argparse
import sys
import warnings
from pathlib import Path


def run(package: Path, pipeline_root: Path, arguments: dict[str, str]) -> None:
    """Run the pipeline in file `package` to its end.

    Raises:
        RuntimeError: a task failed; its message is in the journal and on stdout.
    """
    from kfp import components, local

    if " " in sys.executable:
        sys.exit(
            f"KFP's local runner cannot start a Python whose path has a space ({sys.executable}): "
            "move the checkout to a folder without one"
        )

    warnings.filterwarnings("ignore", message="You may be attemping to run a task")
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(pipeline_root),
        raise_on_error=True,
    )
    components.load_component_from_file(str(package))(**arguments)


def main() -> None:
    """Read the command line and run; exit with 1 when a task failed."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.local_run", description=__doc__)
    parser.add_argument("package", type=Path, help="compiled pipeline, a YAML file")
    parser.add_argument("--usecase", required=True)
    parser.add_argument(
        "--as-of", required=True, help="time the run looks from, e.g. 2014-01-02T00:00:00Z"
    )
    parser.add_argument("--pipeline-root", type=Path, required=True, help="folder for artifacts")
    options = parser.parse_args()
    try:
        arguments = {"usecase": options.usecase, "as_of": options.as_of}
        run(options.package, options.pipeline_root, arguments)
    except RuntimeError as error:
        sys.exit(f"the pipeline failed: {error}")


if __name__ == "__main__":
    main()
