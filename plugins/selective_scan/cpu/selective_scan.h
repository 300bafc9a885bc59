// storm::SelectiveScan on the CPU.
#pragma once

#include <cstdint>

#include "cpu/parallel.h"
#include "selective_scan/arguments.h"

namespace storm::cpu {

struct Kernels;

// How the work is cut. Channels never share arithmetic, so `channels` changes no result; `chunk_length` does (rounding).
struct ScanPlan {
  int64_t channels;      // channels of one piece
  int64_t chunk_length;  // tokens of one piece
};

// Cuts channels only as long as these keep all threads busy: chunks of the sequence cost every exponential twice.
// Throws std::invalid_argument for sizes that the scan does not take.
ScanPlan plan_selective_scan(const SelectiveScan& scan, int threads);

// Computes y and final_state. Throws std::invalid_argument for sizes it does not take and std::bad_alloc.
// The result is the same bit for bit whatever the threads do, and for any number of them that leads to the same plan.
void selective_scan(const SelectiveScan& scan, const Parallel& parallel);
void selective_scan(const SelectiveScan& scan, const Parallel& parallel, const ScanPlan& plan, const Kernels& kernels);

}  // namespace storm::cpu
