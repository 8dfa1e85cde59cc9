// The steps between attention and products, in float32: the residual stream with its norms, and
// GeGLU.

#include <cmath>

#include "floats.h"

extern "C" {

// `states` (rows, width) += `added`; `out` = LayerNorm(states) · weight + bias. Null for
// `added` adds nothing, for `out` writes nothing, for weight means no norm, for bias zero.
void dewey_add_norm(float* states, const float* added, const float* weight, const float* bias,
                    float* out, int64_t rows, int width, float epsilon, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    float* own = states + row * width;
    Floats total{};
    for (int i = 0; i < width; i += LANES) {
      Floats value = load(own + i);
      if (added) {
        value += load(added + row * width + i);
        store(own + i, value);
      }
      total += value;
    }
    if (!out) continue;
    float mean = 0.0f, scale = 1.0f;
    if (weight) {
      mean = sum(total) / width;
      Floats squares{};
      for (int i = 0; i < width; i += LANES) {
        const Floats centred = load(own + i) - mean;
        squares += centred * centred;
      }
      scale = 1.0f / std::sqrt(sum(squares) / width + epsilon);
    }
    for (int i = 0; i < width; i += LANES) {
      Floats value = (load(own + i) - mean) * scale;
      if (weight) value *= load(weight + i);
      if (bias) value += load(bias + i);
      store(out + row * width + i, value);
    }
  }
}

// `wide` (rows, 2 · width) → `out` (rows, width): gelu(first half) · second half.
// Source: arXiv 2002.05202; the normal distribution as Abramowitz and Stegun 7.1.26 (1.5e-7).
void dewey_geglu(const float* wide, float* out, int64_t rows, int width, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const float* gates = wide + row * 2 * width;
    for (int i = 0; i < width; i += LANES) {
      const Floats gate = load(gates + i);
      const Floats size = gate < 0.0f ? -gate : gate;
      const Floats t = 1.0f / (1.0f + 0.231641888f * size);  // 1 / (1 + 0.3275911·|x|/√2)
      Floats tail = all(0.5f * 1.061405429f);
      tail = tail * t + 0.5f * -1.453152027f;
      tail = tail * t + 0.5f * 1.421413741f;
      tail = tail * t + 0.5f * -0.284496736f;
      tail = tail * t + 0.5f * 0.254829592f;
      tail = tail * t * power_of_two(gate * gate * (-0.5f * 1.44269504f));
      const Floats share = gate > 0.0f ? 1.0f - tail : tail;
      store(out + row * width + i, gate * share * load(gates + width + i));
    }
  }
}

}  // extern "C"
