// What a block does: the scan of one chunk of one row, forward and reverse alike, for host and device.
//
// On the device every thread runs scan_block at the same time and Block::barrier is a real one; on the host (the tests)
// one thread plays all of a block's threads, one phase after the other. Both run this code, line for line.
//
// Each thread keeps kThreadTokens tokens of two channels in registers, and the states are taken one after the other. So
// the decays of one state are few enough to stay in registers while the state that the chunk starts from is found, and
// every exponential is computed once. A state takes five multiplications and additions a token, one exponential, and an
// eighth of an exponential for the decay of the thread's tokens as a whole.
#pragma once

#include "common/fast_math.h"
#include "common/pair.h"
#include "selective_scan/cuda/look_back.h"

namespace storm::scan {

template <class T>
struct Arguments {
  Shape shape;
  bool reverse;
  bool aligned;  // pairs of channels may be moved at once
  const T* u;
  const T* delta;
  const float* A;
  const T* B;
  const T* C;
  const float* D;
  const T* z;
  const float* delta_bias;
  const float* initial_state;
  T* y;
  float* final_state;
};

struct alignas(16) Four {
  float at[4];
};

// What a run of tokens does to one state of two channels: h -> decay * h + state.
struct PairEffect {
  Pair decay;
  Pair state;
};

// The same in shared memory, where a lane may want one of the channels only.
struct alignas(16) SharedEffect {
  float decay[2];
  float state[2];
};

STORM_HD PairEffect combine(const PairEffect& first, const PairEffect& second) {
  return {first.decay * second.decay, multiply_add(second.decay, first.state, second.state)};
}

// Which chunk of which row this is. It lies in shared memory because registers are what the kernel has fewest of.
struct Position {
  int32_t chunk;
  int32_t row;
  int32_t slot;
  int32_t batch;
  int32_t row_channel;  // the row's first
};

// Rows of B, C and A2, padded so that the lanes that fill a column hit different banks.
constexpr int kTokenFours = kChunkTokens / 4 + 1;
constexpr int kPaddedChannels = kRowChannels + 2;

struct Shared {
  Four B[kStateGroup][kTokenFours];
  Four C[kStateGroup][kTokenFours];
  float A2[kStateGroup][kPaddedChannels];      // A * log2(e)
  SharedEffect effect[2][kWarps][kPairLanes];  // of each warp's tokens; even and odd states take turns
  float entry[2][kRowChannels];                // the state that the chunk starts from
  bool entered[2];                             // whether `entry` is known yet
  float step_sum[kWarps][kRowChannels];
  float chunk_step_sum[kRowChannels];
  Position at;
};

// What a thread holds in registers.
struct Thread {
  Pair step[kThreadTokens];
  Pair inflow[kThreadTokens];  // step * u
  Pair y[kThreadTokens];
  Pair decay[kThreadTokens];  // of the state at hand, as all that follows
  Pair added[kThreadTokens];  // inflow * B
  Pair step_sum;
  PairEffect effect;  // of this thread's tokens
  PairEffect other;   // of those of the warp's other half, same channels
  uint64_t peeked;    // the first warp's lanes: a word of the previous chunk
};

// One chunk of one row. The members are a block's phases in order; between two of them lies a barrier.
template <class T, int kStates, class Memory>
struct Chunk {
  const Arguments<T>& args;
  const Plan& plan;
  const Workspace& workspace;
  Shared& shared;
  // The number of states; a constant for the kernel that is made for one.
  STORM_HD_MEMBER int32_t states() const { return kStates > 0 ? kStates : static_cast<int32_t>(args.shape.state); }
  STORM_HD_MEMBER int64_t first() const { return static_cast<int64_t>(shared.at.chunk) * kChunkTokens; }
  STORM_HD_MEMBER bool first_chunk() const { return shared.at.chunk == 0; }
  STORM_HD_MEMBER bool last_chunk() const { return shared.at.chunk + 1 == plan.chunks; }
  STORM_HD_MEMBER int64_t batch_token(int64_t position) const {
    return shared.at.batch * args.shape.length + token_at(position, args.shape.length, args.reverse);
  }
  STORM_HD_MEMBER LookBack<Memory> look_back(int lane) const {
    return {plan, workspace.words, states(), shared.at.row, shared.at.chunk, shared.at.slot, lane};
  }
  STORM_HD_MEMBER int64_t state_index(int n, int lane) const {
    return (static_cast<int64_t>(shared.at.batch) * args.shape.channels + shared.at.row_channel + lane) * states() + n;
  }
  STORM_HD_MEMBER bool exists(int lane) const { return shared.at.row_channel + lane < args.shape.channels; }

  // Says that nothing of this chunk is going on any more. Chunks do it in order.
  STORM_HD_MEMBER void retire() const {
    if (!plan.recycles()) return;
    uint32_t* const retired = workspace.retired + shared.at.row;
    while (static_cast<int32_t>(Memory::load_acquire(retired)) < shared.at.chunk) Memory::pause();
    Memory::store_release(retired, static_cast<uint32_t>(shared.at.chunk + 1));
  }

  // Tokens behind the end of the sequence get a step of 0, which changes no state.
  STORM_HD_MEMBER void load_tokens(Thread& me, int thread) const {
    const Place place = place_of(thread);
    const int64_t channel = shared.at.row_channel + place.first_channel, channels = args.shape.channels;
    const PairAccess access = pair_access(channel, channels, args.aligned);
    const PairAccess scalars = {access.count, false};
    const Pair bias = load_pair(args.delta_bias + channel, scalars), D = load_pair(args.D + channel, scalars);
    const int64_t position = first() + place.first_token;
    const int64_t offset = batch_token(position) * channels + channel, next = args.reverse ? -channels : channels;
    me.step_sum = {0.0f, 0.0f};
    STORM_UNROLL
    for (int t = 0; t < kThreadTokens; ++t) {
      const bool inside = position + t < args.shape.length;
      const PairAccess here = {inside ? access.count : 0, inside && access.aligned};
      const Pair u = load_pair(args.u + offset + t * next, here);
      const Pair biased = load_pair(args.delta + offset + t * next, here) + bias;
      me.step[t] = inside ? Pair{fast_softplus(biased.first), fast_softplus(biased.second)} : Pair{0.0f, 0.0f};
      me.inflow[t] = me.step[t] * u;
      me.y[t] = D * u;
      me.step_sum = me.step_sum + me.step[t];
    }
    me.effect = {me.step_sum, me.step_sum};  // for the other half to add up
  }

  // After the halves have exchanged their effects.
  STORM_HD_MEMBER void share_step_sum(const Thread& me, int thread) const {
    const Place place = place_of(thread);
    if (place.half != 0) return;
    shared.step_sum[place.warp][place.first_channel] = me.step_sum.first + me.other.state.first;
    shared.step_sum[place.warp][place.first_channel + 1] = me.step_sum.second + me.other.state.second;
  }

  // A, B and C of kStateGroup states from `group` on; what does not exist becomes 0.
  STORM_HD_MEMBER void load_matrices(int group, int thread) const {
    STORM_UNROLL_BY(kStates > 0 ? 8 : 1)
    for (int i = thread; i < kChunkTokens * kStateGroup; i += kThreads) {
      const int token = i / kStateGroup, n = i % kStateGroup;
      const bool inside = first() + token < args.shape.length && group + n < states();
      const int64_t from = batch_token(first() + token) * states() + group + n;
      shared.B[n][token / 4].at[token % 4] = inside ? to_float(args.B[from]) : 0.0f;
      shared.C[n][token / 4].at[token % 4] = inside ? to_float(args.C[from]) : 0.0f;
    }
    STORM_UNROLL
    for (int i = thread; i < kRowChannels * kStateGroup; i += kThreads) {
      const int channel = i / kStateGroup, n = i % kStateGroup;
      const bool inside = exists(channel) && group + n < states();
      const int64_t from = static_cast<int64_t>(shared.at.row_channel + channel) * states() + group + n;
      shared.A2[n][channel] = inside ? args.A[from] * kLog2e : 0.0f;
    }
  }

  STORM_HD_MEMBER void publish_step_sum(int thread) const {
    if (thread >= kRowChannels) return;
    float sum = 0.0f;
    for (int warp = 0; warp < kWarps; ++warp) sum += shared.step_sum[warp][thread];
    shared.chunk_step_sum[thread] = sum;  // read by this same thread
    if (!last_chunk()) look_back(thread).publish_step_sum(sum);
  }

  // The first warp asks what the previous chunk left; the answer arrives while the tokens are scanned.
  STORM_HD_MEMBER void ask(Thread& me, int n, int thread) const {
    if (thread >= kRowChannels || first_chunk()) return;
    me.peeked = look_back(thread).peek(n);
  }

  // The effect of this thread's tokens on state `n` of the group.
  STORM_HD_MEMBER void scan_tokens(Thread& me, int n, int thread) const {
    const Place place = place_of(thread);
    const Pair A2 = {shared.A2[n][place.first_channel], shared.A2[n][place.first_channel + 1]};
    Pair h = {0.0f, 0.0f};
    STORM_UNROLL
    for (int four = 0; four < kThreadTokens / 4; ++four) {
      const Four B = shared.B[n][place.first_token / 4 + four];
      STORM_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int t = four * 4 + i;
        me.decay[t] = {exp2_approx(me.step[t].first * A2.first), exp2_approx(me.step[t].second * A2.second)};
        me.added[t] = me.inflow[t] * B.at[i];
        h = t == 0 ? me.added[t] : multiply_add(me.decay[t], h, me.added[t]);
      }
    }
    me.effect = {{exp2_approx(me.step_sum.first * A2.first), exp2_approx(me.step_sum.second * A2.second)}, h};
  }

  // After the halves have exchanged their effects: the warp's, for the warps that follow.
  STORM_HD_MEMBER void share_effect(const Thread& me, int parity, int thread) const {
    const Place place = place_of(thread);
    if (place.half != 0) return;
    const PairEffect both = combine(me.effect, me.other);
    shared.effect[parity][place.warp][place.first_channel / 2] = {{both.decay.first, both.decay.second},
                                                                  {both.state.first, both.state.second}};
  }

  // The first warp: what the chunk starts from, if it is known without waiting. True if so.
  STORM_HD_MEMBER bool enter(const Thread& me, int n, int parity, int thread) const {
    if (thread >= kRowChannels) return true;
    float h = 0.0f;
    if (first_chunk()) {
      if (exists(thread)) h = args.initial_state[state_index(n, thread)];
    } else {
      if (told_by(me.peeked, shared.at.chunk - 1) != Told::kFinal) return false;
      h = value_of(me.peeked);
    }
    shared.entry[parity][thread] = h;
    return true;
  }

  // The first warp, a lane a channel: the effect of the whole chunk on a state that starts from h.
  STORM_HD_MEMBER float leave(float h, int n, int parity, int thread) const {
    float local = 0.0f;
    STORM_UNROLL
    for (int warp = 0; warp < kWarps; ++warp) {
      const SharedEffect& effect = shared.effect[parity][warp][thread / 2];
      local = ::fmaf(effect.decay[thread % 2], local, effect.state[thread % 2]);
    }
    return state_after(h, Effect<float>{shared.chunk_step_sum[thread], local}, shared.A2[n][thread]);
  }

  // The first warp, if the entry is not known: tell what the chunk does, so that nobody waits for this one's entry,
  // then walk back for it.
  STORM_HD_MEMBER void find_entry(int group, int n, int parity, int thread) const {
    if (thread >= kRowChannels) return;
    const LookBack<Memory> look = look_back(thread);
    if (!last_chunk()) look.publish(group + n, leave(0.0f, n, parity, thread), false);
    shared.entry[parity][thread] = look.walk(group + n, shared.A2[n][thread]);
  }

  // The first warp, as soon as the entry is known: what the chunk leaves, for the next one or as the final state.
  STORM_HD_MEMBER void pass_on(int group, int n, int parity, int thread) const {
    if (thread >= kRowChannels) return;
    const float h = leave(shared.entry[parity][thread], n, parity, thread);
    if (!last_chunk()) {
      look_back(thread).publish(group + n, h, true);
    } else if (exists(thread)) {
      args.final_state[state_index(group + n, thread)] = h;
    }
  }

  // The same tokens again, now from the state that they really start from: their decays are still in registers.
  STORM_HD_MEMBER void finish_tokens(Thread& me, int n, int parity, int thread) const {
    const Place place = place_of(thread);
    const int pair = place.first_channel / 2;
    Pair h = {shared.entry[parity][place.first_channel], shared.entry[parity][place.first_channel + 1]};
    for (int warp = 0; warp < place.warp; ++warp) {
      const SharedEffect effect = shared.effect[parity][warp][pair];
      h = multiply_add(Pair{effect.decay[0], effect.decay[1]}, h, Pair{effect.state[0], effect.state[1]});
    }
    if (place.half != 0) h = multiply_add(me.other.decay, h, me.other.state);
    STORM_UNROLL
    for (int four = 0; four < kThreadTokens / 4; ++four) {
      const Four C = shared.C[n][place.first_token / 4 + four];
      STORM_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int t = four * 4 + i;
        h = multiply_add(me.decay[t], h, me.added[t]);
        me.y[t] = multiply_add(h, C.at[i], me.y[t]);
      }
    }
  }

  STORM_HD_MEMBER void store_tokens(const Thread& me, int thread) const {
    const Place place = place_of(thread);
    const int64_t channel = shared.at.row_channel + place.first_channel, channels = args.shape.channels;
    const PairAccess access = pair_access(channel, channels, args.aligned);
    const int64_t position = first() + place.first_token;
    const int64_t offset = batch_token(position) * channels + channel, next = args.reverse ? -channels : channels;
    Pair z[kThreadTokens];
    STORM_UNROLL
    for (int t = 0; t < kThreadTokens; ++t) {
      const bool inside = position + t < args.shape.length;
      z[t] = load_pair(args.z + offset + t * next, {inside ? access.count : 0, inside && access.aligned});
    }
    STORM_UNROLL
    for (int t = 0; t < kThreadTokens; ++t) {
      if (position + t >= args.shape.length) break;
      store_pair(me.y[t] * Pair{fast_silu(z[t].first), fast_silu(z[t].second)}, args.y + offset + t * next, access);
    }
  }
};

// Block runs phases: `each` for every thread, `barrier` between them, `exchange` of effects between a warp's halves,
// `all` of a condition of the first warp (false only if a lane of it says so).
template <class T, int kStates, class Memory, class Block>
STORM_HD void scan_block(Block& block, const Arguments<T>& args, const Plan& plan, const Workspace& workspace,
                         Shared& shared) {
  const Chunk<T, kStates, Memory> here = {args, plan, workspace, shared};
  block.each([&](Thread&, int thread) { here.load_matrices(0, thread); });
  block.each([&](Thread& me, int thread) { here.load_tokens(me, thread); });
  block.exchange();
  block.each([&](Thread& me, int thread) { here.share_step_sum(me, thread); });
  block.barrier();
  block.each([&](Thread&, int thread) { here.publish_step_sum(thread); });

  for (int group = 0; group < here.states(); group += kStateGroup) {
    if (group > 0) {
      block.barrier();
      block.each([&](Thread&, int thread) { here.load_matrices(group, thread); });
      block.barrier();
    }
    const int left = here.states() - group;
    const int count = left < kStateGroup ? left : kStateGroup;
    STORM_UNROLL_BY(1)
    for (int n = 0; n < count; ++n) {
      const int parity = n % 2;
      block.each([&](Thread& me, int thread) {
        here.ask(me, group + n, thread);
        here.scan_tokens(me, n, thread);
      });
      block.exchange();
      block.each([&](Thread& me, int thread) { here.share_effect(me, parity, thread); });
      block.first_warp_agrees(shared.entered[parity],
                              [&](Thread& me, int thread) { return here.enter(me, group + n, parity, thread); });
      block.barrier();
      if (!shared.entered[parity]) {  // the same for all threads
        block.each([&](Thread&, int thread) { here.find_entry(group, n, parity, thread); });
        block.barrier();
      }
      block.each([&](Thread& me, int thread) {
        here.pass_on(group, n, parity, thread);
        here.finish_tokens(me, n, parity, thread);
      });
    }
  }
  block.each([&](Thread& me, int thread) { here.store_tokens(me, thread); });
  block.barrier();
  block.once([&] { here.retire(); });
}

// A block's first thread asks here what the block is to do; see plan.h. Sequences of one chunk need no order.
template <class Memory>
STORM_HD void take_ticket(const Plan& plan, const Workspace& workspace, Shared& shared, uint32_t block) {
  const Task task = task_of(plan.chunks == 1 ? block : Memory::add(workspace.ticket, 1), plan);
  shared.at = {task.chunk, task.row, task.chunk % plan.slots, task.row / plan.rows_per_batch,
               task.row % plan.rows_per_batch * kRowChannels};
  if (!plan.recycles()) return;
  while (static_cast<int32_t>(Memory::load_acquire(workspace.retired + task.row)) < task.chunk - plan.in_flight) {
    Memory::pause();
  }
}

}  // namespace storm::scan
