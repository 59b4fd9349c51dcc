// What tiles.cpp has from the CPU: AMX's instructions in amx.cpp, and with AVX-512 what brings weights and x into tiles and
// sums out of them (into_tiles.cpp, out_of_tiles.cpp).

#pragma once
#include "tiles.h"

#if VLMC_TILES

namespace vlmc {
namespace amx {

constexpr int kRows = 16;        // of a tile
constexpr size_t kRowBytes = 64;  // of a tile
constexpr size_t kTile = kRows * kRowBytes;
constexpr int kAtOnce = 2;       // tiles of x, and of weights, that make four tiles of sums
constexpr size_t kSums = kAtOnce * kRows * kAtOnce * kLanes;

// Tells the unit how large tiles are, for this thread; lets it rest.
void configure();
void release();

// Multiplies one or two tiles of rows with one or two blocks of outputs over some steps, and writes the sums [row][block][16]:
// fp32, or int32 of whole numbers. Steps have some planes each, the largest parts first; a plane of weights meets one plane of x
// less than the one before. From tile to tile and from block to block it is so far.
struct Side {
  const char* tiles;
  size_t apart;
  int planes;
};
using Multiply = void (*)(const Side& x, const Side& weights, int64_t steps, float* sums);
Multiply products(bool whole, int tiles, int blocks);

// In how many parts weights of a type go.
constexpr int parts_of(int64_t type) { return type == kFloat32 ? 3 : type == kFloat16 ? 2 : 1; }

// Writes a chunk of 16 outputs as a tile of bf16 for each part, or as half a tile of int8. Null: the weights lie in tiles as
// they are.
using Spread = void (*)(const char* values, const uint32_t* positions, char* to);
Spread spreading(const Product& product, bool whole);

// Writes one row of x, rounded to bf16 or in three parts that add up to it, tile after tile.
void pack_row(const float* x, int64_t inputs, int planes, char* to);

// Where in y sums [row][block][16] belong.
struct Place {
  int64_t output;
  int blocks;
  int64_t row, rows;
};

void add_before(const Product& product, const Place& place, float* sums);               // adds what is in y
void write(const Product& product, const Place& place, const float* sums, bool last);  // into y, with the bias if these are the last

// Adds sums of one span, times its scales: of the weights [block][16], `apart` from block to block, and, of whole numbers, of x
// [tile][16]. Whole numbers' are added as the kernel for few rows adds them: a row's answer is the same whatever stands beside it.
struct Scales {
  const float* weights;
  int64_t apart;
  const float* x;  // null: x is not rounded
  int64_t x_apart;
};
void gather(const Place& place, const float* sums, const Scales& scales, float* total);

}  // namespace amx
}  // namespace vlmc
#endif
