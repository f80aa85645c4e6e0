// The C entry points: choose the instance for a dtype, launch it. Compiled as C++ (pointers to host memory, `stream`
// unused) and, through ops.cu, as CUDA (pointers to device memory, asynchronous on `stream`).
//
// Each op returns 0, a positive CUDA error code, or a negative code of `Fault`. Shapes, strides and aliasing are
// the caller's to check: worldrt.kernels does.
#include "counter_normal.h"
#include "multistep_update.h"
#include "rgb_to_yuv420.h"

namespace worldrt {

constexpr int kAbi = 2;  // raise with every change of an argument struct or a signature

enum Fault : int { kUnknownDtype = -1, kTermWithoutPrev = -2, kTermWithoutNoise = -3 };

template <class T, int Has>
int update(const UpdateArgs& args, void* stream) {
  return launch(MultistepUpdate<T, Has>{args}, args.batch * args.channels, args.size, stream);
}

// A term whose operand is absent would be dropped silently. Only the host can look at its coefficients.
inline int missing_operand(const UpdateArgs& args) {
  for (int64_t b = 0; b < (args.coefficients_batch ? args.batch : 1); ++b)
    for (int64_t t = args.shift; t < args.frames; ++t) {
      const double* k = args.coefficients + b * args.coefficients_batch + 4 * t;
      if (!args.prev.data && k[2] != 0.0) return kTermWithoutPrev;
      if (!args.noise.data && k[3] != 0.0) return kTermWithoutNoise;
    }
  return 0;
}

template <class T, int Has = 0>
int update_on_host(const UpdateArgs& args, int has) {
  if (has == Has) return update<T, Has>(args, nullptr);
  if constexpr (Has + 1 < kAtRunTime) return update_on_host<T, Has + 1>(args, has);
  return 0;
}

template <class T>
int update_of(const UpdateArgs& args, void* stream) {
  if constexpr (kOnDevice) {
    return update<T, kAtRunTime>(args, stream);
  } else {
    if (const int fault = missing_operand(args)) return fault;
    return update_on_host<T>(args, (args.uncond.data ? kUncond : 0) | (args.prev.data ? kPrev : 0) |
                                       (args.noise.data ? kNoise : 0) | (args.guided_out.data ? kGuided : 0));
  }
}

template <class T, int PixelStride, int ChannelStride>
int convert(const YuvArgs& args, double low, double high, void* stream) {
  const RgbToYuv420<T, PixelStride, ChannelStride> op(args, low, high);
  return launch(op, args.frames * (args.height / 2), args.width / 2, stream);
}

template <class T>
int convert_of(const YuvArgs& args, double low, double high, void* stream) {
  if (args.pixel_stride == 3 && args.channel_stride == 1) return convert<T, 3, 1>(args, low, high, stream);
  if (args.pixel_stride == 1) return convert<T, 1, 0>(args, low, high, stream);
  return convert<T, 0, 0>(args, low, high, stream);
}

}  // namespace worldrt

using namespace worldrt;

WRT_EXPORT int worldrt_abi() { return kAbi; }
WRT_EXPORT int worldrt_units() { return units(); }
WRT_EXPORT const char* worldrt_error_text(int code) { return error_text(code); }

WRT_EXPORT int worldrt_multistep_update(const UpdateArgs* args, void* stream) {
  switch (args->dtype) {
    case kFloat32: return update_of<float>(*args, stream);
    case kFloat16: return update_of<Half>(*args, stream);
    case kBfloat16: return update_of<Bfloat>(*args, stream);
    default: return kUnknownDtype;
  }
}

WRT_EXPORT int worldrt_counter_normal(const NormalArgs* args, void* stream) {
  const CounterNormal op{*args};
  return launch(op, args->rows, op.blocks(), stream);
}

WRT_EXPORT int worldrt_rgb_to_yuv420(const YuvArgs* args, void* stream) {
  switch (args->dtype) {
    case kFloat32: return convert_of<float>(*args, -1.0, 1.0, stream);
    case kFloat16: return convert_of<Half>(*args, -1.0, 1.0, stream);
    case kBfloat16: return convert_of<Bfloat>(*args, -1.0, 1.0, stream);
    case kUint8: return convert_of<uint8_t>(*args, 0.0, 255.0, stream);
    default: return kUnknownDtype;
  }
}
