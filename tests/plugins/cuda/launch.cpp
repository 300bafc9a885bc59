// A launch with a CUDA runtime that is not there: what the launchers make of errors, their own and others'.
#include <cuda_runtime_api.h>

#include <cstdio>

#include "causal_conv1d/cuda/causal_conv1d.h"

namespace storm::conv {

template <class T>
cudaError_t launch(const CausalConv1d& conv, cudaStream_t stream);
extern template cudaError_t launch<float>(const CausalConv1d&, cudaStream_t);

}  // namespace storm::conv

namespace {

cudaError_t last = cudaSuccess, of_launches = cudaSuccess;
int launches = 0;

}  // namespace

extern "C" {

cudaError_t cudaGetLastError() {
  const cudaError_t error = last;
  last = cudaSuccess;
  return error;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) {
  ++launches;
  if (of_launches != cudaSuccess) last = of_launches;
  return of_launches;
}
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return cudaSuccess; }
unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, cudaStream_t) { return 0; }
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaSuccess; }
char __cudaInitModule(void**) { return 1; }
void** __cudaRegisterFatBinary(void*) { return nullptr; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*, dim3*, dim3*, int*) {}
}

int main() {
  storm::CausalConv1d conv = {};
  conv.batch = conv.length = conv.channels = 1;
  conv.width = 4;
  last = cudaErrorInvalidDevice;  // somebody else's
  const cudaError_t first = storm::conv::launch<float>(conv, nullptr);
  of_launches = cudaErrorNoKernelImageForDevice;
  const cudaError_t second = storm::conv::launch<float>(conv, nullptr);
  std::printf("%d %d %d", launches, first, second);
}
