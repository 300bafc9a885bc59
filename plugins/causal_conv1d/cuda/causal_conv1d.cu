// Sizes and types are checked and chosen here; the kernels are compiled apart, one type a file.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "causal_conv1d/cuda/causal_conv1d.h"
#include "causal_conv1d/cuda/strip.h"

namespace storm::conv {

template <class T>
cudaError_t launch(const CausalConv1d& conv, cudaStream_t stream);

extern template cudaError_t launch<float>(const CausalConv1d&, cudaStream_t);
extern template cudaError_t launch<__half>(const CausalConv1d&, cudaStream_t);
extern template cudaError_t launch<__nv_bfloat16>(const CausalConv1d&, cudaStream_t);

}  // namespace storm::conv

namespace storm::cuda {

cudaError_t causal_conv1d(const CausalConv1d& conv, cudaStream_t stream) {
  constexpr int64_t kMaximumBlocks = 0x7fffffff;
  if (conv.batch < 1 || conv.length < 1 || conv.channels < 1 || conv.width < 2) return cudaErrorInvalidValue;
  if (conv::make_grid({conv.batch, conv.length, conv.channels, conv.width}).blocks > kMaximumBlocks) {
    return cudaErrorInvalidValue;
  }
  switch (conv.type) {
    case Type::float32:
      return conv::launch<float>(conv, stream);
    case Type::float16:
      return conv::launch<__half>(conv, stream);
    case Type::bfloat16:
      return conv::launch<__nv_bfloat16>(conv, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace storm::cuda
