"""`python -m deploy COMMAND`: the platform in a cluster. `make` has each command under its name."""

import argparse
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

from deploy.command_line import Work, parser
from deploy.progress import Progress
from deploy.target import Target, choose
from mlplatform.errors import PlatformError, ServiceError, SettingsError

if TYPE_CHECKING:
    from deploy.installing import Plan

_INTERRUPTED: Final = 130
"""What a shell gives a command that Ctrl-C has ended."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 when it cannot be done."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["images"]:
        from deploy import images

        return images.main(given[1:])
    options = parser(_WORK, __doc__).parse_args(given)
    console = Console()
    for kind in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: what was started is ended
        signal.signal(kind, _interrupt)
    try:
        work: Work = options.run
        return work(options, console)
    except PlatformError as error:
        console.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nstopped; the same command goes on from here")
        return _INTERRUPTED


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _target(options: argparse.Namespace) -> Target:
    from mlplatform.clients.kubernetes import contexts

    if options.env and not options.context:
        from deploy.cloud_environment import CloudEnvironment

        return Target(CloudEnvironment(options.env).ensure_context(), options.namespace)
    found = contexts()
    return Target(choose(options.context, found.names, found.current), options.namespace)


def _own_values(options: argparse.Namespace) -> tuple[Path, ...]:
    """Return the values over the profile's: the environment's, then the person's."""
    own = (options.values,) if options.values else ()
    if not options.env:
        return own
    from deploy.cloud_environment import CloudEnvironment

    environment = CloudEnvironment(options.env)
    environment.ensure_files(options.profile)
    return (*environment.values(options.profile), *own)


def _plan(options: argparse.Namespace, *, train: bool) -> "Plan":
    from deploy.cloud_environment import CloudEnvironment
    from deploy.installing import Plan

    return Plan(
        _target(options),
        options.profile,
        _own_values(options),
        CloudEnvironment(options.env).objects if options.env else None,
        train=train,
        timeout_seconds=options.wait_minutes * 60,
    )


def _cluster(options: argparse.Namespace, console: Console) -> int:
    from deploy.container_tool import found
    from deploy.kind_cluster import KindCluster, make

    make(Progress(console), KindCluster(options.tool or found()))
    return 0


def _deploy(options: argparse.Namespace, console: Console) -> int:
    from deploy.installing import Installation

    Installation(_plan(options, train=not options.no_train), Progress(console)).run()
    return 0


def _upgrade(options: argparse.Namespace, console: Console) -> int:
    from deploy.installing import Installation
    from deploy.upgrading import preview

    plan = _plan(options, train=False)
    if not preview(console, plan):
        return 0
    if not options.yes and not _agreed(console, "Change this?"):
        return 1
    Installation(plan, Progress(console)).run()
    return 0


def _status(options: argparse.Namespace, console: Console) -> int:
    from deploy.status import show

    return 0 if show(console, _target(options)) else 1


def _doctor(options: argparse.Namespace, console: Console) -> int:
    from deploy.doctor import Doctor, run

    doctor = Doctor(_target(options), options.profile, _own_values(options))
    return 0 if run(console, doctor) else 1


def _ui(options: argparse.Namespace, console: Console) -> int:
    from deploy.pages import serve

    serve(console, _target(options))
    return 0


def _submit(options: argparse.Namespace, _: Console) -> int:
    from deploy.submitting import submit

    submit(_target(options), options.usecase, options.as_of, options.key)
    return 0


def _upload(options: argparse.Namespace, console: Console) -> int:
    from deploy.submitting import upload

    Progress(console).step("pipelines", lambda: upload(_target(options)))
    return 0


def _predict(options: argparse.Namespace, console: Console) -> int:
    from deploy.platform_clock import platform_time
    from deploy.prediction import ask
    from mlplatform.clients.kubernetes import Cluster

    target = _target(options)
    now = platform_time(Cluster.connect(target.namespace, target.context))
    answered = ask(target, options.usecase, now)
    console.print_json(data=dict(answered.answer))
    if not answered.by_model:
        raise ServiceError(
            f"the rules of {options.usecase} answered, and no model: `make status` says what its "
            "rollout waits for"
        )
    return 0


def _destroy(options: argparse.Namespace, console: Console) -> int:
    from deploy.container_tool import found
    from deploy.kind_cluster import KindCluster
    from deploy.removing import Removal

    target, progress = _target(options), Progress(console)
    if options.cluster and not target.is_kind:
        raise SettingsError(
            f"CLUSTER=1 removes the cluster of `make cluster`, and {target.context} is another: "
            "leave it out, or name no CONTEXT"
        )
    what = "the cluster with the platform" if options.cluster else "the platform"
    where = f"namespace {target.namespace} of {target.context}"
    if not options.yes and not _agreed(
        console, f"Remove {what} in {where}, with its models, ledger and features?"
    ):
        return 1
    if options.cluster:
        progress.step("cluster", KindCluster(options.tool or found()).remove)
    else:
        Removal(target, progress).run()
    return 0


def _backup(options: argparse.Namespace, console: Console) -> int:
    from deploy import backup

    folder = options.out or backup.default_folder(datetime.now(UTC))
    made = backup.Backup(
        _target(options), folder, Progress(console), with_secrets=options.with_secrets
    )
    made.run()
    return 0


def _restore(options: argparse.Namespace, console: Console) -> int:
    from deploy import restore

    target, progress = _target(options), Progress(console)
    if options.secrets:
        progress.step("secrets", lambda: restore.restore_secrets(target, options.folder))
        return 0
    work = restore.Restore(
        target, options.folder, progress, parts=options.parts or (), replace=options.replace
    )
    work.run()
    return 0


def _agreed(console: Console, question: str) -> bool:
    """Return whether a person says yes; nobody there means no."""
    try:
        answer = console.input(f"{question} \\[yes/NO] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() in {"yes", "y"}:
        return True
    console.print("nothing was changed; answer yes, or give YES=1")
    return False


_WORK: Final[Mapping[str, Work]] = MappingProxyType(
    {
        "cluster": _cluster,
        "deploy": _deploy,
        "upgrade": _upgrade,
        "status": _status,
        "doctor": _doctor,
        "ui": _ui,
        "submit": _submit,
        "upload": _upload,
        "predict": _predict,
        "destroy": _destroy,
        "backup": _backup,
        "restore": _restore,
    }
)

if __name__ == "__main__":
    sys.exit(main())
