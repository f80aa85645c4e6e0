// What differs between the two compilations of an op: this is the only file that asks which compiler runs.
//
// An op is a functor `f(row, begin, end)` that handles columns [begin, end) of one row. The CPU launcher hands
// out blocks of columns to OpenMP threads and the functor's inner loops vectorise; the CUDA launcher hands one
// column to each thread. Both compile the same functor without contraction to FMA, so results agree bit for bit.
#pragma once
#include <cstdint>

#define WRT_EXPORT extern "C" __attribute__((visibility("default")))

#ifdef __CUDACC__

#include <cuda_runtime.h>
#define WRT_HD __host__ __device__ __forceinline__
#define WRT_SIMD

namespace worldrt {

constexpr bool kOnDevice = true;

template <class F>
__global__ void over_columns(const F f, int64_t rows, int64_t columns) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * columns; i += step)
    f(i / columns, i % columns, i % columns + 1);
}

template <class F>
int launch(const F& f, int64_t rows, int64_t columns, void* stream) {
  constexpr int kThreads = 256;
  const int64_t blocks = (rows * columns + kThreads - 1) / kThreads;
  if (blocks == 0) return 0;
  cudaGetLastError();  // an older error of this thread is not ours to report
  over_columns<<<static_cast<unsigned>(blocks < (1 << 20) ? blocks : 1 << 20), kThreads, 0,
                 static_cast<cudaStream_t>(stream)>>>(f, rows, columns);
  return static_cast<int>(cudaGetLastError());
}

// Number of CUDA devices, or minus the CUDA error code.
inline int units() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  return error == cudaSuccess ? count : -static_cast<int>(error);
}

inline const char* error_text(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

}  // namespace worldrt

#else

#ifdef _OPENMP
#include <omp.h>
#endif
#define WRT_HD inline __attribute__((always_inline))
#define WRT_SIMD _Pragma("omp simd")

namespace worldrt {

constexpr bool kOnDevice = false;

template <class F>
int launch(const F& f, int64_t rows, int64_t columns, void*) {
  constexpr int64_t kBlock = 4096, kWorthThreads = 1 << 15;
  const int64_t blocks = (columns + kBlock - 1) / kBlock;
  const bool threaded = rows * columns * f.work() >= kWorthThreads;
  (void)threaded;  // read by the pragma only
#pragma omp parallel for collapse(2) schedule(static) if (threaded)
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t begin = block * kBlock, end = begin + kBlock;
      const F op = f;  // a private copy: byte stores through a pointer may not alias it
      op(row, begin, end < columns ? end : columns);
    }
  return 0;
}

// Number of OpenMP threads, or 0 without OpenMP.
inline int units() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 0;
#endif
}

inline const char* error_text(int) { return "no error text on the CPU"; }

}  // namespace worldrt

#endif
