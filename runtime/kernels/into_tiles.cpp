// Weights and x into tiles, with AVX-512. See amx.h.

#include "amx.h"

#if VLMC_TILES
#include <immintrin.h>

#define VLMC_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")))
#define VLMC_INLINE VLMC_TARGET static inline __attribute__((always_inline))
#define VLMC_UNROLL _Pragma("GCC unroll 16")

namespace vlmc {
namespace amx {

using I = __m512i;
using F = __m512;

constexpr int kQuiet = 0x00400000;  // a NaN keeps this bit in its upper half

// Where two of a group's four columns come from, for the four bits of its positions: bytes 0 and 1 for the first kept
// weight, 2 and 3 for the second, none for others.
struct Places {
  alignas(64) uint32_t bytes[16];
  constexpr explicit Places(uint32_t column) : bytes() {
    for (uint32_t positions = 0; positions < 16; positions++)
      for (uint32_t i = 0; i < 2; i++) {
        const bool first = (positions & 3) == column + i, second = positions >> 2 == column + i;
        bytes[positions] |= (first ? 0x0100u : second ? 0x0302u : 0x8080u) << 16 * i;
      }
  }
};

constexpr Places kLower{0}, kUpper{2};

template <Type T>
VLMC_INLINE F widened(const char* p) {
  if constexpr (T == kFloat32) return _mm512_loadu_ps(p);
  if constexpr (T == kFloat16) return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

// What the upper half of a weight leaves, exactly; a NaN of one that is not finite.
VLMC_INLINE F lower(F a) {
  const I upper = _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(-65536));
  return _mm512_sub_ps(a, _mm512_castsi512_ps(upper));
}

// Pairs of kept weights in bf16, in parts that add up to them.
template <Type T>
struct Pairs {
  I part[parts_of(T)];
};

template <Type T>
VLMC_INLINE Pairs<T> pairs(const char* p) {
  Pairs<T> found;
  if constexpr (T == kBfloat16) {
    found.part[0] = _mm512_loadu_si512(p);
  } else {
    F first = widened<T>(p), second = widened<T>(p + kLanes * size_of(T));
    for (int n = 0; n < parts_of(T); n++) {
      const I upper = _mm512_srli_epi32(_mm512_castps_si512(first), 16);
      found.part[n] = _mm512_mask_blend_epi16(0x55555555, _mm512_castps_si512(second), upper);
      first = lower(first), second = lower(second);
    }
  }
  return found;
}

// A chunk of 16 outputs as tiles of bf16, one for each part: [16 pairs of columns][16 outputs][2].
template <Type T, bool Dense>
VLMC_TARGET void spread(const char* values, const uint32_t* positions, char* to) {
  constexpr size_t pair_bytes = size_of(T) * kLanes * 2;
  constexpr int parts = parts_of(T);
  if constexpr (Dense) {
    VLMC_UNROLL for (int pair = 0; pair < kRows; pair++) {
      const auto both = pairs<T>(values + pair * pair_bytes);
      VLMC_UNROLL for (int n = 0; n < parts; n++) _mm512_store_si512(to + n * kTile + pair * kRowBytes, both.part[n]);
    }
  } else {
    const I lower = _mm512_load_si512(kLower.bytes), upper = _mm512_load_si512(kUpper.bytes);
    const I begins = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c));
    I places = _mm512_loadu_si512(positions);
    VLMC_UNROLL for (int group = 0; group < kGroups; group++) {
      const auto both = pairs<T>(values + group * pair_bytes);
      const I low = _mm512_or_si512(_mm512_permutexvar_epi32(places, lower), begins);  // reads four bits of each
      const I high = _mm512_or_si512(_mm512_permutexvar_epi32(places, upper), begins);
      VLMC_UNROLL for (int n = 0; n < parts; n++) {
        char* rows = to + n * kTile + 2 * group * kRowBytes;
        _mm512_store_si512(rows, _mm512_shuffle_epi8(both.part[n], low));
        _mm512_store_si512(rows + kRowBytes, _mm512_shuffle_epi8(both.part[n], high));
      }
      places = _mm512_srli_epi32(places, 4);
    }
  }
}

// A chunk of 16 outputs as half a tile of int8: [8 groups][16 outputs][4], the groups in the order that x has them.
template <bool Dense>
VLMC_TARGET void spread_whole(const char* values, const uint32_t* positions, char* to) {
  if constexpr (Dense) {
    alignas(64) uint8_t turned[64];
    for (int i = 0; i < 64; i++) turned[i] = uint8_t(i % 4 * kLanes + i / 4);
    const I turn = _mm512_load_si512(turned);
    VLMC_UNROLL for (int group = 0; group < kGroups; group++)
      _mm512_store_si512(to + (group / 2 + group % 2 * 4) * kRowBytes,
                         _mm512_permutexvar_epi8(turn, _mm512_loadu_si512(values + group * 4 * kLanes)));
  } else {
    const I bits = _mm512_set1_epi32(0x18);  // of a place, times eight
    I places = _mm512_loadu_si512(positions);
    VLMC_UNROLL for (int group = 0; group < kGroups; group++) {
      const char* two = values + group * 2 * kLanes;
      const I first = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(two)));
      const I second = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(two + kLanes)));
      const I at_first = _mm512_and_si512(_mm512_slli_epi32(places, 3), bits);
      const I at_second = _mm512_and_si512(_mm512_slli_epi32(places, 1), bits);
      const I four = _mm512_or_si512(_mm512_sllv_epi32(first, at_first), _mm512_sllv_epi32(second, at_second));
      _mm512_store_si512(to + (group / 2 + group % 2 * 4) * kRowBytes, four);
      places = _mm512_srli_epi32(places, 4);
    }
  }
}

Spread spreading(const Product& product, bool whole) {
  if (whole) return product.dense ? spread_whole<true> : spread_whole<false>;
  switch (product.type) {
    case kInt8: return product.dense ? spread<kInt8, true> : spread<kInt8, false>;
    case kFloat16: return product.dense ? spread<kFloat16, true> : spread<kFloat16, false>;
    case kFloat32: return product.dense ? spread<kFloat32, true> : spread<kFloat32, false>;
    default: return product.dense ? nullptr : spread<kBfloat16, false>;  // dense bf16 lies in tiles as it is
  }
}

// The upper halves of 32 numbers: what they are in bf16 if the rest is cut off.
VLMC_INLINE I upper_halves(F a, F b) {
  alignas(64) static constexpr struct Odd {
    uint16_t at[32];
    constexpr Odd() : at() {
      for (int i = 0; i < 32; i++) at[i] = uint16_t(2 * i + 1);
    }
  } kOdd;
  return _mm512_permutex2var_epi16(_mm512_castps_si512(a), _mm512_load_si512(kOdd.at), _mm512_castps_si512(b));
}

// Adds what rounds the upper half to nearest and ties to even once the rest is cut off; a NaN stays one.
VLMC_INLINE F rounded(F a) {
  const I bits = _mm512_castps_si512(a);
  const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __mmask16 number = _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q);
  const I quiet = _mm512_or_si512(bits, _mm512_set1_epi32(kQuiet));
  return _mm512_castsi512_ps(_mm512_mask_add_epi32(quiet, number, bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))));
}

// Numbers that go in parts, each the upper half nearest to what those before it leave, so that they add up to them exactly.
struct Parts {
  F left;
  __mmask16 finite, rounds;
};

VLMC_INLINE Parts in_parts(F a) {
  const I bits = _mm512_castps_si512(a), magnitude = _mm512_slli_epi32(bits, 1);
  const __mmask16 finite = _mm512_cmplt_epu32_mask(magnitude, _mm512_set1_epi32(int(0xff000000)));
  const __mmask16 rounds = _mm512_cmplt_epu32_mask(magnitude, _mm512_set1_epi32(int(0xfeff0000)));  // more would be infinite
  const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  return {_mm512_castsi512_ps(_mm512_mask_or_epi32(bits, nan, bits, _mm512_set1_epi32(kQuiet))), finite, rounds};
}

VLMC_INLINE F next(Parts& parts) {
  const I bits = _mm512_castps_si512(parts.left);
  const I near = _mm512_mask_add_epi32(bits, parts.rounds, bits, _mm512_set1_epi32(0x8000));
  const F upper = _mm512_castsi512_ps(_mm512_and_si512(near, _mm512_set1_epi32(-65536)));
  parts.left = _mm512_maskz_sub_ps(parts.finite, parts.left, upper);
  return upper;
}

VLMC_INLINE __mmask16 first_of(int64_t many) { return __mmask16(many >= 16 ? 0xffff : many <= 0 ? 0 : (1 << many) - 1); }

VLMC_TARGET void pack_row(const float* x, int64_t inputs, int planes, char* to) {
  for (int64_t column = 0; column < inputs; column += kChunk) {
    const int64_t left = inputs - column;
    const F a = _mm512_maskz_loadu_ps(first_of(left), x + column), b = _mm512_maskz_loadu_ps(first_of(left - 16), x + column + 16);
    if (planes == 1) {
      _mm512_storeu_si512(to, upper_halves(rounded(a), rounded(b)));
      to += kTile;
      continue;
    }
    Parts of_a = in_parts(a), of_b = in_parts(b);
    for (int plane = 0; plane < planes; plane++, to += kTile) _mm512_storeu_si512(to, upper_halves(next(of_a), next(of_b)));
  }
}

}  // namespace amx
}  // namespace vlmc
#endif
