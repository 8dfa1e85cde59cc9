// Products of tokens by a layer's weights, as they lie in the checkpoint: no copy of them in another
// order is kept or made.
//
// As in attention, results are transposed: tokens stand across the lanes, and a word of a weight's
// elements, two bfloat16 or four int8, is broadcast to all of them. Only the tokens are put in order
// for that, a few at a time.

#include <cstdlib>
#include <limits>
#include <memory>

#include "tasks.h"
#include "vectors.h"

namespace {

constexpr int GROUPS = 4;               // registers of tokens
constexpr int TOKENS = GROUPS * LANES;  // of a block
constexpr int ROWS = 6;                 // of weights: with GROUPS as many sums as registers hold
constexpr int PANEL = 48;               // of weights; they stay in cache for all blocks of a task
constexpr int BLOCKS = 4;               // of a task at most

struct Layer {
  const void* weights;    // (outer, inner)
  const float* scales;    // (outer): of int8 weights
  const int32_t* shifts;  // (outer): the excess of products by bytes that are 128 too high
  const uint16_t* bias;   // (outer) or null
  int inner, outer;
};

// Bfloat16 tokens by bfloat16 weights.
struct Bfloat16 {
  static constexpr int PACKED = 2;  // elements of a word
  using Sum = __m512;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Sum add(Sum sum, __m512i tokens, __m512i weights) {
    return add_products(sum, tokens, weights);
  }
  static __m512 result(Sum sum, const Layer&, int) { return sum; }
  static float words(const uint16_t* token, int inner, uint32_t* to) {
    std::copy(token, token + inner, reinterpret_cast<uint16_t*>(to));
    return 1.0f;
  }
};

// Bfloat16 tokens, each quantized to bytes by a scale of its own, by int8 weights.
// Source: arXiv 1712.05877 §2.1, symmetric, per token and per row of weights.
struct Bytes {
  static constexpr int PACKED = 4;
  using Sum = __m512i;
  static Sum zero() { return _mm512_setzero_si512(); }
  static Sum add(Sum sum, __m512i tokens, __m512i weights) {
    return add_products_of_bytes(sum, tokens, weights);
  }
  static __m512 result(Sum sum, const Layer& layer, int row) {
    const __m512i exact = _mm512_sub_epi32(sum, _mm512_set1_epi32(layer.shifts[row]));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_set1_ps(layer.scales[row]));
  }
  // The processor takes the tokens' bytes without sign: they are made 128 too high.
  static float words(const uint16_t* token, int inner, uint32_t* to) {
    __m512 highest = _mm512_setzero_ps();
    __mmask16 none = 0;  // where a token holds NaN or infinity
    for (int i = 0; i < inner; i += LANES) {
      const __m512 value = _mm512_abs_ps(load_half(token + i));
      none |= _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
      highest = _mm512_max_ps(highest, value);
    }
    const float peak = _mm512_reduce_max_ps(highest);
    const __m512 steps = _mm512_set1_ps(peak > 0 ? HIGHEST / peak : 0.0f);
    auto* bytes = reinterpret_cast<uint8_t*>(to);
    for (int i = 0; i < inner; i += LANES) {
      const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(load_half(token + i), steps));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + i),
                       _mm512_cvtepi32_epi8(_mm512_add_epi32(whole, _mm512_set1_epi32(128))));
    }
    return none ? std::numeric_limits<float>::quiet_NaN() : peak / HIGHEST;
  }
};

// A thread's memory for one task.
struct Room {
  explicit Room(int words)
      : tokens(ask(static_cast<int64_t>(BLOCKS) * TOKENS * words)),
        group(ask(static_cast<int64_t>(LANES) * words)) {}
  using Memory = std::unique_ptr<uint32_t, decltype(&std::free)>;
  static Memory ask(int64_t words) {
    const size_t bytes = (words * sizeof(uint32_t) + 63) / 64 * 64;
    return {static_cast<uint32_t*>(std::aligned_alloc(64, bytes)), &std::free};
  }
  Memory tokens;  // blocks (words, TOKENS)
  Memory group;   // (LANES, words), before they are put in order
  alignas(64) float results[PANEL * TOKENS];
  float scales[BLOCKS * TOKENS];  // of tokens
};

// Tokens [0, count) of `from` (count, inner) as words (inner / PACKED, TOKENS); missing
// ones may hold anything.
template <class Kind>
void order_tokens(const uint16_t* from, int count, int inner, uint32_t* group, uint32_t* to,
                  float* scales) {
  const int words = inner / Kind::PACKED;
  for (int first = 0; first < count; first += LANES) {
    const int used = std::min(LANES, count - first);
    for (int i = 0; i < used; ++i) {
      const uint16_t* token = from + static_cast<int64_t>(first + i) * inner;
      scales[first + i] = Kind::words(token, inner, group + i * words);
    }
    for (int word = 0; word < words; word += LANES) {
      __m512i rows[LANES];
      for (int i = 0; i < LANES; ++i) {
        rows[i] = i < used ? _mm512_loadu_si512(group + i * words + word) : _mm512_setzero_si512();
      }
      transpose(rows);
      for (int i = 0; i < LANES; ++i) {
        _mm512_store_si512(to + (word + i) * TOKENS + first, rows[i]);
      }
    }
  }
}

// Results (ROWS, TOKENS) of the layer's rows from `row` on, for USED registers of tokens.
template <class Kind, int USED>
inline void multiply(const uint32_t* tokens, const Layer& layer, int row, float* results) {
  const int words = layer.inner / Kind::PACKED;
  const auto* weights =
      static_cast<const uint32_t*>(layer.weights) + static_cast<int64_t>(row) * words;
  typename Kind::Sum sum[ROWS][USED];
  for (int r = 0; r < ROWS; ++r) {
    for (int g = 0; g < USED; ++g) sum[r][g] = Kind::zero();
  }
  for (int word = 0; word < words; ++word) {
    __m512i token[USED];
    for (int g = 0; g < USED; ++g) token[g] = _mm512_load_si512(tokens + word * TOKENS + g * LANES);
    for (int r = 0; r < ROWS; ++r) {
      const __m512i one = broadcast(weights + r * words + word);
      for (int g = 0; g < USED; ++g) sum[r][g] = Kind::add(sum[r][g], token[g], one);
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    for (int g = 0; g < USED; ++g) {
      _mm512_store_ps(results + r * TOKENS + g * LANES, Kind::result(sum[r][g], layer, row + r));
    }
  }
}

// Write a panel's results (PANEL, TOKENS) to their place in `out` (count, stride).
void store(const float* results, const float* scales, const uint16_t* bias, int count,
           uint16_t* out, int64_t stride) {
  for (int g = 0; g * LANES < count; ++g) {
    const int used = std::min(LANES, count - g * LANES);
    for (int row = 0; row < PANEL; row += LANES) {
      __m512i rows[LANES];
      for (int i = 0; i < LANES; ++i) {
        rows[i] = _mm512_load_si512(results + (row + i) * TOKENS + g * LANES);
      }
      transpose(rows);
      const __m512 added = bias ? load_half(bias + row) : _mm512_setzero_ps();
      for (int i = 0; i < used; ++i) {
        const int token = g * LANES + i;
        const __m512 scale = _mm512_set1_ps(scales[token]);
        store_half(out + token * stride + row,
                   _mm512_fmadd_ps(_mm512_castsi512_ps(rows[i]), scale, added));
      }
    }
  }
}

template <class Kind>
void run(const Task& task, const uint16_t* tokens, const Layer& layer, uint16_t* out, Room& room) {
  const int words = layer.inner / Kind::PACKED;
  const auto count = [&](int64_t at) {
    return static_cast<int>(std::min<int64_t>(TOKENS, task.last - at));
  };
  for (int64_t at = task.first; at < task.last; at += TOKENS) {
    order_tokens<Kind>(tokens + at * layer.inner, count(at), layer.inner, room.group.get(),
                       room.tokens.get() + (at - task.first) * words,
                       room.scales + (at - task.first));
  }
  for (int panel = task.panel; panel < task.end; ++panel) {
    // The last panel is as wide as the others, and so begins earlier.
    const int first = std::min(panel * PANEL, layer.outer - PANEL);
    for (int64_t at = task.first; at < task.last; at += TOKENS) {
      const uint32_t* block = room.tokens.get() + (at - task.first) * words;
      for (int row = 0; row < PANEL; row += ROWS) {
        float* results = room.results + row * TOKENS;
        if (count(at) > 2 * LANES) {
          multiply<Kind, 4>(block, layer, first + row, results);
        } else if (count(at) > LANES) {
          multiply<Kind, 2>(block, layer, first + row, results);
        } else {
          multiply<Kind, 1>(block, layer, first + row, results);
        }
      }
      const uint16_t* bias = layer.bias ? layer.bias + first : nullptr;
      store(room.results, room.scales + (at - task.first), bias, count(at),
            out + at * layer.outer + first, layer.outer);
    }
  }
}

template <class Kind>
void run_all(const uint16_t* tokens, const Layer& layer, uint16_t* out, int64_t num_tokens,
             int threads) {
  const int num_panels = (layer.outer + PANEL - 1) / PANEL;
  const std::vector<Task> all = product_tasks(num_tokens, num_panels, TOKENS, BLOCKS, threads);
  const int64_t num_tasks = all.size();
#pragma omp parallel num_threads(threads)
  {
    Room room(layer.inner / Kind::PACKED);
#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < num_tasks; ++t) run<Kind>(all[t], tokens, layer, out, room);
  }
}

}  // namespace

extern "C" {

// `tokens` (num_tokens, inner) by `weights` (outer, inner), + `bias` → `out` (num_tokens, outer).
// `inner` is a multiple of 32, `outer` of 16 and at least 48; `bias` may be null.
void dewey_linear(const uint16_t* tokens, const uint16_t* weights, const uint16_t* bias,
                  uint16_t* out, int64_t num_tokens, int inner, int outer, int threads) {
  const Layer layer{weights, nullptr, nullptr, bias, inner, outer};
  run_all<Bfloat16>(tokens, layer, out, num_tokens, threads);
}

// The same by int8 `weights`: each row's scale in `scales`, 128 times its sum in `shifts`.
// `inner` is a multiple of 64.
void dewey_linear_int8(const uint16_t* tokens, const int8_t* weights, const float* scales,
                       const int32_t* shifts, const uint16_t* bias, uint16_t* out,
                       int64_t num_tokens, int inner, int outer, int threads) {
  const Layer layer{weights, scales, shifts, bias, inner, outer};
  run_all<Bytes>(tokens, layer, out, num_tokens, threads);
}

}  // extern "C"
