// Sizes and types are checked and chosen here; the kernels are compiled apart, one type a file.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <string>

#include "selective_scan/cuda/plan.h"
#include "selective_scan/cuda/selective_scan.h"

namespace storm::scan {

template <class T>
cudaError_t launch(const SelectiveScan& scan, void* workspace, cudaStream_t stream);

extern template cudaError_t launch<float>(const SelectiveScan&, void*, cudaStream_t);
extern template cudaError_t launch<__half>(const SelectiveScan&, void*, cudaStream_t);
extern template cudaError_t launch<__nv_bfloat16>(const SelectiveScan&, void*, cudaStream_t);

}  // namespace storm::scan

namespace storm::cuda {

namespace {

// From so many rows on a ring has the same number of slots, so that more rows need more.
constexpr int64_t kRowsOfShrinkingRings = scan::kBlocksInFlight;

}  // namespace

std::string selective_scan_refusal(int64_t batch, int64_t length, int64_t channels, int64_t state) {
  if (batch < 1 || length < 1 || channels < 1) return "storm::SelectiveScan: every axis must be at least 1";
  if (state < 1 || state > kMaximumState) {
    return "storm::SelectiveScan: state must be 1 to " + std::to_string(kMaximumState) + ", got " +
           std::to_string(state);
  }
  if (batch <= kMaximumElements / length / std::max(channels, state) && scan::fits({batch, length, channels, state})) {
    return "";
  }
  return "storm::SelectiveScan: batch, length and channels " + std::to_string(batch) + ", " + std::to_string(length) +
         ", " + std::to_string(channels) + " are more than one launch can take: run it in pieces";
}

size_t selective_scan_workspace(int64_t batch, int64_t length, int64_t channels, int64_t state) {
  if (!selective_scan_refusal(batch, length, channels, state).empty()) return 0;
  size_t most = scan::workspace_bytes({batch, length, channels, state});
  for (int64_t smaller = 1; smaller < std::min(batch, kRowsOfShrinkingRings); ++smaller) {
    most = std::max(most, scan::workspace_bytes({smaller, length, channels, state}));
  }
  return most;
}

cudaError_t selective_scan(const SelectiveScan& scan, void* workspace, cudaStream_t stream) {
  if (!selective_scan_refusal(scan.batch, scan.length, scan.channels, scan.state).empty()) return cudaErrorInvalidValue;
  const scan::Shape shape = {scan.batch, scan.length, scan.channels, scan.state};
  if (scan::make_plan(shape).chunks > 1 && workspace == nullptr) return cudaErrorInvalidValue;
  switch (scan.type) {
    case Type::float32:
      return scan::launch<float>(scan, workspace, stream);
    case Type::float16:
      return scan::launch<__half>(scan, workspace, stream);
    case Type::bfloat16:
      return scan::launch<__nv_bfloat16>(scan, workspace, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace storm::cuda
