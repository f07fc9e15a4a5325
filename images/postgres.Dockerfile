# PostgreSQL for the ledger and the registry. The upstream image starts as root and gives its
# passwords to an entrypoint that reads them once; ours starts as nobody in particular and keeps
# roles, databases and passwords as the Secret says: see images/postgres/start.sh.
ARG POSTGRES=docker.io/library/postgres:15-bookworm
FROM ${POSTGRES}
# initdb and peer authentication ask for the name of the user that runs them.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin mlplatform \
    && ln -s /usr/lib/postgresql/*/bin /opt/postgresql
COPY --chmod=0755 images/postgres/start.sh /opt/mlplatform/
COPY --chmod=0644 images/postgres/setup.sql images/postgres/pg_hba.conf images/postgres/pg_ident.conf /opt/mlplatform/
ENV PATH=/opt/postgresql:${PATH} PGDATA=/var/lib/postgresql/data/pgdata HOME=/tmp
ARG GIT_COMMIT=unknown
LABEL org.opencontainers.image.title="mlplatform-postgres" \
      org.opencontainers.image.description="The databases of the ledger and of the registry" \
      org.opencontainers.image.revision="${GIT_COMMIT}"
# Ends clients' sessions and writes a checkpoint; SIGTERM would wait until they leave by themselves.
STOPSIGNAL SIGINT
USER 10001:10001
ENTRYPOINT ["/opt/mlplatform/start.sh"]
CMD []
