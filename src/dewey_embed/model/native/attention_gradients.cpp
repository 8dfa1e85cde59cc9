// Gradients of attention over a packed row, for training: those of queries, keys and values before
// their rotation.
//
// Scores are computed again, block by block, from the forward pass's log_sum_exp. All five products
// have one form: pairs of bfloat16 of a row, each broadcast, times pairs in the lanes of registers.
// They differ only in how the factors lie in memory, so queries and the output's gradients are laid
// out in both ways.
//
// Source: arXiv 2205.14135 (FlashAttention) appendix B.4; D of it is `shares` here.

#include "rotation.h"

#include <cstring>
#include <numeric>

#include "tasks.h"

namespace {

constexpr int SIDE = 64;  // queries of a block, and keys of a tile
constexpr int GROUPS = SIDE / LANES;
constexpr int ROWS = 4;  // rows of a product that are computed at a time
constexpr float LN_2 = 0.69314718f;

struct alignas(64) Line {
  uint32_t words[LANES];
};

// A thread's memory, aligned to cache lines; it grows with the longest sequence.
template <class Element>
class Room {
 public:
  Element* of(int64_t count) {
    const size_t lines = (count * sizeof(Element) + sizeof(Line) - 1) / sizeof(Line);
    if (memory.size() < lines) memory.resize(lines);
    return reinterpret_cast<Element*>(memory.data());
  }

 private:
  std::vector<Line> memory;
};

// (ROWS, SIDE) at `to`, `stride` apart, += rows of `pairs` pairs times (pairs, SIDE) of them.
inline void add_product(float* to, int64_t stride, const uint32_t* rows, int row, int step,
                        const uint32_t* lanes, int pairs) {
  __m512 sum[ROWS][GROUPS];
  for (int r = 0; r < ROWS; ++r) {
    for (int g = 0; g < GROUPS; ++g) sum[r][g] = _mm512_load_ps(to + r * stride + g * LANES);
  }
  for (int i = 0; i < pairs; ++i) {
    __m512i lane[GROUPS];
    for (int g = 0; g < GROUPS; ++g) lane[g] = _mm512_load_si512(lanes + i * SIDE + g * LANES);
    for (int r = 0; r < ROWS; ++r) {
      const __m512i one = broadcast(rows + r * row + i * step);
      for (int g = 0; g < GROUPS; ++g) sum[r][g] = add_products(sum[r][g], one, lane[g]);
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    for (int g = 0; g < GROUPS; ++g) _mm512_store_ps(to + r * stride + g * LANES, sum[r][g]);
  }
}

// One head of one sequence.
struct Place {
  const uint16_t *qkv, *out, *out_grad;  // of its first token
  uint16_t* qkv_grad;
  const float* log_sum_exp;
  int64_t width;  // heads · WIDTH
  int tokens, window;  // window: keys seen to each side, all if negative
};

class HeadGradients {
 public:
  void run(const Place& place, const float* cosines, const float* sines) {
    const int blocks = (place.tokens + SIDE - 1) / SIDE;
    prepare(place, blocks, cosines, sines);
    std::fill(query_grads, query_grads + static_cast<int64_t>(blocks) * WIDTH * SIDE, 0.0f);
    for (int tile = 0; tile < blocks; ++tile) {
      std::fill(key_grads[0], key_grads[0] + SIDE * WIDTH, 0.0f);
      std::fill(value_grads[0], value_grads[0] + SIDE * WIDTH, 0.0f);
      int begin = 0, end = blocks;
      if (place.window >= 0) {
        begin = std::max(0, tile * SIDE - place.window) / SIDE;
        end = std::min(blocks, (tile * SIDE + SIDE - 1 + place.window) / SIDE + 1);
      }
      for (int block = begin; block < end; ++block) add(place, tile, block);
      store_keys(place, tile, cosines, sines);
    }
    for (int block = 0; block < blocks; ++block) store_queries(place, block, cosines, sines);
  }

 private:
  // Of the sequence. Lanes: pairs of a row's elements down, a block's tokens across. Laced:
  // pairs of tokens down, elements across.
  Room<uint16_t> key_room, value_room;
  Room<uint32_t> query_lanes_room, query_laced_room, out_lanes_room, out_laced_room, key_laced_room;
  Room<float> log_sum_exp_room, shares_room, query_grads_room;
  uint16_t *keys, *values;
  uint32_t *query_lanes, *query_laced, *out_lanes, *out_laced, *key_laced;
  float *log_sum_exp, *shares, *query_grads;  // query_grads: (blocks, WIDTH, SIDE)

  // Of a block of queries and a tile of keys.
  alignas(64) uint16_t weights[SIDE][SIDE];       // keys down, queries across
  alignas(64) uint16_t score_grads[SIDE][SIDE];
  alignas(64) uint32_t laced_grads[SIDE / 2][SIDE];  // the same, pairs of keys down
  alignas(64) float key_grads[SIDE][WIDTH], value_grads[SIDE][WIDTH];
  alignas(64) uint16_t rows[SIDE][WIDTH];
  alignas(64) float rotated[SIDE][WIDTH];

  void prepare(const Place& place, int blocks, const float* cosines, const float* sines) {
    const int64_t padded = static_cast<int64_t>(blocks) * SIDE;
    keys = key_room.of(padded * WIDTH);
    values = value_room.of(padded * WIDTH);
    query_lanes = query_lanes_room.of(padded * PAIRS);
    query_laced = query_laced_room.of(padded * PAIRS);
    out_lanes = out_lanes_room.of(padded * PAIRS);
    out_laced = out_laced_room.of(padded * PAIRS);
    key_laced = key_laced_room.of(padded * PAIRS);
    log_sum_exp = log_sum_exp_room.of(padded);
    shares = shares_room.of(padded);
    query_grads = query_grads_room.of(padded * WIDTH);
    for (int first = 0; first < padded; first += SIDE) {
      const int count = std::min(SIDE, place.tokens - first);
      const int64_t stride = 3 * place.width, at = static_cast<int64_t>(first) * PAIRS;
      const uint16_t* own = place.qkv + first * stride;
      const float *cosine = cosines + at, *sine = sines + at;
      std::fill(rows[0] + count * WIDTH, rows[0] + SIDE * WIDTH, uint16_t{0});
      for (int i = 0; i < count; ++i) {
        rotate(own + i * stride, rows[i], cosine + i * PAIRS, sine + i * PAIRS, SCALE_OF_TWO);
      }
      to_lanes(query_lanes + at);
      to_laced(query_laced + at);
      for (int i = 0; i < count; ++i) {
        rotate(own + i * stride + place.width, rows[i], cosine + i * PAIRS, sine + i * PAIRS, 1.0f);
      }
      std::memcpy(keys + 2 * at, rows, sizeof rows);
      to_laced(key_laced + at);
      for (int i = 0; i < count; ++i) {
        std::memcpy(rows[i], own + i * stride + 2 * place.width, sizeof rows[i]);
      }
      std::memcpy(values + 2 * at, rows, sizeof rows);
      for (int i = 0; i < count; ++i) {
        const int64_t from = (first + i) * place.width;
        std::memcpy(rows[i], place.out_grad + from, sizeof rows[i]);
        const uint16_t* out = place.out + from;
        __m512 share = _mm512_setzero_ps();
        for (int d = 0; d < WIDTH; d += 2 * LANES) {
          share = add_products(share, _mm512_load_si512(rows[i] + d), _mm512_loadu_si512(out + d));
        }
        shares[first + i] = _mm512_reduce_add_ps(share);
        log_sum_exp[first + i] = place.log_sum_exp[first + i];
      }
      // Padding queries in the last block have no gradients: all their numbers are zero.
      std::fill(shares + first + count, shares + first + SIDE, 0.0f);
      std::fill(log_sum_exp + first + count, log_sum_exp + first + SIDE, 0.0f);
      to_lanes(out_lanes + at);
      to_laced(out_laced + at);
    }
  }

  // `rows` as (PAIRS, SIDE).
  void to_lanes(uint32_t* to) const {
    for (int g = 0; g < SIDE; g += LANES) ::to_lanes(rows + g, to + g, SIDE);
  }

  // `rows` as (SIDE / 2, WIDTH).
  void to_laced(uint32_t* to) const {
    for (int i = 0; i < SIDE; i += 2) {
      for (int d = 0; d < WIDTH; d += LANES) {
        _mm512_store_si512(to + i / 2 * WIDTH + d, pairs_of(rows[i] + d, rows[i + 1] + d));
      }
    }
  }

  static __m512i pairs_of(const uint16_t* even, const uint16_t* odd) {
    const auto wide = [](const uint16_t* from) {
      return _mm512_cvtepu16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(from)));
    };
    return _mm512_or_si512(wide(even), _mm512_slli_epi32(wide(odd), 16));
  }

  // Add the gradients that a block of queries and a tile of keys give each other and the values.
  void add(const Place& place, int tile, int block) {
    const int first = block * SIDE, key = tile * SIDE;
    const int num_keys = (std::min(SIDE, place.tokens - key) + ROWS - 1) / ROWS * ROWS;
    const int num_queries = std::min(SIDE, place.tokens - first);
    const bool edge = key + num_keys > place.tokens ||
                      (place.window >= 0 && (key < first + SIDE - 1 - place.window ||
                                             key + num_keys - 1 > first + place.window));
    for (int row = 0; row < num_keys; row += ROWS) {
      edge ? weigh<true>(place, key, row, first) : weigh<false>(place, key, row, first);
    }
    const int64_t at = static_cast<int64_t>(first) * PAIRS;
    const int query_pairs = (num_queries + 1) / 2;
    for (int row = 0; row < num_keys; row += ROWS) {
      add_product(value_grads[row], WIDTH, reinterpret_cast<const uint32_t*>(weights[row]),
                  SIDE / 2, 1, out_laced + at, query_pairs);
      add_product(key_grads[row], WIDTH, reinterpret_cast<const uint32_t*>(score_grads[row]),
                  SIDE / 2, 1, query_laced + at, query_pairs);
    }
    const uint32_t* laced = key_laced + static_cast<int64_t>(key) * PAIRS;
    for (int d = 0; d < WIDTH; d += ROWS) {
      add_product(query_grads + 2 * at + d * SIDE, SIDE, laced + d, 1, WIDTH, laced_grads[0],
                  num_keys / 2);
    }
  }

  // The weights of ROWS keys from `row` of the tile on, and the gradients of their scores.
  template <bool EDGE>
  void weigh(const Place& place, int tile, int row, int first) {
    const int64_t key = tile + row, at = static_cast<int64_t>(first) * PAIRS;
    alignas(64) float score[ROWS][SIDE], grad[ROWS][SIDE];
    for (int g = 0; g < SIDE; g += LANES) {
      const __m512 log = _mm512_load_ps(log_sum_exp + first + g);
      const __m512 share = _mm512_load_ps(shares + first + g);
      for (int r = 0; r < ROWS; ++r) {
        _mm512_store_ps(score[r] + g, _mm512_sub_ps(_mm512_setzero_ps(), log));
        _mm512_store_ps(grad[r] + g, _mm512_sub_ps(_mm512_setzero_ps(), share));
      }
    }
    const auto* key_rows = reinterpret_cast<const uint32_t*>(keys) + key * PAIRS;
    const auto* value_rows = reinterpret_cast<const uint32_t*>(values) + key * PAIRS;
    add_product(score[0], SIDE, key_rows, PAIRS, 1, query_lanes + at, PAIRS);
    add_product(grad[0], SIDE, value_rows, PAIRS, 1, out_lanes + at, PAIRS);
    const __m512i step = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int g = 0; g < SIDE; g += LANES) {
      __m512 weight[ROWS];
      for (int r = 0; r < ROWS; ++r) {
        weight[r] = power_of_two(_mm512_load_ps(score[r] + g));
        if (EDGE) weight[r] = _mm512_maskz_mov_ps(seen(place, key + r, first + g, step), weight[r]);
        const __m512 own = _mm512_mul_ps(weight[r], _mm512_load_ps(grad[r] + g));
        _mm512_store_ps(grad[r] + g, own);
        store_half(weights[row + r] + g, weight[r]);
        store_half(score_grads[row + r] + g, own);
      }
      for (int r = 0; r < ROWS; r += 2) {
        _mm512_store_si512(laced_grads[(row + r) / 2] + g,
                           lace(_mm512_load_ps(grad[r] + g), _mm512_load_ps(grad[r + 1] + g)));
      }
    }
  }

  // Which of 16 queries see a key.
  static __mmask16 seen(const Place& place, int64_t key, int first, __m512i step) {
    if (key >= place.tokens) return 0;  // its weight may be infinite, and times zero be NaN
    if (place.window < 0) return 0xffff;
    const __m512i query = _mm512_add_epi32(step, _mm512_set1_epi32(first));
    const int at = static_cast<int>(key);
    return _mm512_cmple_epi32_mask(_mm512_set1_epi32(at - place.window), query) &
           _mm512_cmple_epi32_mask(query, _mm512_set1_epi32(at + place.window));
  }

  void store_keys(const Place& place, int tile, const float* cosines, const float* sines) const {
    const int first = tile * SIDE, count = std::min(SIDE, place.tokens - first);
    for (int i = 0; i < count; ++i) {
      const int64_t token = first + i;
      uint16_t* to = place.qkv_grad + token * 3 * place.width + place.width;
      // queries were laid out for exponentials of base 2, which is undone here
      rotate(key_grads[i], to, cosines + token * PAIRS, sines + token * PAIRS, LN_2, -1.0f);
      for (int d = 0; d < WIDTH; d += LANES) {
        store_half(to + place.width + d, _mm512_load_ps(value_grads[i] + d));
      }
    }
  }

  void store_queries(const Place& place, int block, const float* cosines, const float* sines) {
    const float* own = query_grads + static_cast<int64_t>(block) * WIDTH * SIDE;
    for (int g = 0; g < SIDE; g += LANES) {
      for (int d = 0; d < WIDTH; d += LANES) {
        __m512i some[LANES];
        for (int i = 0; i < LANES; ++i) some[i] = _mm512_load_si512(own + (d + i) * SIDE + g);
        transpose(some);
        for (int i = 0; i < LANES; ++i) _mm512_store_si512(rotated[g + i] + d, some[i]);
      }
    }
    const int first = block * SIDE, count = std::min(SIDE, place.tokens - first);
    for (int i = 0; i < count; ++i) {
      const int64_t token = first + i;
      rotate(rotated[i], place.qkv_grad + token * 3 * place.width, cosines + token * PAIRS,
             sines + token * PAIRS, SCALE, -1.0f);
    }
  }
};

}  // namespace

extern "C" {

// `qkv` (T, 3, heads, WIDTH), the `out` (T, heads, WIDTH) and `log_sum_exp` (heads, T) that
// `dewey_attention_log_sum_exp` made of it, and the gradient of `out` → that of `qkv`.
void dewey_attention_gradients(const uint16_t* qkv, const uint16_t* out, const float* log_sum_exp,
                               const uint16_t* out_grad, uint16_t* qkv_grad, const float* cosines,
                               const float* sines, const int32_t* starts, int num_sequences,
                               int heads, int window, int threads) {
  const int64_t width = static_cast<int64_t>(heads) * WIDTH, num_tokens = starts[num_sequences];
  // The longest first, so that no thread starts a long one when the others are done.
  std::vector<int> order(num_sequences);
  std::iota(order.begin(), order.end(), 0);
  const auto length = [&](int s) { return starts[s + 1] - starts[s]; };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return length(a) > length(b); });
  const int64_t num_tasks = static_cast<int64_t>(num_sequences) * heads;
#pragma omp parallel num_threads(threads)
  {
    HeadGradients gradients;
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < num_tasks; ++i) {
      const int s = order[i / heads];
      const int64_t head = i % heads, start = starts[s];
      gradients.run(
          {
              qkv + start * 3 * width + head * WIDTH,
              out + start * width + head * WIDTH,
              out_grad + start * width + head * WIDTH,
              qkv_grad + start * 3 * width + head * WIDTH,
              log_sum_exp + head * num_tokens + start,
              width,
              length(s),
              window,
          },
          cosines, sines);
    }
  }
}

}  // extern "C"
