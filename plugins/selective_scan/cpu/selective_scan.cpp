#include "selective_scan/cpu/selective_scan.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "selective_scan/cpu/piece.h"

namespace storm::cpu {

namespace {

// Fewer tokens than this are not worth a chunk.
constexpr int64_t kShortestChunk = 256;
// Several pieces a thread even out threads that are interrupted.
constexpr int64_t kPiecesPerThread = 4;

void require(bool holds, const char* what, int64_t got) {
  if (!holds) throw std::invalid_argument("storm::SelectiveScan: " + std::string(what) + ", got " + std::to_string(got));
}

void check_sizes(const SelectiveScan& scan) {
  require(scan.batch >= 1, "batch must be at least 1", scan.batch);
  require(scan.length >= 1, "length must be at least 1", scan.length);
  require(scan.channels >= 1, "channels must be at least 1", scan.channels);
  require(scan.state >= 1 && scan.state <= kMaximumState, "state must be 1 to 256", scan.state);
  const int64_t widest = std::max(scan.channels, scan.state);
  require(scan.batch <= kMaximumElements / scan.length / widest &&
              scan.batch <= kMaximumElements / scan.channels / scan.state,
          "batch * length * channels, batch * length * state and batch * channels * state must be at most 2^56",
          scan.batch);
}

}  // namespace

ScanPlan plan_selective_scan(const SelectiveScan& scan, int threads) {
  check_sizes(scan);  // before anything is divided by them
  require(threads >= 1, "threads must be at least 1", threads);
  const int64_t granules = ceil_div(scan.channels, kChannelGranule);
  const int64_t most = std::max<int64_t>(1, std::min(kPieceChannels, kPieceStates / scan.state) / kChannelGranule);
  const int64_t wanted = ceil_div(kPiecesPerThread * threads, scan.batch);  // pieces of one batch
  const int64_t channels = std::clamp<int64_t>(granules / wanted, 1, most) * kChannelGranule;

  // With chunks each piece but those of the first and the last chunk is scanned twice: only more than twice as many
  // threads as pieces gain by them.
  const int64_t pieces = ceil_div(scan.channels, channels) * scan.batch;
  if (threads <= 2 * pieces) return {channels, scan.length};
  const int64_t chunks = std::min(ceil_div(2 * threads, pieces), scan.length / kShortestChunk);
  return {channels, ceil_div(scan.length, std::max<int64_t>(1, chunks))};
}

void selective_scan(const SelectiveScan& scan, const Parallel& parallel) {
  selective_scan(scan, parallel, plan_selective_scan(scan, parallel.threads), best_kernels());
}

void selective_scan(const SelectiveScan& scan, const Parallel& parallel, const ScanPlan& plan, const Kernels& kernels) {
  check_sizes(scan);
  require(plan.channels >= 1 && plan.channels % kChannelGranule == 0 && plan.channels <= kPieceChannels &&
              plan.channels * scan.state <= kPieceStates,
          "a piece must have a multiple of 32 channels, at most 512, and at most 8192 states", plan.channels);
  require(plan.chunk_length >= 1, "chunks must have at least 1 token", plan.chunk_length);

  const int64_t chunks = ceil_div(scan.length, plan.chunk_length);
  const int64_t groups = ceil_div(scan.channels, plan.channels);
  const int64_t states = scan.channels * scan.state;  // of one batch

  const auto piece_of = [&](int64_t batch, int64_t group, int64_t chunk) {
    ScanPiece piece{};
    piece.scan = &scan;
    piece.batch = batch;
    piece.channel_begin = group * plan.channels;
    piece.channel_end = std::min(piece.channel_begin + plan.channels, scan.channels);
    piece.positions = chunk_span(chunk, plan.chunk_length, scan.length);
    return piece;
  };

  if (chunks == 1) {
    const auto whole = [&](int64_t index) {
      const int64_t batch = index / groups;
      ScanPiece piece = piece_of(batch, index % groups, 0);
      piece.initial_state = scan.initial_state + batch * states;
      piece.write_y = true;
      piece.final_state = scan.final_state + batch * states;
      kernels.scan_piece(piece);
    };
    return parallel(scan.batch * groups, whole);
  }

  // First the effects of all chunks but the last; of these the first chunk is already complete, as its initial state is
  // known. Then all the others, each starting from the effects of those before it.
  const int64_t effects = chunks - 1;
  std::vector<float> chunk_steps(static_cast<size_t>(scan.batch * effects * scan.channels));
  std::vector<float> chunk_states(static_cast<size_t>(scan.batch * effects * states));

  const auto effect = [&](int64_t index) {
    const int64_t chunk = index % effects, group = index / effects % groups, batch = index / effects / groups;
    ScanPiece piece = piece_of(batch, group, chunk);
    piece.initial_state = chunk == 0 ? scan.initial_state + batch * states : nullptr;
    piece.write_y = chunk == 0;
    piece.final_state = chunk_states.data() + (batch * effects + chunk) * states;
    piece.step_sum = chunk_steps.data() + (batch * effects + chunk) * scan.channels;
    kernels.scan_piece(piece);
  };
  parallel(scan.batch * groups * effects, effect);

  const auto rest = [&](int64_t index) {
    const int64_t chunk = 1 + index % effects, group = index / effects % groups, batch = index / effects / groups;
    ScanPiece piece = piece_of(batch, group, chunk);
    piece.initial_state = chunk_states.data() + batch * effects * states;  // what the first chunk left
    piece.chunks_before = chunk - 1;
    piece.steps_before = chunk_steps.data() + (batch * effects + 1) * scan.channels;
    piece.states_before = chunk_states.data() + (batch * effects + 1) * states;
    piece.write_y = true;
    if (chunk == effects) piece.final_state = scan.final_state + batch * states;
    kernels.scan_piece(piece);
  };
  parallel(scan.batch * groups * effects, rest);
}

}  // namespace storm::cpu
