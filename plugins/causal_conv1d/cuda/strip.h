// What a thread does: a strip of kStripTokens tokens of two channels, forward and reverse alike, for host and device.
//
// Positions are in scan order; positions below 0 are the initial state's. A position sees itself and the width-1 before
// it, the weight's last column being its own. All that a strip needs is asked for before any of it is waited for.
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
constexpr int64_t kMaximumBlocks = 0x7fffffff;
// 32 bits say where an element lies that a strip sees.
constexpr int64_t kMaximumChannels = kMaximumBlocks / (2 * kStripTokens);
constexpr int kWidest = 4;  // of the kernels that keep the tokens in registers

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
  const T* x;
  const T* weight;
  const T* bias;
  const T* initial_state;
  T* y;
  T* final_state;
};

// Whether a kernel for one width takes these: it moves pairs of channels.
template <class T>
inline bool moves_pairs(const Arguments<T>& args) {
  return args.shape.width <= kWidest && args.shape.channels % 2 == 0 &&
         are_aligned(2 * sizeof(T), {args.x, args.weight, args.bias, args.initial_state, args.y});
}

// Blocks are counted with the channels fastest, then tokens, then the batch.
struct Grid {
  uint32_t channel_blocks;
  uint32_t token_blocks;
  int64_t blocks;  // at most kMaximumBlocks of them can be launched
};

STORM_HD Grid make_grid(const Shape& shape) {
  const int64_t channel_blocks = ceil_div(shape.channels, kBlockChannels);
  const int64_t token_blocks = ceil_div(shape.length, kBlockTokens);
  return {static_cast<uint32_t>(channel_blocks), static_cast<uint32_t>(token_blocks),
          channel_blocks * token_blocks * shape.batch};
}

// A strip's place: its batch entry, its first position and its first channel.
struct Strip {
  int64_t batch;
  int64_t position;
  int64_t channel;
};

STORM_HD Strip strip_of(uint32_t block, unsigned thread, const Grid& grid) {
  const uint32_t tokens = block / grid.channel_blocks;
  const int64_t first = static_cast<int64_t>(tokens % grid.token_blocks) * kBlockTokens;
  const int64_t channel = static_cast<int64_t>(block % grid.channel_blocks) * kBlockChannels;
  return {tokens / grid.token_blocks, first + thread / kWarpLanes * kStripTokens, channel + thread % kWarpLanes * 2};
}

// Where the strip's first channel of a position lies in x and y.
template <class T>
STORM_HD int64_t index_of(const Arguments<T>& args, const Strip& strip, int64_t position) {
  const int64_t token = strip.batch * args.shape.length + token_at(position, args.shape.length, args.reverse);
  return token * args.shape.channels + strip.channel;
}

// And of a kept position, 0 to width-2, in the states, which are in token order too.
template <class T>
STORM_HD int64_t state_index_of(const Arguments<T>& args, const Strip& strip, int64_t position) {
  const int64_t kept = args.shape.width - 1, at = token_at(position, kept, args.reverse);
  return (strip.batch * kept + at) * args.shape.channels + strip.channel;
}

// The pair at a position from 1-width to length-1, of the tokens or of the initial state.
template <class T>
STORM_HD Pair seen_at(const Arguments<T>& args, const Strip& strip, int64_t position, int count) {
  const bool token = position >= 0;
  return load_pair(token ? args.x + index_of(args, strip, position)
                         : args.initial_state + state_index_of(args, strip, args.shape.width - 1 + position),
                   count);
}

template <class T>
STORM_HD Pair tap(const Arguments<T>& args, const Strip& strip, int64_t column, int count) {
  const T* const weights = args.weight + strip.channel * args.shape.width + column;
  return {count > 0 ? to_float(weights[0]) : 0.0f, count > 1 ? to_float(weights[args.shape.width]) : 0.0f};
}

// The last width-1 positions; of a sequence shorter than that, what is left of the initial state too.
template <class T>
STORM_HD void keep_state(const Arguments<T>& args, const Strip& strip, int count) {
  const int64_t kept = args.shape.width - 1;
  for (int64_t i = 0; i < kept; ++i) {
    const Pair seen = seen_at(args, strip, args.shape.length - kept + i, count);
    store_pair(seen, args.final_state + state_index_of(args, strip, i), count);
  }
}

STORM_HD Pair activated(Pair sum) { return {fast_silu(sum.first), fast_silu(sum.second)}; }

// A whole strip in registers: its tokens and the width-1 before them, all loaded first.
template <int kWidth, class T>
STORM_HD void convolve_pairs(const Arguments<T>& args, const Strip& strip) {
  constexpr int kKept = kWidth - 1;
  const int32_t channels = static_cast<int32_t>(args.shape.channels);  // at most kMaximumChannels
  const int32_t next = args.reverse ? -channels : channels;
  const int64_t index = index_of(args, strip, strip.position);
  const T* const x = args.x + index;
  // What lies before the strip is in the tokens or the state; a position further is a token further in both.
  const T* const before = strip.position == 0 ? args.initial_state + state_index_of(args, strip, 0) : x - kKept * next;
  const T* const rows = args.weight + strip.channel * kWidth;  // of two channels, one after the other
  Packed<T> seen[kKept + kStripTokens], weights[kWidth];
  STORM_UNROLL
  for (int i = 0; i < kKept; ++i) seen[i] = *packed_at(before + i * next);
  STORM_UNROLL
  for (int t = 0; t < kStripTokens; ++t) seen[kKept + t] = *packed_at(x + t * next);
  STORM_UNROLL
  for (int k = 0; k < kWidth; ++k) weights[k] = *packed_at(rows + 2 * k);
  const Pair bias = unpack(*packed_at(args.bias + strip.channel));
  Pair taps[kWidth];
  STORM_UNROLL
  for (int k = 0; k < kWidth; ++k) {
    const Pair first = unpack(weights[k / 2]), second = unpack(weights[(kWidth + k) / 2]);
    taps[k] = {k % 2 == 0 ? first.first : first.second, (kWidth + k) % 2 == 0 ? second.first : second.second};
  }
  STORM_UNROLL
  for (int t = 0; t < kStripTokens; ++t) {
    Pair sum = bias;
    STORM_UNROLL
    for (int k = 0; k < kWidth; ++k) sum = multiply_add(taps[k], unpack(seen[t + k]), sum);
    *packed_at(args.y + index + t * next) = pack<T>(activated(sum));
  }
}

// Any width and any channels, and the strip in which a sequence ends: each token is loaded `width` times, from the cache.
template <class T>
STORM_HD void convolve_singly(const Arguments<T>& args, const Strip& strip, int count) {
  const int64_t width = args.shape.width;
  const Pair bias = load_pair(args.bias + strip.channel, count);
  for (int t = 0; t < kStripTokens && strip.position + t < args.shape.length; ++t) {
    const int64_t position = strip.position + t;
    Pair sum = bias;
    for (int64_t k = 0; k < width; ++k) {
      sum = multiply_add(tap(args, strip, k, count), seen_at(args, strip, position - (width - 1) + k, count), sum);
    }
    store_pair(activated(sum), args.y + index_of(args, strip, position), count);
  }
}

// kWidth is the width of a kernel that moves pairs, or 0.
template <class T, int kWidth>
STORM_HD void convolve_strip(const Arguments<T>& args, const Strip& strip) {
  if (strip.channel >= args.shape.channels || strip.position >= args.shape.length) return;
  const int count = pair_count(strip.channel, args.shape.channels);
  if (strip.position == 0) keep_state(args, strip, count);
  if constexpr (kWidth > 0) {
    if (strip.position + kStripTokens <= args.shape.length) return convolve_pairs<kWidth>(args, strip);
  }
  convolve_singly(args, strip, count);
}

}  // namespace storm::conv
