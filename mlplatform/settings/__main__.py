"""Print the table of all settings as Markdown: `python -m mlplatform.settings [--out FILE]`."""

import argparse
import sys
from pathlib import Path

from mlplatform.settings.table import markdown


def main() -> None:
    """Print the page, or write it to a file."""
    parser = argparse.ArgumentParser(prog="python -m mlplatform.settings", description=__doc__)
    parser.add_argument("--out", type=Path, help="write to this file, e.g. docs/settings.md")
    out = parser.parse_args().out
    if out is None:
        sys.stdout.write(markdown())
    else:
        out.write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
