// Attention over a packed row, in float32.
//
// As in attention.cpp scores are computed transposed: keys down, queries across the lanes of a
// register, so that maximum and sum over keys need no step across lanes.
//
// Source of the tiling: arXiv 2205.14135 (FlashAttention) §3.1, with its running maximum.

#include "floats.h"
#include "tasks.h"

namespace {

constexpr int WIDTH = 64;        // of an attention head
constexpr int HALF = WIDTH / 2;  // halves are the pairs that are turned together
constexpr int ROWS = 4;          // rows of a product that are worked on at a time
constexpr int KEYS = 96;         // of a tile
constexpr int SHARED = 256;      // queries that go through the keys together, tile by tile
constexpr float FAR = 32.0f;     // above a query's shift; float32 adds up weights to 2^32 as well

// One token's query or key, turned by its position's angles and scaled.
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

// One head of one sequence; `keys`, turned, and `values` (tokens, WIDTH).
struct Head {
  const float* queries;
  float* out;
  const float* keys;
  const float* values;
  int64_t query_stride, out_stride;
  int tokens, window;  // window: keys seen to each side, all if negative
};

// The attention of up to NUM · LANES neighbouring queries of a head.
//
// Weights are 2^(score - shift). Any shift cancels in the softmax. It begins as the query's score
// with its own key, which it always sees, so that a sum is never below one; only where a score is
// far above it, it moves.
template <int NUM>
class Block {
 public:
  static constexpr int QUERIES = NUM * LANES;

  // Begins with the queries from `at` on; the last of them is at `end` - 1 at most.
  void start(const Head& head, int at, int end, const float* cosines, const float* sines) {
    first = at;
    count = std::min(QUERIES, end - at);
    std::fill(mixed[0], mixed[0] + WIDTH * QUERIES, 0.0f);
    for (int g = 0; g < NUM; ++g) {
      sums[g] = Floats{};
      load_queries(head, g, cosines, sines);
    }
  }

  // Takes in a tile of keys and their values.
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
        for (int i = 0; i < LANES; ++i) rows[i] = load(mixed[d + i] + g * LANES) / sums[g];
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
  alignas(64) float mixed[WIDTH][QUERIES];
  Floats shift[NUM], sums[NUM];
  Ints from[NUM], to[NUM];  // first and last key that each query sees
  int first, count;         // queries
  int done;                 // keys of the tile whose values are mixed already

  // Queries [g · LANES, (g + 1) · LANES), turned; missing ones are zero.
  void load_queries(const Head& head, int g, const float* cosines, const float* sines) {
    const float scale = 0.125f * 1.44269504f;  // 1/√WIDTH, and exponentials are of base 2
    alignas(64) float turned[LANES][WIDTH] = {};
    Floats own{};
    for (int i = 0; i < std::min(LANES, count - g * LANES); ++i) {
      const int64_t token = first + g * LANES + i;
      rotate(head.queries + token * head.query_stride, turned[i], cosines + token * HALF,
             sines + token * HALF, scale);
      Floats product{};
      for (int d = 0; d < WIDTH; d += LANES) {
        product += load(turned[i] + d) * load(head.keys + token * WIDTH + d);
      }
      own[i] = sum(product);
    }
    for (int d = 0; d < WIDTH; d += LANES) {
      Floats rows[LANES];
      for (int i = 0; i < LANES; ++i) rows[i] = load(turned[i] + d);
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

  // Shifts moved up to the highest score, and all that was added up under the former ones with it.
  __attribute__((noinline)) void move_shift(Floats score[ROWS][NUM]) {
    for (int g = 0; g < NUM; ++g) {
      Floats highest{};
      for (int r = 0; r < ROWS; ++r) highest = score[r][g] > highest ? score[r][g] : highest;
      for (int r = 0; r < ROWS; ++r) score[r][g] -= highest;
      shift[g] += highest;
      const Floats factor = power_of_two(-highest);
      sums[g] *= factor;
      for (int d = 0; d < WIDTH; ++d) {
        store(mixed[d] + g * LANES, load(mixed[d] + g * LANES) * factor);
      }
    }
  }

  // The values of the tile's keys, from where they are not mixed yet to `end`, by weight.
  void mix(const float* values, int end) {
    for (int d = 0; d < WIDTH; d += ROWS) {
      Floats taken[ROWS][NUM];
      for (int r = 0; r < ROWS; ++r) {
        for (int g = 0; g < NUM; ++g) taken[r][g] = load(mixed[d + r] + g * LANES);
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
        for (int g = 0; g < NUM; ++g) store(mixed[d + r] + g * LANES, taken[r][g]);
      }
    }
    done = end;
  }
};

// Up to SHARED neighbouring queries of a head; kept by a thread from task to task.
class Blocks {
 public:
  void run(const Head& head, int first, int count, const float* cosines, const float* sines) {
    const int last = first + count, num_full = (count + BLOCK / 2 - 1) / BLOCK;
    const int at = first + num_full * BLOCK;
    const int num_rest = at < last ? (last - at + LANES - 1) / LANES : 0;
    for (int b = 0; b < num_full; ++b) full[b].start(head, first + b * BLOCK, last, cosines, sines);
    for (int b = 0; b < num_rest; ++b) rest[b].start(head, at + b * LANES, last, cosines, sines);
    int begin = 0, end = head.tokens;
    if (head.window >= 0) {
      begin = std::max(0, first - head.window);
      end = std::min(end, last + head.window);
    }
    for (int key = begin; key < end; key += KEYS) {
      const int num_keys = std::min(KEYS, end - key);
      for (int b = 0; b < num_full; ++b) full[b].add(head, key, num_keys);
      for (int b = 0; b < num_rest; ++b) rest[b].add(head, key, num_keys);
    }
    for (int b = 0; b < num_full; ++b) full[b].finish(head);
    for (int b = 0; b < num_rest; ++b) rest[b].finish(head);
  }

 private:
  Block<GROUPS> full[SHARED / BLOCK];
  Block<1> rest[GROUPS];
};

// Keys turned and values, of tokens [first, first + count) of a sequence, all heads.
void prepare(const float* qkv, int heads, int first, int count, const float* cosines,
             const float* sines, float* keys, float* values, int64_t stride) {
  for (int64_t token = first; token < first + count; ++token) {
    const float* own = qkv + (token * 3 + 1) * heads * WIDTH;
    for (int head = 0; head < heads; ++head) {
      const int64_t place = head * stride + token * WIDTH;
      rotate(own + head * WIDTH, keys + place, cosines + token * HALF, sines + token * HALF, 1.0f);
      std::copy_n(own + (heads + head) * WIDTH, WIDTH, values + place);
    }
  }
}

}  // namespace

extern "C" {

// `qkv` (T, 3, heads, 64) → `out` (T, heads, 64): attention within each of the sequences that begin
// at `starts` (sequences + 1). `cosines` and `sines` (positions, 32). `keys` and `values` are room
// for `rows` · 64 elements a head, rows ≥ T + 16.
void dewey_attention(const float* qkv, float* out, const float* cosines, const float* sines,
                     const int32_t* starts, int num_sequences, int heads, int window, float* keys,
                     float* values, int64_t rows, int threads) {
  const int64_t width = static_cast<int64_t>(heads) * WIDTH, stride = rows * WIDTH;
  const std::vector<Piece> parts = pieces(starts, num_sequences, 128);
  // Blocks share tiles of keys where they see the same ones and there is work for every thread.
  const bool shared = window < 0 && heads * starts[num_sequences] / SHARED >= 4 * threads;
  const std::vector<Piece> tasks = pieces(starts, num_sequences, shared ? SHARED : 64);
  const int64_t num_parts = parts.size(), num_tasks = tasks.size();
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < num_parts; ++i) {
      const Piece& part = parts[i];
      const int64_t start = starts[part.sequence];
      prepare(qkv + start * 3 * width, heads, part.first, part.count, cosines, sines,
              keys + start * WIDTH, values + start * WIDTH, stride);
    }
    Blocks blocks;
    // All of a head's tasks before the next head's: its keys and values stay in cache.
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < heads * num_tasks; ++i) {
      const Piece& task = tasks[i % num_tasks];
      const int64_t start = starts[task.sequence], head = i / num_tasks;
      const Head one_head{
          qkv + start * 3 * width + head * WIDTH,
          out + start * width + head * WIDTH,
          keys + head * stride + start * WIDTH,
          values + head * stride + start * WIDTH,
          3 * width,
          width,
          starts[task.sequence + 1] - starts[task.sequence],
          window,
      };
      blocks.run(one_head, task.first, task.count, cosines, sines);
    }
  }
}

}  // extern "C"
