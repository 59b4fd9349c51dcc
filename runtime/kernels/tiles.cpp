// How a product is cut into tiles. See tiles.h.
//
// x lies packed as [16 rows][step][plane][row][64 bytes], a step being what one tile of weights covers: one chunk of 32
// columns in bf16, two chunks in int8. A task takes some rows and some outputs; while columns of one pass are multiplied, its
// x stays in the second cache and the weights pass by. The unit takes numbers below the normal range for zeros, and spread
// weights multiply every x: one that is no finite number leaves none in its whole row, as a dense product does.

#include "amx.h"

#if VLMC_TILES
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace vlmc {

using namespace amx;

namespace {

constexpr int64_t kTilesInPass = 64;    // of weights: a strip of 32 outputs takes 128 KiB
constexpr size_t kTaskBytes = 1 << 20;  // of x in a pass: it stays in the second cache

// Fewer stay in the registers of a vector unit; and those that go in parts cost it less.
constexpr int64_t fewest_rows(int64_t type) { return type == kFloat32 ? 32 : type == kFloat16 ? 16 : 9; }

}  // namespace

// Blocks of outputs and columns that a strip covers.
struct Tiled::Part {
  int64_t block;
  int blocks;
  int64_t first_step, steps;
  int64_t row_tile_from, row_tile_to;
};

bool Tiled::present() {
  static const bool found = [] {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr unsigned bf16 = 1u << 22, tile = 1u << 24, int8 = 1u << 25, needed = bf16 | tile | int8;
    constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, of Linux 5.16 on
    return (d & needed) == needed && __builtin_cpu_supports("avx512vbmi") && syscall(SYS_arch_prctl, request, tile_data) == 0;
  }();
  return found;
}

bool Tiled::takes(const Product& product) {
  if (product.rows < fewest_rows(product.type) || product.inputs == 0) return false;
  if (product.type == kInt8 && product.round == kToInt8)
    return product.span % (2 * kChunk) == 0 && product.span / (2 * kChunk) <= kTilesInPass;
  return true;
}

Tiled::Tiled(const Product& product)
    : product_(product),
      whole_(product.type == kInt8 && product.round == kToInt8),
      planes_(whole_ || (product.type == kBfloat16 && product.round == kToBfloat16) ? 1 : 3),
      weight_planes_(parts_of(product.type)),
      row_tiles_(ceil_div(product.rows, kRows)),
      step_chunks_(whole_ ? 2 : 1),
      steps_(ceil_div(product.chunks(), step_chunks_)) {
  const int64_t span = whole_ ? std::max<int64_t>(1, product.span / kChunk / step_chunks_) : 1;
  steps_in_pass_ = kTilesInPass / weight_planes_ / span * span;
  const int64_t tile_bytes = std::min(steps_, steps_in_pass_) * planes_ * int64_t(kTile);
  const int64_t pairs = ceil_div(row_tiles_, kAtOnce), most = std::max<int64_t>(1, kTaskBytes / (kAtOnce * std::max<int64_t>(1, tile_bytes)));
  row_tasks_ = std::max<int64_t>(1, ceil_div(pairs, most));
  const int64_t blocks = product.blocks(), parts = ceil_div(kEnoughTasks, row_tasks_);
  blocks_in_task_ = std::max<int64_t>(1, ceil_div(ceil_div(blocks, parts), kAtOnce)) * kAtOnce;
  output_tasks_ = ceil_div(blocks, blocks_in_task_);
}

size_t Tiled::packed_floats() const {
  const size_t tiles = size_t(row_tiles_ * steps_ * planes_) * kTile / sizeof(float);
  return tiles + size_t(whole_ ? row_tiles_ * product_.spans() * kRows : 0) + kLine / sizeof(float);
}

const char* Tiled::tile(const float* packed, int64_t row_tile, int64_t step) const {
  const size_t past = reinterpret_cast<uintptr_t>(packed) % kLine;  // a row that lies in two lines takes twice as long
  return reinterpret_cast<const char*>(packed) + (past ? kLine - past : 0) + (row_tile * steps_ + step) * planes_ * kTile;
}

const float* Tiled::x_scales(const float* packed, int64_t row_tile) const {
  return reinterpret_cast<const float*>(tile(packed, row_tiles_, 0)) + row_tile * product_.spans() * kRows;
}

void Tiled::pack(int64_t task, float* packed) const {
  const int64_t first = task * kRows, rows = std::min<int64_t>(kRows, product_.rows - first), inputs = product_.inputs;
  char* to = const_cast<char*>(tile(packed, task, 0));
  if (rows < kRows || whole_) std::memset(to, 0, steps_ * planes_ * kTile);
  const float* x = product_.x + first * inputs;
  if (whole_)
    round_rows(x, rows, product_, {reinterpret_cast<int8_t*>(to), const_cast<float*>(x_scales(packed, task)), kRows, step_chunks_});
  for (int64_t row = 0; !whole_ && row < rows; row++) pack_row(x + row * inputs, inputs, planes_, to + row * kRowBytes);
}

void Tiled::run(int64_t task, const float* packed) const {
  const int64_t row_task = task / output_tasks_, from = task % output_tasks_ * blocks_in_task_;
  const int64_t to = std::min(from + blocks_in_task_, product_.blocks());
  Part part{};
  const int64_t pairs = ceil_div(row_tiles_, kAtOnce);
  part.row_tile_from = row_task * pairs / row_tasks_ * kAtOnce;
  part.row_tile_to = std::min((row_task + 1) * pairs / row_tasks_ * kAtOnce, row_tiles_);
  configure();
  for (part.first_step = 0; part.first_step < steps_; part.first_step += steps_in_pass_) {
    part.steps = std::min(steps_in_pass_, steps_ - part.first_step);
    for (part.block = from; part.block < to; part.block += kAtOnce) {
      part.blocks = int(std::min<int64_t>(kAtOnce, to - part.block));
      strip(part, packed);
    }
  }
  release();
}

// Some outputs and columns for all rows of the task: their weights are spread once.
void Tiled::strip(const Part& part, const float* packed) const {
  alignas(64) char spread[kAtOnce * kTilesInPass * kTile];
  const auto into_tile = spreading(product_, whole_);
  const int64_t all = product_.chunks(), from = part.first_step * step_chunks_;
  const int64_t to = std::min(from + part.steps * step_chunks_, all);
  const char* values = static_cast<const char*>(product_.values);
  const size_t chunk_bytes = product_.chunk_bytes(), apart = into_tile ? kTilesInPass * kTile : all * kTile;
  const char* weights = into_tile ? spread : values + (part.block * all + from) * chunk_bytes;
  for (int b = 0; into_tile && b < part.blocks; b++) {
    for (int64_t chunk = from; chunk < to; chunk++) {
      const int64_t at = (part.block + b) * all + chunk;
      const uint32_t* positions = product_.dense ? nullptr : product_.positions + at * kLanes;
      into_tile(values + at * chunk_bytes, positions, spread + b * apart + (chunk - from) * weight_planes_ * kTile / step_chunks_);
    }
    if (whole_ && (to - from) % step_chunks_)  // half of the last tile
      std::memset(spread + b * apart + (to - from) * kTile / step_chunks_, 0, kTile / step_chunks_);
  }
  for (int64_t tile = part.row_tile_from; tile < part.row_tile_to; tile += kAtOnce)
    rows(part, weights, apart, tile, int(std::min<int64_t>(kAtOnce, part.row_tile_to - tile)), packed);
}

// One or two tiles of rows. Where columns share scales, sums of one span after the other are scaled and gathered.
void Tiled::rows(const Part& part, const char* weights, size_t apart, int64_t row_tile, int tiles, const float* packed) const {
  alignas(64) float sums[kSums], total[kSums];
  const auto multiplied = products(whole_, tiles, part.blocks);
  const auto of_x = [&](int64_t step) { return Side{tile(packed, row_tile, step), size_t(steps_ * planes_) * kTile, planes_}; };
  const int64_t first = row_tile * kRows, end = part.first_step + part.steps;
  const Place place{part.block * kLanes, part.blocks, first, std::min<int64_t>(tiles * kRows, product_.rows - first)};
  for (int64_t r = 0; r < place.rows; r++)  // where sums go is on its way while they are summed
    for (int b = 0; b < place.blocks; b++) __builtin_prefetch(product_.y + (first + r) * product_.outputs + place.output + b * kLanes, 1);
  if (product_.type != kInt8) {
    multiplied(of_x(part.first_step), {weights, apart, weight_planes_}, part.steps, sums);
    if (part.first_step) add_before(product_, place, sums);
    return write(product_, place, sums, end == steps_);
  }
  std::memset(total, 0, sizeof total);
  if (part.first_step) add_before(product_, place, total);
  const int64_t span = product_.span / kChunk / step_chunks_, spans = product_.spans();
  for (int64_t from = part.first_step, to; from < end; from = to) {
    to = std::min(end, (from / span + 1) * span);
    multiplied(of_x(from), {weights + (from - part.first_step) * kTile, apart, weight_planes_}, to - from, sums);
    const float* scales_of_x = whole_ ? x_scales(packed, row_tile) + from / span * kRows : nullptr;
    gather(place, sums, {product_.scales + (part.block * spans + from / span) * kLanes, spans * kLanes, scales_of_x, spans * kRows}, total);
  }
  write(product_, place, total, end == steps_);
}

}  // namespace vlmc
#endif
