#include "causal_conv1d/cuda/kernel.cuh"

namespace storm::conv {

template cudaError_t launch<float>(const CausalConv1d&, cudaStream_t);

}  // namespace storm::conv
