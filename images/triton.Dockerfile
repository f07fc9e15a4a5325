# Triton on CPUs: the server, its Python backend and the stub of the `nvidia-pytriton` wheel, with
# onnxruntime beside them, from the lock of local/triton. GPU nodes take NVIDIA's own image, which
# is named by its digest in the chart's values and not built here.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON} AS locked
ARG UV_VERSION=0.13.8
RUN pip install --no-cache-dir --root-user-action=ignore "uv==${UV_VERSION}"
WORKDIR /locked
COPY images/install.sh images/triton/export.sh local/triton/pyproject.toml local/triton/uv.lock ./
RUN ./export.sh

FROM ${PYTHON}
ENV PATH=/opt/venv/bin:${PATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
COPY images/triton/library.sh /opt/locked/
RUN /opt/locked/library.sh
COPY --from=locked /locked/install.sh /locked/triton.txt /opt/locked/triton/
RUN --mount=type=bind,from=locked,target=/mnt --mount=type=cache,target=/var/cache/uv \
    /opt/locked/triton/install.sh /opt/locked/triton/triton.txt
WORKDIR /app
COPY images/triton/serve.py local/triton/launch.py ./
RUN chmod -R a+rX /app && python serve.py --lay-out /opt/tritonserver
ARG GIT_COMMIT=unknown
ENV MLPLATFORM_GIT_COMMIT=${GIT_COMMIT} OMP_NUM_THREADS=1
LABEL org.opencontainers.image.title="mlplatform-triton" \
      org.opencontainers.image.description="Triton Inference Server for CPUs" \
      org.opencontainers.image.revision="${GIT_COMMIT}"
USER 10001:10001
ENTRYPOINT ["python", "-I", "/app/serve.py"]
CMD []
