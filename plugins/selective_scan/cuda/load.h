// A block's inputs and output: from global memory into registers and shared memory, and back.
//
// Everything that a thread needs is asked for before any of it is waited for, and what is not needed yet (the gate z) is
// copied into shared memory meanwhile. Within a block 32 bits say where an element lies.
#pragma once

#include <type_traits>

#include "common/fast_math.h"
#include "common/pair.h"
#include "selective_scan/cuda/look_back.h"

namespace storm::scan {

template <class T>
struct Arguments {
  Shape shape;
  bool reverse;
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

constexpr size_t kVectorBytes = 16;  // the most that is loaded at once

// Whether the kernel for kStateGroup states takes these: it moves pairs of channels, and rows of A, B and C in vectors.
template <class T>
inline bool moves_vectors(const Arguments<T>& args) {
  return args.shape.state == kStateGroup && args.shape.channels % 2 == 0 &&
         are_aligned(2 * sizeof(T), {args.u, args.delta, args.z, args.y}) &&
         are_aligned(kVectorBytes, {args.A, args.B, args.C});
}

struct alignas(kVectorBytes) Four {
  float at[4];
};

STORM_HD Four four_at(const float* from) { return *reinterpret_cast<const Four*>(from); }
STORM_HD Pair pair_at(const float* from) { return unpack(*reinterpret_cast<const FloatPair*>(from)); }

template <class T>
struct alignas(kVectorBytes) Vector {
  Packed<T> at[kVectorBytes / sizeof(Packed<T>)];
};

// Which chunk of which row this is. It lies in shared memory because registers are what the kernel has fewest of.
struct Position {
  Ring ring;
  int32_t batch;
  int32_t row_channel;  // the row's first
  int32_t tokens;       // of the chunk that exist
  int64_t first;        // where the element of its first position and the row's first channel lies in u, delta, z and y
  int64_t first_state;  // and that of the first state in B and C
};

// What all tokens and channels of the chunk need of one state.
struct alignas(kVectorBytes) StateRow {
  float B[kChunkTokens];
  float C[kChunkTokens];
  float A2[kRowChannels];  // A * log2(e)
};

// What a run of tokens does to one state of two channels: h -> decay * h + state.
struct alignas(16) PairEffect {
  Pair decay;
  Pair state;
};

// What a thread holds in registers.
struct Thread {
  Pair step[kThreadTokens];
  Pair inflow[kThreadTokens];  // step * u
  Pair y[kThreadTokens];
  Pair decay[kThreadTokens];  // of the state at hand, as all that follows
  Pair added[kThreadTokens];  // inflow * B
  Words peeked;               // of the warp that speaks: words of the previous chunk
};

constexpr int kRowFloats = sizeof(StateRow) / sizeof(float);

template <class T>
struct Shared {
  StateRow rows[kStateGroup];
  PairEffect effect[kWarps][kWarpLanes];  // of each warp's tokens on the state at hand
  Pair entry[kWarps][kWarpLanes];         // what they start from
  Pair step_sum[kWarps][kWarpLanes];
  Pair chunk_step_sum[kWarpLanes];
  Packed<T> z[kThreadTokens][kThreads];  // each thread's own
  Position at;
};

// Where a thread's pairs lie.
struct Strip {
  int64_t first;   // the first one
  int32_t next;    // from a token to the one that is scanned after it
  int32_t tokens;  // that exist
  int count;       // channels that exist

  STORM_HD_MEMBER int32_t at(int t) const { return t * next; }  // counted from the first one
  STORM_HD_MEMBER bool has(int t) const { return t < tokens; }
};

// The kernel for kStateGroup states moves pairs and vectors; the other (kStates is 0) any states, one element at a time.
template <class T, int kStates, class Memory>
struct Load {
  static constexpr bool kVectors = kStates > 0;
  using Loaded = std::conditional_t<kVectors, Packed<T>, Pair>;
  const Arguments<T>& args;
  Shared<T>& shared;

  STORM_HD_MEMBER int32_t states() const { return kVectors ? kStates : static_cast<int32_t>(args.shape.state); }

  STORM_HD_MEMBER void load(Thread& me, int thread) const {
    const Place place = place_of(thread);
    const Strip strip = strip_of(place);
    const T* const u = args.u + strip.first;
    const T* const delta = args.delta + strip.first;
    const int channel = shared.at.row_channel + place.first_channel;
    const Pair bias = load_pair(args.delta_bias + channel, strip.count), D = load_pair(args.D + channel, strip.count);
    Loaded loaded_u[kThreadTokens], loaded_delta[kThreadTokens];
    STORM_UNROLL
    // Behind the end of the sequence the step becomes softplus(-inf) = 0, which changes no state.
    for (int t = 0; t < kThreadTokens; ++t) loaded_delta[t] = load_pair_at(delta, strip, t, -INFINITY);
    STORM_UNROLL
    for (int t = 0; t < kThreadTokens; ++t) loaded_u[t] = load_pair_at(u, strip, t, 0.0f);
    if constexpr (kVectors) fetch_gate(strip, thread);
    load_matrices(0, thread);

    Pair step_sum = {0.0f, 0.0f};
    STORM_UNROLL
    for (int t = 0; t < kThreadTokens; ++t) {
      const Pair token = unpack(loaded_u[t]), biased = unpack(loaded_delta[t]) + bias;
      me.step[t] = {fast_softplus(biased.first), fast_softplus(biased.second)};
      me.inflow[t] = me.step[t] * token;
      me.y[t] = D * token;
      step_sum = step_sum + me.step[t];
    }
    shared.step_sum[place.warp][place.lane] = step_sum;
  }

  // A, B and C of kStateGroup states from `group` on; what does not exist becomes 0. Neighbouring lanes have neighbouring
  // tokens or channels, so that what they write lies in different banks.
  STORM_HD_MEMBER void load_matrices(int group, int thread) const {
    if constexpr (kVectors) {
      load_vectors(thread);
    } else {
      const T* const B = args.B + shared.at.first_state;
      const T* const C = args.C + shared.at.first_state;
      for (int i = thread; i < kChunkTokens * kStateGroup; i += kThreads) {
        const int token = i % kChunkTokens, n = i / kChunkTokens;
        const bool inside = token < shared.at.tokens && group + n < states();
        const int32_t from = (args.reverse ? -token : token) * states() + group + n;
        shared.rows[n].B[token] = inside ? to_float(B[from]) : 0.0f;
        shared.rows[n].C[token] = inside ? to_float(C[from]) : 0.0f;
      }
      for (int i = thread; i < kRowChannels * kStateGroup; i += kThreads) {
        const int channel = i % kRowChannels, n = i / kRowChannels;
        const int64_t row = shared.at.row_channel + channel;
        const bool inside = row < args.shape.channels && group + n < states();
        shared.rows[n].A2[channel] = inside ? args.A[row * states() + group + n] * kLog2e : 0.0f;
      }
    }
  }

  STORM_HD_MEMBER void store_tokens(const Thread& me, int thread) const {
    const Strip strip = strip_of(place_of(thread));
    const T* const gates = args.z + strip.first;
    T* const y = args.y + strip.first;
    Loaded loaded[kThreadTokens];
    if constexpr (kVectors) Memory::fetched();
    STORM_UNROLL
    for (int t = 0; t < kThreadTokens; ++t) {
      if constexpr (kVectors) {
        loaded[t] = shared.z[t][thread];
      } else {
        loaded[t] = load_pair_at(gates, strip, t, 0.0f);
      }
    }
    STORM_UNROLL
    for (int t = 0; t < kThreadTokens; ++t) {
      const Pair z = unpack(loaded[t]);
      const Pair gated = me.y[t] * Pair{fast_silu(z.first), fast_silu(z.second)};
      if constexpr (kVectors) {
        Memory::store_if(strip.has(t), pack<T>(gated), packed_at(y + strip.at(t)));
      } else {
        store_pair(gated, y + strip.at(t), strip.has(t) ? strip.count : 0);
      }
    }
  }

 private:
  STORM_HD_MEMBER Strip strip_of(const Place& place) const {
    const int32_t channels = static_cast<int32_t>(args.shape.channels);  // at most kMaximumChannels
    const int32_t next = args.reverse ? -channels : channels;
    const int count = pair_count(shared.at.row_channel + place.first_channel, channels);
    return {shared.at.first + place.first_token * next + place.first_channel, next,
            count > 0 ? shared.at.tokens - place.first_token : 0, count};
  }

  // `otherwise` where there is none.
  STORM_HD_MEMBER Loaded load_pair_at(const T* tokens, const Strip& strip, int t, float otherwise) const {
    if constexpr (kVectors) {
      return Memory::load_if(strip.has(t), packed_at(tokens + strip.at(t)), pack<T>({otherwise, otherwise}));
    } else {
      return strip.has(t) ? load_pair(tokens + strip.at(t), strip.count) : Pair{otherwise, otherwise};
    }
  }

  // Each thread fetches what it will read itself, so that no barrier is needed.
  STORM_HD_MEMBER void fetch_gate(const Strip& strip, int thread) const {
    const T* const gates = args.z + strip.first;
    STORM_UNROLL
    for (int t = 0; t < kThreadTokens; ++t) Memory::fetch_if(strip.has(t), packed_at(gates + strip.at(t)), &shared.z[t][thread]);
  }

  STORM_HD_MEMBER void load_vectors(int thread) const {
    constexpr int kValues = kVectorBytes / sizeof(T), kVectorsOfARow = kStateGroup / kValues;
    constexpr int kOfAMatrix = kChunkTokens * kVectorsOfARow;
    constexpr int kMatrixLoads = 2 * kOfAMatrix / kThreads, kFours = kStateGroup / 4;
    static_assert(2 * kOfAMatrix % kThreads == 0 && kRowChannels * kFours == kThreads, "every thread loads as much");
    Vector<T> loaded[kMatrixLoads];
    STORM_UNROLL
    for (int i = 0; i < kMatrixLoads; ++i) {
      const unsigned at = thread + i * kThreads, vector = at / kChunkTokens % kVectorsOfARow;
      const int token = at % kChunkTokens;
      const T* const from = (at < kOfAMatrix ? args.B : args.C) + shared.at.first_state;
      const int32_t row = (args.reverse ? -token : token) * kStateGroup;
      const auto* const source = reinterpret_cast<const Vector<T>*>(from + row + vector * kValues);
      loaded[i] = token < shared.at.tokens ? *source : Vector<T>{};
    }
    const int channel = static_cast<unsigned>(thread) % kRowChannels, four = static_cast<unsigned>(thread) / kRowChannels;
    const int64_t row = shared.at.row_channel + channel;
    const Four A = row < args.shape.channels ? four_at(args.A + row * kStateGroup + four * 4) : Four{};

    STORM_UNROLL
    for (int i = 0; i < kMatrixLoads; ++i) {
      const unsigned at = thread + i * kThreads, vector = at / kChunkTokens % kVectorsOfARow;
      StateRow* const rows = shared.rows + vector * kValues;
      float* const to = (at < kOfAMatrix ? rows->B : rows->C) + at % kChunkTokens;
      STORM_UNROLL
      for (int k = 0; k < kValues; k += 2) {
        const Pair pair = unpack(loaded[i].at[k / 2]);
        to[k * kRowFloats] = pair.first;
        to[(k + 1) * kRowFloats] = pair.second;
      }
    }
    STORM_UNROLL
    for (int k = 0; k < 4; ++k) shared.rows[four * 4 + k].A2[channel] = A.at[k] * kLog2e;
  }
};

}  // namespace storm::scan
