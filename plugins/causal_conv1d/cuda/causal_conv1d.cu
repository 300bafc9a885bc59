// Sizes and types are checked and chosen here; the kernels are compiled apart, one type a file.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <string>

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

std::string causal_conv1d_refusal(int64_t batch, int64_t length, int64_t channels, int64_t width) {
  if (batch < 1 || length < 1 || channels < 1) return "storm::CausalConv1d: every axis must be at least 1";
  if (width < 2) return "storm::CausalConv1d: width must be at least 2, got " + std::to_string(width);
  if (channels <= conv::kMaximumChannels && batch <= kMaximumElements / channels / std::max(length, width) &&
      conv::make_grid({batch, length, channels, width}).blocks <= conv::kMaximumBlocks) {
    return "";
  }
  return "storm::CausalConv1d: batch, length, channels and width " + std::to_string(batch) + ", " +
         std::to_string(length) + ", " + std::to_string(channels) + ", " + std::to_string(width) +
         " are more than one launch can take: run it in pieces";
}

cudaError_t causal_conv1d(const CausalConv1d& conv, cudaStream_t stream) {
  if (!causal_conv1d_refusal(conv.batch, conv.length, conv.channels, conv.width).empty()) return cudaErrorInvalidValue;
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
