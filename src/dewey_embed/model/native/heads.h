// Attention in any dtype, as tasks: heads of sequences, in blocks of neighbouring queries.

#pragma once

#include "tasks.h"

namespace {

using std::int32_t;
using std::int64_t;

constexpr int WIDTH = 64;    // of an attention head
constexpr int KEYS = 96;     // of a tile
constexpr int SHARED = 256;  // queries that go through the keys together, each tile still in cache
constexpr int UNCHECKED = 48;  // tiles of keys, about 3 ms, between two looks at the control

// One head of one sequence; `keys` (tokens, WIDTH) are rotated, `values` in the order of its blocks.
template <class Element, class Value>
struct Head {
  const Element* queries;
  Element* out;
  float* log_sum_exp;  // of the scores, base 2; null where it is not needed
  const Element* keys;
  const Value* values;
  int64_t query_stride, out_stride;
  int tokens, window;  // window: keys seen to each side, all if negative
  const int32_t* control;
};

// Up to SHARED neighbouring queries of a head; kept by a thread from task to task.
template <template <int> class Block, int GROUPS>
class Blocks {
 public:
  template <class Head>
  void run(const Head& head, int first, int count, const float* cosines, const float* sines) {
    const int last = first + count, num_full = (count + SIZE / 2 - 1) / SIZE;
    const int at = first + num_full * SIZE, rest = last - at;
    const auto for_each = [&](auto&& act) {
      for (int b = 0; b < num_full; ++b) act(full[b], first + b * SIZE);
      if (rest > LEAST) act(half, at);
      if (rest > 0 && rest <= LEAST) act(least, at);
    };
    for_each([&](auto& block, int from) { block.start(head, from, last, cosines, sines); });
    int begin = 0, end = head.tokens;
    if (head.window >= 0) {
      begin = std::max(0, first - head.window) & ~1;  // where values come in pairs
      end = std::min(end, last + head.window);
    }
    int tile = 0;
    for (int key = begin; key < end; key += KEYS) {
      if (tile++ % UNCHECKED == 0 && !may_go_on(head.control)) return;
      const int num_keys = std::min(KEYS, end - key);
      for_each([&](auto& block, int) { block.add(head, key, num_keys); });
    }
    for_each([&](auto& block, int) { block.finish(head); });
  }

 private:
  static constexpr int SIZE = Block<GROUPS>::QUERIES, LEAST = Block<1>::QUERIES;
  Block<GROUPS> full[SHARED / SIZE];
  Block<GROUPS / 2> half;
  Block<1> least;
};

// `qkv` (T, 3, heads, WIDTH) → `out` (T, heads, WIDTH) and `log_sum_exp` (heads, T) or null:
// attention within each of the sequences that begin at `starts` (sequences + 1). `cosines` and
// `sines` are (positions, WIDTH / 2), `keys` and `values` buffers of `rows` · WIDTH elements a head.
// Where `control`, which may be null, says stop, it returns at once, `out` unfinished.
template <class Kernel, class Element, class Value>
void attend(const Element* qkv, Element* out, float* log_sum_exp, const float* cosines,
            const float* sines, const int32_t* starts, int num_sequences, int heads, int window,
            Element* keys, Value* values, int64_t rows, const int32_t* control, int threads) {
  const int64_t width = static_cast<int64_t>(heads) * WIDTH;
  const int64_t keys_stride = rows * WIDTH, values_stride = Kernel::value_rows(rows) * WIDTH;
  const auto values_of = [&](int64_t head, int s) {
    return values + head * values_stride + Kernel::first_value_row(starts, s) * WIDTH;
  };
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
      Kernel::prepare(qkv + start * 3 * width, heads, part.first, part.count, cosines, sines,
                      keys + start * WIDTH, values_of(0, part.sequence), keys_stride,
                      values_stride);
    }
    typename Kernel::Blocks blocks;
    // All of a head's tasks before the next head's: its keys and values stay in cache.
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < heads * num_tasks; ++i) {
      const Piece& task = tasks[i % num_tasks];
      const int64_t start = starts[task.sequence], head = i / num_tasks;
      const Head<Element, Value> one_head{
          qkv + start * 3 * width + head * WIDTH,
          out + start * width + head * WIDTH,
          log_sum_exp ? log_sum_exp + head * starts[num_sequences] + start : nullptr,
          keys + head * keys_stride + start * WIDTH,
          values_of(head, task.sequence),
          3 * width,
          width,
          starts[task.sequence + 1] - starts[task.sequence],
          window,
          control,
      };
      blocks.run(one_head, task.first, task.count, cosines, sines);
    }
  }
}

}  // namespace
