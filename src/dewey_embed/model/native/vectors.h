// Registers of sixteen float32, and bfloat16 in pairs: shared by the kernels beside this file.
//
// bfloat16 in and out, sums in float32. Plain functions over plain memory: no header of torch is
// needed, any torch can call them, and they compile in seconds.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

using std::int8_t;
using std::int32_t;
using std::int64_t;
using std::uint8_t;
using std::uint16_t;
using std::uint32_t;

constexpr int LANES = 16;  // float32 of a register
constexpr float HIGHEST = 127.0f;  // of a quantized magnitude

inline __m512 load_half(const uint16_t* from) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

inline void store_half(uint16_t* to, __m512 values) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(values));
}

inline __m512i broadcast(const uint32_t* from) {
  return _mm512_set1_epi32(static_cast<int>(*from));
}

inline __m512 add_products(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

// The sums of four bytes' products each, `a` without sign and `b` with. Not the intrinsic: gcc 12 then
// keeps half of the sums of a product in memory.
inline __m512i add_products_of_bytes(__m512i sum, __m512i a, __m512i b) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}

// 2^x within 8e-5 of itself, a twentieth of what rounding to bfloat16 costs; NaN stays NaN. The
// polynomial is the best of its degree for 2^(x - floor(x)); scalef adds floor(x) to the exponent.
inline __m512 power_of_two(__m512 x) {
  const __m512 rest = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 value = _mm512_set1_ps(0.0780248281f);
  value = _mm512_fmadd_ps(value, rest, _mm512_set1_ps(0.2260667383f));
  value = _mm512_fmadd_ps(value, rest, _mm512_set1_ps(0.6958336577f));
  value = _mm512_fmadd_ps(value, rest, _mm512_set1_ps(0.9999252240f));
  return _mm512_scalef_ps(value, x);
}

// Pairs of bfloat16, the first in the lower half.
inline __m512i lace(__m512 first, __m512 second) {
  alignas(64) static constexpr uint16_t LACED[32] = {
      0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(LACED),
                                  (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

// Transpose 16 rows of 16.
inline void transpose(__m512i rows[LANES]) {
  __m512i half[LANES];
  for (int i = 0; i < LANES; i += 2) {
    half[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    half[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < LANES; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(half[i], half[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(half[i], half[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(half[i + 1], half[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(half[i + 1], half[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    half[i] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0x88);
    half[i + 4] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0xdd);
    half[i + 8] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0x88);
    half[i + 12] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    rows[i] = _mm512_shuffle_i32x4(half[i], half[i + 8], 0x88);
    rows[i + 8] = _mm512_shuffle_i32x4(half[i], half[i + 8], 0xdd);
  }
}

}  // namespace
