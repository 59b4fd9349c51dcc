// A whole product, cut into tasks that any thread may take: first `pack` for all packing tasks, then `run` for all tasks.

#pragma once
#include "layout.h"
#include "tiles.h"

namespace vlmc {

// The best instruction set of this CPU, or the one that VLMC_CPU names (for tests); null: there is none of that name here.
const InstructionSet* choose(const char* name);

class Matmul {
 public:
  Matmul(const Product& product, const InstructionSet& set);

  // Floats that `packed` must have room for, 0 where x can be read as it is: one row, whole chunks, not rounded.
  size_t packed_floats() const;
  int64_t packing_tasks() const { return tiles_ ? tiled_.packing_tasks() : packed_floats() ? row_blocks_ : 0; }
  void pack(int64_t task, float* packed) const;

  int64_t tasks() const { return tiles_ ? tiled_.tasks() : row_tasks_ * output_tasks_; }
  void run(int64_t task, const float* packed) const;

 private:
  int64_t first_row(int64_t row_block) const { return row_block * product_.rows / row_blocks_; }
  void pack_whole(int64_t task, float* packed) const;
  template <class T>
  T* x_scales(T* packed) const {
    return packed + product_.rows * product_.chunks() * (kChunk / int64_t(sizeof(float)));
  }
  template <class T, class Convert>
  void pack_as(int64_t task, T* to, Convert convert) const;
  void only_bias(int64_t row, int64_t row_to, int64_t block, int64_t block_to) const;
  // `count` blocks from `block` on, `apart` from one to the next.
  void run_blocks(int64_t block, int count, int64_t apart, int64_t row_block, int64_t chunk, int64_t chunks,
                  const float* packed) const;
  void add(const float* sums, int64_t stride, int64_t row, int64_t rows, int64_t block, bool first) const;

  const Product product_;
  const InstructionSet& set_;
  const bool tiles_;  // whether the matrix unit takes it
  const Tiled tiled_;
  int64_t row_blocks_, row_tasks_, output_tasks_;
  int64_t blocks_in_task_, chunks_in_pass_;
  int64_t apart_ = 1;  // of few rows: blocks that are read side by side lie apart, and each stream goes on from task to task
  int most_blocks_;  // that the kernel takes at once
  bool rounded_;     // whether x is packed in bf16
  bool whole_;       // whether it is packed in int8
};

}  // namespace vlmc
