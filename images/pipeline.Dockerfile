# Every step of a training run, alone under Kubeflow or all of them in one Job.
# Group `steps`, on top of the layer of `features`. The number of threads is the Job's to say.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON} AS locked
ARG UV_VERSION=0.13.8
RUN pip install --no-cache-dir --root-user-action=ignore "uv==${UV_VERSION}"
WORKDIR /locked
COPY images/install.sh images/export.sh pyproject.toml uv.lock ./
RUN ./export.sh features steps

FROM ${PYTHON}
ENV PATH=/opt/venv/bin:${PATH} PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp LOGNAME=mlplatform DO_NOT_TRACK=1
COPY --from=locked /locked/install.sh /locked/features.txt /opt/locked/features/
RUN --mount=type=bind,from=locked,target=/mnt --mount=type=cache,target=/var/cache/uv \
    /opt/locked/features/install.sh /opt/locked/features/features.txt
# LightGBM needs OpenMP's runtime, which slim bases leave out.
RUN ldconfig -p | grep -q libgomp.so.1 \
    || { apt-get update && apt-get install -y --no-install-recommends libgomp1 \
         && rm -rf /var/lib/apt/lists/*; }
COPY --from=locked /locked/install.sh /locked/steps.txt /opt/locked/steps/
RUN --mount=type=bind,from=locked,target=/mnt --mount=type=cache,target=/var/cache/uv \
    /opt/locked/steps/install.sh /opt/locked/steps/steps.txt
WORKDIR /app
COPY mlplatform mlplatform
COPY usecases usecases
COPY feature_repo feature_repo
COPY pipelines pipelines
COPY uv.lock ./
RUN chmod -R a+rX /app && python -m compileall -q .
ARG GIT_COMMIT=unknown
ENV MLPLATFORM_GIT_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.title="mlplatform-pipeline" \
      org.opencontainers.image.description="Runs the steps of the pipelines" \
      org.opencontainers.image.revision="${GIT_COMMIT}"
USER 10001:10001
CMD ["python", "-m", "pipelines.job", "--help"]
