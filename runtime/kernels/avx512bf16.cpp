// AVX-512 with bf16 products, for many rows where x may be rounded to bf16: two columns in one multiply-add.
//
// The pairs of kept weights stay in bf16 as they lie in memory. For each group the four x of a row stand in every 64 bits of
// a register, and a shuffle of bytes, made from the positions once for all rows, puts the two that are wanted side by side.

#include "layout.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define VLMC_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define VLMC_UNROLL _Pragma("GCC unroll 16")

namespace vlmc {
namespace avx512bf16 {

// Where the bytes of the first and of the second value are, for the four bits of a group's positions.
alignas(64) constexpr uint32_t kBytes[16] = {
    0x01000100, 0x01000302, 0x01000504, 0x01000706, 0x03020100, 0x03020302, 0x03020504, 0x03020706,
    0x05040100, 0x05040302, 0x05040504, 0x05040706, 0x07060100, 0x07060302, 0x07060504, 0x07060706,
};

template <int R, int B>
VLMC_TARGET void run(const Segment& s, float* out) {
  const uint16_t* x = s.rounded_x;
  const char* values = s.values;
  const __m512i bytes = _mm512_load_si512(kBytes);
  __m512 sums[R][B];
  VLMC_UNROLL for (int r = 0; r < R; r++)
    VLMC_UNROLL for (int b = 0; b < B; b++) sums[r][b] = _mm512_setzero_ps();
  for (int64_t chunk = 0; chunk < s.chunks; chunk++) {
    __m512i positions[B];
    VLMC_UNROLL for (int b = 0; b < B; b++)
      positions[b] = _mm512_loadu_si512(s.positions + b * s.positions_stride + chunk * kLanes);
    for (int g = 0; g < kGroups; g++, x += R * kGroup, values += 64) {
      __m512i pairs[B], control[B];
      VLMC_UNROLL for (int b = 0; b < B; b++) {
        pairs[b] = _mm512_loadu_si512(values + b * s.values_stride);
        control[b] = _mm512_permutexvar_epi32(positions[b], bytes);  // reads four bits of each
        positions[b] = _mm512_srli_epi32(positions[b], 4);
      }
      VLMC_UNROLL for (int r = 0; r < R; r++) {
        const __m512i four = _mm512_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x + r * kGroup)));
        VLMC_UNROLL for (int b = 0; b < B; b++)
          sums[r][b] = _mm512_dpbf16_ps(sums[r][b], (__m512bh)pairs[b], (__m512bh)_mm512_shuffle_epi8(four, control[b]));
      }
    }
  }
  VLMC_UNROLL for (int r = 0; r < R; r++)
    VLMC_UNROLL for (int b = 0; b < B; b++) _mm512_storeu_ps(out + (r * B + b) * kLanes, sums[r][b]);
}

template <int R>
Kernel of_rows(int rows, int blocks) {
  if constexpr (R == 0)
    return nullptr;
  else
    return rows != R ? of_rows<R - 1>(rows, blocks) : blocks == 2 ? &run<R, 2> : &run<R, 1>;
}

}  // namespace avx512bf16

Kernel find_rounded(int rows, int blocks) {
  static const bool present = __builtin_cpu_supports("avx512bf16");
  return present ? avx512bf16::of_rows<8>(rows, blocks) : nullptr;
}

}  // namespace vlmc
#endif
