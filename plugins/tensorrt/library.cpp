// The two functions that TensorRT looks for when it loads libstorm_tensorrt.so, and what the library says of itself.
#include <NvInferRuntime.h>

#include "causal_conv1d/tensorrt/operator.h"
#include "common/schemas.h"
#include "selective_scan/tensorrt/operator.h"
#include "tensorrt/plugin.h"
#include "tensorrt/report.h"

#define STORM_EXPORT extern "C" __attribute__((visibility("default")))

STORM_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) noexcept {
  try {
    static storm::tensorrt::Creator selective_scan(storm::tensorrt::selective_scan_operator());
    static storm::tensorrt::Creator causal_conv1d(storm::tensorrt::causal_conv1d_operator());
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&selective_scan, &causal_conv1d};
    count = static_cast<int32_t>(sizeof creators / sizeof creators[0]);
    return creators;
  } catch (...) {
    storm::tensorrt::report("storm: out of memory");
    count = 0;
    return nullptr;
  }
}

STORM_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept {
  storm::tensorrt::set_logger_finder(finder);
}

STORM_EXPORT const char* storm_schemas() { return storm::schemas_text(); }

// Of the headers: another TensorRT calls interfaces that this library does not have.
STORM_EXPORT int32_t storm_tensorrt_major() { return NV_TENSORRT_MAJOR; }
