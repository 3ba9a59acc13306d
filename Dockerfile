# The clinic: dermalert serve, and dermalert worker. See docs/operate.md.
#
# Who wants the same bytes each time pins the base by digest as well: python:…@sha256:… of `docker pull`.
FROM python:3.12.11-slim-trixie AS build
WORKDIR /src
RUN python -m venv /opt/dermalert
ENV PATH=/opt/dermalert/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# First what changes seldom: every library at the version and hash of the lock.
COPY requirements/serve.txt requirements/serve.txt
RUN pip install --no-deps --require-hashes -r requirements/serve.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-deps --no-build-isolation . && pip uninstall --yes pip

FROM python:3.12.11-slim-trixie
# What WeasyPrint draws reports with, and backups are made by: PostgreSQL 17, as in compose.yaml. Not pinned: Debian's repositories keep only the newest security update of each.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        fonts-dejavu-core libharfbuzz-subset0 libpango-1.0-0 libpangoft2-1.0-0 postgresql-client \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin dermalert \
    && install -d -o dermalert -g dermalert -m 0700 /data
COPY --from=build /opt/dermalert /opt/dermalert
ENV PATH=/opt/dermalert/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/tmp \
    DERMALERT_DATA=/data \
    DERMALERT_HOST=0.0.0.0 \
    DERMALERT_PORT=8000
USER 10001:10001
VOLUME /data
EXPOSE 8000
# Ends in order: requests and cases at hand are finished first.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["dermalert"]
CMD ["serve"]
