// How blocks tell each other their states: single pass with decoupled look-back (Merrill and Garland, 2016).
//
// For every state of every channel a chunk publishes one 64-bit word: the value and a tag that says of which chunk it
// is and whether it is `local` (what the chunk leaves when it starts from zero) or `final` (what it really leaves).
// Value and tag travel in one word, so relaxed loads and stores are enough: no fence, no flag.
//
// Results do not depend on timing, bit for bit: whichever words a look-back finds, it applies chunk after chunk what
// the chunks themselves apply.
//
// A lane has two neighbouring channels, whose words are loaded and stored at once; each is whole, the two need not be of
// the same moment.
//
// Memory is DeviceMemory (kernel.cuh) or, in the tests, the host's atomics: load, store, load_acquire, store_release,
// pause.
#pragma once

#include "common/pair.h"
#include "selective_scan/cuda/plan.h"

#if !defined(__CUDACC__)
#include <string.h>
#endif

namespace storm::scan {

enum class Told : uint32_t { kNothing, kLocal, kFinal };

// Never 0, which is what a word is before the first.
STORM_HD uint32_t tag_of(int32_t chunk, bool final) {
  return static_cast<uint32_t>(chunk + 1) * 2 + (final ? 1 : 0);
}

STORM_HD uint64_t make_word(float value, int32_t chunk, bool final) {
#if defined(__CUDA_ARCH__)
  const uint32_t bits = __float_as_uint(value);
#else
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
#endif
  return static_cast<uint64_t>(tag_of(chunk, final)) << 32 | bits;
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
  return tag == tag_of(chunk, true) ? Told::kFinal : tag == tag_of(chunk, false) ? Told::kLocal : Told::kNothing;
}

// The words of two channels, and what the less knowing of them tells.
struct alignas(16) Words {
  uint64_t first;
  uint64_t second;
};

STORM_HD Words make_words(Pair values, int32_t chunk, bool final) {
  return {make_word(values.first, chunk, final), make_word(values.second, chunk, final)};
}

STORM_HD Pair values_of(const Words& words) { return {value_of(words.first), value_of(words.second)}; }

STORM_HD bool are_final(const Words& words, int32_t chunk) {
  return told_by(words.first, chunk) == Told::kFinal && told_by(words.second, chunk) == Told::kFinal;
}

STORM_HD Told told_by(const Words& words, int32_t chunk) {
  const Told first = told_by(words.first, chunk), second = told_by(words.second, chunk);
  return first < second ? first : second;
}

// Where a chunk stands in its row's ring.
struct Ring {
  int32_t chunk;
  int32_t row;
  int32_t slot;
  uint64_t* own;           // the words of its slot
  const uint64_t* before;  // and those of the slot before it
};

STORM_HD Ring make_ring(const Plan& plan, uint64_t* words, int32_t state, Task task) {
  const int32_t slot = task.chunk % plan.slots;
  return {task.chunk, task.row, slot, words + slot_index(plan, state, task.row, slot),
          words + slot_index(plan, state, task.row, plan.slot_before(slot))};
}

// A lane's view of it.
template <class Memory>
struct LookBack {
  const Plan& plan;
  uint64_t* words;
  int32_t state;  // number of states
  const Ring& ring;
  int lane;

  STORM_HD_MEMBER void publish_step_sum(Pair step_sum) const {
    Memory::store(ring.own + place(kStepSum), make_words(step_sum, ring.chunk, true));
  }

  STORM_HD_MEMBER void publish(int n, Pair values, bool final) const {
    Memory::store(ring.own + place(kStates + n), make_words(values, ring.chunk, final));
  }

  // The previous chunk's words, to be looked at later, when they have arrived.
  STORM_HD_MEMBER Words peek(int n) const { return Memory::load(ring.before + place(kStates + n)); }

  // The state that this chunk starts from; waits until the chunks before it have told enough.
  STORM_HD_MEMBER Pair walk(int n, Pair A2) const {
    int32_t from = ring.chunk - 1, of_slot = plan.slot_before(ring.slot);
    for (;;) {  // back to the nearest chunk that knows its final state; chunk 0 always does in the end
      const Told told = told_by(Memory::load(at(of_slot, kStates + n)), from);
      if (told == Told::kFinal) break;
      if (told == Told::kLocal) {
        --from;
        of_slot = plan.slot_before(of_slot);
      } else {
        Memory::pause();
      }
    }
    Pair h = values_of(Memory::load(at(of_slot, kStates + n)));
    while (++from < ring.chunk) {  // and forward again
      of_slot = plan.slot_after(of_slot);
      const Words told = Memory::load(at(of_slot, kStates + n));
      const Pair sum = step_sum(of_slot, from);
      h = {after(told.first, from, h.first, sum.first, A2.first),
           after(told.second, from, h.second, sum.second, A2.second)};
    }
    return h;
  }

 private:
  static constexpr int kStepSum = 0, kStates = 1;  // the words of a channel in a slot

  // Of the lane's words in a slot.
  STORM_HD_MEMBER int place(int entry) const { return entry * kRowChannels + 2 * lane; }
  STORM_HD_MEMBER const uint64_t* at(int32_t of_slot, int entry) const {
    return words + slot_index(plan, state, ring.row, of_slot) + place(entry);
  }

  // One channel's state after a chunk that was entered with h.
  static STORM_HD_MEMBER float after(uint64_t told, int32_t of_chunk, float h, float step_sum, float A2) {
    const float value = value_of(told);
    return told_by(told, of_chunk) == Told::kFinal ? value : state_after(h, Effect<float>{step_sum, value}, A2);
  }

  // It was stored before the local states, but relaxed stores may arrive in any order.
  STORM_HD_MEMBER Pair step_sum(int32_t of_slot, int32_t of_chunk) const {
    for (;;) {
      const Words told = Memory::load(at(of_slot, kStepSum));
      if (told_by(told, of_chunk) != Told::kNothing) return values_of(told);
      Memory::pause();
    }
  }
};

}  // namespace storm::scan
