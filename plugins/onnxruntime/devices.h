// Where an operator runs: the name of ONNX Runtime's provider, and how its kernels are called there.
#pragma once

#include "causal_conv1d/cpu/causal_conv1d.h"
#include "common/schema.h"
#include "onnxruntime/kernel_context.h"
#include "selective_scan/cpu/selective_scan.h"

#ifdef STORM_WITH_CUDA
#include <stdexcept>

#include "causal_conv1d/cuda/causal_conv1d.h"
#include "selective_scan/cuda/selective_scan.h"
#endif
namespace storm::onnxruntime {

struct OnCpu {
  static constexpr char kProvider[] = "CPUExecutionProvider";

  static void run(OrtKernelContext* context, const SelectiveScan& scan) {
    cpu::selective_scan(scan, session_threads(context));
  }
  static void run(OrtKernelContext* context, const CausalConv1d& conv) {
    cpu::causal_conv1d(conv, session_threads(context));
  }
};

#ifdef STORM_WITH_CUDA
struct OnCuda {
  static constexpr char kProvider[] = "CUDAExecutionProvider";

  static void run(OrtKernelContext* context, const SelectiveScan& scan) {
    const cudaStream_t stream = stream_of(context);
    void* workspace = nullptr;  // taken and given back in the order of the stream
    const size_t bytes = cuda::selective_scan_workspace(scan.batch, scan.length, scan.channels, scan.state);
    if (bytes > 0) check(cudaMallocAsync(&workspace, bytes, stream), "cudaMallocAsync");
    const cudaError_t result = cuda::selective_scan(scan, workspace, stream);
    if (workspace != nullptr) check(cudaFreeAsync(workspace, stream), "cudaFreeAsync");
    check(result, "storm::SelectiveScan of batch, length, channels, state " +
                      text_of({scan.batch, scan.length, scan.channels, scan.state}));
  }
  static void run(OrtKernelContext* context, const CausalConv1d& conv) {
    check(cuda::causal_conv1d(conv, stream_of(context)),
          "storm::CausalConv1d of batch, length, channels, width " +
              text_of({conv.batch, conv.length, conv.channels, conv.width}));
  }

 private:
  static cudaStream_t stream_of(OrtKernelContext* context) {
    void* stream = nullptr;
    Ort::ThrowOnError(Ort::GetApi().KernelContext_GetGPUComputeStream(context, &stream));
    return static_cast<cudaStream_t>(stream);
  }
  static void check(cudaError_t error, const std::string& what) {
    if (error != cudaSuccess) throw std::runtime_error(what + " failed: " + cudaGetErrorName(error));
  }
};
#endif

}  // namespace storm::onnxruntime
