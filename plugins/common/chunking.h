// Where tokens and chunks lie, and how the effects of chunks are combined: the scan that is parallel over the sequence,
// for host and device.
//
// All kernels count in scan order: position 0 is the token that is scanned first. `reverse` only says which token that
// is, so forward and reverse are one code path.
#pragma once

#include <stdint.h>

#include "common/math.h"

namespace storm {

STORM_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The token at a position of the scan.
STORM_HD int64_t token_at(int64_t position, int64_t length, bool reverse) {
  return reverse ? length - 1 - position : position;
}

// Positions [begin, end).
struct Span {
  int64_t begin;
  int64_t end;
};

// All chunks have `chunk_length` positions, the last one what is left.
STORM_HD Span chunk_span(int64_t chunk, int64_t chunk_length, int64_t length) {
  const int64_t begin = chunk * chunk_length;
  const int64_t end = begin + chunk_length;
  return {begin, end < length ? end : length};
}

// What a run of tokens does to one state: h -> decay(step_sum, A2) * h + state.
template <typename F>
struct Effect {
  F step_sum;  // of the channel: the same for all its states
  F state;     // what the tokens leave behind when they start from zero
};

// The state after a run of tokens that was entered with h.
template <typename F>
STORM_HD F state_after(F h, Effect<F> run, F A2) {
  return fused(decay(run.step_sum, A2), h, run.state);
}

// The effect of `first` followed by `second` in scan order; associative.
template <typename F>
STORM_HD Effect<F> combine(Effect<F> first, Effect<F> second, F A2) {
  return {first.step_sum + second.step_sum, state_after(first.state, second, A2)};
}

}  // namespace storm
