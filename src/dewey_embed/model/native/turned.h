// Queries and keys turned by their positions' angles, and turned back. Halves are the pairs.
// Source: arXiv 2104.09864 eq. 34.

#pragma once

#include "vectors.h"

#include "heads.h"

namespace {

constexpr int PAIRS = WIDTH / 2;  // the processor multiplies bfloat16 two by two

constexpr float SCALE = 0.125f;                       // 1/√WIDTH
constexpr float SCALE_OF_TWO = SCALE * 1.44269504f;  // where exponentials are of base 2

// One token's query or key, turned and scaled.
inline void rotate(const uint16_t* from, uint16_t* to, const float* cosines, const float* sines,
                   float scale) {
  const __m512 scales = _mm512_set1_ps(scale);
  for (int i = 0; i < PAIRS; i += LANES) {
    const __m512 first = load_half(from + i), second = load_half(from + PAIRS + i);
    const __m512 cosine = _mm512_mul_ps(_mm512_loadu_ps(cosines + i), scales);
    const __m512 sine = _mm512_mul_ps(_mm512_loadu_ps(sines + i), scales);
    store_half(to + i, _mm512_fmsub_ps(first, cosine, _mm512_mul_ps(second, sine)));
    store_half(to + PAIRS + i, _mm512_fmadd_ps(second, cosine, _mm512_mul_ps(first, sine)));
  }
}

// The gradient of what was turned → of what it was before.
inline void rotate_back(const float* from, uint16_t* to, const float* cosines, const float* sines,
                        float scale) {
  const __m512 scales = _mm512_set1_ps(scale);
  for (int i = 0; i < PAIRS; i += LANES) {
    const __m512 first = _mm512_load_ps(from + i), second = _mm512_load_ps(from + PAIRS + i);
    const __m512 cosine = _mm512_mul_ps(_mm512_loadu_ps(cosines + i), scales);
    const __m512 sine = _mm512_mul_ps(_mm512_loadu_ps(sines + i), scales);
    store_half(to + i, _mm512_fmadd_ps(first, cosine, _mm512_mul_ps(second, sine)));
    store_half(to + PAIRS + i, _mm512_fmsub_ps(second, cosine, _mm512_mul_ps(first, sine)));
  }
}

}  // namespace
