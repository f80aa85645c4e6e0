// RGB frames to 8-bit 4:2:0 planes, BT.709, limited range (Y 16..235, Cb and Cr 16..240).
//
// Luma is computed per pixel, chroma from the mean RGB of a 2x2 block (so it is sited at the block's centre). Values
// are clamped to the input's range first (NaN counts as the low end); arithmetic is float, rounded half up.
#pragma once
#include "numbers.h"

namespace worldrt {

enum Layout : int64_t { kI420 = 0, kNv12 = 1 };

struct YuvArgs {
  const void* rgb;                                                  // [T, H, W, 3]
  int64_t frame_stride, row_stride, pixel_stride, channel_stride;  // in elements; may be negative
  uint8_t* out;                                                     // [T, H * 3 / 2, W], contiguous
  int64_t frames, height, width;                                    // height and width even
  int64_t dtype, layout;
};

struct Rgb { float r, g, b; };

WRT_HD uint8_t rounded(float v) { return static_cast<uint8_t>(static_cast<int32_t>(v + 0.5f)); }
WRT_HD float within(float v, float low, float high) { return v > low ? (v < high ? v : high) : low; }

// An affine map from clamped RGB in [low, high] to one component.
struct Component {
  float r, g, b, offset;

  WRT_HD uint8_t operator()(Rgb v) const { return rounded(((r * v.r + g * v.g) + b * v.b) + offset); }

  // `r, g, b` are the rows of the matrix for RGB in [0, 1]; `excursion` and `zero` are in 8-bit code values.
  static Component of(double r, double g, double b, double excursion, double zero, double low, double high) {
    const double scale = excursion / (high - low);
    return {static_cast<float>(scale * r), static_cast<float>(scale * g), static_cast<float>(scale * b),
            static_cast<float>(zero - scale * low * ((r + g) + b))};
  }
};

// PixelStride and ChannelStride fix the common layouts when compiling (so loops vectorise); 0 reads them from args.
template <class T, int PixelStride, int ChannelStride>
struct RgbToYuv420 {
  YuvArgs args;
  float low, high;
  Component y, cb, cr;

  RgbToYuv420(const YuvArgs& a, double low_, double high_)
      : args(a), low(static_cast<float>(low_)), high(static_cast<float>(high_)) {
    constexpr double kr = 0.2126, kb = 0.0722, kg = 1.0 - kr - kb;  // ITU-R BT.709
    constexpr double b_range = 2.0 * (1.0 - kb), r_range = 2.0 * (1.0 - kr);
    y = Component::of(kr, kg, kb, 219.0, 16.0, low_, high_);
    cb = Component::of(-kr / b_range, -kg / b_range, 0.5, 224.0, 128.0, low_, high_);
    cr = Component::of(0.5, -kg / r_range, -kb / r_range, 224.0, 128.0, low_, high_);
  }

  int64_t work() const { return 16; }

  WRT_HD Rgb pixel(const T* row, int64_t x) const {
    const int64_t step = PixelStride ? PixelStride : args.pixel_stride;
    const int64_t channel = ChannelStride ? ChannelStride : args.channel_stride;
    const T* p = row + x * step;
    return {within(to_float(p[0]), low, high), within(to_float(p[channel]), low, high),
            within(to_float(p[2 * channel]), low, high)};
  }

  WRT_HD static float mean(float a, float b, float c, float d) { return ((a + b) + (c + d)) * 0.25f; }

  WRT_HD Rgb block(const T* top, const T* bottom, int64_t x) const {
    const Rgb a = pixel(top, 2 * x), b = pixel(top, 2 * x + 1);
    const Rgb c = pixel(bottom, 2 * x), d = pixel(bottom, 2 * x + 1);
    return {mean(a.r, b.r, c.r, d.r), mean(a.g, b.g, c.g, d.g), mean(a.b, b.b, c.b, d.b)};
  }

  // One row is a pair of image rows, one column a pair of pixels.
  WRT_HD void operator()(int64_t row_index, int64_t begin, int64_t end) const {
    const int64_t pairs = args.height / 2, half = args.width / 2, area = args.height * args.width;
    const int64_t t = row_index / pairs, pair = row_index % pairs;
    const T* top = static_cast<const T*>(args.rgb) + (t * args.frame_stride + 2 * pair * args.row_stride);
    const T* bottom = top + args.row_stride;
    uint8_t* frame = args.out + t * (area + area / 2);
    uint8_t* luma = frame + 2 * pair * args.width;
    WRT_SIMD for (int64_t x = 2 * begin; x < 2 * end; ++x) luma[x] = y(pixel(top, x));
    WRT_SIMD for (int64_t x = 2 * begin; x < 2 * end; ++x) luma[args.width + x] = y(pixel(bottom, x));
    uint8_t* chroma = frame + area;
    if (args.layout == kNv12) {
      chroma += pair * args.width;
      WRT_SIMD for (int64_t x = begin; x < end; ++x) {
        const Rgb v = block(top, bottom, x);
        chroma[2 * x] = cb(v);
        chroma[2 * x + 1] = cr(v);
      }
    } else {
      chroma += pair * half;
      WRT_SIMD for (int64_t x = begin; x < end; ++x) {
        const Rgb v = block(top, bottom, x);
        chroma[x] = cb(v);
        chroma[area / 4 + x] = cr(v);
      }
    }
  }
};

}  // namespace worldrt
