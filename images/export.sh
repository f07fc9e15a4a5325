#!/bin/sh
# Writes the locked versions and hashes of each dependency group to GROUP.txt: `export.sh GROUP...`.
# Runs while an image is built. An image's layer depends on these files, so it is built anew when
# its own pins change and not when another group's do.
set -eu
for group; do
  # mypy and what only it needs come with SQLAlchemy's extra that Feast asks for: 50 MB that
  # nothing imports.
  uv export --quiet --frozen --no-default-groups --only-group "$group" --no-emit-project \
    --no-annotate --no-header --no-emit-package mypy --no-emit-package librt \
    --no-emit-package ast-serialize --output-file "$group.txt"
done
