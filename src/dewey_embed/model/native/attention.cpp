// Attention over a packed row.
//
// Scores are computed transposed: keys down, queries across the 16 lanes of a register. Maximum and
// sum over keys then need no step across lanes, the weights of two neighbouring keys are the pairs
// that the product with the values takes, and keys need no reordering: a pair of a key's elements
// is broadcast to all lanes.
//
// Source of the tiling: arXiv 2205.14135 (FlashAttention) §3.1, with its running maximum.

#include "rotation.h"

#include <cmath>

namespace {

constexpr int RESULTS = 16;       // registers of a product's sums
constexpr float UNSEEN = -1e30f;  // score of a key that is not seen; its weight is zero
constexpr float FAR = 32.0f;      // above a query's shift; float32 sums weights up to 2^32 as well

// The attention of up to GROUPS · 16 neighbouring queries of a head.
//
// Weights are 2^(score - shift). Any shift cancels in the softmax, and it costs nothing: sums of
// products begin at minus the shift. It begins as the query's score with its own key, which it
// always sees, so that a sum is never below one; only where a score is far above it, it moves.
template <int GROUPS>
class Block {
 public:
  using Head = ::Head<uint16_t, uint32_t>;
  static constexpr int QUERIES = GROUPS * LANES;

  // Begins with the queries from `at` on; the last of them is at `end` - 1 at most.
  void start(const Head& head, int at, int end, const float* cosines, const float* sines) {
    first = at;
    count = std::min(QUERIES, end - at);
    load_queries(head, cosines, sines);
    for (int g = 0; g < GROUPS; ++g) sums[g] = _mm512_setzero_ps();
    std::fill(output[0], output[0] + WIDTH * QUERIES, 0.0f);
  }

  // Adds a tile of keys and their values; `key` is even.
  void add(const Head& head, int key, int num_keys) {
    const uint32_t* values = head.values + static_cast<int64_t>(key / 2) * WIDTH;
    done = 0;
    weigh(head, key, num_keys, values);
    mix(values, (num_keys + 1) / 2);
  }

  void finish(const Head& head) {
    store(head.out + first * head.out_stride, head.out_stride);
    if (head.log_sum_exp) store_log_sum_exp(head.log_sum_exp + first);
  }

 private:
  static constexpr int ROWS = RESULTS / GROUPS;  // rows of a product that are computed at a time

  alignas(64) uint16_t rotated[QUERIES][WIDTH];
  alignas(64) uint32_t queries[PAIRS][QUERIES];
  alignas(64) uint32_t weights[KEYS / 2][QUERIES];  // of pairs of keys
  alignas(64) float output[WIDTH][QUERIES];
  alignas(64) float own[QUERIES];
  __m512 shift[GROUPS], sums[GROUPS];
  __m512i from[GROUPS], to[GROUPS];  // first and last key that each query sees
  int first, count;  // queries
  int done;  // pairs of the tile's weights that are in the output already

  void load_queries(const Head& head, const float* cosines, const float* sines) {
    for (int i = 0; i < count; ++i) {
      const int64_t token = first + i;
      rotate(head.queries + token * head.query_stride, rotated[i], cosines + token * PAIRS,
             sines + token * PAIRS, SCALE_OF_TWO);
      const uint16_t* key = head.keys + token * WIDTH;
      __m512 product = add_products(_mm512_setzero_ps(), _mm512_load_si512(rotated[i]),
                                    _mm512_loadu_si512(key));
      product = add_products(product, _mm512_load_si512(rotated[i] + PAIRS),
                             _mm512_loadu_si512(key + PAIRS));
      own[i] = _mm512_reduce_add_ps(product);
    }
    std::fill(rotated[0] + count * WIDTH, rotated[0] + QUERIES * WIDTH, uint16_t{0});
    std::fill(own + count, own + QUERIES, 0.0f);
    const __m512i step = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int g = 0; g < GROUPS; ++g) {
      to_lanes(rotated + g * LANES, queries[0] + g * LANES, QUERIES);
      shift[g] = _mm512_load_ps(own + g * LANES);
      const __m512i place = _mm512_add_epi32(step, _mm512_set1_epi32(first + g * LANES));
      const int reach = head.window < 0 ? head.tokens + QUERIES : head.window;
      from[g] = _mm512_sub_epi32(place, _mm512_set1_epi32(reach));
      to[g] = _mm512_min_epi32(_mm512_add_epi32(place, _mm512_set1_epi32(reach)),
                               _mm512_set1_epi32(head.tokens - 1));
    }
  }

  // The weights of a tile of keys.
  void weigh(const Head& head, int key, int num_keys, const uint32_t* values) {
    const int last = key + (num_keys + ROWS - 1) / ROWS * ROWS - 1;
    const bool edge = last >= head.tokens ||
                      (head.window >= 0 && (key < first + QUERIES - 1 - head.window ||
                                            last > first + head.window));
    for (int row = 0; row < num_keys; row += ROWS) {
      const auto* some = reinterpret_cast<const uint32_t*>(head.keys) +
                         static_cast<int64_t>(key + row) * PAIRS;
      if (edge) {
        weigh_rows<true>(some, key + row, row / 2, values);
      } else {
        weigh_rows<false>(some, key + row, row / 2, values);
      }
    }
  }

  template <bool EDGE>
  inline void weigh_rows(const uint32_t* keys, int key, int pair, const uint32_t* values) {
    __m512 score[ROWS][GROUPS];
    for (int r = 0; r < ROWS; ++r) {
      for (int g = 0; g < GROUPS; ++g) score[r][g] = _mm512_sub_ps(_mm512_setzero_ps(), shift[g]);
    }
    for (int i = 0; i < PAIRS; ++i) {
      __m512i query[GROUPS];
      for (int g = 0; g < GROUPS; ++g) query[g] = _mm512_load_si512(queries[i] + g * LANES);
      for (int r = 0; r < ROWS; ++r) {
        const __m512i one = broadcast(keys + r * PAIRS + i);
        for (int g = 0; g < GROUPS; ++g) score[r][g] = add_products(score[r][g], query[g], one);
      }
    }
    __m512i peak = _mm512_castps_si512(score[0][0]);
    for (int r = 0; r < ROWS; ++r) {
      const __m512i place = _mm512_set1_epi32(key + r);
      for (int g = 0; g < GROUPS; ++g) {
        if (EDGE) {
          const __mmask16 seen = _mm512_cmple_epi32_mask(from[g], place) &
                                 _mm512_cmple_epi32_mask(place, to[g]);
          score[r][g] = _mm512_mask_blend_ps(seen, _mm512_set1_ps(UNSEEN), score[r][g]);
        }
        // Positive floats are ordered as their bits are; and for integers there are more units.
        peak = _mm512_max_epi32(peak, _mm512_castps_si512(score[r][g]));
      }
    }
    if (__builtin_expect(_mm512_cmpgt_epi32_mask(peak, _mm512_castps_si512(_mm512_set1_ps(FAR))),
                         0)) {
      mix(values, pair);
      move_shift(score);
    }
    for (int r = 0; r < ROWS; r += 2) {
      for (int g = 0; g < GROUPS; ++g) {
        const __m512 even = power_of_two(score[r][g]), odd = power_of_two(score[r + 1][g]);
        sums[g] = _mm512_add_ps(sums[g], _mm512_add_ps(even, odd));
        _mm512_store_si512(weights[pair + r / 2] + g * LANES, lace(even, odd));
      }
    }
  }

  // Move the shifts up to the highest scores, and rescale the sums made under the old ones.
  __attribute__((noinline)) void move_shift(__m512 score[ROWS][GROUPS]) {
    for (int g = 0; g < GROUPS; ++g) {
      __m512 highest = _mm512_setzero_ps();
      for (int r = 0; r < ROWS; ++r) highest = _mm512_max_ps(highest, score[r][g]);
      for (int r = 0; r < ROWS; ++r) score[r][g] = _mm512_sub_ps(score[r][g], highest);
      shift[g] = _mm512_add_ps(shift[g], highest);
      const __m512 factor = power_of_two(_mm512_sub_ps(_mm512_setzero_ps(), highest));
      sums[g] = _mm512_mul_ps(sums[g], factor);
      for (int d = 0; d < WIDTH; ++d) {
        float* place = output[d] + g * LANES;
        _mm512_store_ps(place, _mm512_mul_ps(_mm512_load_ps(place), factor));
      }
    }
  }

  // Add the tile's weighted values, from the first that is not in the output yet to pair `end`.
  void mix(const uint32_t* values, int end) {
    for (int d = 0; d < WIDTH; d += ROWS) {
      __m512 sum[ROWS][GROUPS];
      for (int r = 0; r < ROWS; ++r) {
        for (int g = 0; g < GROUPS; ++g) sum[r][g] = _mm512_load_ps(output[d + r] + g * LANES);
      }
      for (int pair = done; pair < end; ++pair) {
        __m512i weight[GROUPS];
        for (int g = 0; g < GROUPS; ++g) weight[g] = _mm512_load_si512(weights[pair] + g * LANES);
        for (int r = 0; r < ROWS; ++r) {
          const __m512i one = broadcast(values + pair * WIDTH + d + r);
          for (int g = 0; g < GROUPS; ++g) sum[r][g] = add_products(sum[r][g], weight[g], one);
        }
      }
      for (int r = 0; r < ROWS; ++r) {
        for (int g = 0; g < GROUPS; ++g) _mm512_store_ps(output[d + r] + g * LANES, sum[r][g]);
      }
    }
    done = end;
  }

  // The base-2 logarithms of the sums of weights, as if no score had been shifted.
  void store_log_sum_exp(float* log_sum_exp) const {
    alignas(64) float sum[LANES], moved[LANES];
    for (int i = 0; i < count; ++i) {
      if (i % LANES == 0) {
        _mm512_store_ps(sum, sums[i / LANES]);
        _mm512_store_ps(moved, shift[i / LANES]);
      }
      log_sum_exp[i] = moved[i % LANES] + std::log2(sum[i % LANES]);
    }
  }

  void store(uint16_t* out, int64_t stride) {
    for (int g = 0; g < GROUPS; ++g) {
      const __m512 share = _mm512_div_ps(_mm512_set1_ps(1.0f), sums[g]);
      const int num_rows = std::min(LANES, count - g * LANES);
      for (int d = 0; d < WIDTH; d += LANES) {
        __m512i rows[LANES];
        for (int i = 0; i < LANES; ++i) {
          const __m512 taken = _mm512_load_ps(output[d + i] + g * LANES);
          rows[i] = _mm512_castps_si512(_mm512_mul_ps(taken, share));
        }
        transpose(rows);
        for (int i = 0; i < num_rows; ++i) {
          store_half(out + (g * LANES + i) * stride + d, _mm512_castsi512_ps(rows[i]));
        }
      }
    }
  }
};

// The steps of `attend` in bfloat16.
struct Kernel {
  using Blocks = ::Blocks<Block, 4>;

  // Pairs of values never reach across sequences.
  static int64_t value_rows(int64_t rows) { return rows / 2; }
  static int64_t first_value_row(const int32_t* starts, int s) {
    return (static_cast<int64_t>(starts[s]) + s + 1) / 2;
  }

  // Rotate keys, and lay out values of tokens 2i and 2i + 1 as neighbours (tokens / 2, WIDTH, 2), a
  // missing last one as zeros: for tokens [first, first + count) of a sequence, all heads.
  static void prepare(const uint16_t* qkv, int heads, int first, int count, const float* cosines,
                      const float* sines, uint16_t* keys, uint32_t* values, int64_t keys_stride,
                      int64_t values_stride) {
    const int64_t stride = static_cast<int64_t>(3) * heads * WIDTH;
    for (int i = 0; i < count; ++i) {
      const int64_t token = first + i;
      const uint16_t* own = qkv + token * stride + heads * WIDTH;
      for (int head = 0; head < heads; ++head) {
        rotate(own + head * WIDTH, keys + head * keys_stride + token * WIDTH,
               cosines + token * PAIRS, sines + token * PAIRS, 1.0f);
      }
      if (token % 2) continue;
      const uint16_t* even = own + heads * WIDTH;
      for (int head = 0; head < heads; ++head) {
        uint32_t* to = values + head * values_stride + token / 2 * WIDTH;
        for (int d = 0; d < WIDTH; ++d) {
          const uint32_t next = i + 1 < count ? even[stride + head * WIDTH + d] : 0;
          to[d] = even[head * WIDTH + d] | next << 16;
        }
      }
    }
  }
};

}  // namespace

extern "C" {

// `attend` without log_sum_exp; `rows` is at least the number of tokens and sequences, plus 16.
void dewey_attention(const uint16_t* qkv, uint16_t* out, const float* cosines, const float* sines,
                     const int32_t* starts, int num_sequences, int heads, int window,
                     uint16_t* keys, uint32_t* values, int64_t rows, const int32_t* control,
                     int threads) {
  attend<Kernel>(qkv, out, nullptr, cosines, sines, starts, num_sequences, heads, window, keys,
                 values, rows, control, threads);
}

// The same, with the log_sum_exp that `dewey_attention_gradients` needs.
void dewey_attention_log_sum_exp(const uint16_t* qkv, uint16_t* out, float* log_sum_exp,
                                 const float* cosines, const float* sines, const int32_t* starts,
                                 int num_sequences, int heads, int window, uint16_t* keys,
                                 uint32_t* values, int64_t rows, int threads) {
  attend<Kernel>(qkv, out, log_sum_exp, cosines, sines, starts, num_sequences, heads, window, keys,
                 values, rows, nullptr, threads);
}

}  // extern "C"
