// One guided step of a linear multistep sampler over latents [B, C, T, S], with an optional shift of the queue.
//
//   g = x0 + guidance * (x0 - uncond)        (g = x0 without uncond)
//   y = x where keep, else a*x + b*g + c*prev + d*noise, in double, rounded once to float
//   out[t] = y[t + shift], then fill;  guided_out[t] = g[t + shift], then 0
//
// Aliasing. A column (b, c, s) belongs to one thread, which walks t upwards and reads every operand at t before it
// writes frame t - shift <= t. So an output may be the same memory (same address and strides) as any float32 operand
// of the full shape. The two outputs, and `fill` and an output, must not overlap.
#pragma once
#include "numbers.h"

namespace worldrt {

struct Frames {  // [B, C, T, S], contiguous over S; strides in elements
  void* data;
  int64_t batch, channel, frame;
};

struct UpdateArgs {
  Frames x, x0, uncond, prev, noise, fill, out, guided_out;  // data is null where absent
  const double* coefficients;                                // rows (a, b, c, d), [T, 4] per batch
  const uint8_t* keep;                                       // [T] per batch, or null
  int64_t coefficients_batch, keep_batch;                    // strides in elements; 0 shares one table
  int64_t batch, channels, frames, size, shift;
  double guidance;
  int64_t dtype;  // of x0 and uncond
};

enum Operands : int { kUncond = 1, kPrev = 2, kNoise = 4, kGuided = 8, kAtRunTime = 16 };

// `Has` fixes which optional operands exist when compiling (so the loop vectorises), or leaves it to the pointers.
template <class T, int Has>
struct MultistepUpdate {
  UpdateArgs args;

  struct Row {  // one frame of one channel
    const float *x, *prev, *noise;
    const T *x0, *uncond;
    float *out, *guided_out;
    double a, b, c, d;
    bool keep;
  };

  int64_t work() const { return args.frames; }

  WRT_HD bool has(int operand, const void* data) const {
    return Has == kAtRunTime ? data != nullptr : (Has & operand) != 0;
  }

  template <class V>
  WRT_HD static V* at(const Frames& f, int64_t b, int64_t c, int64_t t) {
    return f.data ? static_cast<V*>(f.data) + (b * f.batch + c * f.channel + t * f.frame) : nullptr;
  }

  WRT_HD Row row(int64_t b, int64_t c, int64_t t) const {  // t >= shift: earlier frames are dropped
    const double* k = args.coefficients + b * args.coefficients_batch + 4 * t;
    const int64_t target = t - args.shift;
    Row r;
    r.x = at<const float>(args.x, b, c, t);
    r.x0 = at<const T>(args.x0, b, c, t);
    r.uncond = at<const T>(args.uncond, b, c, t);
    r.prev = at<const float>(args.prev, b, c, t);
    r.noise = at<const float>(args.noise, b, c, t);
    r.out = at<float>(args.out, b, c, target);
    r.guided_out = at<float>(args.guided_out, b, c, target);
    r.a = k[0], r.b = k[1], r.c = k[2], r.d = k[3];
    r.keep = args.keep && args.keep[b * args.keep_batch + t] != 0;
    return r;
  }

  WRT_HD double guided(const Row& r, int64_t s) const {
    const double x0 = to_float(r.x0[s]);
    return has(kUncond, r.uncond) ? x0 + args.guidance * (x0 - static_cast<double>(to_float(r.uncond[s]))) : x0;
  }

  WRT_HD void step(const Row& r, int64_t s) const {
    const double g = guided(r, s);
    double y = r.a * static_cast<double>(r.x[s]) + r.b * g;
    if (has(kPrev, r.prev)) y = y + r.c * static_cast<double>(r.prev[s]);
    if (has(kNoise, r.noise)) y = y + r.d * static_cast<double>(r.noise[s]);
    r.out[s] = static_cast<float>(y);
    if (has(kGuided, r.guided_out)) r.guided_out[s] = static_cast<float>(g);
  }

  WRT_HD void leave(const Row& r, int64_t s) const {
    const float x = r.x[s];
    const double g = has(kGuided, r.guided_out) ? guided(r, s) : 0.0;
    r.out[s] = x;
    if (has(kGuided, r.guided_out)) r.guided_out[s] = static_cast<float>(g);
  }

  WRT_HD void operator()(int64_t row_index, int64_t begin, int64_t end) const {
    const int64_t b = row_index / args.channels, c = row_index % args.channels;
    for (int64_t t = args.shift; t < args.frames; ++t) {
      const Row r = row(b, c, t);
      if (r.keep) {  // a loop of its own: a choice inside would keep the other one from vectorising
        WRT_SIMD for (int64_t s = begin; s < end; ++s) leave(r, s);
      } else {
        WRT_SIMD for (int64_t s = begin; s < end; ++s) step(r, s);
      }
    }
    for (int64_t j = 0; j < args.shift; ++j) {
      const int64_t t = args.frames - args.shift + j;
      const float* fill = at<const float>(args.fill, b, c, j);
      float* out = at<float>(args.out, b, c, t);
      float* guided_out = at<float>(args.guided_out, b, c, t);
      WRT_SIMD for (int64_t s = begin; s < end; ++s) {
        out[s] = fill[s];
        if (has(kGuided, guided_out)) guided_out[s] = 0.0f;
      }
    }
  }
};

}  // namespace worldrt
