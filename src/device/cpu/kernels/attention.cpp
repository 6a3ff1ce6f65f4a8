// Causal attention over the paged cache, with online softmax (Milakov & Gimelshein 2018; Dao et al. 2022).
//
// A work item is one sequence, one key head and a few query tokens: all query heads that share the key head, so a key
// is read once for the group. The cache is walked in tiles of 64 positions, and tiles in spans of 512, both at fixed
// absolute positions: each span starts from nothing and the spans are merged in order. Spans can therefore be shared
// among threads (few sequences, long context) or walked by one thread with the same bits, and a token's result does not
// depend on the batch, the chunk or the threads.
//
// Per tile: scores by dot tiles (lanes along the head), the softmax by rows (lanes along positions), then the weighted
// sum of values (lanes along the head). Caches narrower than float32 are widened on the fly for a few rows and once into
// scratch for many.
#include <algorithm>

#include "device/cpu/kernels/dot.h"
#include "device/cpu/kernels/rows.h"
#include "device/cpu/kernels/table.h"

namespace fastllm::cpu::FASTLLM_ISA_NS {
namespace {

constexpr std::int64_t kTile = 64;  // positions; part of the numerical result
constexpr std::int64_t kSpan = 8 * kTile;  // positions; part of the numerical result
constexpr std::int64_t kRows = 48;  // query rows of an item, unless one token's group has more
constexpr std::int64_t kStreamRows = 16;  // up to here an item is bound by memory and asks for tiles ahead
constexpr float kNothing = -__builtin_inff();

std::int64_t group_of(const AttentionArgs& args) {
  return args.heads / args.cache.kv_heads;
}
std::int64_t tokens_per_item(const AttentionArgs& args) {
  return std::max<std::int64_t>(1, kRows / group_of(args));
}
std::int64_t rows_per_item(const AttentionArgs& args) {
  return tokens_per_item(args) * group_of(args);
}
std::int64_t padded(std::int64_t floats) {
  return (floats + 15) / 16 * 16;
}

// What one worker works with. Row r of an item is token r / group, head r % group.
struct Work {
  float* q;  // [rows, head_dim], scaled
  float* scores;  // [rows, kTile], then their exponentials
  float* out;  // [rows, v_head_dim] of the current span
  float* whole;  // [rows, v_head_dim] of the spans so far
  float* top;  // [rows] largest score of the current span
  float* sum;  // [rows] sum of exponentials
  float* whole_top;
  float* whole_sum;
  float* rescale;  // [rows] what the tile's new maximum makes of the sums so far
  float* k;  // [kTile, head_dim] widened
  float* v;  // [kTile, v_head_dim]
};

std::int64_t carve(const AttentionArgs& args, float* base, Work* work) {
  const std::int64_t rows = rows_per_item(args);
  std::int64_t used = 0;
  const auto take = [&](std::int64_t floats) {
    float* at = base ? base + used : nullptr;
    used += padded(floats);
    return at;
  };
  work->q = take(rows * args.cache.head_dim);
  work->scores = take(rows * kTile);
  work->out = take(rows * args.cache.v_head_dim);
  work->whole = take(rows * args.cache.v_head_dim);
  work->top = take(rows);
  work->sum = take(rows);
  work->whole_top = take(rows);
  work->whole_sum = take(rows);
  work->rescale = take(rows);
  work->k = take(kTile * args.cache.head_dim);
  work->v = take(kTile * args.cache.v_head_dim);
  return used;
}

struct Item {
  std::int64_t sequence = 0;
  std::int64_t head = 0;  // of the cache
  std::int64_t token = 0;  // first of the step
  std::int64_t tokens = 0;
  std::int64_t first = 0;  // positions [first, end) that any row sees
  std::int64_t end = 0;
  std::int64_t spans() const { return (end + kSpan - 1) / kSpan - first / kSpan; }
};

std::int64_t first_seen(const AttentionArgs& args, std::int64_t position) {
  return args.window > 0 ? std::max<std::int64_t>(0, position - args.window + 1) : 0;
}

std::int64_t items_of(const AttentionArgs& args, std::int64_t sequence) {
  const std::int64_t tokens = args.step->query_start[sequence + 1] - args.step->query_start[sequence];
  const std::int64_t each = tokens_per_item(args);
  return (tokens + each - 1) / each * args.cache.kv_heads;
}

std::int64_t count_items(const AttentionArgs& args) {
  std::int64_t items = 0;
  for (std::int64_t s = 0; s < args.step->sequences; ++s) items += items_of(args, s);
  return items;
}

Item item_in(const AttentionArgs& args, std::int64_t sequence, std::int64_t index) {
  const device::StepView& step = *args.step;
  Item item;
  item.sequence = sequence;
  item.head = index % args.cache.kv_heads;
  item.token = step.query_start[sequence] + index / args.cache.kv_heads * tokens_per_item(args);
  item.tokens = std::min<std::int64_t>(tokens_per_item(args), step.query_start[sequence + 1] - item.token);
  item.first = first_seen(args, step.positions[item.token]);
  item.end = step.positions[item.token] + 1;
  for (std::int64_t t = 1; t < item.tokens; ++t) {
    const std::int64_t position = step.positions[item.token + t];
    item.first = std::min(item.first, first_seen(args, position));
    item.end = std::max(item.end, position + 1);
  }
  return item;
}

// Calls f(item) for the items [begin, end) of the step's list.
template <class F>
void for_items(const AttentionArgs& args, std::int64_t begin, std::int64_t end, F&& f) {
  std::int64_t passed = 0;
  for (std::int64_t s = 0; s < args.step->sequences && passed < end; ++s) {
    const std::int64_t own = items_of(args, s);
    for (std::int64_t i = std::max(begin, passed); i < std::min(end, passed + own); ++i)
      f(item_in(args, s, i - passed));
    passed += own;
  }
}

void gather_queries(const AttentionArgs& args, const Item& item, Work& work) {
  const std::int64_t group = group_of(args);
  const std::int64_t dim = args.cache.head_dim;
  const Vec scale = set1(args.scale);
  for (std::int64_t r = 0; r < item.tokens * group; ++r) {
    const float* q = args.q + (item.token + r / group) * args.q_token + (item.head * group + r % group) * args.q_head;
    for_lanes(dim, [&](std::int64_t i, auto lanes) { write(work.q + r * dim + i, read(q + i, lanes) * scale, lanes); });
  }
}

// One cache (keys or values) seen as rows of a head: where a position's row lies.
template <class C>
struct Rows {
  const C* base;
  const std::int32_t* blocks;  // of the sequence
  std::int64_t block_tokens;
  std::int64_t kv_heads;
  std::int64_t head;
  std::int64_t dim;
  const C* at(std::int64_t position) const {
    return base + ((blocks[position / block_tokens] * kv_heads + head) * block_tokens + position % block_tokens) * dim;
  }
  // Positions from `position` on that lie one behind the other in memory, at most `limit`.
  std::int64_t run(std::int64_t position, std::int64_t limit) const {
    return std::min(limit, block_tokens - position % block_tokens);
  }
};

// Asks for the next tile's keys and values a few cache lines at a time, between the products of the current one: all at
// once they would only queue up in front of it.
class Ahead {
 public:
  template <class C>
  void add(const Rows<C>& rows, std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end;) {
      const std::int64_t run = rows.run(p, end - p);
      from_[runs_] = reinterpret_cast<const char*>(rows.at(p));
      bytes_[runs_] = run * rows.dim * static_cast<std::int64_t>(sizeof(C));
      lines_ += (bytes_[runs_] + 63) / 64;
      ++runs_;
      p += run;
    }
  }
  std::int64_t lines() const { return lines_; }
  void ask(std::int64_t lines) {
    while (lines-- > 0 && run_ < runs_) {
      prefetch_l2(from_[run_] + at_);
      at_ += 64;
      if (at_ >= bytes_[run_]) {
        at_ = 0;
        ++run_;
      }
    }
  }

 private:
  const char* from_[2 * kTile];
  std::int64_t bytes_[2 * kTile];
  int runs_ = 0;
  int run_ = 0;
  std::int64_t at_ = 0;
  std::int64_t lines_ = 0;
};

// Calls f(matrix, stride, first, count) for pieces of the tile's positions [begin, end): straight from the cache, or
// widened.
template <class C, class F>
void for_pieces(const Rows<C>& rows, std::int64_t begin, std::int64_t end, bool widened, float* wide, F&& f) {
  for (std::int64_t p = begin; p < end;) {
    const std::int64_t run = rows.run(p, end - p);
    if (widened)
      widen(rows.at(p), wide + (p - begin) * rows.dim, run * rows.dim);
    else
      f(rows.at(p), p - begin, run);
    p += run;
  }
  if (widened) f(static_cast<const float*>(wide), std::int64_t{0}, end - begin);
}

// out [MR, NV vectors] = out * rescale + sum over positions of weight * value.
template <int MR, int NV, class C, class Lanes>
FASTLLM_INLINE void weigh_tile(const float* weights, const C* v, std::int64_t v_stride, std::int64_t positions,
                               float* out, std::int64_t out_stride, const float* rescale, Lanes lanes) {
  Vec acc[MR][NV];
  FASTLLM_UNROLL for (int i = 0; i < MR; ++i) {
    const Vec by = set1(rescale[i]);
    FASTLLM_UNROLL for (int j = 0; j < NV; ++j) acc[i][j] = read(out + i * out_stride + j * kLanes, lanes) * by;
  }
  for (std::int64_t p = 0; p < positions; ++p) {
    Vec row[NV];
    FASTLLM_UNROLL for (int j = 0; j < NV; ++j) row[j] = read(v + p * v_stride + j * kLanes, lanes);
    FASTLLM_UNROLL for (int i = 0; i < MR; ++i) {
      const Vec weight = set1(weights[i * kTile + p]);
      FASTLLM_UNROLL for (int j = 0; j < NV; ++j) acc[i][j] = fma(weight, row[j], acc[i][j]);
    }
  }
  FASTLLM_UNROLL for (int i = 0; i < MR; ++i) {
    FASTLLM_UNROLL for (int j = 0; j < NV; ++j) write(out + i * out_stride + j * kLanes, acc[i][j], lanes);
  }
}

template <int MR, class C>
inline void weigh_rows(const float* weights, const C* v, std::int64_t dim, std::int64_t positions, float* out,
                       const float* rescale) {
  std::int64_t d = 0;
  for (; d + 4 * kLanes <= dim; d += 4 * kLanes)
    weigh_tile<MR, 4>(weights, v + d, dim, positions, out + d, dim, rescale, Whole{});
  for_lanes(dim - d, [&](std::int64_t i, auto lanes) {
    weigh_tile<MR, 1>(weights, v + d + i, dim, positions, out + d + i, dim, rescale, lanes);
  });
}

template <class C>
void weigh(const float* weights, const C* v, std::int64_t dim, std::int64_t positions, std::int64_t rows, float* out,
           const float* rescale) {
  for (std::int64_t i = 0; i < rows;) {
    const int count = next_rows(rows - i);
    const float* w = weights + i * kTile;
    float* o = out + i * dim;
    switch (count) {
      case 1:
        weigh_rows<1>(w, v, dim, positions, o, rescale + i);
        break;
      case 2:
        weigh_rows<2>(w, v, dim, positions, o, rescale + i);
        break;
      case 3:
        weigh_rows<3>(w, v, dim, positions, o, rescale + i);
        break;
#if FASTLLM_ISA_LEVEL == 2
      case 4:
        weigh_rows<4>(w, v, dim, positions, o, rescale + i);
        break;
      case 5:
        weigh_rows<5>(w, v, dim, positions, o, rescale + i);
        break;
      case 6:
        weigh_rows<6>(w, v, dim, positions, o, rescale + i);
        break;
#endif
      default:
        break;
    }
    i += count;
  }
}

float exp_one(float x) {
  float lanes[kLanes];
  store(lanes, exp(set1(x)));
  return lanes[0];
}

// Turns row r's scores of the tile into exponentials, updating its maximum and sum. [lo, hi): the positions of the tile
// it sees.
void soften(const AttentionArgs& args, Work& work, std::int64_t r, std::int64_t lo, std::int64_t hi) {
  float* s = work.scores + r * kTile;
  if (lo >= hi) {
    std::fill_n(s, kTile, 0.0f);
    work.rescale[r] = 1.0f;
    return;
  }
  if (args.softcap > 0) {
    const Vec cap = set1(args.softcap);
    for (std::int64_t i = 0; i < kTile; i += kLanes) store(s + i, tanh(load(s + i) / cap) * cap);
  }
  std::fill(s, s + lo, kNothing);
  std::fill(s + hi, s + kTile, kNothing);
  Vec tops = set1(kNothing);
  for (std::int64_t i = 0; i < kTile; i += kLanes) tops = vmax(load(s + i), tops);
  const float top = std::max(work.top[r], reduce_max(tops));
  const Vec shift = set1(top);
  Vec sums = set1(0.0f);
  for (std::int64_t i = 0; i < kTile; i += kLanes) {
    const Vec e = exp(load(s + i) - shift);
    store(s + i, e);
    sums = sums + e;
  }
  const float rescale = exp_one(work.top[r] - top);
  work.rescale[r] = rescale;
  work.sum[r] = work.sum[r] * rescale + reduce_add(sums);
  work.top[r] = top;
}

// Attention of the item's rows over positions [span, span + kSpan) alone: top, sum and out of `work`.
template <class C>
void walk_span(const AttentionArgs& args, const Item& item, std::int64_t span, Work& work) {
  const device::StepView& step = *args.step;
  const std::int64_t group = group_of(args);
  const std::int64_t rows = item.tokens * group;
  const std::int64_t dim = args.cache.head_dim;
  const std::int64_t v_dim = args.cache.v_head_dim;
  const std::int32_t* blocks = step.block_table + item.sequence * step.max_blocks;
  const Rows<C> keys{
      static_cast<const C*>(args.cache.k), blocks, step.block_tokens, args.cache.kv_heads, item.head, dim};
  const Rows<C> values{
      static_cast<const C*>(args.cache.v), blocks, step.block_tokens, args.cache.kv_heads, item.head, v_dim};
  const bool widened = sizeof(C) < sizeof(float) && rows > kTileM;
  const std::int64_t end = std::min(item.end, span + kSpan);
  std::fill_n(work.top, rows, kNothing);
  std::fill_n(work.sum, rows, 0.0f);
  std::fill_n(work.out, rows * v_dim, 0.0f);

  for (std::int64_t tile = std::max(span, item.first / kTile * kTile); tile < end; tile += kTile) {
    const std::int64_t begin = std::max(tile, item.first);  // positions that some row sees
    const std::int64_t stop = std::min(tile + kTile, end);
    Ahead ahead;
    if (rows <= kStreamRows && tile + kTile < item.end) {
      const std::int64_t next_end = std::min(tile + 2 * kTile, item.end);
      ahead.add(keys, tile + kTile, next_end);
      ahead.add(values, tile + kTile, next_end);
    }
    const std::int64_t share = (ahead.lines() + kTile / kTileN - 1) / (kTile / kTileN);
    std::fill_n(work.scores, rows * kTile, 0.0f);
    for_pieces(keys, begin, stop, widened, work.k, [&](const auto* k, std::int64_t first, std::int64_t count) {
      for (std::int64_t j = 0; j < count; j += kTileN) {
        const int columns = static_cast<int>(std::min<std::int64_t>(kTileN, count - j));
        ahead.ask(share);
        for (std::int64_t i = 0; i < rows;) {
          const int some = next_rows(rows - i);
          dot_columns<false>(some, columns, work.q + i * dim, dim, k + j * dim, dim, dim,
                             work.scores + i * kTile + (begin - tile) + first + j, kTile);
          i += some;
        }
      }
    });
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t position = step.positions[item.token + r / group];
      soften(args, work, r, std::max<std::int64_t>(0, first_seen(args, position) - tile),
             std::min(kTile, position + 1 - tile));
    }
    bool fresh = true;  // the sums so far are rescaled once a tile
    for_pieces(values, begin, stop, widened, work.v, [&](const auto* v, std::int64_t first, std::int64_t count) {
      if (!fresh) std::fill_n(work.rescale, rows, 1.0f);
      weigh(work.scores + (begin - tile) + first, v, v_dim, count, rows, work.out, work.rescale);
      fresh = false;
    });
  }
}

// Adds one span's result to that of the spans before it.
void merge(const AttentionArgs& args, std::int64_t rows, const float* top, const float* sum, const float* out,
           Work& work) {
  const std::int64_t v_dim = args.cache.v_head_dim;
  for (std::int64_t r = 0; r < rows; ++r) {
    if (sum[r] == 0.0f) continue;  // sees nothing of this span
    float* whole = work.whole + r * v_dim;
    const float* part = out + r * v_dim;
    if (work.whole_sum[r] == 0.0f) {
      std::copy_n(part, v_dim, whole);
      work.whole_top[r] = top[r];
      work.whole_sum[r] = sum[r];
      continue;
    }
    const float both = std::max(work.whole_top[r], top[r]);
    const float old_scale = exp_one(work.whole_top[r] - both);
    const float new_scale = exp_one(top[r] - both);
    work.whole_top[r] = both;
    work.whole_sum[r] = work.whole_sum[r] * old_scale + sum[r] * new_scale;
    const Vec a = set1(old_scale);
    const Vec b = set1(new_scale);
    for_lanes(v_dim, [&](std::int64_t i, auto lanes) {
      write(whole + i, fma(read(whole + i, lanes), a, read(part + i, lanes) * b), lanes);
    });
  }
}

void write_out(const AttentionArgs& args, const Item& item, const Work& work) {
  const std::int64_t group = group_of(args);
  const std::int64_t v_dim = args.cache.v_head_dim;
  for (std::int64_t r = 0; r < item.tokens * group; ++r) {
    float* y = args.y + (item.token + r / group) * args.y_token + (item.head * group + r % group) * args.y_head;
    const Vec by = set1(1.0f / work.whole_sum[r]);
    for_lanes(v_dim,
              [&](std::int64_t i, auto lanes) { write(y + i, read(work.whole + r * v_dim + i, lanes) * by, lanes); });
  }
}

template <class C>
void whole_item(const AttentionArgs& args, const Item& item, Work& work) {
  const std::int64_t rows = item.tokens * group_of(args);
  gather_queries(args, item, work);
  std::fill_n(work.whole_sum, rows, 0.0f);
  for (std::int64_t span = item.first / kSpan * kSpan; span < item.end; span += kSpan) {
    walk_span<C>(args, item, span, work);
    merge(args, rows, work.top, work.sum, work.out, work);
  }
  write_out(args, item, work);
}

// With few items and long caches the spans are shared among threads, too.
bool splits(std::int64_t items, std::int64_t spans, int threads) {
  return threads > 1 && items < 3 * threads && spans > items;
}

std::int64_t count_spans(const AttentionArgs& args, std::int64_t items) {
  std::int64_t spans = 0;
  for_items(args, 0, items, [&](const Item& item) { spans += item.spans(); });
  return spans;
}

std::int64_t partial_floats(const AttentionArgs& args) {
  return padded(rows_per_item(args) * (args.cache.v_head_dim + 2));
}

template <class C>
void split_items(const AttentionArgs& args, std::int64_t items, std::int64_t spans, core::ThreadPool& pool) {
  const std::int64_t size = partial_floats(args);
  const std::int64_t max_rows = rows_per_item(args);
  pool.parallel_for(spans, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
    Work work;
    carve(args, static_cast<float*>(args.scratch.of(worker)), &work);
    std::int64_t passed = 0;
    for_items(args, 0, items, [&](const Item& item) {
      const std::int64_t own = item.spans();
      const std::int64_t from = std::max(begin, passed);
      const std::int64_t to = std::min(end, passed + own);
      if (from < to) gather_queries(args, item, work);
      for (std::int64_t i = from; i < to; ++i) {
        walk_span<C>(args, item, (item.first / kSpan + i - passed) * kSpan, work);
        const std::int64_t rows = item.tokens * group_of(args);
        float* partial = args.partials + i * size;
        std::copy_n(work.top, rows, partial);
        std::copy_n(work.sum, rows, partial + max_rows);
        std::copy_n(work.out, rows * args.cache.v_head_dim, partial + 2 * max_rows);
      }
      passed += own;
    });
  });
  Work work;
  carve(args, static_cast<float*>(args.scratch.of(0)), &work);
  std::int64_t passed = 0;
  for_items(args, 0, items, [&](const Item& item) {
    const std::int64_t rows = item.tokens * group_of(args);
    std::fill_n(work.whole_sum, rows, 0.0f);
    for (std::int64_t i = 0; i < item.spans(); ++i) {
      const float* partial = args.partials + (passed + i) * size;
      merge(args, rows, partial, partial + max_rows, partial + 2 * max_rows, work);
    }
    write_out(args, item, work);
    passed += item.spans();
  });
}

}  // namespace

std::size_t attention_scratch(const AttentionArgs& args) {
  Work work;
  return static_cast<std::size_t>(carve(args, nullptr, &work)) * sizeof(float);
}

std::size_t attention_partials(const AttentionArgs& args, int threads) {
  const std::int64_t items = count_items(args);
  if (threads == 1 || items >= 3 * threads) return 0;
  const std::int64_t spans = count_spans(args, items);
  return splits(items, spans, threads) ? static_cast<std::size_t>(spans * partial_floats(args)) : 0;
}

void attention(const AttentionArgs& args, core::ThreadPool& pool) {
  const std::int64_t items = count_items(args);
  with_cache_type(args.cache.k, args.cache.dtype, [&](const auto* typed) {
    using C = std::remove_const_t<std::remove_pointer_t<decltype(typed)>>;
    if (args.partials) return split_items<C>(args, items, count_spans(args, items), pool);
    pool.parallel_for(items, std::max<std::int64_t>(1, items / (16 * pool.threads())),
                      [&](std::int64_t begin, std::int64_t end, int worker) {
                        Work work;
                        carve(args, static_cast<float*>(args.scratch.of(worker)), &work);
                        // From the back: later tokens see more, and the longest work should not come last.
                        for_items(args, items - end, items - begin,
                                  [&](const Item& item) { whole_item<C>(args, item, work); });
                      });
  });
}

}  // namespace fastllm::cpu::FASTLLM_ISA_NS
