// What a block does: the scan of one chunk of one row, forward and reverse alike, for host and device.
//
// On the device every thread runs scan_block at the same time and Block::barrier is a real one; on the host (the tests)
// one thread plays all of a block's threads, one phase after the other. Both run this code, line for line.
//
// Each thread keeps kThreadTokens tokens of two channels in registers, and the states are taken one after the other. So
// the decays of one state are few enough to stay in registers while the state that the chunk starts from is found, and
// every exponential is computed once. A state takes six multiplications and additions a token, and one exponential.
#pragma once

#include "common/fast_math.h"
#include "common/pair.h"
#include "selective_scan/cuda/load.h"
#include "selective_scan/cuda/look_back.h"

namespace storm::scan {

// One chunk of one row. The members are a block's phases in order; where they meet in shared memory lies a barrier.
template <class T, int kStates, class Memory>
struct Chunk : Load<T, kStates, Memory> {
  using Base = Load<T, kStates, Memory>;
  using Base::args;
  using Base::shared;
  using Base::states;
  const Plan& plan;
  const Workspace& workspace;

  STORM_HD_MEMBER Chunk(const Arguments<T>& arguments, const Plan& a_plan, const Workspace& a_workspace,
                        Shared<T>& a_shared)
      : Base{arguments, a_shared}, plan(a_plan), workspace(a_workspace) {}

  STORM_HD_MEMBER bool first_chunk() const { return shared.at.ring.chunk == 0; }
  STORM_HD_MEMBER bool last_chunk() const { return shared.at.ring.chunk + 1 == plan.chunks; }
  STORM_HD_MEMBER LookBack<Memory> look_back(int lane) const {
    return {plan, workspace.words, states(), shared.at.ring, lane};
  }
  // One warp a state speaks with the other chunks, each in its turn: none has more to do than the others.
  STORM_HD_MEMBER bool speaks(int n, const Place& place) const { return place.warp == n % kWarps; }
  STORM_HD_MEMBER int64_t state_index(int n, int channel) const {
    return (static_cast<int64_t>(shared.at.batch) * args.shape.channels + channel) * states() + n;
  }

  // Says that nothing of this chunk is going on any more. Chunks do it in order.
  STORM_HD_MEMBER void retire() const {
    if (!plan.recycles()) return;
    uint32_t* const retired = workspace.retired + shared.at.ring.row;
    while (static_cast<int32_t>(Memory::load_acquire(retired)) < shared.at.ring.chunk) Memory::pause();
    Memory::store_release(retired, static_cast<uint32_t>(shared.at.ring.chunk + 1));
  }

  // The first warp, for all that speak later.
  STORM_HD_MEMBER void publish_step_sum(int thread) const {
    const Place place = place_of(thread);
    if (place.warp != 0) return;
    Pair sum = shared.step_sum[0][place.lane];
    STORM_UNROLL
    for (int warp = 1; warp < kWarps; ++warp) sum = sum + shared.step_sum[warp][place.lane];
    shared.chunk_step_sum[place.lane] = sum;
    if (!last_chunk()) look_back(place.lane).publish_step_sum(sum);
  }

  // The warp that speaks asks what the previous chunk left; the answer arrives while the tokens are scanned. What the
  // first chunk is told is not looked at.
  STORM_HD_MEMBER void ask(Thread& me, int group, int n, int thread) const {
    const Place place = place_of(thread);
    if (speaks(n, place) && plan.chunks > 1) me.peeked = look_back(place.lane).peek(group + n);
  }

  // The effect of this thread's tokens on state `n` of the group, for the warps that follow.
  STORM_HD_MEMBER void scan_tokens(Thread& me, int n, int thread) const {
    const Place place = place_of(thread);
    const StateRow& row = shared.rows[n];
    const Pair A2 = pair_at(row.A2 + place.first_channel);
    PairEffect effect = {};
    STORM_UNROLL
    for (int four = 0; four < kThreadTokens; four += 4) {
      const Four B = four_at(row.B + place.first_token + four);
      STORM_UNROLL
      for (int t = four; t < four + 4; ++t) {
        me.decay[t] = {exp2_approx(me.step[t].first * A2.first), exp2_approx(me.step[t].second * A2.second)};
        me.added[t] = me.inflow[t] * B.at[t - four];
        effect.decay = t == 0 ? me.decay[t] : effect.decay * me.decay[t];
        effect.state = t == 0 ? me.added[t] : multiply_add(me.decay[t], effect.state, me.added[t]);
      }
    }
    shared.effect[place.warp][place.lane] = effect;
  }

  // The warp that speaks: from the state that the chunk starts from to those that its warps start from, and on to what
  // the chunk leaves, for the next one or as the final state.
  STORM_HD_MEMBER void carry(const Thread& me, int group, int n, int thread) const {
    const Place place = place_of(thread);
    if (!speaks(n, place)) return;
    Pair h = entry(me, group, n, place);
    Pair local = {0.0f, 0.0f};
    STORM_UNROLL
    for (int warp = 0; warp < kWarps; warp += kCarriedWarps) {
      PairEffect effects[kCarriedWarps];
      STORM_UNROLL
      for (int i = 0; i < kCarriedWarps; ++i) effects[i] = shared.effect[warp + i][place.lane];
      STORM_UNROLL
      for (int i = 0; i < kCarriedWarps; ++i) {
        shared.entry[warp + i][place.lane] = h;
        h = multiply_add(effects[i].decay, h, effects[i].state);
        local = warp + i == 0 ? effects[i].state : multiply_add(effects[i].decay, local, effects[i].state);
      }
    }
    leave(after_chunk(shared.entry[0][place.lane], local, n, place), group + n, place);
  }

  // The same tokens again, now from the state that they really start from: their decays are still in registers.
  STORM_HD_MEMBER void finish_tokens(Thread& me, int n, int thread) const {
    const Place place = place_of(thread);
    const StateRow& row = shared.rows[n];
    Pair h = shared.entry[place.warp][place.lane];
    STORM_UNROLL
    for (int four = 0; four < kThreadTokens; four += 4) {
      const Four C = four_at(row.C + place.first_token + four);
      STORM_UNROLL
      for (int t = four; t < four + 4; ++t) {
        h = multiply_add(me.decay[t], h, me.added[t]);
        me.y[t] = multiply_add(h, C.at[t - four], me.y[t]);
      }
    }
  }

 private:
  static constexpr int kCarriedWarps = 4;  // effects in registers at once

  // What a chunk leaves that was entered with h; others do the same (look_back.h), and must get the same bits.
  STORM_HD_MEMBER Pair after_chunk(Pair h, Pair local, int n, const Place& place) const {
    const Pair sum = shared.chunk_step_sum[place.lane], A2 = pair_at(shared.rows[n].A2 + place.first_channel);
    return {state_after(h.first, Effect<float>{sum.first, local.first}, A2.first),
            state_after(h.second, Effect<float>{sum.second, local.second}, A2.second)};
  }

  // What the chunk starts from. If the previous one has not told it yet, first tell what this chunk does by itself, so
  // that nobody waits for it, then walk back.
  STORM_HD_MEMBER Pair entry(const Thread& me, int group, int n, const Place& place) const {
    const int channel = shared.at.row_channel + place.first_channel;
    if (first_chunk()) {
      const float* const from = args.initial_state + state_index(group + n, channel);
      const int count = pair_count(channel, args.shape.channels);
      return {count > 0 ? from[0] : 0.0f, count > 1 ? from[states()] : 0.0f};
    }
    if (are_final(me.peeked, shared.at.ring.chunk - 1)) return values_of(me.peeked);
    Pair local = {0.0f, 0.0f};
    for (int warp = 0; warp < kWarps; ++warp) {
      const PairEffect effect = shared.effect[warp][place.lane];
      local = warp == 0 ? effect.state : multiply_add(effect.decay, local, effect.state);
    }
    const LookBack<Memory> look = look_back(place.lane);
    if (!last_chunk()) look.publish(group + n, local, false);
    return look.walk(group + n, pair_at(shared.rows[n].A2 + place.first_channel));
  }

  STORM_HD_MEMBER void leave(Pair h, int n, const Place& place) const {
    if (!last_chunk()) {
      look_back(place.lane).publish(n, h, true);
      return;
    }
    const int channel = shared.at.row_channel + place.first_channel;
    float* const to = args.final_state + state_index(n, channel);
    const int count = pair_count(channel, args.shape.channels);
    if (count > 0) to[0] = h.first;
    if (count > 1) to[states()] = h.second;
  }
};

// Block runs phases: `each` for every thread, `barrier` between them, `once` for one thread.
template <class T, int kStates, class Memory, class Block>
STORM_HD void scan_block(Block& block, const Arguments<T>& args, const Plan& plan, const Workspace& workspace,
                         Shared<T>& shared) {
  const Chunk<T, kStates, Memory> here(args, plan, workspace, shared);
  block.each([&](Thread& me, int thread) { here.load(me, thread); });
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
      block.each([&](Thread& me, int thread) {
        here.ask(me, group, n, thread);
        here.scan_tokens(me, n, thread);
      });
      block.barrier();
      block.each([&](Thread& me, int thread) { here.carry(me, group, n, thread); });
      block.barrier();
      block.each([&](Thread& me, int thread) { here.finish_tokens(me, n, thread); });
    }
  }
  block.each([&](Thread& me, int thread) { here.store_tokens(me, thread); });
  block.once([&] { here.retire(); });  // all that spoke have passed the last barrier
}

// A block's first thread asks here what the block is to do; see plan.h. Sequences of one chunk need no order.
template <class Memory, class T>
STORM_HD void take_ticket(const Arguments<T>& args, const Plan& plan, const Workspace& workspace, Shared<T>& shared,
                          uint32_t block) {
  const Task task = task_of(plan.chunks == 1 ? block : Memory::add(workspace.ticket, 1), plan);
  const int32_t batch = task.row / plan.rows_per_batch;
  const int32_t row_channel = task.row % plan.rows_per_batch * kRowChannels;
  const int64_t position = static_cast<int64_t>(task.chunk) * kChunkTokens, left = args.shape.length - position;
  const int64_t token = batch * args.shape.length + token_at(position, args.shape.length, args.reverse);
  shared.at = {make_ring(plan, workspace.words, static_cast<int32_t>(args.shape.state), task), batch,
               row_channel, left < kChunkTokens ? static_cast<int32_t>(left) : kChunkTokens,
               token * args.shape.channels + row_channel, token * args.shape.state};
  if (!plan.recycles()) return;
  while (static_cast<int32_t>(Memory::load_acquire(workspace.retired + task.row)) < task.chunk - plan.in_flight) {
    Memory::pause();
  }
}

}  // namespace storm::scan
