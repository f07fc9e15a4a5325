"""The arguments of `python -m deploy`: what each command can be told."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, get_args

from rich.console import Console

from deploy.backups.manifest import Part
from deploy.target import Profile

_TOOL: Final = "docker, podman or nerdctl; default: the one that works here"

Work = Callable[[argparse.Namespace, Console], int]
"""A command: does what the options say and returns the exit status."""


def parser(work: Mapping[str, Work], description: str | None) -> argparse.ArgumentParser:
    """Return the parser of all commands; `options.run` is the command that was given.

    Args:
        work: By the name of the command.
        description: Of the program.
    """
    place, what = _place(), _what()
    top = argparse.ArgumentParser(prog="python -m deploy", description=description)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("images", help="build and push the images", add_help=False)

    def add(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = commands.add_parser(name, parents=parents, help=text, description=text)
        made.set_defaults(run=work[name])
        return made

    cluster = add("cluster", "a kind cluster with a registry")
    cluster.add_argument("--tool", default="", help=_TOOL)

    deploy = add("deploy", "install or change the platform", place, what)
    deploy.add_argument("--no-train", action="store_true", help="do not train a first model")
    deploy.add_argument("--wait-minutes", type=float, default=15, help="longest wait (%(default)s)")

    upgrade = add("upgrade", "show what deploy would change, ask, and do it", place, what)
    upgrade.add_argument("--yes", action="store_true", help="do not ask")
    upgrade.add_argument("--wait-minutes", type=float, default=15, help="as of deploy")

    add("status", "how the platform is", place)
    add("doctor", "what keeps the platform from running", place, what)
    add("ui", "ports to all pages, and a page of links", place)

    submit = add("submit", "start a training", place)
    submit.add_argument("--usecase", required=True, help="a folder under usecases/")
    submit.add_argument("--as-of", default="", help="time that it looks from; default: now")
    submit.add_argument("--key", default="", help="a second run of a key is not started")

    add("upload", "give Kubeflow the pipelines of this code", place)

    predict = add("predict", "ask the gateway for one prediction", place)
    predict.add_argument("--usecase", required=True, help="a folder under usecases/")

    destroy = add("destroy", "remove the platform and its data", place)
    destroy.add_argument("--yes", action="store_true", help="do not ask")
    destroy.add_argument("--cluster", action="store_true", help="the kind cluster as well")
    destroy.add_argument("--tool", default="", help=_TOOL)

    _backups(add, place)
    return top


def _place() -> argparse.ArgumentParser:
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument(
        "--context", default="", help="of kubeconfig, or `current`; default: that of make cluster"
    )
    place.add_argument(
        "--env", default="", help="of Terraform, dev or prod: its cluster and its values"
    )
    place.add_argument("--namespace", default="mlplatform", help="of the platform (%(default)s)")
    return place


def _what() -> argparse.ArgumentParser:
    what = argparse.ArgumentParser(add_help=False)
    what.add_argument(
        "--profile", choices=get_args(Profile), default="minimal", help="of the chart (%(default)s)"
    )
    what.add_argument("--values", type=Path, help="your own values, over the profile's")
    return what


def _backups(add: Callable[..., argparse.ArgumentParser], place: argparse.ArgumentParser) -> None:
    backup = add("backup", "copy what cannot be made again", place)
    backup.add_argument(
        "--out", type=Path, metavar="FOLDER", help="default: build/cluster/backups/<time>"
    )
    backup.add_argument("--with-secrets", action="store_true", help="the Secrets as well")

    restore = add("restore", "put a backup back", place)
    restore.add_argument("folder", type=Path, metavar="FOLDER", help="of a finished backup")
    restore.add_argument(
        "--parts", nargs="+", choices=get_args(Part), metavar="PART",
        help=f"only these of {', '.join(get_args(Part))}",
    )  # fmt: skip
    restore.add_argument("--replace", action="store_true", help="parts that are not empty as well")
    restore.add_argument(
        "--secrets", action="store_true", help="only the Secrets, before a deployment"
    )
