// Rows of x go in blocks that the innermost kernel takes at once. With one block of rows, weights stream through once.
// With several, columns are cut so that a block of x, or a strip of weights, stays in the first cache while all of the
// task's weights, or rows, pass by; and these stay in the second.

#include "matmul.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace vlmc {

namespace {

constexpr int64_t kTaskBytes = 512 << 10;  // of weights, where they stream through once
constexpr int64_t kRowBlocksInTask = 8;    // row blocks that pass one strip of weights
constexpr int64_t kChunksInPass = 16;      // 512 columns: 18 KiB of bf16 weights for 32 outputs
constexpr int64_t kBlocksInTask = 8;       // 128 outputs
constexpr int64_t kFewTasks = 4;           // of few rows: more streams of memory are worth more than more tasks

constexpr int64_t kMostSums = 16 * kLanes; // rows times blocks of the largest kernel

// As many of these blocks as a kernel takes at once.
constexpr int64_t at_once(int64_t blocks) { return blocks >= 6 ? 6 : blocks >= 4 ? 4 : blocks >= 2 ? 2 : 1; }

// The bits of bf16, rounded to nearest and ties to even; a NaN stays one.
inline uint16_t rounded(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return uint16_t(value != value ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

const InstructionSet* const kSets[] = {
#if defined(__x86_64__)
    &kAmx, &kAvx512, &kAvx2,
#elif defined(__aarch64__)
    &kNeon,
#endif
    &kPortable,
};

}  // namespace

const InstructionSet* choose(const char* name) {
  for (const InstructionSet* set : kSets)
    if (set->present() && (name == nullptr || *name == 0 || std::strcmp(name, set->name) == 0)) return set;
  return nullptr;
}

Matmul::Matmul(const Product& product, const InstructionSet& set)
    : product_(product), set_(set), tiles_(set.tiles && Tiled::takes(product)), tiled_(product) {
  const int64_t blocks = product.blocks(), chunks = product.chunks();
  row_blocks_ = ceil_div(product.rows, set.rows);
  row_tasks_ = ceil_div(row_blocks_, kRowBlocksInTask);
  most_blocks_ = set.blocks(int(ceil_div(product.rows, std::max<int64_t>(1, row_blocks_))));
  rounded_ = product.round == kToBfloat16 && product.type == kBfloat16 && !product.dense && row_blocks_ > 1 && set.find_rounded &&
             set.find_rounded(1, 1);
  if (rounded_) most_blocks_ = 2;
  const bool dense = product.dense != 0;
  whole_ = product.round == kToInt8 && product.type == kInt8 && set.find_whole && set.find_whole(dense, 1, 1);
  const int rows = int(ceil_div(product.rows, std::max<int64_t>(1, row_blocks_)));
  while (whole_ && most_blocks_ > 1 && !set.find_whole(dense, rows, most_blocks_)) most_blocks_ = int(at_once(most_blocks_ - 1));
  const int64_t enough = row_blocks_ <= 1 ? kFewTasks : kEnoughTasks;
  while (most_blocks_ > 1 && ceil_div(blocks, most_blocks_) * row_tasks_ < enough) most_blocks_ = int(at_once(most_blocks_ - 1));
  if (row_blocks_ <= 1) {
    const int64_t block_bytes = std::max<int64_t>(1, chunks * int64_t(product.chunk_bytes()));
    chunks_in_pass_ = chunks;
    apart_ = ceil_div(blocks, most_blocks_);
    blocks_in_task_ = std::min(kTaskBytes / (block_bytes * most_blocks_), apart_ / kEnoughTasks);
    blocks_in_task_ = std::max<int64_t>(1, blocks_in_task_);
    output_tasks_ = ceil_div(apart_, blocks_in_task_);
    return;
  }
  const int64_t span = product.type == kInt8 ? product.span / kChunk : 1;
  chunks_in_pass_ = whole_ ? chunks : std::max(span, kChunksInPass / span * span);  // whole: as for few rows, to the last bit
  blocks_in_task_ = std::min(kBlocksInTask, blocks * row_tasks_ / kEnoughTasks);
  blocks_in_task_ = ceil_div(std::max<int64_t>(1, blocks_in_task_), most_blocks_) * most_blocks_;
  output_tasks_ = ceil_div(blocks, blocks_in_task_);
}

size_t Matmul::packed_floats() const {
  if (tiles_) return tiled_.packed_floats();
  if (whole_) return size_t(product_.rows) * (product_.chunks() * kChunk / sizeof(float) + product_.spans());
  const bool as_it_is = product_.rows == 1 && product_.inputs % kChunk == 0;
  return as_it_is ? 0 : size_t(product_.rows) * product_.chunks() * kChunk;
}

void Matmul::pack(int64_t task, float* packed) const {
  if (tiles_) return tiled_.pack(task, packed);
  const int64_t at = first_row(task) * product_.chunks() * kChunk;
  if (whole_)
    pack_whole(task, packed);
  else if (rounded_)
    pack_as(task, reinterpret_cast<uint16_t*>(packed) + at, [](float value) { return rounded(value); });
  else
    pack_as(task, packed + at, [](float value) { return value; });
}

// The rows in int8, then all their scales.
void Matmul::pack_whole(int64_t task, float* packed) const {
#if defined(__x86_64__)
  const int64_t from = first_row(task), rows = first_row(task + 1) - from, all = product_.chunks() * kChunk;
  int8_t* to = reinterpret_cast<int8_t*>(packed) + from * all;
  round_rows(product_.x + from * product_.inputs, rows, product_, {to, x_scales(packed) + from * product_.spans(), rows, 1});
#endif
}

template <class T, class Convert>
void Matmul::pack_as(int64_t task, T* to, Convert convert) const {
  const int64_t from = first_row(task), rows = first_row(task + 1) - from, inputs = product_.inputs;
  const int64_t groups = product_.chunks() * kGroups;
  for (int64_t row = 0; row < rows; row++) {
    const float* x = product_.x + (from + row) * inputs;
    for (int64_t group = 0; group < groups; group++) {
      T* four = to + (group * rows + row) * kGroup;
      const int64_t left = inputs - group * kGroup;
      for (int i = 0; i < kGroup; i++) four[i] = i < left ? convert(x[group * kGroup + i]) : T(0);
    }
  }
}

void Matmul::run(int64_t task, const float* packed) const {
  if (tiles_) return tiled_.run(task, packed);
  const int64_t row_task = task / output_tasks_, output_task = task % output_tasks_;
  const int64_t row_from = row_task * row_blocks_ / row_tasks_, row_to = (row_task + 1) * row_blocks_ / row_tasks_;
  const int64_t blocks = product_.blocks(), from = output_task * blocks_in_task_;
  const int64_t to = std::min(from + blocks_in_task_, row_blocks_ <= 1 ? apart_ : blocks);
  if (product_.inputs == 0) return only_bias(first_row(row_from), first_row(row_to), row_blocks_ <= 1 ? 0 : from, row_blocks_ <= 1 ? blocks : to);
  if (row_blocks_ <= 1) {
    for (int64_t block = from; block < to; block++)
      for (int64_t next = block; next < blocks;) {
        const int count = int(std::min<int64_t>(most_blocks_, at_once(ceil_div(blocks - next, apart_))));
        run_blocks(next, count, apart_, row_from, 0, chunks_in_pass_, packed);
        next += count * apart_;
      }
    return;
  }
  for (int64_t chunk = 0; chunk < product_.chunks(); chunk += chunks_in_pass_) {
    const int64_t chunks = std::min(chunks_in_pass_, product_.chunks() - chunk);
    const auto pass = [&](int64_t rows_from, int64_t rows_to) {
      for (int64_t block = from; block < to;) {
        const int count = int(std::min<int64_t>(most_blocks_, at_once(to - block)));
        for (int64_t rows = rows_from; rows < rows_to; rows++) run_blocks(block, count, 1, rows, chunk, chunks, packed);
        block += count;
      }
    };
    if (!set_.x_stays) pass(row_from, row_to);
    for (int64_t rows = row_from; set_.x_stays && rows < row_to; rows++) pass(rows, rows + 1);
  }
}

// An empty sum: what remains is the bias.
void Matmul::only_bias(int64_t row, int64_t row_to, int64_t block, int64_t block_to) const {
  const float zeros[kLanes] = {};
  for (; row < row_to; row++)
    for (int64_t b = block; b < block_to; b++) add(zeros, kLanes, row, 1, b, true);
}

void Matmul::run_blocks(int64_t block, int count, int64_t apart, int64_t row_block, int64_t chunk, int64_t chunks,
                        const float* packed) const {
  const int64_t row = first_row(row_block), rows = first_row(row_block + 1) - row, all = product_.chunks();
  const float* x = packed_floats() ? packed : product_.x;
  const size_t chunk_bytes = product_.chunk_bytes();
  const int64_t spans = product_.spans(), span_chunks = product_.span / kChunk;
  Segment s{};
  s.x = x + (row * all + chunk * rows) * kChunk;
  s.rounded_x = reinterpret_cast<const uint16_t*>(packed) + (row * all + chunk * rows) * kChunk;
  s.whole_x = reinterpret_cast<const int8_t*>(packed) + (row * all + chunk * rows) * kChunk;
  s.values = static_cast<const char*>(product_.values) + (block * all + chunk) * chunk_bytes;
  s.values_stride = apart * all * chunk_bytes;
  s.chunks = chunks;
  s.rows = int(rows);
  s.blocks = count;
  if (!product_.dense) {
    s.positions = product_.positions + (block * all + chunk) * kLanes;
    s.positions_stride = apart * all * kLanes;
  }
  if (product_.type == kInt8) {
    s.scales = product_.scales + (block * spans + chunk / span_chunks) * kLanes;
    s.scales_stride = apart * spans * kLanes;
    s.span_chunks = span_chunks;
    if (whole_) s.x_scales = x_scales(packed) + row * spans + chunk / span_chunks * rows;
  }
  alignas(64) float sums[kMostSums];
  const Kernel kernel = whole_     ? set_.find_whole(product_.dense != 0, int(rows), count)
                        : rounded_ ? set_.find_rounded(int(rows), count)
                                   : set_.find(Type(product_.type), product_.dense != 0, int(rows), count);
  kernel(s, sums);
  for (int b = 0; b < count; b++) add(sums + b * kLanes, count * kLanes, row, rows, block + b * apart, chunk == 0);
}

// Puts the sums of some columns, `stride` from row to row, into y: with the bias at first, onto what is there later.
void Matmul::add(const float* sums, int64_t stride, int64_t row, int64_t rows, int64_t block, bool first) const {
  const int64_t at = block * kLanes, width = std::min<int64_t>(kLanes, product_.outputs - at);
  for (int64_t r = 0; r < rows; r++, sums += stride) {
    float* y = product_.y + (row + r) * product_.outputs + at;
    if (!first)
      for (int64_t i = 0; i < width; i++) y[i] += sums[i];
    else if (product_.bias)
      for (int64_t i = 0; i < width; i++) y[i] = sums[i] + product_.bias[at + i];
    else
      std::copy(sums, sums + width, y);
  }
}

}  // namespace vlmc
