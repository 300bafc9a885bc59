#!/bin/sh
# Prints what ptxas says of the kernels: registers, spills and shared memory for each type and SM.
#
#   plugins/selective_scan/cuda/ptxas.sh > plugins/selective_scan/cuda/ptxas.txt
set -eu
cd "$(dirname "$0")/../.."
known=$(nvcc --list-gpu-code)
echo "# plugins/selective_scan/cuda/ptxas.sh: for each type and SM,"
echo "# nvcc -std=c++17 -O3 -I. -gencode arch=compute_SM,code=sm_SM -Xptxas -v -cubin selective_scan/cuda/TYPE.cu"
echo "# nvcc $(nvcc --version | sed -n 's/.*release \([0-9.]*\), V\([0-9.]*\)/\2/p')"
echo "# states: 16 is the kernel for 16 states, any the one for all other numbers"
printf '%-9s %-6s %-6s %9s %12s %11s %12s %13s\n' type states SM registers spill_stores spill_loads stack_bytes shared_bytes
for type in float32 float16 bfloat16; do
  for sm in 80 86 87 89 90 100 110 120; do
    case "$known" in *"sm_$sm"*) ;; *) continue ;; esac
    nvcc -std=c++17 -O3 -I. -gencode arch=compute_$sm,code=sm_$sm -Xptxas -v -cubin -o /dev/null \
      "selective_scan/cuda/$type.cu" 2>&1 |
      awk -v type="$type" -v sm="$sm" '
        /Compiling entry function/ { states = /Li16E/ ? "16" : "any" }
        /bytes stack frame/ { stack = $1; stores = $5; loads = $9 }
        /Used [0-9]+ registers/ {
          for (i = 1; i <= NF; i++) if ($i == "Used") registers = $(i + 1)
          shared = 0
          for (i = 1; i <= NF; i++) if ($i ~ /^smem/) shared = $(i - 2)
          printf "%-9s %-6s %-6s %9s %12s %11s %12s %13s\n", type, states, sm, registers, stores, loads, stack, shared
        }'
  done
done
