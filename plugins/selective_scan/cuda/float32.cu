#include "selective_scan/cuda/kernel.cuh"

namespace storm::scan {

template cudaError_t launch<float>(const SelectiveScan&, void*, cudaStream_t);

}  // namespace storm::scan
