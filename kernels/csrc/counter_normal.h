// Standard normal noise by counter: each value is a function of seed, use, frame, level, row and place alone.
//
// The words are those of Philox 4x64-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3; 2011). A word
// makes two values by Box and Muller (1958). Logarithm, cosine and sine are sums and products in double, written out
// here: every machine rounds those alike, where mathematical libraries differ in the last bit. Their errors, below
// 1e-10, do not show in a float.
#pragma once
#include "numbers.h"

namespace worldrt {

struct NormalArgs {
  float* out;               // [rows, count], contiguous over count
  const int64_t* counters;  // [rows, 4]: use, level, frame, row; a row whose use is negative stays as it is
  const int64_t* first;     // [1], added to the frame of each counter, or null for 0
  const double* scales;     // [rows], or null for 1; read as float
  int64_t rows, count, stride, seed;
};

struct CounterNormal {
  NormalArgs args;

  static constexpr int64_t kTile = kOnDevice ? 1 : 64;  // blocks of four words that are worked on together

  int64_t work() const { return 64; }
  WRT_HD int64_t half() const { return (args.count + 1) / 2; }
  int64_t blocks() const { return (half() + 3) / 4; }

  WRT_HD static void philox(uint64_t words[4], uint64_t k0, uint64_t k1) {
    for (int round = 0; round < 10; ++round) {
      const unsigned __int128 one = static_cast<unsigned __int128>(words[0]) * 0xD2E7470EE14C6C93u;
      const unsigned __int128 two = static_cast<unsigned __int128>(words[2]) * 0xCA5A826395121157u;
      words[0] = static_cast<uint64_t>(two >> 64) ^ words[1] ^ k0;
      words[2] = static_cast<uint64_t>(one >> 64) ^ words[3] ^ k1;
      words[1] = static_cast<uint64_t>(two), words[3] = static_cast<uint64_t>(one);
      k0 += 0x9E3779B97F4A7C15u, k1 += 0xBB67AE8584CAA73Bu;
    }
  }

  WRT_HD static double of_bits(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
  }

  WRT_HD static uint64_t to_bits64(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
  }

  // n + offset of a whole number below 2^32, exactly: 2^52 + n, less 2^52 - offset
  WRT_HD static double number(uint64_t n, double offset) {
    return of_bits(0x4330000000000000u | n) - (4503599627370496.0 - offset);
  }

  // -2 ln((n + 0.5) / 2^32): with n + 0.5 = 2^k m and m from sqrt(0.5) to sqrt(2), ln m = 2 artanh((m - 1) / (m + 1))
  WRT_HD static double squared_radius(uint64_t n) {
    const uint64_t bits = to_bits64(number(n, 0.5));
    const uint64_t k = (bits - 0x3FE6A09E667F3BCDu + (uint64_t{1} << 52)) >> 52;  // and one more, so not negative
    const double m = of_bits(bits - (k << 52) + (uint64_t{1} << 52));
    const double s = (m - 1.0) / (m + 1.0), z = s * s;
    double sum = 1.0 / 13;
    sum = sum * z + 1.0 / 11;
    sum = sum * z + 1.0 / 9;
    sum = sum * z + 1.0 / 7;
    sum = sum * z + 1.0 / 5;
    sum = sum * z + 1.0 / 3;
    sum = sum * z + 1.0;
    return (number(k, -33.0) * 0.6931471805599453 + s * (2.0 * sum)) * -2.0;
  }

  struct Point {
    double cos, sin;
  };

  // of 2 pi (n + 0.5) / 2^32: the nearest quarter of a turn, and the series for what is left, at most pi / 4
  WRT_HD static Point on_circle(uint64_t n) {
    const uint64_t quarter = (n + (1u << 29)) >> 30;
    const double left = number(n, 0.5) - number(quarter << 30, 0.0);
    const double a = left * 1.4629180792671596e-09, z = a * a;
    double odd = 1.0 / 6227020800;
    odd = odd * z - 1.0 / 39916800;
    odd = odd * z + 1.0 / 362880;
    odd = odd * z - 1.0 / 5040;
    odd = odd * z + 1.0 / 120;
    odd = odd * z - 1.0 / 6;
    odd = odd * z + 1.0;
    double even = 1.0 / 479001600;
    even = even * z - 1.0 / 3628800;
    even = even * z + 1.0 / 40320;
    even = even * z - 1.0 / 720;
    even = even * z + 1.0 / 24;
    even = even * z - 0.5;
    even = even * z + 1.0;
    const uint64_t s = to_bits64(odd * a), c = to_bits64(even);
    const uint64_t swapped = (s ^ c) & (0 - (quarter & 1));  // all bits of both, or none
    const uint64_t cos_sign = ((quarter + 1) & 2) << 62, sin_sign = (quarter & 2) << 62;
    return {of_bits((c ^ swapped) ^ cos_sign), of_bits((s ^ swapped) ^ sin_sign)};
  }

  WRT_HD void operator()(int64_t row, int64_t begin, int64_t end) const {
    const int64_t* counter = args.counters + 4 * row;
    if (counter[0] < 0) return;
    float* out = args.out + row * args.stride;
    const uint64_t frame = static_cast<uint64_t>(counter[2]) + static_cast<uint64_t>(args.first ? *args.first : 0);
    const float scale = args.scales ? static_cast<float>(args.scales[row]) : 1.0f;
    for (int64_t block = begin; block < end; block += kTile) {
      const int64_t tile = end - block < kTile ? end - block : kTile;
      uint64_t words[4 * kTile];
      for (int64_t i = 0; i < tile; ++i) {
        uint64_t* w = words + 4 * i;
        w[0] = static_cast<uint64_t>(block + i + 1), w[1] = static_cast<uint64_t>(counter[1]);
        w[2] = frame, w[3] = static_cast<uint64_t>(counter[3]);
        philox(w, static_cast<uint64_t>(args.seed), static_cast<uint64_t>(counter[0]));
      }
      float first[4 * kTile], second[4 * kTile];
      WRT_SIMD for (int64_t i = 0; i < 4 * tile; ++i) {
        const double radius = sqrt(squared_radius(words[i] >> 32));
        const Point p = on_circle(words[i] & 0xFFFFFFFFu);
        first[i] = static_cast<float>(radius * p.cos) * scale;
        second[i] = static_cast<float>(radius * p.sin) * scale;
      }
      for (int64_t i = 0; i < 4 * tile && 4 * block + i < half(); ++i) {
        out[4 * block + i] = first[i];
        if (half() + 4 * block + i < args.count) out[half() + 4 * block + i] = second[i];
      }
    }
  }
};

}  // namespace worldrt
