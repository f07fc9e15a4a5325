# Redis under a name and a user of ours. It is only a program here: its flags, the access list and
# the volume are the chart's.
ARG REDIS=docker.io/library/redis:7-bookworm
FROM ${REDIS}
ARG GIT_COMMIT=unknown
LABEL org.opencontainers.image.title="mlplatform-redis" \
      org.opencontainers.image.description="The online store and the streams" \
      org.opencontainers.image.revision="${GIT_COMMIT}"
WORKDIR /data
USER 10001:10001
ENTRYPOINT []
CMD ["redis-server", "--help"]
