// The steps between attention and products: the residual stream with its norms, and GeGLU.

#include "vectors.h"

extern "C" {

// `states` (rows, width) += `added`; `out` = LayerNorm(states) · weight + bias. Null for
// `added` adds nothing, for `out` writes nothing, for weight means no norm, for bias zero.
void dewey_add_norm(float* states, const uint16_t* added, const uint16_t* weight,
                    const uint16_t* bias, uint16_t* out, int64_t rows, int width, float epsilon,
                    int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    float* own = states + row * width;
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < width; i += LANES) {
      __m512 value = _mm512_loadu_ps(own + i);
      if (added) {
        value = _mm512_add_ps(value, load_half(added + row * width + i));
        _mm512_storeu_ps(own + i, value);
      }
      sum = _mm512_add_ps(sum, value);
    }
    if (!out) continue;
    __m512 mean = _mm512_setzero_ps(), scale = _mm512_set1_ps(1.0f);
    if (weight) {
      mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width);
      __m512 squares = _mm512_setzero_ps();
      for (int i = 0; i < width; i += LANES) {
        const __m512 centred = _mm512_sub_ps(_mm512_loadu_ps(own + i), mean);
        squares = _mm512_fmadd_ps(centred, centred, squares);
      }
      const float variance = _mm512_reduce_add_ps(squares) / width;
      scale = _mm512_set1_ps(1.0f / __builtin_sqrtf(variance + epsilon));
    }
    for (int i = 0; i < width; i += LANES) {
      __m512 value = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(own + i), mean), scale);
      if (weight) value = _mm512_mul_ps(value, load_half(weight + i));
      if (bias) value = _mm512_add_ps(value, load_half(bias + i));
      store_half(out + row * width + i, value);
    }
  }
}

// `wide` (rows, 2 · width) → `out` (rows, width): gelu(first half) · second half.
// Source: arXiv 2002.05202; the normal distribution as Abramowitz and Stegun 7.1.26 (1.5e-7).
void dewey_geglu(const uint16_t* wide, uint16_t* out, int64_t rows, int width, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const uint16_t* gates = wide + row * 2 * width;
    for (int i = 0; i < width; i += LANES) {
      const __m512 gate = load_half(gates + i);
      const __m512 size = _mm512_abs_ps(gate);
      // 1 / (1 + 0.3275911·|x|/√2), to 6e-5
      const __m512 t = _mm512_rcp14_ps(
          _mm512_fmadd_ps(size, _mm512_set1_ps(0.231641888f), _mm512_set1_ps(1.0f)));
      __m512 tail = _mm512_set1_ps(0.5f * 1.061405429f);
      tail = _mm512_fmadd_ps(tail, t, _mm512_set1_ps(0.5f * -1.453152027f));
      tail = _mm512_fmadd_ps(tail, t, _mm512_set1_ps(0.5f * 1.421413741f));
      tail = _mm512_fmadd_ps(tail, t, _mm512_set1_ps(0.5f * -0.284496736f));
      tail = _mm512_fmadd_ps(tail, t, _mm512_set1_ps(0.5f * 0.254829592f));
      const __m512 exponent =
          _mm512_mul_ps(_mm512_mul_ps(gate, gate), _mm512_set1_ps(-0.5f * 1.44269504f));
      tail = _mm512_mul_ps(_mm512_mul_ps(tail, t), power_of_two(exponent));
      const __mmask16 positive = _mm512_cmp_ps_mask(gate, _mm512_setzero_ps(), _CMP_GT_OQ);
      const __m512 share =
          _mm512_mask_sub_ps(tail, positive, _mm512_set1_ps(1.0f), tail);
      store_half(out + row * width + i,
                 _mm512_mul_ps(_mm512_mul_ps(gate, share), load_half(gates + width + i)));
    }
  }
}

}  // extern "C"
