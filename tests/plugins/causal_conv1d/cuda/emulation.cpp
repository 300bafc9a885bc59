// The CUDA kernel's threads played one after the other: the same header, grid and strips.
#include "causal_conv1d/cuda/strip.h"

namespace {

using namespace storm::conv;

template <int kWidth>
void run(const Arguments<float>& args) {
  const Grid grid = make_grid(args.shape);
  for (uint32_t block = 0; block < grid.blocks; ++block) {
    for (unsigned thread = 0; thread < kThreads; ++thread) {
      convolve_strip<float, kWidth>(args, strip_of(block, thread, grid));
    }
  }
}

}  // namespace

extern "C" void emulate_conv(int64_t batch, int64_t length, int64_t channels, int64_t width, int reverse,
                             const float* x, const float* weight, const float* bias, const float* initial_state,
                             float* y, float* final_state, int any_width) {
  const Arguments<float> args = {{batch, length, channels, width},
                                 reverse != 0,
                                 x,
                                 weight,
                                 bias,
                                 initial_state,
                                 y,
                                 final_state};
  if (any_width != 0 || !moves_pairs(args)) {
    run<0>(args);
  } else if (width == 2) {
    run<2>(args);
  } else if (width == 3) {
    run<3>(args);
  } else {
    run<4>(args);
  }
}
