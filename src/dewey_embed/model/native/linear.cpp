// Products of tokens by a layer's weights, as they lie in the checkpoint: no copy of them in another
// order is kept or made.
//
// As in attention, results are transposed: tokens stand across the lanes, and a pair of a weight's
// elements is broadcast to all of them. Only the tokens are put in order for that, a few at a time.

#include <cstdlib>
#include <memory>

#include "vectors.h"

namespace {

constexpr int GROUPS = 4;                // registers of tokens
constexpr int TOKENS = GROUPS * LANES;   // of a block
constexpr int ROWS = 6;                  // of weights: with GROUPS as many sums as registers hold
constexpr int PANEL = 48;                // of weights; they stay in cache for all blocks of a task
constexpr int BLOCKS = 4;                // of a task at most

// Tokens [0, count) of `from` (count, inner) as pairs (inner / 2, TOKENS); missing ones are zeros.
void order_tokens(const uint16_t* from, int count, int inner, uint32_t* to) {
  for (int g = 0; g < GROUPS; ++g) {
    for (int pair = 0; pair < inner / 2; pair += LANES) {
      __m512i rows[LANES];
      for (int i = 0; i < LANES; ++i) {
        const int token = g * LANES + i;
        rows[i] = token < count
                      ? _mm512_loadu_si512(from + static_cast<int64_t>(token) * inner + 2 * pair)
                      : _mm512_setzero_si512();
      }
      transpose(rows);
      for (int i = 0; i < LANES; ++i) {
        _mm512_store_si512(to + (pair + i) * TOKENS + g * LANES, rows[i]);
      }
    }
  }
}

// Results (ROWS, TOKENS) of ROWS rows of weights.
template <int USED>
inline void multiply(const uint32_t* tokens, const uint32_t* weights, int pairs, float* results) {
  __m512 sum[ROWS][USED];
  for (int r = 0; r < ROWS; ++r) {
    for (int g = 0; g < USED; ++g) sum[r][g] = _mm512_setzero_ps();
  }
  for (int pair = 0; pair < pairs; ++pair) {
    __m512i token[USED];
    for (int g = 0; g < USED; ++g) token[g] = _mm512_load_si512(tokens + pair * TOKENS + g * LANES);
    for (int r = 0; r < ROWS; ++r) {
      const __m512i one = broadcast(weights + r * pairs + pair);
      for (int g = 0; g < USED; ++g) sum[r][g] = add_products(sum[r][g], token[g], one);
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    for (int g = 0; g < USED; ++g) _mm512_store_ps(results + r * TOKENS + g * LANES, sum[r][g]);
  }
}

// A panel's results (PANEL, TOKENS) to where they belong in `out` (count, stride).
void store(const float* results, const uint16_t* bias, int count, uint16_t* out, int64_t stride) {
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
        store_half(out + (g * LANES + i) * stride + row,
                   _mm512_add_ps(_mm512_castsi512_ps(rows[i]), added));
      }
    }
  }
}

// Tokens [first, last), at most BLOCKS blocks, by the panels [panel, end).
struct Task {
  int64_t first, last;
  int panel, end;
};

std::vector<Task> tasks(int64_t num_tokens, int num_panels, int threads) {
  const int64_t share = (num_tokens + threads - 1) / threads;
  const int64_t size = std::min<int64_t>((share + TOKENS - 1) / TOKENS, BLOCKS) * TOKENS;
  // Where tokens do not come out even among threads, each task's panels are shared out too.
  const int shares = num_tokens % (size * threads) ? std::min(num_panels, threads) : 1;
  std::vector<Task> all;
  for (int64_t first = 0; first < num_tokens; first += size) {
    for (int s = 0; s < shares; ++s) {
      all.push_back({first, std::min(first + size, num_tokens), num_panels * s / shares,
                     num_panels * (s + 1) / shares});
    }
  }
  return all;
}

}  // namespace

extern "C" {

// `tokens` (num_tokens, inner) by `weights` (outer, inner), + `bias` → `out` (num_tokens, outer).
// `inner` is a multiple of 32, `outer` of 16 and at least 48; `bias` may be null.
void dewey_linear(const uint16_t* tokens, const uint16_t* weights, const uint16_t* bias,
                  uint16_t* out, int64_t num_tokens, int inner, int outer, int threads) {
  const int pairs = inner / 2;
  const std::vector<Task> all = tasks(num_tokens, (outer + PANEL - 1) / PANEL, threads);
  const int64_t num_tasks = all.size();
#pragma omp parallel num_threads(threads)
  {
    const std::unique_ptr<uint32_t, decltype(&std::free)> room(
        static_cast<uint32_t*>(std::aligned_alloc(64, BLOCKS * TOKENS * sizeof(uint32_t) * pairs)),
        &std::free);
    uint32_t* const ordered = room.get();
    alignas(64) float results[PANEL * TOKENS];
#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < num_tasks; ++t) {
      const Task& task = all[t];
      const auto count = [&](int64_t at) {
        return static_cast<int>(std::min<int64_t>(TOKENS, task.last - at));
      };
      for (int64_t at = task.first; at < task.last; at += TOKENS) {
        order_tokens(tokens + at * inner, count(at), inner, ordered + (at - task.first) * pairs);
      }
      for (int panel = task.panel; panel < task.end; ++panel) {
        // The last panel is as wide as the others, and so begins earlier.
        const int first = std::min(panel * PANEL, outer - PANEL);
        for (int64_t at = task.first; at < task.last; at += TOKENS) {
          const uint32_t* block = ordered + (at - task.first) * pairs;
          for (int row = 0; row < PANEL; row += ROWS) {
            const auto* some = reinterpret_cast<const uint32_t*>(
                weights + static_cast<int64_t>(first + row) * inner);
            if (count(at) > 2 * LANES) {
              multiply<4>(block, some, pairs, results + row * TOKENS);
            } else if (count(at) > LANES) {
              multiply<2>(block, some, pairs, results + row * TOKENS);
            } else {
              multiply<1>(block, some, pairs, results + row * TOKENS);
            }
          }
          store(results, bias ? bias + first : nullptr, count(at), out + at * outer + first, outer);
        }
      }
    }
  }
}

}  // extern "C"
