// A layer's float32 weights as int8, transposed or not: for products forward and backward.
//
// Source: arXiv 1712.05877 §2.1, symmetric, per row of weights.

#include "vectors.h"

#include <cstring>

namespace {

// Magnitudes as bits: they are ordered as numbers are, with infinity and NaN above all others, so
// that a scale is infinite or NaN if any weight is.
inline __m512i magnitudes(const float* from) {
  return _mm512_and_si512(_mm512_loadu_si512(from), _mm512_set1_epi32(0x7fffffff));
}

inline float steps_of(float peak) { return peak > 0 ? HIGHEST / peak : 0.0f; }

inline void store_bytes(int8_t* to, __m512i values) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(values));
}

void round_row(const float* row, int inner, int8_t* to, float* scale, int32_t* shift) {
  __m512i highest = _mm512_setzero_si512();
  for (int i = 0; i < inner; i += LANES) highest = _mm512_max_epu32(highest, magnitudes(row + i));
  const uint32_t bits = _mm512_reduce_max_epu32(highest);
  float peak;
  std::memcpy(&peak, &bits, sizeof peak);
  const __m512 steps = _mm512_set1_ps(steps_of(peak));
  __m512i sum = _mm512_setzero_si512();
  for (int i = 0; i < inner; i += LANES) {
    const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(row + i), steps));
    sum = _mm512_add_epi32(sum, whole);
    store_bytes(to + i, whole);
  }
  *scale = peak / HIGHEST;
  *shift = 128 * _mm512_reduce_add_epi32(sum);
}

// LANES columns of `weights` (outer, inner) as rows of `to` (LANES, outer).
void round_columns(const float* weights, int outer, int inner, int8_t* to, float* scales,
                   int32_t* shifts) {
  __m512i highest = _mm512_setzero_si512();
  for (int row = 0; row < outer; ++row) {
    highest = _mm512_max_epu32(highest, magnitudes(weights + static_cast<int64_t>(row) * inner));
  }
  alignas(64) float peaks[LANES], step[LANES];
  _mm512_store_si512(peaks, highest);
  for (int i = 0; i < LANES; ++i) {
    scales[i] = peaks[i] / HIGHEST;
    step[i] = steps_of(peaks[i]);
  }
  const __m512 steps = _mm512_load_ps(step);
  __m512i sum = _mm512_setzero_si512();
  for (int row = 0; row < outer; row += LANES) {
    __m512i rows[LANES];
    for (int i = 0; i < LANES; ++i) {
      const float* from = weights + static_cast<int64_t>(row + i) * inner;
      rows[i] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from), steps));
      sum = _mm512_add_epi32(sum, rows[i]);
    }
    transpose(rows);
    for (int i = 0; i < LANES; ++i) store_bytes(to + static_cast<int64_t>(i) * outer + row, rows[i]);
  }
  _mm512_storeu_si512(shifts, _mm512_slli_epi32(sum, 7));
}

}  // namespace

extern "C" {

// `weights` (outer, inner) → `to`, (outer, inner) or transposed (inner, outer), with each row's
// scale in `scales`, and 128 times its sum in `shifts`. Both widths are multiples of 16.
void dewey_quantize_weights(const float* weights, int8_t* to, float* scales, int32_t* shifts,
                         int outer, int inner, int transposed, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int row = 0; row < (transposed ? inner / LANES : outer); ++row) {
    if (transposed) {
      const int first = row * LANES;
      round_columns(weights + first, outer, inner, to + static_cast<int64_t>(first) * outer,
                    scales + first, shifts + first);
    } else {
      const int64_t first = static_cast<int64_t>(row) * inner;
      round_row(weights + first, inner, to + first, scales + row, shifts + row);
    }
  }
}

}  // extern "C"
