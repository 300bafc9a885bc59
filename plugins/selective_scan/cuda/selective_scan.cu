// Sizes and types are checked and chosen here; the kernels are compiled apart, one type a file.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

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

size_t selective_scan_workspace(int64_t batch, int64_t length, int64_t channels, int64_t state) {
  size_t most = 0;  // rings shrink as rows are added, so that a smaller batch may need more
  for (int64_t smaller = 1; smaller <= batch; ++smaller) {
    const scan::Shape shape = {smaller, length, channels, state};
    if (length > 0 && channels > 0 && scan::fits(shape)) most = std::max(most, scan::workspace_bytes(shape));
  }
  return most;
}

cudaError_t selective_scan(const SelectiveScan& scan, void* workspace, cudaStream_t stream) {
  const scan::Shape shape = {scan.batch, scan.length, scan.channels, scan.state};
  if (scan.batch < 1 || scan.length < 1 || scan.channels < 1 || scan.state < 1 || scan.state > kMaximumState) {
    return cudaErrorInvalidValue;
  }
  if (!scan::fits(shape)) return cudaErrorInvalidValue;
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
