#include "tensorrt/report.h"

#include <atomic>
#include <cstdio>

namespace storm::tensorrt {

namespace {

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept { logger_finder = finder; }

void report(const std::string& message) noexcept {
  try {
    nvinfer1::ILoggerFinder* const finder = logger_finder;
    nvinfer1::ILogger* const logger = finder != nullptr ? finder->findLogger() : nullptr;
    if (logger != nullptr) {
      logger->log(nvinfer1::ILogger::Severity::kERROR, message.c_str());
      return;
    }
  } catch (...) {
    // The message still goes to stderr.
  }
  std::fprintf(stderr, "%s\n", message.c_str());
}

}  // namespace storm::tensorrt
