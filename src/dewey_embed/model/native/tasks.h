// The division of work among threads.

#pragma once

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <vector>

namespace {

// What a pass over a row is to do, set by another thread: `control.py` has the same numbers.
enum Control : std::int32_t { RUNNING = 0, PAUSED = 1, STOPPED = 2 };

// Returns once a pass may go on (true) or must stop (false); a null control never pauses or stops.
inline bool may_go_on(const std::int32_t* control) {
  if (!control) return true;
  for (;;) {
    const std::int32_t state = __atomic_load_n(control, __ATOMIC_RELAXED);
    if (state != PAUSED) return state == RUNNING;
    const timespec pause{0, 200'000};
    nanosleep(&pause, nullptr);
  }
}

// Tokens [first, last) by the panels [panel, end) of a layer's weights.
struct Task {
  std::int64_t first, last;
  int panel, end;
};

// Tasks of a product: at most `blocks` blocks of `block` tokens each.
inline std::vector<Task> product_tasks(std::int64_t num_tokens, int num_panels, int block,
                                       int blocks, int threads) {
  const std::int64_t share = (num_tokens + threads - 1) / threads;
  const std::int64_t size = std::min<std::int64_t>((share + block - 1) / block, blocks) * block;
  // Where tokens do not divide evenly among threads, the panels of each task are divided, too.
  const int shares = num_tokens % (size * threads) ? std::min(num_panels, threads) : 1;
  std::vector<Task> all;
  for (std::int64_t first = 0; first < num_tokens; first += size) {
    for (int s = 0; s < shares; ++s) {
      all.push_back({first, std::min(first + size, num_tokens), num_panels * s / shares,
                     num_panels * (s + 1) / shares});
    }
  }
  return all;
}

struct Piece {  // of a sequence
  int sequence, first, count;
};

// The sequences that begin at `starts` (num_sequences + 1), in pieces of at most `size` tokens.
inline std::vector<Piece> pieces(const std::int32_t* starts, int num_sequences, int size) {
  std::vector<Piece> all;
  for (int s = 0; s < num_sequences; ++s) {
    const int length = starts[s + 1] - starts[s];
    for (int first = 0; first < length; first += size) {
      all.push_back({s, first, std::min(size, length - first)});
    }
  }
  return all;
}

}  // namespace
