// The kernel around strip.h and its launch, for one T; each .cu file makes them for one type.
#pragma once

#include "causal_conv1d/cuda/causal_conv1d.h"
#include "causal_conv1d/cuda/strip.h"
#include "common/device.cuh"

namespace storm::conv {

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads, 4) causal_conv1d_kernel(const Arguments<T> args, const Grid grid) {
  convolve_strip<T, kWidth>(args, strip_of(blockIdx.x, threadIdx.x, grid));
}

template <class T>
cudaError_t launch(const CausalConv1d& conv, cudaStream_t stream) {
  const auto of = [](const void* pointer) { return static_cast<const T*>(pointer); };
  const Shape shape = {conv.batch, conv.length, conv.channels, conv.width};
  const Arguments<T> args = {shape,
                             conv.reverse,
                             of(conv.x),
                             of(conv.weight),
                             of(conv.bias),
                             of(conv.initial_state),
                             static_cast<T*>(conv.y),
                             static_cast<T*>(conv.final_state)};
  const Grid grid = make_grid(shape);
  const unsigned blocks = static_cast<unsigned>(grid.blocks);
  return launched([&] {
    switch (moves_pairs(args) ? conv.width : 0) {
      case 2:
        causal_conv1d_kernel<T, 2><<<blocks, kThreads, 0, stream>>>(args, grid);
        break;
      case 3:
        causal_conv1d_kernel<T, 3><<<blocks, kThreads, 0, stream>>>(args, grid);
        break;
      case 4:
        causal_conv1d_kernel<T, 4><<<blocks, kThreads, 0, stream>>>(args, grid);
        break;
      default:
        causal_conv1d_kernel<T, 0><<<blocks, kThreads, 0, stream>>>(args, grid);
    }
  });
}

}  // namespace storm::conv
