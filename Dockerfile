# The daemon in a container. The same image runs every command of spotd: `run` by default.
#
#   docker build -t spotd .
#   docker build -t spotd:demo --build-arg EXTRAS=demo .
#
# With podman or buildah add `--format docker`: the OCI format has no HEALTHCHECK.

# Any image with python3 (3.11 or newer), its venv module and CA certificates will do.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
# Extras of the package, separated by commas: demo, fastapi, all.
ARG EXTRAS=""
# pip has an environment of its own, which is not in the final image.
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/spotd
WORKDIR /src
# The dependencies are installed first, for an empty package. This layer is nearly all of the build,
# and changes only with pyproject.toml.
COPY pyproject.toml ./
RUN mkdir spotd && touch README.md LICENSE && echo '__version__ = "0"' > spotd/__init__.py \
 && /pip/bin/pip --python /opt/spotd/bin/python3 install --no-cache-dir ".${EXTRAS:+[$EXTRAS]}"
COPY README.md LICENSE ./
COPY spotd ./spotd
RUN /pip/bin/pip --python /opt/spotd/bin/python3 install --no-cache-dir --no-deps --force-reinstall .

FROM ${BASE}
LABEL org.opencontainers.image.title="spotd" \
      org.opencontainers.image.description="One Alpaca stock stream for a whole company, on one Redis channel per symbol" \
      org.opencontainers.image.licenses="MIT"
# The user has a fixed number, so that secret files and volumes can be given to it. It is written by
# hand, because bases differ in the tools that add users.
RUN echo 'spotd:x:10001:10001:spotd:/srv/spotd:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'spotd:x:10001:' >> /etc/group
COPY --from=build /opt/spotd /opt/spotd
# The health endpoint must be reachable from outside of the container. PYTHONFAULTHANDLER leaves a
# traceback where a native library crashes. OpenBLAS comes in with pandas and would start a thread
# for every core, for nothing.
ENV PATH=/opt/spotd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    OPENBLAS_NUM_THREADS=1 \
    SPOTD_HTTP_HOST=0.0.0.0
# A `.env` file in the working directory is read, if one is mounted here.
WORKDIR /srv/spotd
USER 10001:10001
EXPOSE 9810
STOPSIGNAL SIGTERM
# Live is what a restart can heal; whether prices flow is /readyz. Port 0 turns the endpoint off,
# and then there is nothing to ask. http.client, because urllib would obey a proxy setting.
HEALTHCHECK --interval=15s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python3", "-c", "import http.client, os; port = int(os.environ.get('SPOTD_HTTP_PORT') or 9810); c = http.client.HTTPConnection('127.0.0.1', port, timeout=2); raise SystemExit(port != 0 and (c.request('GET', '/livez') or c.getresponse().status != 200))"]
ENTRYPOINT ["spotd"]
CMD ["run"]
