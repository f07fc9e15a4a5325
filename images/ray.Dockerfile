# The pods of a Ray cluster that KubeRay makes: the steps as in the image of the pipelines, with Ray's
# dashboard, which takes jobs. Group `ray`, on top of the layers of `steps`. Ray says how many threads.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON} AS locked
ARG UV_VERSION=0.13.8
RUN pip install --no-cache-dir --root-user-action=ignore "uv==${UV_VERSION}"
WORKDIR /locked
COPY images/install.sh images/export.sh pyproject.toml uv.lock ./
RUN ./export.sh features steps ray

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
COPY --from=locked /locked/install.sh /locked/ray.txt /opt/locked/ray/
RUN --mount=type=bind,from=locked,target=/mnt --mount=type=cache,target=/var/cache/uv \
    /opt/locked/ray/install.sh /opt/locked/ray/ray.txt
# KubeRay's probes call it.
RUN command -v wget \
    || { apt-get update && apt-get install -y --no-install-recommends wget \
         && rm -rf /var/lib/apt/lists/*; }
WORKDIR /app
COPY mlplatform mlplatform
COPY usecases usecases
COPY feature_repo feature_repo
COPY pipelines pipelines
COPY uv.lock ./
RUN chmod -R a+rX /app && python -m compileall -q .
ARG GIT_COMMIT=unknown
ENV MLPLATFORM_GIT_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.title="mlplatform-ray" \
      org.opencontainers.image.description="The pods of a Ray cluster" \
      org.opencontainers.image.revision="${GIT_COMMIT}"
USER 10001:10001
CMD ["ray", "--help"]
