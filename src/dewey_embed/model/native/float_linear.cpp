// Products of float32 tokens by a layer's weights, as they lie in the checkpoint.
//
// As in linear.cpp results are transposed: tokens stand across the lanes, and a weight is broadcast
// to all of them.

#include "floats.h"
#include "tasks.h"

namespace {

constexpr int ROWS = 6;              // of weights
constexpr int PANEL = 48;            // of weights; they stay in cache for all blocks of a task
constexpr int BLOCKS = 256 / BLOCK;  // of a task at most

struct Layer {
  const float* weights;  // (outer, inner)
  const float* bias;     // (outer) or null
  int inner, outer;
};

// A thread's memory for one task.
struct Room {
  explicit Room(int inner) : tokens(static_cast<int64_t>(BLOCKS) * BLOCK * inner) {}
  std::vector<float> tokens;  // blocks (inner, BLOCK)
  alignas(64) float results[PANEL * BLOCK];
};

// Tokens [0, count) of `from` (count, inner) as (inner, BLOCK); missing ones are zero.
void order_tokens(const float* from, int count, int inner, float* to) {
  for (int first = 0; first < BLOCK; first += LANES) {
    const int used = std::min(LANES, count - first);
    for (int at = 0; at < inner; at += LANES) {
      Floats rows[LANES];
      for (int i = 0; i < LANES; ++i) {
        rows[i] = i < used ? load(from + static_cast<int64_t>(first + i) * inner + at) : Floats{};
      }
      transpose(rows);
      for (int i = 0; i < LANES; ++i) store(to + (at + i) * BLOCK + first, rows[i]);
    }
  }
}

// Results (ROWS, BLOCK) of the layer's rows from `row` on, for USED registers of tokens.
template <int USED>
inline void multiply(const float* tokens, const Layer& layer, int row, float* results) {
  const float* weights = layer.weights + static_cast<int64_t>(row) * layer.inner;
  Floats sums[ROWS][USED] = {};
  for (int i = 0; i < layer.inner; ++i) {
    Floats token[USED];
    for (int g = 0; g < USED; ++g) token[g] = load(tokens + i * BLOCK + g * LANES);
    for (int r = 0; r < ROWS; ++r) {
      const Floats one = all(weights[r * layer.inner + i]);
      for (int g = 0; g < USED; ++g) sums[r][g] += token[g] * one;
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    for (int g = 0; g < USED; ++g) store(results + r * BLOCK + g * LANES, sums[r][g]);
  }
}

// Write a panel's results (PANEL, BLOCK) to their place in `out` (count, stride).
void store_panel(const float* results, const float* bias, int count, float* out, int64_t stride) {
  for (int first = 0; first < count; first += LANES) {
    const int used = std::min(LANES, count - first);
    for (int row = 0; row < PANEL; row += LANES) {
      Floats rows[LANES];
      for (int i = 0; i < LANES; ++i) rows[i] = load(results + (row + i) * BLOCK + first);
      transpose(rows);
      const Floats added = bias ? load(bias + row) : Floats{};
      for (int i = 0; i < used; ++i) store(out + (first + i) * stride + row, rows[i] + added);
    }
  }
}

void run(const Task& task, const float* tokens, const Layer& layer, float* out, Room& room) {
  const auto count = [&](int64_t at) {
    return static_cast<int>(std::min<int64_t>(BLOCK, task.last - at));
  };
  const auto block = [&](int64_t at) {
    return room.tokens.data() + (at - task.first) * layer.inner;
  };
  for (int64_t at = task.first; at < task.last; at += BLOCK) {
    order_tokens(tokens + at * layer.inner, count(at), layer.inner, block(at));
  }
  for (int panel = task.panel; panel < task.end; ++panel) {
    // The last panel is as wide as the others, and so begins earlier.
    const int first = std::min(panel * PANEL, layer.outer - PANEL);
    for (int64_t at = task.first; at < task.last; at += BLOCK) {
      for (int row = 0; row < PANEL; row += ROWS) {
        float* results = room.results + row * BLOCK;
        if (count(at) > BLOCK / 2) {
          multiply<GROUPS>(block(at), layer, first + row, results);
        } else if (count(at) > LANES) {
          multiply<GROUPS / 2>(block(at), layer, first + row, results);
        } else {
          multiply<1>(block(at), layer, first + row, results);
        }
      }
      store_panel(room.results, layer.bias ? layer.bias + first : nullptr, count(at),
                  out + at * layer.outer + first, layer.outer);
    }
  }
}

}  // namespace

extern "C" {

// `tokens` (num_tokens, inner) by `weights` (outer, inner), + `bias` → `out` (num_tokens, outer).
// `inner` and `outer` are multiples of 16, `outer` at least 48; `bias` may be null.
void dewey_linear(const float* tokens, const float* weights, const float* bias, float* out,
                  int64_t num_tokens, int inner, int outer, int threads) {
  const Layer layer{weights, bias, inner, outer};
  const int num_panels = (layer.outer + PANEL - 1) / PANEL;
  const std::vector<Task> tasks = product_tasks(num_tokens, num_panels, BLOCK, BLOCKS, threads);
  const int64_t num_tasks = tasks.size();
#pragma omp parallel num_threads(threads)
  {
    Room room(layer.inner);
#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < num_tasks; ++t) run(tasks[t], tokens, layer, out, room);
  }
}

}  // extern "C"
