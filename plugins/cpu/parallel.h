// Who runs the pieces of a kernel's work: the caller's thread pool, or threads of our own.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace storm::cpu {

// A way to run task(data, 0) ... task(data, count - 1), in any order and on any threads, and to return when all are done.
struct Parallel {
  int threads;  // how many can run at once: decides how finely work is cut, and is not a promise
  void* pool;
  void (*run)(void* pool, int64_t count, void (*task)(void* data, int64_t index), void* data);

  // Runs any callable that takes the index.
  template <typename Task>
  void operator()(int64_t count, Task task) const {
    run(pool, count, [](void* data, int64_t index) { (*static_cast<Task*>(data))(index); }, &task);
  }
};

// As many threads as `threads` says, started for each call: no state to keep, nothing to break when a process forks, and
// tens of microseconds against the milliseconds of a scan.
inline Parallel own_threads(int threads) {
  return {threads, reinterpret_cast<void*>(static_cast<intptr_t>(threads)),
          [](void* pool, int64_t count, void (*task)(void*, int64_t), void* data) {
            std::atomic<int64_t> next{0};
            const auto work = [&] {
              for (int64_t index = next++; index < count; index = next++) task(data, index);
            };
            int64_t helpers = static_cast<int64_t>(reinterpret_cast<intptr_t>(pool)) - 1;
            if (helpers > count - 1) helpers = count - 1;
            std::vector<std::thread> started;
            try {
              for (int64_t i = 0; i < helpers; ++i) started.emplace_back(work);
            } catch (const std::exception&) {  // no more threads to be had: those there are do the work
            }
            work();
            for (std::thread& thread : started) thread.join();
          }};
}

}  // namespace storm::cpu
