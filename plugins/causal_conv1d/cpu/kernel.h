// The convolution of one piece, in the vectors of one instruction set: lanes are channels.
#pragma once

#include "causal_conv1d/cpu/piece.h"
#include "cpu/simd.h"

namespace storm::cpu::STORM_ISA {

// kTaps: the width where it is known when this is compiled, else 0.
template <typename T, int64_t kTaps>
static void convolve(const ConvPiece& piece) {
  const FlushDenormals flush;
  const CausalConv1d& conv = *piece.conv;
  const int64_t channels = conv.channels, first = piece.channel_begin;
  const int64_t width = kTaps > 0 ? kTaps : conv.width;
  const int64_t count = piece.channel_end - first, tiles = ceil_div(count, kWidth);
  const T* x = static_cast<const T*>(conv.x) + piece.batch * conv.length * channels;
  const T* before = static_cast<const T*>(conv.initial_state) + piece.batch * (width - 1) * channels;
  T* y = static_cast<T*>(conv.y) + piece.batch * conv.length * channels;
  const T* weight = static_cast<const T*>(conv.weight);
  const T* bias = static_cast<const T*>(conv.bias);

  // (tiles, width): the newest token's weight first.
  alignas(64) Vector taps[kPieceWeights / kWidth];
  for (int64_t tile = 0; tile < tiles; ++tile) {
    for (int64_t tap = 0; tap < width; ++tap) {
      T lanes[kWidth] = {};
      for (int64_t lane = 0; lane < kWidth && tile * kWidth + lane < count; ++lane) {
        lanes[lane] = weight[(first + tile * kWidth + lane) * width + width - 1 - tap];
      }
      taps[tile * width + tap] = load(lanes);
    }
  }

  for (int64_t position = piece.positions.begin; position < piece.positions.end; ++position) {
    const T* rows[kTaps > 0 ? kTaps : kMaximumWidth];  // newest first
    for (int64_t tap = 0; tap < width; ++tap) {
      rows[tap] = row_at(position - tap, x, before, conv.length, channels, width, conv.reverse) + first;
    }
    T* to = y + token_at(position, conv.length, conv.reverse) * channels + first;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t channel = tile * kWidth, lanes = count - channel;
      Vector sum = load_some(bias + first + channel, lanes);
      for (int64_t tap = 0; tap < width; ++tap) {
        sum = fused(load_some(rows[tap] + channel, lanes), taps[tile * width + tap], sum);
      }
      store_some(to + channel, silu(sum), lanes);
    }
  }
}

template <typename T>
static void conv_piece(const ConvPiece& piece) {
  piece.conv->width == 4 ? convolve<T, 4>(piece) : convolve<T, 0>(piece);
}

static void conv_piece_of_any_type(const ConvPiece& piece) {
  switch (piece.conv->type) {
    case Type::float32:
      return conv_piece<float>(piece);
    case Type::float16:
      return conv_piece<Half>(piece);
    case Type::bfloat16:
      return conv_piece<BFloat16>(piece);
  }
}

}  // namespace storm::cpu::STORM_ISA
