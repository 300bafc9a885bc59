# A data-center GPU: CUDA 13 by default; for drivers of CUDA 12: --build-arg CUDA=12.9.1 --build-arg EXTRA=tensorrt-cu12.
# Written, not built.
ARG CUDA=13.0.2
FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04

ARG EXTRA=tensorrt-cu13
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git make python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/storm-edge
COPY . .
ENV PATH=/opt/storm-edge/.venv/bin:$PATH
# TensorRT's wheels come from NVIDIA's package index, and bring no headers: those are fetched from its repository.
RUN python3 -m venv .venv \
    && pip install --no-cache-dir -c constraints.txt ".[cpu,serve,$EXTRA]" cmake ninja onnx \
    && python -m storm_edge.plugins.build -DSTORM_TENSORRT_TAG=v10.16

ENTRYPOINT ["storm"]
