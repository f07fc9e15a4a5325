#!/bin/sh
# Installs what is locked into /opt/venv: `install.sh FILE`, once for each file of pins, in the
# order in which they build on each other. Runs while an image is built, never in a container.
set -eu
pins=$1
export UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_CACHE_DIR=/var/cache/uv
uv=/mnt/usr/local/bin/uv

[ -d /opt/venv ] || "$uv" venv --quiet --no-project --python "$(command -v python3)" /opt/venv
# Exactly the files whose hashes are locked. What an earlier file of pins brought is there already,
# in a layer that other images share, and is not written again.
"$uv" pip install --quiet --python /opt/venv --no-deps --require-hashes -r "$pins"

cd /opt/venv/lib/python3*/site-packages
# Their own tests and C headers; nothing imports them.
for package in numpy pandas pyarrow scipy sklearn statsmodels; do
  [ ! -d "$package" ] || find "$package" -type d \( -name tests -o -name include \) -prune -exec rm -rf {} +
done
# A container's file system is read-only: what is not compiled now is compiled at each start.
# Some packages carry templates that are no Python; they are nobody's to import.
/opt/venv/bin/python -m compileall -q -j 0 . >/dev/null 2>&1 || true
