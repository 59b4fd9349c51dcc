// AVX2 with FMA and F16C: 8 outputs in a register, two registers to a block, up to 8 rows at once.

#include "layout.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

#define VLMC_TARGET __attribute__((target("avx2,fma,f16c")))
#define VLMC_INLINE VLMC_TARGET static inline __attribute__((always_inline))
#define VLMC_UNROLL _Pragma("GCC unroll 16")

namespace vlmc {
namespace avx2 {

struct Vectors {
  using F = __m256;
  using I = __m256i;
  static constexpr int lanes = 8, rows = 8, chains = 2;
  static constexpr int blocks(int rows) { return rows == 1 ? 2 : 1; }
  static constexpr int at_once(bool dense, int rows) { return !dense && rows > 4 ? 1 : 2; }

  VLMC_INLINE F zero() { return _mm256_setzero_ps(); }
  VLMC_INLINE F add(F a, F b) { return _mm256_add_ps(a, b); }
  VLMC_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  VLMC_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
  VLMC_INLINE F repeat(const float* p) { return _mm256_broadcast_ss(p); }
  VLMC_INLINE void store(float* p, F a) { _mm256_storeu_ps(p, a); }
  VLMC_INLINE I positions(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const I*>(p)); }
  template <int Bits>
  VLMC_INLINE I right(I a) {
    return _mm256_srli_epi32(a, Bits);
  }
  VLMC_INLINE I control(I position) { return position; }  // vpermilps reads the two lowest bits only
  VLMC_INLINE F four(const float* p) { return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p)); }
  VLMC_INLINE F select(F four, I control) { return _mm256_permutevar_ps(four, control); }

  // `half` is 0 for the block's first eight outputs, 1 for the others.
  template <Type T>
  VLMC_INLINE void pair(const char* p, int half, F& first, F& second) {
    if constexpr (T == kFloat32) {
      first = _mm256_loadu_ps(reinterpret_cast<const float*>(p + 32 * half));
      second = _mm256_loadu_ps(reinterpret_cast<const float*>(p + 64 + 32 * half));
    } else if constexpr (T == kBfloat16) {
      const I both = _mm256_loadu_si256(reinterpret_cast<const I*>(p + 32 * half));
      first = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
      second = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(-65536)));
    } else if constexpr (T == kFloat16) {
      first = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * half)));
      second = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 32 + 16 * half)));
    } else {
      first = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8 * half))));
      second = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 16 + 8 * half))));
    }
  }
};

#include "kernel.h"

static bool present() {
  unsigned a, b, c, d;
  constexpr unsigned f16c = 1u << 29;  // of which not every compiler's own question knows
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __get_cpuid(1, &a, &b, &c, &d) && (c & f16c);
}

}  // namespace avx2

extern const InstructionSet kAvx2 = {"avx2", avx2::Vectors::rows, avx2::Vectors::blocks, avx2::present, avx2::find, nullptr, find_whole, true};

}  // namespace vlmc
#endif
