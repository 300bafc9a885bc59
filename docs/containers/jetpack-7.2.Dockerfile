# Jetson Orin and Thor with JetPack 7.2, whose containers are those of Arm servers: CUDA 13.2, and TensorRT 10.16 from
# NVIDIA's packages. Written, not built.
FROM nvidia/cuda:13.2.0-devel-ubuntu24.04

# The runtime and its headers are of one version: the engine belongs to it.
ARG TENSORRT=10.16.*
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git make python3-venv \
    "libnvinfer-dev=$TENSORRT" "libnvonnxparsers-dev=$TENSORRT" "python3-libnvinfer=$TENSORRT" \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/storm-edge
COPY . .
ENV PATH=/opt/storm-edge/.venv/bin:$PATH
# Not `make setup`, which would take this for a workstation and install PyTorch.
RUN python3 -m venv --system-site-packages .venv \
    && pip install --no-cache-dir -c constraints.txt '.[cpu,serve,jetson]' \
    && python -m storm_edge.plugins.build '-DSTORM_CUDA_ARCHITECTURES=87;110'

ENTRYPOINT ["storm"]
