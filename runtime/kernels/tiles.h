// A whole product by a matrix unit, with the interface of Matmul: Intel's AMX, for more rows than fit in registers.
//
// The unit multiplies tiles of 16 rows by 64 bytes: in one instruction, 32 columns of bf16 or 64 of int8, sixteen times what
// a vector does. Weights are spread out to whole columns, zeros included, a strip of outputs at a time, for all rows of a
// task. Where x may not be rounded, it goes as three bf16 numbers that add up to it exactly (8 + 8 + 8 bits of its 24): three
// products with bf16 or int8 weights, and no digit is lost. So do weights of fp32, and of fp16 as two: of these products those
// are left out that are less than an fp32 product rounds, three of nine and one of six (Henry, Tang, Heinecke 2019, "Leveraging
// the bfloat16 artificial intelligence datatype for higher-precision computations").

#pragma once
#include "layout.h"

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define VLMC_TILES 1
#else
#define VLMC_TILES 0
#endif

namespace vlmc {

#if VLMC_TILES

class Tiled {
 public:
  explicit Tiled(const Product& product);

  // Whether this is a product for the matrix unit; whether the CPU has one and the kernel lends it to this process.
  static bool takes(const Product& product);
  static bool present();

  size_t packed_floats() const;
  int64_t packing_tasks() const { return row_tiles_; }
  void pack(int64_t task, float* packed) const;
  int64_t tasks() const { return row_tasks_ * output_tasks_; }
  void run(int64_t task, const float* packed) const;

 private:
  struct Part;

  const char* tile(const float* packed, int64_t row_tile, int64_t step) const;
  const float* x_scales(const float* packed, int64_t row_tile) const;
  void strip(const Part& part, const float* packed) const;
  void rows(const Part& part, const char* weights, size_t apart, int64_t row_tile, int tiles, const float* packed) const;

  const Product product_;
  const bool whole_;          // x is rounded to int8
  const int planes_;          // tiles that x takes for one step
  const int weight_planes_;   // and that the weights do
  const int64_t row_tiles_;   // of 16 rows
  const int64_t step_chunks_; // chunks in a tile of weights
  const int64_t steps_;
  int64_t steps_in_pass_, row_tasks_, output_tasks_, blocks_in_task_;
};

#else

class Tiled {
 public:
  explicit Tiled(const Product&) {}
  static bool takes(const Product&) { return false; }
  static bool present() { return false; }
  size_t packed_floats() const { return 0; }
  int64_t packing_tasks() const { return 0; }
  void pack(int64_t, float*) const {}
  int64_t tasks() const { return 0; }
  void run(int64_t, const float*) const {}
};

#endif

}  // namespace vlmc
