"""Run a compiled pipeline on this machine: `python -m pipelines.local_run PACKAGE …`.

The process that `make demo` starts. It hands the very YAML file that Kubeflow would get to KFP's
own local runner; each step is a process of this Python, without a virtual environment of its own.
"""

import argparse
import sys
import warnings
from pathlib import Path


def run(
    package: Path, pipeline_root: Path, arguments: dict[str, str], run_id: str | None = None
) -> None:
    """Run the pipeline in file `package` to its end.

    Args:
        package: Compiled pipeline.
        pipeline_root: Folder for artifacts.
        arguments: Of the pipeline, by name.
        run_id: What the steps are told as the run's id; None: KFP draws one at random.

    Raises:
        RuntimeError: a task failed; its message is in the journal and on stdout.
    """
    from kfp import components, dsl, local

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
    text = package.read_text(encoding="utf-8")
    if run_id is not None:  # the runner has no setting for it
        text = text.replace(dsl.PIPELINE_JOB_ID_PLACEHOLDER, run_id)
    components.load_component_from_text(text)(**arguments)


def main() -> None:
    """Read the command line and run; exit with 1 when a task failed."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.local_run", description=__doc__)
    parser.add_argument("package", type=Path, help="compiled pipeline, a YAML file")
    parser.add_argument("--usecase", required=True)
    parser.add_argument("--as-of", help="time that training looks from, e.g. 2014-01-02T00:00:00Z")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_parameter,
        metavar="NAME=VALUE",
        help="another parameter of the pipeline, may be repeated",
    )
    parser.add_argument("--pipeline-root", type=Path, required=True, help="folder for artifacts")
    parser.add_argument("--run", metavar="ID", help="the run's id; default: one at random")
    options = parser.parse_args()
    try:
        as_of = {} if options.as_of is None else {"as_of": options.as_of}
        arguments = {"usecase": options.usecase, **as_of, **dict(options.set)}
        run(options.package, options.pipeline_root, arguments, options.run)
    except RuntimeError as error:
        sys.exit(f"the pipeline failed: {error}")
    except KeyboardInterrupt:
        sys.exit("the pipeline was interrupted")


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals:
        raise argparse.ArgumentTypeError("write NAME=VALUE")
    return name, value


if __name__ == "__main__":
    main()
