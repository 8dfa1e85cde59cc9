// Registers of float32 on any x86 with AVX2: sixteen at a time where there is AVX-512, else eight.
//
// Written with the compiler's own vectors, so that one source serves both; sums of products are
// fused (-ffp-contract=fast).

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

using std::int32_t;
using std::int64_t;

#ifdef __AVX512F__
constexpr int LANES = 16;  // of a register
constexpr int GROUPS = 4;  // registers of tokens of a block: as many sums as registers hold
#else
constexpr int LANES = 8;
constexpr int GROUPS = 2;
#endif
constexpr int BLOCK = GROUPS * LANES;  // tokens that a product takes at a time

typedef float Floats __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(LANES * sizeof(int32_t))));
typedef float Unaligned __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

inline Floats load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }

inline void store(float* to, Floats values) { *reinterpret_cast<Unaligned*>(to) = values; }

#ifdef __AVX512F__
inline Floats all(float value) { return (Floats)_mm512_set1_ps(value); }
inline bool any(Ints mask) { return _mm512_movepi32_mask((__m512i)mask) != 0; }
#else
inline Floats all(float value) { return (Floats)_mm256_set1_ps(value); }
inline bool any(Ints mask) { return _mm256_movemask_ps((__m256)mask) != 0; }
#endif

inline float sum(Floats values) {
  float total = 0.0f;
  for (int i = 0; i < LANES; ++i) total += values[i];
  return total;
}

// 2^x within 2e-7 of itself, and 2^-126 below that; NaN stays NaN. Adding and subtracting
// `shift` rounds to whole numbers; the polynomial is Taylor's, for at most 1/2 to either side.
inline Floats power_of_two(Floats x) {
  const Floats shift = all(12582912.0f);  // 1.5 · 2^23
  const Floats low = all(-126.0f), high = all(127.0f);
  x = x < low ? low : x;
  x = x > high ? high : x;
  const Floats shifted = x + shift;
  const Floats rest = x - (shifted - shift);
  Floats value = all(1.5403530e-4f);
  value = value * rest + all(1.3333558e-3f);
  value = value * rest + all(9.6181291e-3f);
  value = value * rest + all(5.5504109e-2f);
  value = value * rest + all(2.4022651e-1f);
  value = value * rest + all(6.9314718e-1f);
  value = value * rest + all(1.0f);
  // The lowest bits of `shifted` are the whole number; 127 is the exponent of 1.
  const Ints exponent = ((Ints)shifted + 127) << 23;
  return value * (Floats)exponent;
}

// Swap the blocks of SIZE by SIZE beside the diagonal.
template <int SIZE>
inline void swap_blocks(Floats rows[LANES]) {
  Ints low, high;
  for (int i = 0; i < LANES; ++i) {
    low[i] = i & SIZE ? i - SIZE + LANES : i;
    high[i] = i & SIZE ? i + LANES : i + SIZE;
  }
  for (int i = 0; i < LANES; ++i) {
    if (i & SIZE) continue;
    const Floats first = rows[i], second = rows[i + SIZE];
    rows[i] = __builtin_shuffle(first, second, low);
    rows[i + SIZE] = __builtin_shuffle(first, second, high);
  }
}

// Transpose LANES rows of LANES.
inline void transpose(Floats rows[LANES]) {
  swap_blocks<1>(rows);
  swap_blocks<2>(rows);
  swap_blocks<4>(rows);
  if (LANES > 8) swap_blocks<8>(rows);
}

}  // namespace
