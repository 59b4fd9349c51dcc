// AMX's own instructions. See tiles.h.

#include "amx.h"

#if VLMC_TILES
#include <immintrin.h>

#define VLMC_TARGET __attribute__((target("amx-tile,amx-bf16,amx-int8")))
#define VLMC_UNROLL _Pragma("GCC unroll 16")

namespace vlmc {
namespace amx {

constexpr size_t kAhead = 3 * kTile;  // of x: one step

VLMC_TARGET void configure() {
  struct {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } tiles;
  for (int tile = 0; tile < 8; tile++) tiles.row_bytes[tile] = kRowBytes, tiles.rows[tile] = kRows;
  asm volatile("" ::"r"(&tiles) : "memory");  // the intrinsic says that it reads eight bytes
  _tile_loadconfig(&tiles);
}

VLMC_TARGET void release() { _tile_release(); }

// A macro, as the intrinsics take the names of tiles from the text of their arguments.
#define VLMC_MULTIPLY(sums, x, weights)    \
  if constexpr (Whole)                     \
    _tile_dpbssd(sums, x, weights);        \
  else                                     \
    _tile_dpbf16ps(sums, x, weights)

template <bool Whole, int A, int B>
VLMC_TARGET void product_of(const Side& of_x, const Side& of_weights, int64_t steps, float* sums) {
  const char *x = of_x.tiles, *weights = of_weights.tiles;
  _tile_zero(0);
  if constexpr (B > 1) _tile_zero(1);
  if constexpr (A > 1) _tile_zero(2);
  if constexpr (A > 1 && B > 1) _tile_zero(3);
  for (int64_t step = 0; step < steps; step++, x += of_x.planes * kTile) {
    for (int part = 0; part < of_weights.planes; part++, weights += kTile) {
      _tile_loadd(6, weights, kRowBytes);
      if constexpr (B > 1) _tile_loadd(7, weights + of_weights.apart, kRowBytes);
      const char* plane = x;
      for (int planes = of_x.planes - part; planes > 0; planes--, plane += kTile) {
        if (!Whole && part == 0)  // the next step's x on its way from the second cache
          for (int a = 0; a < A; a++)
            VLMC_UNROLL for (size_t at = 0; at < kTile; at += kLine) __builtin_prefetch(plane + a * of_x.apart + kAhead + at);
        _tile_loadd(4, plane, kRowBytes);
        if constexpr (A > 1) _tile_loadd(5, plane + of_x.apart, kRowBytes);
        VLMC_MULTIPLY(0, 4, 6);
        if constexpr (B > 1) {
          VLMC_MULTIPLY(1, 4, 7);
        }
        if constexpr (A > 1) {
          VLMC_MULTIPLY(2, 5, 6);
        }
        if constexpr (A > 1 && B > 1) {
          VLMC_MULTIPLY(3, 5, 7);
        }
      }
    }
  }
  constexpr size_t row_bytes = B * kLanes * sizeof(float);
  _tile_stored(0, sums, row_bytes);
  if constexpr (B > 1) _tile_stored(1, sums + kLanes, row_bytes);
  if constexpr (A > 1) _tile_stored(2, sums + kRows * B * kLanes, row_bytes);
  if constexpr (A > 1 && B > 1) _tile_stored(3, sums + kRows * B * kLanes + kLanes, row_bytes);
}

template <bool Whole>
Multiply of_size(int tiles, int blocks) {
  return tiles > 1 ? blocks > 1 ? &product_of<Whole, 2, 2> : &product_of<Whole, 2, 1>
                   : blocks > 1 ? &product_of<Whole, 1, 2> : &product_of<Whole, 1, 1>;
}

Multiply products(bool whole, int tiles, int blocks) { return whole ? of_size<true>(tiles, blocks) : of_size<false>(tiles, blocks); }

}  // namespace amx
}  // namespace vlmc
#endif
