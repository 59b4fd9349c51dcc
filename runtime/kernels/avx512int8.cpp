// AVX-512 with byte products (VNNI) and byte permutations (VBMI), for int8 weights where x may be rounded to int8: four
// columns in a lane in one instruction, whole numbers until a span ends. Every sum is what AVX2's kernel makes of it.
//
// x is packed as for that kernel. A register of values holds two groups of 16 outputs, and one permutation puts an output's
// four kept weights side by side. All four places are in one byte of its positions: a shift for every byte, and another
// permutation picks what they stand for out of the row's 32 numbers. The instruction multiplies numbers without a sign by
// numbers with one, so 128 is added to x, and what that adds to a sum is summed beside it, once for all rows.

#include "layout.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define VLMC_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")))
#define VLMC_INLINE VLMC_TARGET static inline __attribute__((always_inline))
#define VLMC_UNROLL _Pragma("GCC unroll 16")

namespace vlmc {
namespace avx512int8 {

using I = __m512i;
using F = __m512;

constexpr size_t kAhead = 6144;  // bytes of values that one row asks memory for before they are needed, of all streams

// Bytes of an index or of counts, made by a function of their number.
struct Bytes {
  alignas(64) uint8_t at[64];
  template <class Make>
  constexpr explicit Bytes(Make make) : at() {
    for (int i = 0; i < 64; i++) at[i] = uint8_t(make(i));
  }
};

constexpr Bytes kTurned{[](int i) { return i % 4 * kLanes + i / 4; }};         // four bytes of each output side by side
constexpr Bytes kShifts{[](int i) { return i % 8 / 4 * 32 + i % 4 * 2; }};     // to a lane's four places in its lowest byte
constexpr Bytes kBegins{[](int i) { return i % 4 / 2 * 16; }};                 // of the first and of the second group in x

VLMC_INLINE I table(const Bytes& bytes) { return _mm512_load_si512(bytes.at); }

template <bool Dense, int R, int B>
VLMC_TARGET void run(const Segment& s, float* out) {
  constexpr size_t chunk_bytes = kLanes * kGroups * (Dense ? 4 : 2), ahead = kAhead / B / kLine * kLine;
  const I turned = table(kTurned), high = _mm512_set1_epi8(char(0x80)), three = _mm512_set1_epi8(3);
  F total[R][B];
  VLMC_UNROLL for (int r = 0; r < R; r++)
    VLMC_UNROLL for (int b = 0; b < B; b++) total[r][b] = _mm512_setzero_ps();
  int64_t span = 0;
  for (int64_t from = 0; from < s.chunks; from += s.span_chunks, span++) {
    const int64_t to = from + s.span_chunks < s.chunks ? from + s.span_chunks : s.chunks;
    I sums[R][B], added[B];
    VLMC_UNROLL for (int b = 0; b < B; b++) {
      added[b] = _mm512_setzero_si512();
      VLMC_UNROLL for (int r = 0; r < R; r++) sums[r][b] = _mm512_setzero_si512();
    }
    for (int64_t chunk = from; chunk < to; chunk++) {
      const char* values = s.values + chunk * chunk_bytes;
      const int8_t* x = s.whole_x + chunk * R * kChunk;
      if (R == 1)
        VLMC_UNROLL for (int b = 0; b < B; b++)
          VLMC_UNROLL for (size_t at = 0; at < chunk_bytes; at += kLine) __builtin_prefetch(values + b * s.values_stride + ahead + at);
      if constexpr (Dense) {
        VLMC_UNROLL for (int group = 0; group < kGroups; group++) {
          I weights[B];
          VLMC_UNROLL for (int b = 0; b < B; b++) {
            weights[b] = _mm512_permutexvar_epi8(turned, _mm512_loadu_si512(values + b * s.values_stride + group * 64));
            added[b] = _mm512_dpbusd_epi32(added[b], high, weights[b]);
          }
          VLMC_UNROLL for (int r = 0; r < R; r++) {
            int32_t four;
            __builtin_memcpy(&four, x + r * kChunk + group / 2 * 4 + group % 2 * 16, 4);
            const I picked = _mm512_xor_si512(_mm512_set1_epi32(four), high);
            VLMC_UNROLL for (int b = 0; b < B; b++) sums[r][b] = _mm512_dpbusd_epi32(sums[r][b], picked, weights[b]);
          }
        }
      } else {
        I row[R], positions[B];
        VLMC_UNROLL for (int b = 0; b < B; b++) {
          const uint32_t* at = s.positions + b * s.positions_stride + chunk * kLanes;
          if (R == 1) __builtin_prefetch(at + (1 + ahead / chunk_bytes) * kLanes);
          positions[b] = _mm512_loadu_si512(at);
        }
        VLMC_UNROLL for (int r = 0; r < R; r++)
          row[r] = _mm512_xor_si512(_mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + r * kChunk))), high);
        VLMC_UNROLL for (int two = 0; two < kGroups / 2; two++) {
          const I shifts = _mm512_add_epi8(table(kShifts), _mm512_set1_epi8(char(8 * two)));
          const I begins = _mm512_add_epi8(table(kBegins), _mm512_set1_epi8(char(4 * two)));
          VLMC_UNROLL for (int b = 0; b < B; b++) {
            const I weights = _mm512_permutexvar_epi8(turned, _mm512_loadu_si512(values + b * s.values_stride + two * 64));
            const I places = _mm512_ternarylogic_epi64(_mm512_multishift_epi64_epi8(shifts, positions[b]), three, begins, 0xea);  // a & b | c
            added[b] = _mm512_dpbusd_epi32(added[b], high, weights);
            VLMC_UNROLL for (int r = 0; r < R; r++)
              sums[r][b] = _mm512_dpbusd_epi32(sums[r][b], _mm512_permutexvar_epi8(places, row[r]), weights);
          }
        }
      }
    }
    VLMC_UNROLL for (int b = 0; b < B; b++) {
      const F scales = _mm512_loadu_ps(s.scales + b * s.scales_stride + span * kLanes);
      VLMC_UNROLL for (int r = 0; r < R; r++) {
        const F scale = _mm512_mul_ps(scales, _mm512_set1_ps(s.x_scales[span * R + r]));
        total[r][b] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(sums[r][b], added[b])), scale, total[r][b]);
      }
    }
  }
  VLMC_UNROLL for (int r = 0; r < R; r++)
    VLMC_UNROLL for (int b = 0; b < B; b++) _mm512_storeu_ps(out + (r * B + b) * kLanes, total[r][b]);
}

template <bool Dense, int R = 8>
Kernel of_rows(int rows, int blocks) {
  if constexpr (R == 0) {
    return nullptr;
  } else {
    if (rows != R) return of_rows<Dense, R - 1>(rows, blocks);
    constexpr int most = R <= 2 ? 6 : R <= 4 ? 4 : 2;
    if (blocks == 1) return &run<Dense, R, 1>;
    if (blocks == 2) return &run<Dense, R, 2>;
    if constexpr (most >= 4)
      if (blocks == 4) return &run<Dense, R, 4>;
    if constexpr (most >= 6)
      if (blocks == 6) return &run<Dense, R, 6>;
    return nullptr;
  }
}

}  // namespace avx512int8

Kernel find_bytes(bool dense, int rows, int blocks) {
  static const bool present = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
  if (!present) return find_whole(dense, rows, blocks);
  return dense ? avx512int8::of_rows<true>(rows, blocks) : avx512int8::of_rows<false>(rows, blocks);
}

}  // namespace vlmc
#endif
