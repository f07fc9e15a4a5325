"""Compile the pipelines: `python -m pipelines.compile [--out build/pipelines]`.

The composition root of the compiler: settings in, one YAML file per pipeline out.
"""

import argparse
from pathlib import Path

from mlplatform.settings import PipelineSettings


def compile_all(out: Path, settings: PipelineSettings) -> tuple[Path, ...]:
    """Write every pipeline to `<out>/<name>.yaml` and return the files, training's first.

    Equal settings give equal bytes: nothing in the file depends on time or machine.
    """
    from kfp import compiler

    from pipelines import batch_scoring, training

    out.mkdir(parents=True, exist_ok=True)
    pipelines = {
        training.NAME: training.training_pipeline(settings),
        batch_scoring.NAME: batch_scoring.batch_scoring_pipeline(settings),
    }
    for name, pipeline in pipelines.items():
        compiler.Compiler().compile(pipeline, str(out / f"{name}.yaml"))
    return tuple(out / f"{name}.yaml" for name in pipelines)


def main() -> None:
    """Read the command line and the settings, compile, say what was written."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.compile", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/pipelines"), help="output folder")
    for path in compile_all(parser.parse_args().out, PipelineSettings.load()):
        print(path)  # noqa: T201  # the command's output


if __name__ == "__main__":
    main()
