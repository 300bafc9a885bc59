#include "selective_scan/cuda/kernel.cuh"

namespace storm::scan {

template cudaError_t launch<__half>(const SelectiveScan&, void*, cudaStream_t);

}  // namespace storm::scan
