// One piece of a convolution's work: some channels over some tokens of one batch.
#pragma once

#include "causal_conv1d/cpu/causal_conv1d.h"
#include "common/chunking.h"

namespace storm::cpu {

struct ConvPiece {
  const CausalConv1d* conv;
  int64_t batch;
  int64_t channel_begin;
  int64_t channel_end;
  Span positions;  // in scan order
};

// Of one piece at most: the limit of the weights it keeps on the stack.
constexpr int64_t kPieceWeights = 4096;  // channels * width

// Where the channels of a position lie: before the first position of a scan is the initial state, in token order.
// x [length, channels], initial_state [width-1, channels].
template <typename T>
STORM_HD const T* row_at(int64_t position, const T* x, const T* initial_state, int64_t length, int64_t channels,
                         int64_t width, bool reverse) {
  if (position >= 0) return x + token_at(position, length, reverse) * channels;
  return initial_state + (reverse ? -position - 1 : position + width - 1) * channels;
}

}  // namespace storm::cpu
