// Queries and keys rotated by their positions' angles, and rotated back. Halves are the pairs.
// Source: arXiv 2104.09864 eq. 34.

#pragma once

#include "vectors.h"

#include "heads.h"

namespace {

constexpr int PAIRS = WIDTH / 2;  // the processor multiplies bfloat16 two by two

constexpr float SCALE = 0.125f;                       // 1/√WIDTH
constexpr float SCALE_OF_TWO = SCALE * 1.44269504f;  // where exponentials are of base 2

inline __m512 load(const uint16_t* from) { return load_half(from); }
inline __m512 load(const float* from) { return _mm512_loadu_ps(from); }

// One token's query or key, rotated and scaled; in direction -1 rotated back, as gradients are.
template <class Element>
inline void rotate(const Element* from, uint16_t* to, const float* cosines, const float* sines,
                   float scale, float direction = 1.0f) {
  const __m512 scales = _mm512_set1_ps(scale), sine_scales = _mm512_set1_ps(scale * direction);
  for (int i = 0; i < PAIRS; i += LANES) {
    const __m512 first = load(from + i), second = load(from + PAIRS + i);
    const __m512 cosine = _mm512_mul_ps(_mm512_loadu_ps(cosines + i), scales);
    const __m512 sine = _mm512_mul_ps(_mm512_loadu_ps(sines + i), sine_scales);
    store_half(to + i, _mm512_fmsub_ps(first, cosine, _mm512_mul_ps(second, sine)));
    store_half(to + PAIRS + i, _mm512_fmadd_ps(second, cosine, _mm512_mul_ps(first, sine)));
  }
}

// 16 tokens' rows as pairs of elements down, `stride` apart, and tokens across.
inline void to_lanes(const uint16_t (*rows)[WIDTH], uint32_t* to, int stride) {
  for (int pair = 0; pair < PAIRS; pair += LANES) {
    __m512i some[LANES];
    for (int i = 0; i < LANES; ++i) some[i] = _mm512_load_si512(rows[i] + 2 * pair);
    transpose(some);
    for (int i = 0; i < LANES; ++i) _mm512_store_si512(to + (pair + i) * stride, some[i]);
  }
}

}  // namespace
