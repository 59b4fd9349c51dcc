// AVX-512 (F, BW, DQ, VL): 16 outputs in one register, up to 8 rows and 2 blocks at once.

#include "tiles.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define VLMC_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define VLMC_INLINE VLMC_TARGET static inline __attribute__((always_inline))
#define VLMC_UNROLL _Pragma("GCC unroll 16")

namespace vlmc {
namespace avx512 {

struct Vectors {
  using F = __m512;
  using I = __m512i;
  static constexpr int lanes = 16, rows = 8, chains = 4;
  static constexpr int blocks(int rows) { return rows <= 2 ? 6 : rows <= 4 ? 4 : 2; }
  static constexpr int at_once(bool, int) { return 1; }

  VLMC_INLINE F zero() { return _mm512_setzero_ps(); }
  VLMC_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
  VLMC_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  VLMC_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
  VLMC_INLINE F repeat(const float* p) { return _mm512_set1_ps(*p); }
  VLMC_INLINE void store(float* p, F a) { _mm512_storeu_ps(p, a); }
  VLMC_INLINE I positions(const uint32_t* p) { return _mm512_loadu_si512(p); }
  template <int Bits>
  VLMC_INLINE I right(I a) {
    return _mm512_srli_epi32(a, Bits);
  }
  VLMC_INLINE I control(I position) { return position; }  // vpermilps reads the two lowest bits only
  VLMC_INLINE F four(const float* p) { return _mm512_broadcast_f32x4(_mm_loadu_ps(p)); }
  VLMC_INLINE F select(F four, I control) { return _mm512_permutevar_ps(four, control); }

  template <Type T>
  VLMC_INLINE void pair(const char* p, int, F& first, F& second) {
    if constexpr (T == kFloat32) {
      first = _mm512_loadu_ps(p);
      second = _mm512_loadu_ps(p + 64);
    } else if constexpr (T == kBfloat16) {
      const I both = _mm512_loadu_si512(p);
      first = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
      second = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(-65536)));
    } else if constexpr (T == kFloat16) {
      first = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
      second = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32)));
    } else {
      first = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
      second = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16))));
    }
  }
};

#include "kernel.h"

static bool present() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

}  // namespace avx512

static bool with_tiles() { return avx512::present() && Tiled::present(); }

extern const InstructionSet kAmx = {"amx", avx512::Vectors::rows, avx512::Vectors::blocks, with_tiles, avx512::find, find_rounded, find_bytes, false, true};
extern const InstructionSet kAvx512 = {"avx512", avx512::Vectors::rows, avx512::Vectors::blocks, avx512::present, avx512::find, find_rounded, find_bytes, false};

}  // namespace vlmc
#endif
