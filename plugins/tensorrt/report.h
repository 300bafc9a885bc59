// How the plugins say what went wrong: one line to the logger of the TensorRT that loaded them.
#pragma once

#include <NvInferRuntime.h>

#include <string>

namespace storm::tensorrt {

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

// To the logger, or to stderr where there is none. Never throws.
void report(const std::string& message) noexcept;

}  // namespace storm::tensorrt
