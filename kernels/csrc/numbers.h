// Storage-only number formats: read as float, exactly. Branch-free integer code, so that loops over them vectorise.
#pragma once
#include <cmath>
#include <cstring>

#include "launch.h"

namespace worldrt {

enum Dtype : int32_t { kFloat32 = 0, kFloat16 = 1, kBfloat16 = 2, kUint8 = 3 };

struct Half { uint16_t bits; };
struct Bfloat { uint16_t bits; };

WRT_HD float from_bits(int32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

WRT_HD int32_t to_bits(float value) {
  int32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

WRT_HD float to_float(float v) { return v; }
WRT_HD float to_float(uint8_t v) { return static_cast<float>(static_cast<int32_t>(v)); }
WRT_HD float to_float(Bfloat v) { return from_bits(static_cast<int32_t>(static_cast<uint32_t>(v.bits) << 16)); }

// A normal number only needs its exponent rebased (15 -> 127), infinities and NaN once more (to 255). A subnormal
// is its integer mantissa times 2^-24: an exact conversion that, unlike a multiplication of a subnormal float,
// does not depend on a process's flush-to-zero mode.
WRT_HD float to_float(Half v) {
  const int32_t bits = v.bits, magnitude = bits & 0x7fff;
  const int32_t rebase = (127 - 15) << 23;
  const int32_t normal = (magnitude << 13) + rebase + (rebase & ((0x7bff - magnitude) >> 31));
  const int32_t subnormal = to_bits(static_cast<float>(magnitude) * 5.9604644775390625e-08f);
  const int32_t is_normal = (0x03ff - magnitude) >> 31;  // all ones or none: comparisons would become branches
  const int32_t sign = static_cast<int32_t>(static_cast<uint32_t>(bits & 0x8000) << 16);
  return from_bits(sign | (normal & is_normal) | (subnormal & ~is_normal));
}

}  // namespace worldrt
