// Sums out of tiles into y, with AVX-512. See amx.h.

#include "amx.h"

#if VLMC_TILES
#include <immintrin.h>

#define VLMC_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")))
#define VLMC_INLINE VLMC_TARGET static inline __attribute__((always_inline))

namespace vlmc {
namespace amx {

using F = __m512;

// Of a block's outputs, those that there are.
VLMC_INLINE __mmask16 there(const Product& product, int64_t output) {
  const int64_t width = product.outputs - output;
  return __mmask16(width >= kLanes ? 0xffff : (1 << width) - 1);
}

VLMC_TARGET void add_before(const Product& product, const Place& place, float* sums) {
  for (int b = 0; b < place.blocks; b++) {
    const int64_t output = place.output + b * kLanes;
    const __mmask16 mask = there(product, output);
    for (int64_t r = 0; r < place.rows; r++) {
      float* sum = sums + (r * place.blocks + b) * kLanes;
      const F before = _mm512_maskz_loadu_ps(mask, product.y + (place.row + r) * product.outputs + output);
      _mm512_store_ps(sum, _mm512_add_ps(before, _mm512_load_ps(sum)));
    }
  }
}

VLMC_TARGET void write(const Product& product, const Place& place, const float* sums, bool last) {
  for (int b = 0; b < place.blocks; b++) {
    const int64_t output = place.output + b * kLanes;
    const __mmask16 mask = there(product, output);
    const bool biased = last && product.bias;
    const F bias = biased ? _mm512_maskz_loadu_ps(mask, product.bias + output) : _mm512_setzero_ps();
    for (int64_t r = 0; r < place.rows; r++) {
      const F sum = _mm512_load_ps(sums + (r * place.blocks + b) * kLanes);
      _mm512_mask_storeu_ps(product.y + (place.row + r) * product.outputs + output, mask, biased ? _mm512_add_ps(sum, bias) : sum);
    }
  }
}

template <bool Whole>
VLMC_TARGET void gather_as(const Place& place, const float* sums, const Scales& scales, float* total) {
  F of_weights[kAtOnce] = {};
  for (int b = 0; b < place.blocks; b++) of_weights[b] = _mm512_loadu_ps(scales.weights + b * scales.apart);
  for (int64_t r = 0; r < place.rows; r++) {
    const F of_x = Whole ? _mm512_set1_ps(scales.x[r / kRows * scales.x_apart + r % kRows]) : _mm512_setzero_ps();
    for (int b = 0; b < place.blocks; b++, sums += kLanes, total += kLanes) {
      const F sum = Whole ? _mm512_cvtepi32_ps(_mm512_load_si512(sums)) : _mm512_load_ps(sums);
      const F scale = Whole ? _mm512_mul_ps(of_weights[b], of_x) : of_weights[b];
      _mm512_store_ps(total, _mm512_fmadd_ps(sum, scale, _mm512_load_ps(total)));
    }
  }
}

void gather(const Place& place, const float* sums, const Scales& scales, float* total) {
  (scales.x ? gather_as<true> : gather_as<false>)(place, sums, scales, total);
}

}  // namespace amx
}  // namespace vlmc
#endif
