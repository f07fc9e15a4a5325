#!/bin/sh
# Writes the locked versions and hashes of local/triton to triton.txt, without what only the wheel's
# own Python imports: its server and its libraries are started by path, and run a model with numpy
# and onnxruntime. Runs while the image is built.
set -eu
left_out=
for name in aiohappyeyeballs aiohttp aiosignal annotated-doc annotated-types attrs brotli certifi \
  cffi frozenlist gevent geventhttpclient greenlet grpcio idna importlib-metadata lazy-importer \
  markdown-it-py mdurl multidict propcache pycparser pydantic pydantic-core pygments \
  python-rapidjson pyzmq rich sh shellingham tritonclient typer typing-inspection \
  typing-inspect urllib3 wrapt yarl zipp zope-event zope-interface; do
  left_out="$left_out --no-emit-package $name"
done
# shellcheck disable=SC2086 (a list of options)
uv export --quiet --frozen --no-emit-project --no-annotate --no-header $left_out \
  --output-file triton.txt
