# The rollout operator, and the export of a verified model before its server starts.
# Group `operator`, on top of the layer of `features`.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON} AS locked
ARG UV_VERSION=0.13.8
RUN pip install --no-cache-dir --root-user-action=ignore "uv==${UV_VERSION}"
WORKDIR /locked
COPY images/install.sh images/export.sh pyproject.toml uv.lock ./
RUN ./export.sh features operator

FROM ${PYTHON}
ENV PATH=/opt/venv/bin:${PATH} PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp LOGNAME=mlplatform DO_NOT_TRACK=1
COPY --from=locked /locked/install.sh /locked/features.txt /opt/locked/features/
RUN --mount=type=bind,from=locked,target=/mnt --mount=type=cache,target=/var/cache/uv \
    /opt/locked/features/install.sh /opt/locked/features/features.txt
COPY --from=locked /locked/install.sh /locked/operator.txt /opt/locked/operator/
RUN --mount=type=bind,from=locked,target=/mnt --mount=type=cache,target=/var/cache/uv \
    /opt/locked/operator/install.sh /opt/locked/operator/operator.txt
WORKDIR /app
COPY mlplatform mlplatform
COPY usecases usecases
COPY feature_repo feature_repo
COPY serving serving
RUN chmod -R a+rX /app && python -m compileall -q .
ARG GIT_COMMIT=unknown
ENV MLPLATFORM_GIT_COMMIT=${GIT_COMMIT} \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
LABEL org.opencontainers.image.title="mlplatform-operator" \
      org.opencontainers.image.description="Rolls model versions out" \
      org.opencontainers.image.revision="${GIT_COMMIT}"
USER 10001:10001
CMD ["python", "-m", "serving.operator"]
