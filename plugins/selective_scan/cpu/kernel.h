// The scan of one piece, in the vectors of one instruction set: lanes are channels, so that any number of states fits and
// no lane ever waits for another.
//
// A piece goes through its tokens block by block, and through a block tile by tile: convert the inputs, softplus
// (prepare_tile); the recurrence, one exponential a state and token (scan_tile); skip connection, gate and conversion of y
// (finish_tile). What passes between the three fits the first-level cache, and so does the next tile, which is fetched
// meanwhile.
#pragma once

#include "common/chunking.h"
#include "cpu/simd.h"
#include "selective_scan/cpu/piece.h"

namespace storm::cpu::STORM_ISA {

constexpr int64_t kBlockTokens = 16;
constexpr int64_t kTileChannels = kWideWidth;
static_assert(kChannelGranule % kTileChannels == 0, "a full piece must not need more room than its states");
constexpr int64_t kCacheLine = 64;
// Beyond it 2^x is no normal float.
constexpr float kExponentLimit = 126.0f;

// The tokens of a block in the channels of a tile.
template <typename T>
struct TileRows {
  const T* u;  // of the block's first token
  const T* delta;
  const T* z;
  T* y;
  int64_t to_next;   // elements from one token to the next in scan order
  int64_t channels;  // that exist
};

// What one step hands to the next.
struct TileBlock {
  alignas(64) float step[kBlockTokens][kTileChannels];
  alignas(64) float inflow[kBlockTokens][kTileChannels];  // step * u
  alignas(64) float Ch[kBlockTokens][kTileChannels];      // <C, h>
};

// Fetches a row of a tile: rows lie too far apart for the processor to do so by itself. A row that is not there is not
// touched.
template <typename T>
STORM_INLINE void fetch_row(const TileRows<T>& rows, int64_t token) {
  const int64_t row = token * rows.to_next;
  for (int64_t at = 0; at < kTileChannels; at += kCacheLine / static_cast<int64_t>(sizeof(T))) {
    __builtin_prefetch(rows.u + row + at);
    __builtin_prefetch(rows.delta + row + at);
    __builtin_prefetch(rows.z + row + at);
    __builtin_prefetch(rows.y + row + at, 1);  // what is written must be fetched, too
  }
}

// Softplus of the steps and what flows in. Returns the largest step.
template <typename T>
STORM_INLINE Wide prepare_tile(const TileRows<T>& rows, int64_t tokens, Wide bias, TileBlock& block) {
  Wide largest(0.0f);
  for (int64_t i = 0; i < tokens; ++i) {
    const int64_t row = i * rows.to_next;
    const Wide step = softplus(load_wide(rows.delta + row, rows.channels) + bias);
    store_wide(block.step[i], step);
    store_wide(block.inflow[i], step * load_wide(rows.u + row, rows.channels));
    largest = max(step, largest);
  }
  return largest;
}

template <bool kWithinLimits>
STORM_INLINE Wide decay_of(Wide step, Wide A2) {
  return kWithinLimits ? exp2_product(step, A2) : decay(step, A2);
}

// The recurrence: A2 and h [state, channels of the tile]; B and C of the block's tokens [tokens, state].
template <bool kWithinLimits, bool kWriteY, typename T>
static void scan_tile(int64_t tokens, int64_t state, const float* A2, float* h, const float* B, const float* C,
                      TileBlock& block, const TileRows<T>& next) {
  for (int64_t i = 0; i < tokens; ++i, B += state, C += state) {
    fetch_row(next, i);
    const Wide step = load_wide(block.step[i]), inflow = load_wide(block.inflow[i]);
    Wide Ch(0.0f);
    for (int64_t n = 0; n < state; ++n) {
      const Wide decay = decay_of<kWithinLimits>(step, load_wide(A2 + n * kTileChannels));
      const Wide left = advance(load_wide(h + n * kTileChannels), decay, inflow, Wide(B[n]));
      store_wide(h + n * kTileChannels, left);
      if (kWriteY) Ch = fused(left, Wide(C[n]), Ch);
    }
    if (kWriteY) store_wide(block.Ch[i], Ch);
  }
}

// Skip connection and gate.
template <typename T>
STORM_INLINE void finish_tile(const TileRows<T>& rows, int64_t tokens, Wide D, const TileBlock& block) {
  for (int64_t i = 0; i < tokens; ++i) {
    const int64_t row = i * rows.to_next;
    const Wide u = load_wide(rows.u + row, rows.channels), z = load_wide(rows.z + row, rows.channels);
    store_wide(rows.y + row, gate(load_wide(block.Ch[i]), D, u, z), rows.channels);
  }
}

// Rows of B or C in scan order, as floats.
template <typename T>
static void load_rows(const T* rows, int64_t state, Span block, int64_t length, bool reverse, float* to) {
  for (int64_t position = block.begin; position < block.end; ++position, to += state) {
    const T* row = rows + token_at(position, length, reverse) * state;
    for (int64_t n = 0; n < state; n += kWidth) store_some(to + n, load_some(row + n, state - n), state - n);
  }
}

template <typename T>
static void scan_piece(const ScanPiece& piece) {
  const FlushDenormals flush;
  const SelectiveScan& scan = *piece.scan;
  const int64_t state = scan.state, channels = scan.channels, first = piece.channel_begin;
  const int64_t tiles = ceil_div(piece.channel_end - first, kTileChannels);
  const int64_t tokens_offset = piece.batch * scan.length * channels;
  const T* u = static_cast<const T*>(scan.u) + tokens_offset;
  const T* delta = static_cast<const T*>(scan.delta) + tokens_offset;
  const T* z = static_cast<const T*>(scan.z) + tokens_offset;
  T* y = static_cast<T*>(scan.y) + tokens_offset;
  const T* B = static_cast<const T*>(scan.B) + piece.batch * scan.length * state;
  const T* C = static_cast<const T*>(scan.C) + piece.batch * scan.length * state;
  const auto channel_of = [&](int64_t tile) { return first + tile * kTileChannels; };
  const auto lanes_of = [&](int64_t tile) {
    const int64_t left = piece.channel_end - channel_of(tile);
    return left < kTileChannels ? left : kTileChannels;
  };
  const auto rows_of = [&](int64_t position, int64_t tile) {
    const int64_t at = token_at(position, scan.length, scan.reverse) * channels + channel_of(tile);
    return TileRows<T>{u + at, delta + at, z + at, y + at, scan.reverse ? -channels : channels, lanes_of(tile)};
  };

  alignas(64) float A2[kPieceStates];  // (tiles, state, channels of the tile)
  alignas(64) float h[kPieceStates];   // likewise
  alignas(64) float A2_largest[kPieceChannels];
  alignas(64) float step_sum[kPieceChannels] = {};

  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t lanes = lanes_of(tile), channel = channel_of(tile);
    Wide largest(0.0f);
    for (int64_t n = 0; n < state; ++n) {
      float a[kTileChannels] = {}, before[kTileChannels] = {};
      for (int64_t lane = 0; lane < lanes; ++lane) {
        a[lane] = scan.A[(channel + lane) * state + n];
        if (piece.initial_state) before[lane] = piece.initial_state[(channel + lane) * state + n];
      }
      const Wide a2 = load_wide(a) * Wide(kLog2e);
      store_wide(A2 + (tile * state + n) * kTileChannels, a2);
      largest = max(abs(a2), largest);
      Wide entered = load_wide(before);
      for (int64_t chunk = 0; chunk < piece.chunks_before; ++chunk) {
        float left[kTileChannels] = {};
        for (int64_t lane = 0; lane < lanes; ++lane) {
          left[lane] = piece.states_before[(chunk * channels + channel + lane) * state + n];
        }
        const Wide steps = load_wide(piece.steps_before + chunk * channels + channel, lanes);
        entered = state_after(entered, Effect<Wide>{steps, load_wide(left)}, a2);
      }
      store_wide(h + (tile * state + n) * kTileChannels, entered);
    }
    store_wide(A2_largest + tile * kTileChannels, largest);
  }

  TileBlock block;
  alignas(64) float B_block[kBlockTokens * kMaximumState];  // (tokens, state)
  alignas(64) float C_block[kBlockTokens * kMaximumState];

  for (int64_t begin = piece.positions.begin; begin < piece.positions.end; begin += kBlockTokens) {
    const int64_t left = piece.positions.end - begin;
    const int64_t tokens = left < kBlockTokens ? left : kBlockTokens;
    load_rows(B, state, {begin, begin + tokens}, scan.length, scan.reverse, B_block);
    if (piece.write_y) load_rows(C, state, {begin, begin + tokens}, scan.length, scan.reverse, C_block);
    const int64_t next_begin = left > kBlockTokens ? begin + kBlockTokens : begin;

    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t lanes = lanes_of(tile), channel = channel_of(tile);
      const TileRows<T> rows = rows_of(begin, tile);
      const TileRows<T> next = tile + 1 < tiles ? rows_of(begin, tile + 1) : rows_of(next_begin, 0);
      const Wide bias = load_wide(scan.delta_bias + channel, lanes);
      const Wide largest = prepare_tile(rows, tokens, bias, block);
      if (piece.step_sum) {
        float* sum = step_sum + tile * kTileChannels;
        for (int64_t i = 0; i < tokens; ++i) store_wide(sum, load_wide(sum) + load_wide(block.step[i]));
      }
      const bool within = all_at_most(largest * load_wide(A2_largest + tile * kTileChannels), Wide(kExponentLimit));
      const auto scan_this = within ? (piece.write_y ? scan_tile<true, true, T> : scan_tile<true, false, T>)
                                    : (piece.write_y ? scan_tile<false, true, T> : scan_tile<false, false, T>);
      const int64_t states = tile * state * kTileChannels;
      scan_this(tokens, state, A2 + states, h + states, B_block, C_block, block, next);
      if (piece.write_y) finish_tile(rows, tokens, load_wide(scan.D + channel, lanes), block);
    }
  }

  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t lanes = lanes_of(tile), channel = channel_of(tile);
    if (piece.step_sum) store_wide(piece.step_sum + channel, load_wide(step_sum + tile * kTileChannels), lanes);
    if (!piece.final_state) continue;
    for (int64_t n = 0; n < state; ++n) {
      const float* after = h + (tile * state + n) * kTileChannels;
      for (int64_t lane = 0; lane < lanes; ++lane) piece.final_state[(channel + lane) * state + n] = after[lane];
    }
  }
}

static void scan_piece_of_any_type(const ScanPiece& piece) {
  switch (piece.scan->type) {
    case Type::float32:
      return scan_piece<float>(piece);
    case Type::float16:
      return scan_piece<Half>(piece);
    case Type::bfloat16:
      return scan_piece<BFloat16>(piece);
  }
}

}  // namespace storm::cpu::STORM_ISA
