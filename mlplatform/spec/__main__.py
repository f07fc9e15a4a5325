"""Check specs and write their JSON Schema: `python -m mlplatform.spec check|schema`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from mlplatform.errors import SpecError
from mlplatform.spec import digest, load, schema

SCHEMA_FILE: Final = Path(__file__).resolve().parents[2] / "usecases" / "usecase.schema.json"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0 when all is well, 1 when something is refused."""
    parser = argparse.ArgumentParser(prog="python -m mlplatform.spec", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="read specs and say everything that is wrong")
    check.add_argument("paths", nargs="+", type=Path, help="usecase.yaml files or their folders")
    write = commands.add_parser("schema", help=f"write {SCHEMA_FILE.name} for editors")
    write.add_argument("--check", action="store_true", help="only say whether it is current")
    write.add_argument("--path", type=Path, default=SCHEMA_FILE, help="the file")
    options = parser.parse_args(arguments)
    if options.command == "check":
        results = [_check(path) for path in options.paths]
        return max(results)
    return _schema(options.path, only_check=options.check)


def _check(path: Path) -> int:
    file = path / "usecase.yaml" if path.is_dir() else path
    try:
        spec = load(file)
    except SpecError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{file}: {spec.name} is well specified, digest {digest(spec)[:12]}\n")
    return 0


def _schema(path: Path, *, only_check: bool) -> int:
    text = json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    if not only_check:
        path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        sys.stderr.write(f"{path} is not current; run python -m mlplatform.spec schema\n")
        return 1
    sys.stdout.write(f"{path} is current\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
