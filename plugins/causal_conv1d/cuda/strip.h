// What a thread does: a strip of kStripTokens tokens of two channels, forward and reverse alike, for host and device.
//
// Positions are in scan order; positions below 0 are the initial state's. A position sees itself and the width-1 before
// it, the weight's last column being its own.
#pragma once

#include <stdint.h>

#include "common/chunking.h"
#include "common/fast_math.h"
#include "common/pair.h"

namespace storm::conv {

constexpr int kStripTokens = 16;
constexpr int kWarpLanes = 32;
constexpr int kWarps = 8;  // of a block: strips of the same channels, one after the other
constexpr int kThreads = kWarps * kWarpLanes;
constexpr int kBlockChannels = 2 * kWarpLanes;
constexpr int kBlockTokens = kWarps * kStripTokens;

struct Shape {
  int64_t batch;
  int64_t length;
  int64_t channels;
  int64_t width;
};

template <class T>
struct Arguments {
  Shape shape;
  bool reverse;
  bool aligned;  // pairs of channels may be moved at once
  const T* x;
  const T* weight;
  const T* bias;
  const T* initial_state;
  T* y;
  T* final_state;
};

// Blocks are counted with the channels fastest, then tokens, then the batch.
struct Grid {
  int64_t channel_blocks;
  int64_t token_blocks;
  int64_t blocks;
};

STORM_HD Grid make_grid(const Shape& shape) {
  const int64_t channel_blocks = ceil_div(shape.channels, kBlockChannels);
  const int64_t token_blocks = ceil_div(shape.length, kBlockTokens);
  return {channel_blocks, token_blocks, channel_blocks * token_blocks * shape.batch};
}

// A strip's place: its batch entry, its first position and its first channel.
struct Strip {
  int64_t batch;
  int64_t position;
  int64_t channel;
};

STORM_HD Strip strip_of(int64_t block, int thread, const Grid& grid) {
  const int64_t tokens = block / grid.channel_blocks;
  return {tokens / grid.token_blocks, tokens % grid.token_blocks * kBlockTokens + thread / kWarpLanes * kStripTokens,
          block % grid.channel_blocks * kBlockChannels + thread % kWarpLanes * 2};
}

template <class T>
STORM_HD Pair x_at(const Arguments<T>& args, const Strip& strip, int64_t position, PairAccess access) {
  const Shape& shape = args.shape;
  const int64_t token = strip.batch * shape.length + token_at(position, shape.length, args.reverse);
  return load_pair(args.x + token * shape.channels + strip.channel, access);
}

// The pair at a position from 1-width to length-1, of the tokens or of the initial state, which is in token order too.
template <class T>
STORM_HD Pair seen_at(const Arguments<T>& args, const Strip& strip, int64_t position, PairAccess access) {
  if (position >= 0) return x_at(args, strip, position, access);
  const Shape& shape = args.shape;
  const int64_t kept = shape.width - 1, at = token_at(kept + position, kept, args.reverse);
  return load_pair(args.initial_state + (strip.batch * kept + at) * shape.channels + strip.channel, access);
}

template <class T>
STORM_HD Pair tap(const Arguments<T>& args, const Strip& strip, int64_t column, PairAccess access) {
  const T* const weights = args.weight + strip.channel * args.shape.width + column;
  return {access.count > 0 ? to_float(weights[0]) : 0.0f,
          access.count > 1 ? to_float(weights[args.shape.width]) : 0.0f};
}

template <class T>
STORM_HD void store_y(const Arguments<T>& args, const Strip& strip, int64_t position, Pair sum, PairAccess access) {
  const Shape& shape = args.shape;
  const int64_t token = strip.batch * shape.length + token_at(position, shape.length, args.reverse);
  store_pair({fast_silu(sum.first), fast_silu(sum.second)}, args.y + token * shape.channels + strip.channel, access);
}

// The last width-1 positions, in token order; of a sequence shorter than that, what is left of the initial state too.
template <class T>
STORM_HD void keep_state(const Arguments<T>& args, const Strip& strip, PairAccess access) {
  const int64_t kept = args.shape.width - 1;
  for (int64_t i = 0; i < kept; ++i) {
    const Pair seen = seen_at(args, strip, args.shape.length - kept + i, access);
    const int64_t at = token_at(i, kept, args.reverse);
    store_pair(seen, args.final_state + (strip.batch * kept + at) * args.shape.channels + strip.channel, access);
  }
}

// kWidth is the width, or 0 for any: then each token is loaded `width` times, from the cache.
template <class T, int kWidth>
STORM_HD void convolve_strip(const Arguments<T>& args, const Strip& strip) {
  const Shape& shape = args.shape;
  if (strip.channel >= shape.channels || strip.position >= shape.length) return;
  const PairAccess access = pair_access(strip.channel, shape.channels, args.aligned);
  const Pair bias = load_pair(args.bias + strip.channel, {access.count, false});
  if (strip.position == 0) keep_state(args, strip, access);

  if constexpr (kWidth > 0) {
    constexpr int kKept = kWidth - 1;
    Pair taps[kWidth], seen[kKept + kStripTokens];
    STORM_UNROLL
    for (int k = 0; k < kWidth; ++k) taps[k] = tap(args, strip, k, access);
    STORM_UNROLL
    for (int i = 0; i < kKept; ++i) seen[i] = seen_at(args, strip, strip.position - kKept + i, access);
    STORM_UNROLL
    for (int t = 0; t < kStripTokens; ++t) {
      const bool inside = strip.position + t < shape.length;
      const PairAccess here = {inside ? access.count : 0, inside && access.aligned};
      seen[kKept + t] = x_at(args, strip, strip.position + t, here);
    }
    STORM_UNROLL
    for (int t = 0; t < kStripTokens; ++t) {
      if (strip.position + t >= shape.length) break;
      Pair sum = bias;
      STORM_UNROLL
      for (int k = 0; k < kWidth; ++k) sum = multiply_add(taps[k], seen[t + k], sum);
      store_y(args, strip, strip.position + t, sum, access);
    }
  } else {
    for (int t = 0; t < kStripTokens && strip.position + t < shape.length; ++t) {
      Pair sum = bias;
      for (int64_t k = 0; k < shape.width; ++k) {
        const int64_t position = strip.position + t - (shape.width - 1) + k;
        sum = multiply_add(tap(args, strip, k, access), seen_at(args, strip, position, access), sum);
      }
      store_y(args, strip, strip.position + t, sum, access);
    }
  }
}

}  // namespace storm::conv
