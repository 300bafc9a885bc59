// How blocks tell each other their states: single pass with decoupled look-back (Merrill and Garland, 2016).
//
// For every state of every channel a chunk publishes one 64-bit word: the value and a tag that says of which chunk it
// is and whether it is `local` (what the chunk leaves when it starts from zero) or `final` (what it really leaves).
// Value and tag travel in one word, so relaxed loads and stores are enough: no fence, no flag.
//
// Results do not depend on timing, bit for bit: whichever words a look-back finds, it applies chunk after chunk what
// the chunks themselves apply.
//
// Memory is DeviceMemory (kernel.cuh) or, in the tests, the host's atomics: load, store, load_acquire, store_release,
// pause.
#pragma once

#include "selective_scan/cuda/plan.h"

#if !defined(__CUDACC__)
#include <string.h>
#endif

namespace storm::scan {

enum class Told : uint32_t { kNothing, kLocal, kFinal };

STORM_HD uint64_t make_word(float value, int32_t chunk, bool final) {
#if defined(__CUDA_ARCH__)
  const uint32_t bits = __float_as_uint(value);
#else
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
#endif
  const uint32_t tag = static_cast<uint32_t>(chunk + 1) * 2 + (final ? 1 : 0);
  return static_cast<uint64_t>(tag) << 32 | bits;
}

STORM_HD float value_of(uint64_t word) {
  const uint32_t bits = static_cast<uint32_t>(word);
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

// A word of another chunk, which used the slot before, tells nothing.
STORM_HD Told told_by(uint64_t word, int32_t chunk) {
  const uint32_t tag = static_cast<uint32_t>(word >> 32);
  if (tag / 2 != static_cast<uint32_t>(chunk + 1)) return Told::kNothing;
  return tag % 2 != 0 ? Told::kFinal : Told::kLocal;
}

// One channel's view of its row's ring.
template <class Memory>
struct LookBack {
  const Plan& plan;
  uint64_t* words;
  int32_t state;  // number of states
  int32_t row;
  int32_t chunk;  // the one that looks back
  int32_t slot;   // its own
  int32_t channel;

  STORM_HD_MEMBER void publish_step_sum(float step_sum) const {
    Memory::store(word(slot, kStepSum), make_word(step_sum, chunk, true));
  }

  STORM_HD_MEMBER void publish(int n, float value, bool final) const {
    Memory::store(word(slot, kStates + n), make_word(value, chunk, final));
  }

  // The previous chunk's word, to be looked at later, when it has arrived.
  STORM_HD_MEMBER uint64_t peek(int n) const { return Memory::load(word(plan.slot_before(slot), kStates + n)); }

  // The state that this chunk starts from; waits until the chunks before it have told enough.
  STORM_HD_MEMBER float walk(int n, float A2) const {
    int32_t from = chunk - 1, at = plan.slot_before(slot);
    for (;;) {  // back to the nearest chunk that knows its final state; chunk 0 always does in the end
      const Told told = told_by(Memory::load(word(at, kStates + n)), from);
      if (told == Told::kFinal) break;
      if (told == Told::kLocal) {
        --from;
        at = plan.slot_before(at);
      } else {
        Memory::pause();
      }
    }
    float h = value_of(Memory::load(word(at, kStates + n)));
    while (++from < chunk) {  // and forward again
      at = plan.slot_after(at);
      const uint64_t told = Memory::load(word(at, kStates + n));
      h = told_by(told, from) == Told::kFinal ? value_of(told)
                                              : state_after(h, Effect<float>{step_sum(at, from), value_of(told)}, A2);
    }
    return h;
  }

 private:
  static constexpr int kStepSum = 0, kStates = 1;  // the words of a channel in a slot

  STORM_HD_MEMBER uint64_t* word(int32_t of_slot, int entry) const {
    return words + slot_index(plan, state, row, of_slot) + entry * kRowChannels + channel;
  }

  // It was stored before the local states, but relaxed stores may arrive in any order.
  STORM_HD_MEMBER float step_sum(int32_t of_slot, int32_t of_chunk) const {
    for (;;) {
      const uint64_t told = Memory::load(word(of_slot, kStepSum));
      if (told_by(told, of_chunk) != Told::kNothing) return value_of(told);
      Memory::pause();
    }
  }
};

}  // namespace storm::scan
