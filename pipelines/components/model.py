"""Components that make a model: train, evaluate, gate, register."""

from kfp import dsl

from pipelines.components import BASE_IMAGE


@dsl.component(base_image=BASE_IMAGE, install_kfp_package=False)
def train(
    usecase: str,
    run_id: str,
    training_set: dsl.Input[dsl.Dataset],
    models: dsl.Output[dsl.Model],
) -> None:
    """Search, fit and calibrate each candidate on Ray."""
    from pipelines import tasks

    tasks.train(usecase, run_id, training_set.path, models.path)


@dsl.component(base_image=BASE_IMAGE, install_kfp_package=False)
def evaluate(
    usecase: str,
    run_id: str,
    training_set: dsl.Input[dsl.Dataset],
    models: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Measure the candidates on the untouched test window."""
    from pipelines import tasks

    measured = tasks.evaluate(usecase, run_id, training_set.path, models.path, evaluation.path)
    for name, value in measured.items():
        metrics.log_metric(name, value)


@dsl.component(base_image=BASE_IMAGE, install_kfp_package=False)
def gate(
    usecase: str,
    run_id: str,
    models: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
) -> str:
    """Hold the best candidate against the spec's gates: `accepted` or `rejected`."""
    from pipelines import tasks

    return tasks.gate(usecase, run_id, models.path, evaluation.path, report.path)


@dsl.component(base_image=BASE_IMAGE, install_kfp_package=False)
def register(
    usecase: str,
    run_id: str,
    training_set: dsl.Input[dsl.Dataset],
    models: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    gates: dsl.Input[dsl.Artifact],
) -> None:
    """Sign the accepted model and register it as challenger."""
    from pipelines import tasks

    tasks.register(usecase, run_id, training_set.path, models.path, evaluation.path, gates.path)
