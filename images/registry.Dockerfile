# The MLflow server with users and permissions, and the job that makes its accounts.
# Group `registry`. It starts without a default password: see images/registry/start.py.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON} AS locked
ARG UV_VERSION=0.13.8
RUN pip install --no-cache-dir --root-user-action=ignore "uv==${UV_VERSION}"
WORKDIR /locked
COPY images/install.sh images/export.sh pyproject.toml uv.lock ./
RUN ./export.sh registry

FROM ${PYTHON}
ENV PATH=/opt/venv/bin:${PATH} PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp LOGNAME=mlplatform DO_NOT_TRACK=1
COPY --from=locked /locked/install.sh /locked/registry.txt /opt/locked/registry/
RUN --mount=type=bind,from=locked,target=/mnt --mount=type=cache,target=/var/cache/uv \
    /opt/locked/registry/install.sh /opt/locked/registry/registry.txt
WORKDIR /app
COPY mlplatform mlplatform
COPY images/registry images/registry
RUN chmod -R a+rX /app && python -m compileall -q .
ARG GIT_COMMIT=unknown
ENV MLPLATFORM_GIT_COMMIT=${GIT_COMMIT} \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
LABEL org.opencontainers.image.title="mlplatform-registry" \
      org.opencontainers.image.description="MLflow with accounts" \
      org.opencontainers.image.revision="${GIT_COMMIT}"
USER 10001:10001
CMD ["python", "/app/images/registry/start.py"]
