// Gradients of a layer's weights: those of its outputs times its inputs, summed over all tokens; in
// int8, which the processor multiplies twice as fast as bfloat16.
//
// Tokens are summed here, so they cannot have scales of their own. Instead every column has one for
// each block of tokens: within a block products are exact, blocks are summed in float32.
//
// Source: arXiv 1712.05877 §2.1, symmetric, per block and column.

#include "vectors.h"

namespace {

constexpr int BLOCK = 256;         // tokens that share scales
constexpr int WORDS = BLOCK / 4;   // the processor multiplies bytes four by four
constexpr int GROUPS = 4;          // registers of inputs
constexpr int INPUTS = GROUPS * LANES;
constexpr int ROWS = 6;            // of outputs: with GROUPS as many sums as registers hold
constexpr int OUTPUTS = 48;        // of a tile
constexpr int COLUMNS = 32;        // quantized together

inline int count_of(int64_t all, int size) { return static_cast<int>((all + size - 1) / size); }

// The columns of a row of tokens (tokens, width), as words of four tokens' bytes: for each block of
// tokens and PANEL of columns (WORDS, PANEL). Bytes are `lift` higher than their values.
template <int PANEL>
struct Side {
  const uint16_t* from;
  int64_t tokens;
  int width, lift;
  uint32_t* words;
  float* scales;    // (blocks, padded width): of columns
  int32_t* shifts;  // the same: 128 times a column's sum

  int panels() const { return count_of(width, PANEL); }
  int64_t at(int block, int panel) const {
    return (static_cast<int64_t>(block) * panels() + panel) * PANEL;
  }
  const uint32_t* words_of(int block, int panel) const { return words + at(block, panel) * WORDS; }

  // Columns [first, first + COLUMNS) of a block; those past the last one are zeros.
  void round(int block, int first) const {
    const int64_t begin = static_cast<int64_t>(block) * BLOCK;
    const int count = static_cast<int>(std::min<int64_t>(BLOCK, tokens - begin));
    const uint16_t* own = from + begin * width + first;
    // Magnitudes are ordered as bits, too, with infinity and NaN above all others: either makes the
    // scale infinite or NaN, and so all results.
    __m512i peak = _mm512_setzero_si512();
    if (first < width) {
      const __m512i magnitude = _mm512_set1_epi16(0x7fff);
      for (int i = 0; i < count; ++i) {
        const __m512i row = _mm512_loadu_si512(own + static_cast<int64_t>(i) * width);
        peak = _mm512_max_epu16(peak, _mm512_and_si512(row, magnitude));
      }
    }
    alignas(64) uint16_t peaks[COLUMNS];
    _mm512_store_si512(peaks, peak);
    for (int half = 0; half < COLUMNS && first + half < panels() * PANEL; half += LANES) {
      round_half(own + half, first < width ? count : 0, peaks + half, block, first + half);
    }
  }

 private:
  void round_half(const uint16_t* own, int count, const uint16_t* peaks, int block,
                  int first) const {
    const __m512 peak = load_half(peaks);
    const __mmask16 some = _mm512_cmp_ps_mask(peak, _mm512_setzero_ps(), _CMP_GT_OQ);
    const __m512 highest = _mm512_set1_ps(HIGHEST);
    const __m512 steps = _mm512_maskz_div_ps(some, highest, peak);
    const int64_t place = at(block, first / PANEL) + first % PANEL;
    uint32_t* to = words + at(block, first / PANEL) * WORDS + first % PANEL;
    const auto quantized = [&](int token) {
      if (token >= count) return _mm512_setzero_si512();
      const __m512 value = load_half(own + static_cast<int64_t>(token) * width);
      return _mm512_cvtps_epi32(_mm512_mul_ps(value, steps));
    };
    // Packing leaves four bytes of each token side by side: they are put in order of columns.
    const __m512i order = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i lifted = _mm512_set1_epi8(static_cast<char>(lift)), ones = _mm512_set1_epi8(1);
    __m512i sum = _mm512_setzero_si512();
    for (int word = 0; word < WORDS; ++word) {
      const int token = 4 * word;
      const __m512i first_two = _mm512_packs_epi32(quantized(token), quantized(token + 1));
      const __m512i last_two = _mm512_packs_epi32(quantized(token + 2), quantized(token + 3));
      const __m512i bytes =
          _mm512_shuffle_epi8(_mm512_packs_epi16(first_two, last_two), order);
      sum = add_products_of_bytes(sum, ones, bytes);
      _mm512_store_si512(to + word * PANEL, _mm512_xor_si512(bytes, lifted));
    }
    _mm512_storeu_ps(scales + place, _mm512_div_ps(peak, highest));
    _mm512_storeu_si512(shifts + place, _mm512_slli_epi32(sum, 7));
  }
};

using Outputs = Side<OUTPUTS>;
using Inputs = Side<INPUTS>;

// ROWS outputs of a block times INPUTS inputs, added to `tile` (ROWS, INPUTS).
inline void add_block(const uint32_t* outputs, const uint32_t* inputs, const float* output_scales,
                      const int32_t* output_shifts, const __m512* input_scales, float* tile) {
  __m512i sum[ROWS][GROUPS];
  for (int r = 0; r < ROWS; ++r) {
    for (int g = 0; g < GROUPS; ++g) sum[r][g] = _mm512_setzero_si512();
  }
  for (int word = 0; word < WORDS; ++word) {
    __m512i input[GROUPS];
    for (int g = 0; g < GROUPS; ++g) {
      input[g] = _mm512_load_si512(inputs + word * INPUTS + g * LANES);
    }
    for (int r = 0; r < ROWS; ++r) {
      const __m512i one = broadcast(outputs + word * OUTPUTS + r);
      for (int g = 0; g < GROUPS; ++g) {
        sum[r][g] = add_products_of_bytes(sum[r][g], input[g], one);
      }
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    const __m512i shift = _mm512_set1_epi32(output_shifts[r]);
    const __m512 scale = _mm512_set1_ps(output_scales[r]);
    for (int g = 0; g < GROUPS; ++g) {
      float* place = tile + r * INPUTS + g * LANES;
      const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum[r][g], shift));
      const __m512 worth = _mm512_mul_ps(scale, input_scales[g]);
      _mm512_store_ps(place, _mm512_fmadd_ps(exact, worth, _mm512_load_ps(place)));
    }
  }
}

// OUTPUTS by INPUTS of the gradients, over all blocks.
void add_up(const Outputs& outputs, const Inputs& inputs, int output, int input, float* out) {
  alignas(64) float tile[OUTPUTS][INPUTS];
  std::fill(tile[0], tile[0] + OUTPUTS * INPUTS, 0.0f);
  const int blocks = count_of(outputs.tokens, BLOCK);
  for (int block = 0; block < blocks; ++block) {
    const int64_t at = outputs.at(block, output);
    __m512 scales[GROUPS];
    for (int g = 0; g < GROUPS; ++g) {
      scales[g] = _mm512_loadu_ps(inputs.scales + inputs.at(block, input) + g * LANES);
    }
    // Prefetch the next block's words while this one is multiplied.
    const auto* next = reinterpret_cast<const char*>(
        outputs.words_of(block + 1 < blocks ? block + 1 : block, output));
    for (int row = 0; row < OUTPUTS; row += ROWS) {
      for (int i = 0; i < ROWS * WORDS * 4; i += 64) {
        _mm_prefetch(next + row * WORDS * 4 + i, _MM_HINT_T0);
      }
      add_block(outputs.words_of(block, output) + row, inputs.words_of(block, input),
                outputs.scales + at + row, outputs.shifts + at + row, scales, tile[row]);
    }
  }
  const int first = output * OUTPUTS, count = std::min(OUTPUTS, outputs.width - first);
  for (int row = 0; row < count; ++row) {
    std::copy(tile[row], tile[row] + INPUTS,
              out + static_cast<int64_t>(first + row) * inputs.width + input * INPUTS);
  }
}

}  // namespace

extern "C" {

// Gradients of a layer's outputs (tokens, outer) and its inputs (tokens, inner) → those of its
// weights (outer, inner). `inner` is a multiple of 64, `outer` of 32. Buffers: 256 bytes for each
// block of 256 tokens, the last one padded, and each column; outer columns are padded to a multiple
// of 48. Scales and shifts: one for each block and column.
void dewey_weight_gradients(const uint16_t* output_grads, const uint16_t* inputs, float* out,
                            int64_t tokens, int outer, int inner, uint32_t* output_words,
                            uint32_t* input_words, float* scales, int32_t* shifts, int threads) {
  const int blocks = count_of(tokens, BLOCK), panels = count_of(outer, OUTPUTS);
  const int64_t before = static_cast<int64_t>(blocks) * panels * OUTPUTS;
  const Outputs left{output_grads, tokens, outer, 0, output_words, scales, shifts};
  const Inputs right{inputs, tokens, inner, 128, input_words, scales + before, shifts + before};
  const int of_outputs = count_of(panels * OUTPUTS, COLUMNS);
  const int rounds = of_outputs + inner / COLUMNS;
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < static_cast<int64_t>(blocks) * rounds; ++i) {
      const int block = i / rounds, part = i % rounds;
      if (part < of_outputs) {
        left.round(block, part * COLUMNS);
      } else {
        right.round(block, (part - of_outputs) * COLUMNS);
      }
    }
    // All of an input's tiles before the next one's: its words stay in cache.
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < static_cast<int64_t>(panels) * right.panels(); ++i) {
      add_up(left, right, i % panels, i / panels, out);
    }
  }
}

}  // extern "C"
