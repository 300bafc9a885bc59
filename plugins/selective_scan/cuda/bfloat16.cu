#include "selective_scan/cuda/kernel.cuh"

namespace storm::scan {

template cudaError_t launch<__nv_bfloat16>(const SelectiveScan&, void*, cudaStream_t);

}  // namespace storm::scan
