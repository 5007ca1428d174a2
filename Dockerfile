# prototide, as an image that runs `prototide run`; deploy/README.md says how to build and use it.
# Any image with Python >= 3.11 and its venv module serves as base: --build-arg BASE_IMAGE=...
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
RUN python3 -m venv /opt/prototide
# The dependencies are a layer of their own: a change of the code does not install them again.
RUN python3 -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
    extras = project["optional-dependencies"]; \
    print(*project["dependencies"], *extras["core"], *(n for n in extras["service"] if "[" not in n), sep="\n")' \
    > requirements.txt \
    && /opt/prototide/bin/pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt
COPY core core
COPY service service
RUN /opt/prototide/bin/pip wheel --no-deps --wheel-dir /wheels . \
    && /opt/prototide/bin/pip install --no-cache-dir --constraint constraints.txt "$(echo /wheels/*.whl)[service]" \
    && /opt/prototide/bin/pip uninstall --yes pip

FROM ${BASE_IMAGE}
RUN groupadd --gid 10001 prototide \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/prototide --no-create-home prototide \
    && install --directory --owner prototide --group prototide /var/lib/prototide
COPY --from=build /opt/prototide /opt/prototide
ENV PATH=/opt/prototide/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/lib/prototide/numba \
    PROTOTIDE_CHECKPOINT__URI=/var/lib/prototide/checkpoints
USER 10001:10001
WORKDIR /var/lib/prototide
VOLUME /var/lib/prototide
EXPOSE 8000
# Alive, not ready: what acts on this restarts the container, and a restart does not bring a broker back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:%s/livez' % os.environ.get('PROTOTIDE_HTTP__PORT', '8000'), timeout=4)"]
ENTRYPOINT ["prototide"]
CMD ["run"]
