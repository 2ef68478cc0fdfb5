// What a kernel needs of the compiler, by names that a host compiler can give another meaning: tools/gpu/simt runs the
// same source on the CPU. Anything of a vendor's, and any PTX, stands here and nowhere else in csrc/cuda.
#pragma once

#ifdef TLX_HOST_SIMT
#include "simt_host.h"
#else
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

// A shared array of the block, and its dynamic shared memory.
#define TLX_SHARED(T, name, dims) __shared__ __align__(16) T name dims
#define TLX_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define TLX_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)

namespace tlx {

// A launch reports what is wrong with it here, errors of earlier asynchronous work included.
inline void check_launch(const char* op) {
    const cudaError_t status = cudaGetLastError();
    if (status != cudaSuccess) throw std::runtime_error(std::string(op) + " on CUDA: " + cudaGetErrorString(status));
}

}  // namespace tlx
#endif
