// How a weight W (outputs x inputs) lies in memory, and what one product y = x W^T + bias is given.
//
// Outputs go in blocks of 16, one output per vector lane; inputs go in chunks of 32 columns, which are 8 groups of 4.
// A 2:4 weight keeps two weights of every group:
//   positions  uint32 [block][chunk][16]       bits 4g and 4g+1 hold where group g's first kept weight stands among its
//                                              four columns, bits 4g+2 and 4g+3 where the second one does
//   values     [block][chunk][8 groups][2][16] the first kept weight of 16 outputs, then the second; bf16 has its pairs
//                                              side by side instead, [16][2], so that one shift or mask widens them
//   scales     fp32 [block][scale group][16]   int8 only: `span` columns share one, a multiple of 32
// A dense weight (for layers that are not 2:4) has no positions and [4] in place of [2], as two pairs.
// Missing outputs and columns are zeros. The layout is the same for every instruction set, so a file runs anywhere.

#pragma once
#include <cstddef>
#include <cstdint>

namespace vlmc {

constexpr int kLanes = 16;  // outputs in a block
constexpr int kGroup = 4;   // columns in a group
constexpr int kGroups = 8;  // groups in a chunk
constexpr int kChunk = 32;  // columns in a chunk
constexpr int kLine = 64;   // bytes that memory gives at once

constexpr int64_t kEnoughTasks = 16;  // of a product, for threads to share

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

enum Type : int { kFloat32 = 0, kBfloat16 = 1, kFloat16 = 2, kInt8 = 3 };

// Of x: not at all; to bf16, with many rows and bf16 weights; to int8 with a scale for each row and span, with int8 weights.
enum Rounding : int { kExact = 0, kToBfloat16 = 1, kToInt8 = 2 };

constexpr size_t size_of(Type type) { return type == kFloat32 ? 4 : type == kInt8 ? 1 : 2; }

// Also the argument of the plain C entry: keep runtime/kernels/native.py in step.
struct Product {
  int64_t rows, inputs, outputs;
  int64_t type;    // Type
  int64_t dense;   // 0: 2:4, 1: dense
  int64_t span;    // int8: columns that share a scale
  int64_t round;   // Rounding: what x may be rounded to where that is quicker
  const float* x;  // rows x inputs
  const void* values;
  const uint32_t* positions;
  const float* scales;
  const float* bias;  // outputs, or null
  float* y;           // rows x outputs

  int64_t blocks() const { return ceil_div(outputs, kLanes); }
  int64_t chunks() const { return ceil_div(inputs, kChunk); }
  int64_t spans() const { return type == kInt8 ? ceil_div(inputs, span) : 0; }
  size_t chunk_bytes() const { return size_of(Type(type)) * kLanes * kGroups * (dense ? 4 : 2); }
};

// A part of a product for the innermost kernel: some blocks of outputs, some rows of x, a range of chunks.
struct Segment {
  const float* x;  // [chunk][group][row][4], from the first chunk of the range on
  const uint16_t* rounded_x;  // the same in bf16, for kernels that take that
  const int8_t* whole_x;      // in int8, [chunk][row][32], the groups in the order 0 2 4 6 1 3 5 7
  const float* x_scales;      // of these, [span][row]
  const char* values;
  const uint32_t* positions;
  const float* scales;
  size_t values_stride, positions_stride, scales_stride;  // from block to block: bytes, elements, elements
  int64_t chunks;
  int64_t span_chunks;
  int rows, blocks;
};

// Writes the sums [row][block][16].
using Kernel = void (*)(const Segment&, float* sums);

// What one instruction set offers: at most `rows` rows at once, and for so many rows at most `blocks(rows)` blocks, 1, 2,
// 4 or 6. `find` returns the kernel for these.
struct InstructionSet {
  const char* name;
  int rows;
  int (*blocks)(int rows);
  bool (*present)();
  Kernel (*find)(Type type, bool dense, int rows, int blocks);
  Kernel (*find_rounded)(int rows, int blocks);  // of 2:4 bf16 weights, one or two blocks; null, or returns null: not here
  Kernel (*find_whole)(bool dense, int rows, int blocks);  // of int8 weights and x in int8; null also for too many blocks
  bool x_stays;  // with many rows: a block of x stays in the first cache and the weights pass by, or the other way round
  bool tiles = false;  // products of many rows may go to the matrix unit: see tiles.h
};

extern const InstructionSet kAmx, kAvx512, kAvx2, kNeon, kPortable;
Kernel find_rounded(int rows, int blocks);  // of AVX-512
Kernel find_whole(bool dense, int rows, int blocks);  // of AVX2
Kernel find_bytes(bool dense, int rows, int blocks);  // of AVX-512, else of AVX2

// Where rows of x in int8 go: [chunk / side][row][chunk % side][32], with room for `places` rows; their scales [span][row].
struct WholeRows {
  int8_t* x;
  float* scales;
  int64_t places, side;
};

// Writes rows of x in int8, groups in the order that Segment has, and their scales.
void round_rows(const float* x, int64_t rows, const Product& product, const WholeRows& to);

}  // namespace vlmc
