// How the scan is cut into blocks, and where what they tell each other lies: integers only, for host and device.
//
// A block scans one chunk of the sequence (kChunkTokens positions) of one row (kRowChannels channels of one batch
// entry). Blocks take tickets in the order chunk by chunk, all rows of a chunk before the next, so that a block only
// ever waits for blocks that started before it: no deadlock, however few blocks the device can hold.
//
// What a chunk leaves is told to the next through words in a ring of slots, one ring a row. A slot is used again when
// its chunk is history, which keeps the workspace small (14 MB for 7168 channels of 16 states, whatever the length)
// and in the L2 cache. The rule that makes this safe: a row retires its chunks in order, and chunk c starts only when
// chunk c - in_flight - 1 has retired. A look-back of chunk c therefore ends at chunk c - in_flight - 1 at the latest,
// which had published its final states by then, and never reads a slot that chunk c + in_flight, the last that may run
// beside it, is about to write, as long as a ring has more than 2 * in_flight + 1 slots.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/chunking.h"

// STORM_HD for the members of a class.
#if defined(__CUDACC__)
#define STORM_HD_MEMBER __host__ __device__ __forceinline__
#else
#define STORM_HD_MEMBER
#endif

namespace storm::scan {

constexpr int kWarpLanes = 32;
constexpr int kRowChannels = 2 * kWarpLanes;  // of a block: a pair a lane
constexpr int kThreadTokens = 8;              // of a thread, in its registers
constexpr int kWarps = 8;                     // each has the tokens after those of the warp before
constexpr int kThreads = kWarps * kWarpLanes;
constexpr int kChunkTokens = kWarps * kThreadTokens;
constexpr int kStateGroup = 16;       // states whose A, B and C lie in shared memory at once
constexpr int kBlocksInFlight = 512;  // no less than any device holds at once (B200: 296)
constexpr size_t kHeaderBytes = 256;  // the ticket counter, alone in its cache line

struct Shape {
  int64_t batch;
  int64_t length;
  int64_t channels;
  int64_t state;
};

// 32 bits are enough for all of these: there are at most kMaximumBlocks of them.
constexpr int64_t kMaximumBlocks = 0x7fffffff;
// And for where an element of a block's tokens lies in them.
constexpr int64_t kMaximumChannels = kMaximumBlocks / kChunkTokens;

struct Plan {
  int32_t chunks;
  int32_t rows_per_batch;
  int32_t rows;
  int32_t in_flight;  // chunks of a row that may run beside each other
  int32_t slots;      // of a row's ring

  // Whether slots are used again at all, so that chunks must retire.
  STORM_HD_MEMBER bool recycles() const { return slots < chunks; }
  STORM_HD_MEMBER int32_t slot_before(int32_t slot) const { return slot == 0 ? slots - 1 : slot - 1; }
  STORM_HD_MEMBER int32_t slot_after(int32_t slot) const { return slot + 1 == slots ? 0 : slot + 1; }
};

inline bool fits(const Shape& shape) {
  if (shape.channels > kMaximumChannels) return false;
  const int64_t rows_per_batch = ceil_div(shape.channels, kRowChannels), chunks = ceil_div(shape.length, kChunkTokens);
  return rows_per_batch <= kMaximumBlocks / shape.batch && chunks <= kMaximumBlocks / (rows_per_batch * shape.batch);
}

inline Plan make_plan(const Shape& shape) {
  Plan plan;
  plan.chunks = static_cast<int32_t>(ceil_div(shape.length, kChunkTokens));
  plan.rows_per_batch = static_cast<int32_t>(ceil_div(shape.channels, kRowChannels));
  plan.rows = static_cast<int32_t>(shape.batch) * plan.rows_per_batch;
  plan.in_flight = 1 + static_cast<int32_t>(ceil_div(kBlocksInFlight, plan.rows));
  plan.slots = 2 * plan.in_flight + 2;
  if (plan.slots > plan.chunks) {
    plan.slots = plan.chunks;
    plan.in_flight = plan.chunks;
  }
  return plan;
}

// What a ticket stands for.
struct Task {
  int32_t chunk;
  int32_t row;
};

STORM_HD Task task_of(uint32_t ticket, const Plan& plan) {
  const uint32_t rows = static_cast<uint32_t>(plan.rows);
  return {static_cast<int32_t>(ticket / rows), static_cast<int32_t>(ticket % rows)};
}

// Where a thread's tokens and channels lie in its block.
struct Place {
  int warp;
  int lane;
  int first_token;    // of kThreadTokens, counted from the chunk's first position
  int first_channel;  // of two, counted from the row's first channel
};

STORM_HD Place place_of(int thread) {
  const int warp = static_cast<unsigned>(thread) / kWarpLanes, lane = static_cast<unsigned>(thread) % kWarpLanes;
  return {warp, lane, warp * kThreadTokens, lane * 2};
}

// The workspace: the ticket counter, how many chunks of each row have retired, the rings. All zero at the start.
// A slot holds 1 + state words for every channel: the sum of the chunk's steps, then one word a state.
struct Workspace {
  uint32_t* ticket;
  uint32_t* retired;  // [rows]
  uint64_t* words;    // [rows][slots][1 + state][kRowChannels]
};

inline size_t retired_bytes(const Plan& plan) {
  return static_cast<size_t>(ceil_div(plan.rows * static_cast<int64_t>(sizeof(uint32_t)), 256) * 256);
}

// Where the words of a slot begin.
STORM_HD int64_t slot_index(const Plan& plan, int32_t state, int32_t row, int32_t slot) {
  return (static_cast<int64_t>(row) * plan.slots + slot) * (1 + state) * kRowChannels;
}

// 0 for a sequence of one chunk, which tells nobody anything.
inline size_t workspace_bytes(const Shape& shape) {
  const Plan plan = make_plan(shape);
  if (plan.chunks == 1) return 0;
  const int64_t words = slot_index(plan, static_cast<int32_t>(shape.state), plan.rows, 0);
  return kHeaderBytes + retired_bytes(plan) + static_cast<size_t>(words) * sizeof(uint64_t);
}

inline Workspace lay_out(void* workspace, const Plan& plan) {
  char* bytes = static_cast<char*>(workspace);
  return {reinterpret_cast<uint32_t*>(bytes), reinterpret_cast<uint32_t*>(bytes + kHeaderBytes),
          reinterpret_cast<uint64_t*>(bytes + kHeaderBytes + retired_bytes(plan))};
}

}  // namespace storm::scan
