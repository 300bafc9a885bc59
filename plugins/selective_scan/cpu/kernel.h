// The scan of one piece, in the vectors of one instruction set: lanes are channels, so that any number of states fits and
// no lane ever waits for another.
//
// A piece goes through its tokens block by block. For every block: convert the inputs, softplus (prologue); the
// recurrence, one exponential a state and token (scan_tile); skip connection, gate and conversion of y (epilogue). What
// passes between the three fits the first-level cache.
#pragma once

#include "common/chunking.h"
#include "cpu/simd.h"
#include "selective_scan/cpu/piece.h"

namespace storm::cpu::STORM_ISA {

constexpr int64_t kBlockTokens = 8;
constexpr int64_t kPieceVectors = kPieceStates / kWidth;
constexpr int64_t kPieceTiles = kPieceChannels / kWidth;
// Beyond it 2^x is no normal float.
constexpr float kExponentLimit = 126.0f;

template <bool kWithinLimits>
STORM_INLINE Vector decay_of(Vector step, Vector A2) {
  return kWithinLimits ? exp2_product(step, A2) : decay(step, A2);
}

// What comes next in memory: rows of tokens lie far apart, so that the processor does not fetch them by itself.
struct Ahead {
  const char* z;      // of this block, for its epilogue
  const char* y;      // likewise: what is written must be fetched, too
  const char* u;      // of the block after this one, for its prologue
  const char* delta;  // likewise
  int64_t row;        // bytes from one token to the next in scan order
};

// The recurrence of kWidth channels over some tokens: h [state], Ch = <C, h> of each token.
template <bool kWithinLimits, bool kWriteY>
static void scan_tile(int64_t tokens, int64_t state, const Vector* A2, Vector* h, const Vector* step,
                      const Vector* inflow, const float* B, const float* C, Vector* Ch, const Ahead& ahead) {
  for (int64_t i = 0; i < tokens; ++i, B += state, C += state) {
    const int64_t row = i * ahead.row;
    __builtin_prefetch(ahead.z + row);
    __builtin_prefetch(ahead.y + row, 1);
    __builtin_prefetch(ahead.u + row);
    __builtin_prefetch(ahead.delta + row);
    const Vector step_i = step[i * kPieceTiles], inflow_i = inflow[i * kPieceTiles];
    Vector sum(0.0f);
    for (int64_t n = 0; n < state; ++n) {
      h[n] = advance(h[n], decay_of<kWithinLimits>(step_i, A2[n]), inflow_i, Vector(B[n]));
      if (kWriteY) sum = fused(h[n], Vector(C[n]), sum);
    }
    if (kWriteY) Ch[i * kPieceTiles] = sum;
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
  const int64_t tiles = ceil_div(piece.channel_end - first, kWidth);
  const int64_t tokens_offset = piece.batch * scan.length * channels;
  const T* u = static_cast<const T*>(scan.u) + tokens_offset;
  const T* delta = static_cast<const T*>(scan.delta) + tokens_offset;
  const T* z = static_cast<const T*>(scan.z) + tokens_offset;
  T* y = static_cast<T*>(scan.y) + tokens_offset;
  const T* B = static_cast<const T*>(scan.B) + piece.batch * scan.length * state;
  const T* C = static_cast<const T*>(scan.C) + piece.batch * scan.length * state;
  const int64_t row_step = scan.reverse ? -channels : channels;  // to the next token in scan order
  const auto lanes_of = [&](int64_t tile) { return piece.channel_end - first - tile * kWidth; };

  alignas(64) Vector A2[kPieceVectors];  // (tiles, state)
  alignas(64) Vector h[kPieceVectors];   // (tiles, state)
  alignas(64) Vector A2_largest[kPieceTiles];
  alignas(64) Vector step_sum[kPieceTiles];
  alignas(64) Vector largest_step[kPieceTiles];  // of a block

  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t lanes = lanes_of(tile) < kWidth ? lanes_of(tile) : kWidth;
    const int64_t channel = first + tile * kWidth;
    step_sum[tile] = A2_largest[tile] = Vector(0.0f);
    for (int64_t n = 0; n < state; ++n) {
      float a[kWidth] = {}, before[kWidth] = {};
      for (int64_t lane = 0; lane < lanes; ++lane) {
        a[lane] = scan.A[(channel + lane) * state + n];
        if (piece.initial_state) before[lane] = piece.initial_state[(channel + lane) * state + n];
      }
      Vector& a2 = A2[tile * state + n];
      a2 = load(a) * Vector(kLog2e);
      A2_largest[tile] = max(abs(a2), A2_largest[tile]);
      Vector entered = load(before);
      for (int64_t chunk = 0; chunk < piece.chunks_before; ++chunk) {
        float left[kWidth] = {};
        for (int64_t lane = 0; lane < lanes; ++lane) {
          left[lane] = piece.states_before[(chunk * channels + channel + lane) * state + n];
        }
        const Vector steps = load_some(piece.steps_before + chunk * channels + channel, lanes);
        entered = state_after(entered, Effect<Vector>{steps, load(left)}, a2);
      }
      h[tile * state + n] = entered;
    }
  }

  alignas(64) Vector step[kPieceTiles * kBlockTokens];  // (tokens of the block, tiles)
  alignas(64) Vector inflow[kPieceTiles * kBlockTokens];
  alignas(64) Vector Ch[kPieceTiles * kBlockTokens];
  alignas(64) float B_block[kBlockTokens * kMaximumState];  // (tokens, state)
  alignas(64) float C_block[kBlockTokens * kMaximumState];

  for (int64_t begin = piece.positions.begin; begin < piece.positions.end; begin += kBlockTokens) {
    const int64_t left = piece.positions.end - begin;
    const int64_t tokens = left < kBlockTokens ? left : kBlockTokens;
    load_rows(B, state, {begin, begin + tokens}, scan.length, scan.reverse, B_block);
    if (piece.write_y) load_rows(C, state, {begin, begin + tokens}, scan.length, scan.reverse, C_block);

    for (int64_t tile = 0; tile < tiles; ++tile) largest_step[tile] = Vector(0.0f);
    for (int64_t i = 0; i < tokens; ++i) {
      const int64_t row = token_at(begin + i, scan.length, scan.reverse) * channels;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t lanes = lanes_of(tile), channel = first + tile * kWidth;
        const Vector bias = load_some(scan.delta_bias + channel, lanes);
        const Vector step_i = softplus(load_some(delta + row + channel, lanes) + bias);
        step[i * kPieceTiles + tile] = step_i;
        inflow[i * kPieceTiles + tile] = step_i * load_some(u + row + channel, lanes);
        largest_step[tile] = max(step_i, largest_step[tile]);
        step_sum[tile] = step_sum[tile] + step_i;
      }
    }

    const int64_t first_row = token_at(begin, scan.length, scan.reverse) * channels + first;
    const bool last_block = begin + tokens >= piece.positions.end;
    const int64_t next_row = last_block ? first_row : first_row + tokens * row_step;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const auto in_tile = [&](const T* row) { return reinterpret_cast<const char*>(row + tile * kWidth); };
      const Ahead ahead{in_tile(z + first_row), in_tile(y + first_row), in_tile(u + next_row),
                        in_tile(delta + next_row), row_step * static_cast<int64_t>(sizeof(T))};
      const bool within = all_at_most(largest_step[tile] * A2_largest[tile], Vector(kExponentLimit));
      const auto scan_this = within ? (piece.write_y ? scan_tile<true, true> : scan_tile<true, false>)
                                    : (piece.write_y ? scan_tile<false, true> : scan_tile<false, false>);
      scan_this(tokens, state, A2 + tile * state, h + tile * state, step + tile, inflow + tile, B_block, C_block,
                Ch + tile, ahead);
    }

    if (!piece.write_y) continue;
    for (int64_t i = 0; i < tokens; ++i) {
      const int64_t row = token_at(begin + i, scan.length, scan.reverse) * channels;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t lanes = lanes_of(tile), channel = first + tile * kWidth;
        const Vector D = load_some(scan.D + channel, lanes);
        const Vector u_i = load_some(u + row + channel, lanes), z_i = load_some(z + row + channel, lanes);
        store_some(y + row + channel, gate(Ch[i * kPieceTiles + tile], D, u_i, z_i), lanes);
      }
    }
  }

  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t lanes = lanes_of(tile) < kWidth ? lanes_of(tile) : kWidth;
    const int64_t channel = first + tile * kWidth;
    if (piece.step_sum) store_some(piece.step_sum + channel, step_sum[tile], lanes);
    if (!piece.final_state) continue;
    for (int64_t n = 0; n < state; ++n) {
      float after[kWidth];
      store(after, h[tile * state + n]);
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
