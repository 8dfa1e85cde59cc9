// Attention over a packed row, in float32.
//
// As in attention.cpp scores are computed transposed: keys down, queries across the lanes of a
// register, so that maximum and sum over keys need no step across lanes.
//
// Source of the tiling: arXiv 2205.14135 (FlashAttention) §3.1, with its running maximum.

#include "floats.h"

#include "heads.h"

namespace {

constexpr int HALF = WIDTH / 2;  // halves are the pairs that are rotated together
constexpr int ROWS = 4;          // rows of a product that are computed at a time
constexpr float FAR = 32.0f;     // above a query's shift; float32 sums weights up to 2^32 as well

// One token's query or key, rotated by its position's angles and scaled.
// Source: arXiv 2104.09864 eq. 34.
inline void rotate(const float* from, float* to, const float* cosines, const float* sines,
                   float scale) {
  for (int i = 0; i < HALF; i += LANES) {
    const Floats first = load(from + i), second = load(from + HALF + i);
    const Floats cosine = load(cosines + i) * scale, sine = load(sines + i) * scale;
    store(to + i, first * cosine - second * sine);
    store(to + HALF + i, second * cosine + first * sine);
  }
}

// The attention of up to NUM · LANES neighbouring queries of a head.
//
// Weights are 2^(score - shift). Any shift cancels in the softmax. It begins as the query's score
// with its own key, which it always sees, so that a sum is never below one; only where a score is
// far above it, it moves.
template <int NUM>
class Block {
 public:
  using Head = ::Head<float, float>;
  static constexpr int QUERIES = NUM * LANES;

  // Begins with the queries from `at` on; the last of them is at `end` - 1 at most.
  void start(const Head& head, int at, int end, const float* cosines, const float* sines) {
    first = at;
    count = std::min(QUERIES, end - at);
    std::fill(output[0], output[0] + WIDTH * QUERIES, 0.0f);
    for (int g = 0; g < NUM; ++g) {
      sums[g] = Floats{};
      load_queries(head, g, cosines, sines);
    }
  }

  // Adds a tile of keys and their values.
  void add(const Head& head, int key, int num_keys) {
    const float* values = head.values + static_cast<int64_t>(key) * WIDTH;
    const int reach = head.window < 0 ? head.tokens : head.window;
    if (key > first + count - 1 + reach || key + num_keys <= first - reach) return;
    done = 0;
    const int last = key + (num_keys + ROWS - 1) / ROWS * ROWS - 1;
    const bool edge = last >= head.tokens || key < first + QUERIES - 1 - reach ||
                      last > first + reach;
    for (int row = 0; row < num_keys; row += ROWS) {
      const float* some = head.keys + static_cast<int64_t>(key + row) * WIDTH;
      if (edge) {
        weigh<true>(some, key + row, row, values);
      } else {
        weigh<false>(some, key + row, row, values);
      }
    }
    mix(values, num_keys);
  }

  void finish(const Head& head) {
    for (int g = 0; g < NUM; ++g) {
      const int used = std::min(LANES, count - g * LANES);
      for (int d = 0; d < WIDTH; d += LANES) {
        Floats rows[LANES];
        for (int i = 0; i < LANES; ++i) rows[i] = load(output[d + i] + g * LANES) / sums[g];
        transpose(rows);
        for (int i = 0; i < used; ++i) {
          store(head.out + (first + g * LANES + i) * head.out_stride + d, rows[i]);
        }
      }
    }
  }

 private:
  alignas(64) float queries[WIDTH][QUERIES];
  alignas(64) float weights[KEYS][QUERIES];
  alignas(64) float output[WIDTH][QUERIES];
  Floats shift[NUM], sums[NUM];
  Ints from[NUM], to[NUM];  // first and last key that each query sees
  int first, count;         // queries
  int done;                 // keys of the tile whose values are in the output already

  // Queries [g · LANES, (g + 1) · LANES), rotated; missing ones are zero.
  void load_queries(const Head& head, int g, const float* cosines, const float* sines) {
    const float scale = 0.125f * 1.44269504f;  // 1/√WIDTH, and exponentials are of base 2
    alignas(64) float rotated[LANES][WIDTH] = {};
    Floats own{};
    for (int i = 0; i < std::min(LANES, count - g * LANES); ++i) {
      const int64_t token = first + g * LANES + i;
      rotate(head.queries + token * head.query_stride, rotated[i], cosines + token * HALF,
             sines + token * HALF, scale);
      Floats product{};
      for (int d = 0; d < WIDTH; d += LANES) {
        product += load(rotated[i] + d) * load(head.keys + token * WIDTH + d);
      }
      own[i] = sum(product);
    }
    for (int d = 0; d < WIDTH; d += LANES) {
      Floats rows[LANES];
      for (int i = 0; i < LANES; ++i) rows[i] = load(rotated[i] + d);
      transpose(rows);
      for (int i = 0; i < LANES; ++i) store(queries[d + i] + g * LANES, rows[i]);
    }
    shift[g] = own;
    const int reach = head.window < 0 ? head.tokens + QUERIES : head.window;
    for (int i = 0; i < LANES; ++i) {
      from[g][i] = first + g * LANES + i - reach;
      to[g][i] = std::min(first + g * LANES + i + reach, head.tokens - 1);
    }
  }

  // The weights of ROWS keys from `key` on, which is the tile's key `row`.
  template <bool EDGE>
  inline void weigh(const float* keys, int key, int row, const float* values) {
    Floats score[ROWS][NUM];
    for (int r = 0; r < ROWS; ++r) {
      for (int g = 0; g < NUM; ++g) score[r][g] = -shift[g];
    }
    for (int d = 0; d < WIDTH; ++d) {
      Floats query[NUM];
      for (int g = 0; g < NUM; ++g) query[g] = load(queries[d] + g * LANES);
      for (int r = 0; r < ROWS; ++r) {
        const Floats one = all(keys[r * WIDTH + d]);
        for (int g = 0; g < NUM; ++g) score[r][g] += query[g] * one;
      }
    }
    Ints far{};
    for (int r = 0; r < ROWS; ++r) {
      for (int g = 0; g < NUM; ++g) {
        if (EDGE) score[r][g] = seen(key + r, g) ? score[r][g] : -all(FAR * FAR);
        far |= score[r][g] > FAR;
      }
    }
    if (__builtin_expect(any(far), 0)) {
      mix(values, row);
      move_shift(score);
    }
    for (int r = 0; r < ROWS; ++r) {
      for (int g = 0; g < NUM; ++g) {
        const Floats weight = power_of_two(score[r][g]);
        sums[g] += weight;
        store(weights[row + r] + g * LANES, weight);
      }
    }
  }

  Ints seen(int key, int g) const { return (from[g] <= key) & (key <= to[g]); }

  // Move the shifts up to the highest scores, and rescale the sums made under the old ones.
  __attribute__((noinline)) void move_shift(Floats score[ROWS][NUM]) {
    for (int g = 0; g < NUM; ++g) {
      Floats highest{};
      for (int r = 0; r < ROWS; ++r) highest = score[r][g] > highest ? score[r][g] : highest;
      for (int r = 0; r < ROWS; ++r) score[r][g] -= highest;
      shift[g] += highest;
      const Floats factor = power_of_two(-highest);
      sums[g] *= factor;
      for (int d = 0; d < WIDTH; ++d) {
        store(output[d] + g * LANES, load(output[d] + g * LANES) * factor);
      }
    }
  }

  // Add the tile's weighted values, from the first that is not in the output yet to `end`.
  void mix(const float* values, int end) {
    for (int d = 0; d < WIDTH; d += ROWS) {
      Floats taken[ROWS][NUM];
      for (int r = 0; r < ROWS; ++r) {
        for (int g = 0; g < NUM; ++g) taken[r][g] = load(output[d + r] + g * LANES);
      }
      for (int key = done; key < end; ++key) {
        Floats weight[NUM];
        for (int g = 0; g < NUM; ++g) weight[g] = load(weights[key] + g * LANES);
        for (int r = 0; r < ROWS; ++r) {
          const Floats one = all(values[key * WIDTH + d + r]);
          for (int g = 0; g < NUM; ++g) taken[r][g] += weight[g] * one;
        }
      }
      for (int r = 0; r < ROWS; ++r) {
        for (int g = 0; g < NUM; ++g) store(output[d + r] + g * LANES, taken[r][g]);
      }
    }
    done = end;
  }
};

// The steps of `attend` in float32.
struct Kernel {
  using Blocks = ::Blocks<Block, GROUPS>;

  static int64_t value_rows(int64_t rows) { return rows; }
  static int64_t first_value_row(const int32_t* starts, int s) { return starts[s]; }

  // Rotate keys and copy values: for tokens [first, first + count) of a sequence, all heads.
  static void prepare(const float* qkv, int heads, int first, int count, const float* cosines,
                      const float* sines, float* keys, float* values, int64_t stride, int64_t) {
    for (int64_t token = first; token < first + count; ++token) {
      const float* own = qkv + (token * 3 + 1) * heads * WIDTH;
      for (int head = 0; head < heads; ++head) {
        const int64_t place = head * stride + token * WIDTH;
        rotate(own + head * WIDTH, keys + place, cosines + token * HALF, sines + token * HALF, 1.0f);
        std::copy_n(own + (heads + head) * WIDTH, WIDTH, values + place);
      }
    }
  }
};

}  // namespace

extern "C" {

// `attend`; `rows` is at least the number of tokens plus 16.
void dewey_attention(const float* qkv, float* out, const float* cosines, const float* sines,
                     const int32_t* starts, int num_sequences, int heads, int window, float* keys,
                     float* values, int64_t rows, const int32_t* control, int threads) {
  attend<Kernel>(qkv, out, nullptr, cosines, sines, starts, num_sequences, heads, window, keys,
                 values, rows, control, threads);
}

}  // extern "C"
