"""Feed the stores: `python -m feature_repo land|apply|materialize|push --usecase NAME`.

The composition root of the feature jobs. `land` copies the source's new raw events to the data root
and appends features to the offline store; `apply` makes Feast's registry hold what the use cases
declare; `materialize`, a CronJob, does both and brings online what is known. These three write to
the data root, wait for each other and for pipelines, and end; run again, they change nothing.
`push` follows the source until SIGTERM. Where things are comes from the environment
(docs/settings.md).

With `--ready FILE` push says to a supervisor that it works: the file is touched after each good
round and removed at the start and at the end.
"""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from feature_repo import ingest, materialize, store
from feature_repo.following import Follower, Work
from mlplatform.errors import PlatformError
from mlplatform.settings import DataSettings, PlatformSettings, RedisSettings


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 when it cannot be done."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(name)s | %(levelname)s | %(message)s")
    logging.getLogger("mlplatform").setLevel(logging.INFO)
    try:
        options.run(options)
    except (PlatformError, OSError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


def _apply(_: argparse.Namespace) -> None:
    opened = store.open_store(DataSettings.load().root)
    _say(f"feature views: {', '.join(store.apply(opened))}")


def _land(options: argparse.Namespace) -> None:
    root, until = DataSettings.load().root, _as_of(options)
    opened = store.open_store(root)
    store.apply(opened)
    ingest.extend(options.usecase, opened, root, until)
    _say(f"{options.usecase}: landed up to {until.isoformat()}")


def _materialize(options: argparse.Namespace) -> None:
    root, until = DataSettings.load().root, _as_of(options)
    opened = store.open_store(root, _redis_url())
    store.apply(opened)
    ingest.extend(options.usecase, opened, root, until)
    changed = materialize.materialize(opened, options.usecase, until)
    rows = ", ".join(f"{count:,} of {view}" for view, count in changed.items())
    _say(f"{options.usecase}: online as of {until.isoformat()}; entities that changed: {rows}")


def _push(options: argparse.Namespace) -> None:
    stop = threading.Event()
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: stop.set())
    root, clock = DataSettings.load().root, PlatformSettings.load().clock
    follower = Follower(options.usecase, root, _redis_url(), clock)
    Work(follower.round, options.every, options.ready).run(stop)


def _as_of(options: argparse.Namespace) -> datetime:
    """Return the moment that was named, else what time it is for the platform."""
    named: datetime | None = options.as_of
    return PlatformSettings.load().clock() if named is None else named


def _redis_url() -> str:
    return RedisSettings.load().url.get_secret_value()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m feature_repo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    usecase = argparse.ArgumentParser(add_help=False)
    usecase.add_argument("--usecase", required=True, metavar="NAME", help="whose")
    moment = argparse.ArgumentParser(add_help=False)
    moment.add_argument(
        "--as-of", type=_moment, metavar="TIME",
        help="up to this moment, e.g. 2014-01-02T00:00:00Z; default: the platform's time",
    )  # fmt: skip

    def add(name: str, run: Callable[[argparse.Namespace], None], *parents: argparse.ArgumentParser,
            text: str) -> argparse.ArgumentParser:  # fmt: skip
        command = commands.add_parser(name, parents=list(parents), help=text)
        command.set_defaults(run=run)
        return command

    add("land", _land, usecase, moment, text="land raw events and append features")
    apply = add("apply", _apply, text="declare the feature views of all use cases")
    apply.add_argument("--usecase", metavar="NAME", help="has no effect: all are declared together")
    add("materialize", _materialize, usecase, moment, text="land, then bring online what is known")
    push = add("push", _push, usecase, text="follow the source until SIGTERM")
    push.add_argument(
        "--every", type=_seconds, default=30.0, metavar="SECONDS", help="between two rounds"
    )
    push.add_argument(
        "--ready", type=Path, metavar="FILE", help="touched after each round in which all went well"
    )
    return parser


def _moment(text: str) -> datetime:
    try:
        named = datetime.fromisoformat(text)
    except ValueError:
        named = None
    if named is None or named.tzinfo is None:
        raise argparse.ArgumentTypeError("write a time in UTC like 2014-01-02T00:00:00Z")
    return named.astimezone(UTC)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:  # noqa: PLR2004  # an hour: materialization is as often
        raise argparse.ArgumentTypeError("write a number of seconds up to 3600")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
