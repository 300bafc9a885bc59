#include "causal_conv1d/cuda/kernel.cuh"

namespace storm::conv {

template cudaError_t launch<__nv_bfloat16>(const CausalConv1d&, cudaStream_t);

}  // namespace storm::conv
