# Jetson Orin with JetPack 6.2: CUDA 12.6 and TensorRT 10.3 are the image's. Written, not built.
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git make python3-libnvinfer-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/storm-edge
COPY . .
ENV PATH=/opt/storm-edge/.venv/bin:/usr/local/cuda/bin:$PATH
RUN make setup && make plugin PLUGIN_FLAGS=-DSTORM_CUDA_ARCHITECTURES=87

ENTRYPOINT ["storm"]
