"""What the documents promise exists."""

import re
import subprocess
from pathlib import Path

import pytest

DOCUMENTS = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/customize.md",
    "docs/operations.md",
    "docs/cluster.md",
    "docs/cloud.md",
    "docs/delivery.md",
]
ROOT = Path(__file__).resolve().parents[3]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_command_in_the_documents_is_a_target(document: str) -> None:
    named = set(
        re.findall(
            r"`make ([a-z-]+)|^ {4}make ([a-z-]+)", (ROOT / document).read_text(), re.MULTILINE
        )
    )

    assert set() == {first or second for first, second in named} - targets()


def test_every_target_has_a_help_text() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)", text, re.MULTILINE))
    helped = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))

    assert phony == helped


@pytest.mark.parametrize(
    "document", [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("*.md"))]
    + [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))]
    + [str(path.relative_to(ROOT)) for path in sorted((ROOT / "usecases").rglob("*.md"))],
)  # fmt: skip
def test_links_to_files_resolve(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", path.read_text())

    assert [] == [link for link in links if not (path.parent / link).exists()]


def test_bare_make_prints_the_commands_in_the_order_of_the_lifecycle() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    listed = re.findall(r"^  make ([a-z-]+)", shown, re.MULTILINE)

    lifecycle = [name for name in listed if name in {"setup", "demo", "lint", "test", "clean"}]
    assert ["setup", "demo", "lint", "test", "clean"] == lifecycle


def test_the_architecture_names_every_package() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    packages = [path.parent.name for path in ROOT.glob("*/__init__.py")]

    assert [] == [name for name in packages if f"`{name}/" not in text]
