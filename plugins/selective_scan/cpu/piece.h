// One piece of a selective scan's work: some channels over one chunk of the tokens of one batch.
#pragma once

#include "common/chunking.h"
#include "selective_scan/cpu/selective_scan.h"

namespace storm::cpu {

struct ScanPiece {
  const SelectiveScan* scan;
  int64_t batch;
  int64_t channel_begin;
  int64_t channel_end;
  Span positions;  // in scan order

  // The state this piece starts from: `initial_state` [channels, state], or zeros where it is null, and then what the
  // chunks before it do, in scan order.
  const float* initial_state;
  int64_t chunks_before;
  const float* steps_before;   // [chunks_before, channels]: step sums
  const float* states_before;  // [chunks_before, channels, state]

  bool write_y;
  float* final_state;  // [channels, state]; null: not wanted
  float* step_sum;     // [channels]; null: not wanted
};

// Pieces are cut at multiples of it: of every instruction set's tiles.
constexpr int64_t kChannelGranule = 32;
// Of one piece at most: limits of the arrays it keeps on the stack (about 110 KiB together).
constexpr int64_t kPieceChannels = 512;
constexpr int64_t kPieceStates = 8192;  // channels * state

}  // namespace storm::cpu
