#include "cpu/kernels.h"

namespace storm::cpu {

namespace portable {
extern const Kernels kernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#elif defined(__aarch64__)
namespace neon {
extern const Kernels kernels;
}
#endif

const std::vector<Kernels>& all_kernels() {
  static const std::vector<Kernels> found = [] {
    std::vector<Kernels> kernels;
#if defined(__x86_64__)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (avx2 && __builtin_cpu_supports("avx512f")) kernels.push_back(avx512::kernels);
    if (avx2) kernels.push_back(avx2::kernels);
#elif defined(__aarch64__)
    kernels.push_back(neon::kernels);
#endif
    kernels.push_back(portable::kernels);
    return kernels;
  }();
  return found;
}

}  // namespace storm::cpu
