// What a GPU can do, measured: the floors under the scan's time.
#include <cuda_runtime_api.h>

#include "bridge.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kThreads = 256;
constexpr int kChains = 8;  // independent ones, so that the latency does not show
constexpr int kSteps = 4096;

__global__ void exponentials(float* out) {
  float x[kChains];
  for (int i = 0; i < kChains; ++i) x[i] = static_cast<float>(threadIdx.x + i) * -1e-3f;
#pragma unroll 4
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < kChains; ++i) asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(x[i]));
  }
  float sum = 0.0f;
  for (int i = 0; i < kChains; ++i) sum += x[i];
  if (sum == 12345.0f) *out = sum;  // never, but the compiler does not know
}

// Seconds between two events around `launch`, the best of five; below 0 on error.
template <class Launch>
double best_seconds(Launch launch) {
  cudaEvent_t begin, end;
  if (cudaEventCreate(&begin) != cudaSuccess || cudaEventCreate(&end) != cudaSuccess) return -1.0;
  double best = 1e30;
  for (int i = 0; i < 6; ++i) {
    cudaEventRecord(begin);
    launch();
    cudaEventRecord(end);
    float milliseconds;
    if (cudaEventSynchronize(end) != cudaSuccess) return -1.0;
    if (cudaEventElapsedTime(&milliseconds, begin, end) != cudaSuccess) return -1.0;
    if (i > 0 && milliseconds * 1e-3 < best) best = milliseconds * 1e-3;
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return best;
}

}  // namespace

EXPORT double storm_cuda_exponential_rate() {
  int device = 0, sms = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return -1.0;
  cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device);
  float* out = nullptr;
  if (cudaMalloc(&out, sizeof(float)) != cudaSuccess) return -1.0;
  const int blocks = sms * 8;
  const double seconds = best_seconds([&] { exponentials<<<blocks, kThreads>>>(out); });
  cudaFree(out);
  return seconds < 0 ? -1.0 : static_cast<double>(blocks) * kThreads * kChains * kSteps / seconds;
}

EXPORT double storm_cuda_bandwidth() {
  constexpr size_t kBytes = 1u << 30;
  void *from = nullptr, *to = nullptr;
  if (cudaMalloc(&from, kBytes) != cudaSuccess || cudaMalloc(&to, kBytes) != cudaSuccess) return -1.0;
  const double seconds = best_seconds([&] { cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice); });
  cudaFree(from);
  cudaFree(to);
  return seconds < 0 ? -1.0 : 2.0 * static_cast<double>(kBytes) / seconds;
}
