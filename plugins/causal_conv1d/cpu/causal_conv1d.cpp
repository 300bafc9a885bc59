#include "causal_conv1d/cpu/causal_conv1d.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "causal_conv1d/cpu/piece.h"
#include "cpu/kernels.h"

namespace storm::cpu {

namespace {

constexpr int64_t kPieceChannels = 256;
constexpr int64_t kPieceTokens = 256;

void require(bool holds, const char* what, int64_t got) {
  if (!holds) throw std::invalid_argument("storm::CausalConv1d: " + std::string(what) + ", got " + std::to_string(got));
}

// What lies after the last position, in token order: copies of tokens, or of the initial state where these are too few.
void copy_final_state(const CausalConv1d& conv) {
  const int64_t row = conv.channels * static_cast<int64_t>(size_of(conv.type));  // in bytes, as all strides here
  const int64_t kept = conv.width - 1;
  for (int64_t batch = 0; batch < conv.batch; ++batch) {
    const char* x = static_cast<const char*>(conv.x) + batch * conv.length * row;
    const char* before = static_cast<const char*>(conv.initial_state) + batch * kept * row;
    char* after = static_cast<char*>(conv.final_state) + batch * kept * row;
    for (int64_t i = 0; i < kept; ++i) {
      const int64_t position = conv.length - 1 - (conv.reverse ? i : kept - 1 - i);
      const char* from = row_at(position, x, before, conv.length, row, conv.width, conv.reverse);
      std::memcpy(after + i * row, from, static_cast<size_t>(row));
    }
  }
}

}  // namespace

void causal_conv1d(const CausalConv1d& conv, const Parallel& parallel) {
  causal_conv1d(conv, parallel, best_kernels());
}

void causal_conv1d(const CausalConv1d& conv, const Parallel& parallel, const Kernels& kernels) {
  require(conv.batch >= 1, "batch must be at least 1", conv.batch);
  require(conv.length >= 1, "length must be at least 1", conv.length);
  require(conv.channels >= 1, "channels must be at least 1", conv.channels);
  require(conv.width >= 2 && conv.width <= kMaximumWidth, "width must be 2 to 256", conv.width);
  require(conv.batch <= kMaximumElements / conv.channels / std::max(conv.length, conv.width),
          "batch * length * channels and batch * width * channels must be at most 2^56", conv.batch);

  const int64_t channels = std::min(kPieceChannels, kPieceWeights / conv.width);
  const int64_t groups = ceil_div(conv.channels, channels), chunks = ceil_div(conv.length, kPieceTokens);
  // Neighbouring pieces are neighbours in memory: all channels of some tokens, then the next tokens.
  const auto convolve = [&](int64_t index) {
    ConvPiece piece{};
    piece.conv = &conv;
    piece.batch = index / groups / chunks;
    piece.channel_begin = index % groups * channels;
    piece.channel_end = std::min(piece.channel_begin + channels, conv.channels);
    piece.positions = chunk_span(index / groups % chunks, kPieceTokens, conv.length);
    kernels.conv_piece(piece);
  };
  parallel(conv.batch * chunks * groups, convolve);
  copy_final_state(conv);
}

}  // namespace storm::cpu
