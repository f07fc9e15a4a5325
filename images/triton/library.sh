#!/bin/sh
# Makes sure of Python as a shared library, which Triton's backend loads: some distributions package
# it by itself. Runs while the image is built.
set -eu
version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! ldconfig -p | grep -q "libpython$version.so.1.0"; then
  apt-get update
  apt-get install -y --no-install-recommends "libpython$version"
  rm -rf /var/lib/apt/lists/*
fi
