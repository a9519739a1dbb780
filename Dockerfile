# The daemon in a container. The same image runs every command of spotd: `run` by default.
#
#   docker build -t spotd .
#   docker build -t spotd:demo --build-arg EXTRAS=demo .
#
# With podman or buildah add `--format docker`: the OCI format has no HEALTHCHECK.

# Any Linux image with python3 (3.11 or newer), its venv module and CA certificates will do.
ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS build
# `demo` adds the embedded server of `spotd demo`.
ARG EXTRAS=""
# pip has an environment of its own, which is not in the final image.
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/spotd
WORKDIR /src
# Every version and its hashes are in these files, and only wheels are taken: nothing is compiled.
# This layer is nearly all of the build, and changes only with them. Tests of the packages stay out.
COPY deploy/requirements ./requirements
RUN /pip/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/build.txt \
 && /pip/bin/pip --python /opt/spotd/bin/python3 install --no-cache-dir --no-compile \
        --require-hashes --only-binary :all: \
        -r requirements/run.txt ${EXTRAS:+-r "requirements/$EXTRAS.txt"} \
 && find /opt/spotd/lib -type d -name tests -prune -exec rm -rf {} +
COPY pyproject.toml README.md LICENSE ./
COPY spotd ./spotd
# Bytecode is made here, since the daemon writes none. It is not compared with its source, whose
# time some builders change.
RUN /pip/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /pip/bin/pip --python /opt/spotd/bin/python3 install --no-cache-dir --no-compile \
        --no-index --no-deps /wheel/*.whl \
 && /opt/spotd/bin/python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/spotd/lib

FROM ${BASE}
ARG BASE
# A test holds it equal to the version of the package.
ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="spotd" \
      org.opencontainers.image.description="One Alpaca stock stream for a whole company, on one Redis channel per symbol" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.base.name="${BASE}"
# The user has a fixed number, so that secret files and volumes can be given to it. It is written by
# hand, because bases differ in the tools that add users. What installs packages of Python goes. The
# standard library gets its bytecode where the base has none, as Docker's own Python.
RUN echo 'spotd:x:10001:10001:spotd:/srv/spotd:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'spotd:x:10001:' >> /etc/group \
 && find / -xdev \
        \( -name ensurepip -o -name python-wheels -o -path '*-packages/pip' \
           -o -path '*-packages/pip-*' -o -path '*/bin/pip*' \) -prune -exec rm -rf {} + \
 && python3 -m compileall -q -j 0 -x '/(idlelib|lib2to3|test|tests|tkinter|turtledemo|.*-packages)/' \
        --invalidation-mode unchecked-hash \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
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
# Live is what a restart can heal; whether prices flow is /readyz. The check finds out by itself
# whether this is a daemon or a relay. Other commands have nothing to ask, and count as healthy.
HEALTHCHECK --interval=15s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python3", "-P", "-m", "spotd.ops.livez"]
ENTRYPOINT ["spotd"]
CMD ["run"]
