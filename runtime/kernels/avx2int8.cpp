// AVX2 for int8 weights where x may be rounded to int8: four products in a lane of 32 bits, whole numbers until a span ends.
//
// x is rounded to nearest with a scale of max|x| / 127 for each row and span. The 32 values of a row's chunk stand as those
// of groups 0 2 4 6, then those of groups 1 3 5 7, 16 bytes each. Two unpackings turn four groups of 16 outputs into the
// values of one output side by side, the first kept ones in a register's lower half and the second ones in its upper half;
// one look-up makes the places of both out of the positions. Weights are used for up to four rows once they are arranged.

#include "layout.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cfloat>
#include <cmath>
#include <cstring>

#define VLMC_TARGET __attribute__((target("avx2,fma")))
#define VLMC_INLINE VLMC_TARGET static inline __attribute__((always_inline))
#define VLMC_UNROLL _Pragma("GCC unroll 8")

namespace vlmc {
namespace avx2int8 {

using I = __m256i;

constexpr int kHalf = 8;  // outputs that are summed at once
constexpr int kRows = 4;  // rows for which weights are arranged once
constexpr size_t kAhead = 2048;  // bytes of values that one row asks memory for before they are needed
constexpr int kSecondCache = 2;  // where they go, as __builtin_prefetch has it

VLMC_INLINE I twice(const void* p) { return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p))); }

// Where the groups 0 2 4 6, or 1 3 5 7, begin in 16 bytes of x, for every output.
VLMC_INLINE I begins() { return _mm256_set1_epi32(0x0c080400); }

// The places in x of four groups' kept weights of four outputs, those of odd groups if `Odd`.
template <bool Odd>
VLMC_INLINE I kept(const uint32_t* positions) {
  const I places = _mm256_setr_epi8(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3,   // of the first, by four bits of positions
                                    0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);  // of the second
  I words = twice(positions);
  if (Odd) words = _mm256_srli_epi32(words, 4);
  const I nibbles = _mm256_and_si256(words, _mm256_set1_epi8(15));
  return _mm256_or_si256(_mm256_shuffle_epi8(places, nibbles), begins());
}

// The same of a dense weight's first two columns of each group, or of its last two.
VLMC_INLINE I columns(int pair) {
  const I one = _mm256_setr_epi64x(0, 0, 0x0101010101010101, 0x0101010101010101);
  return _mm256_or_si256(begins(), _mm256_or_si256(one, _mm256_set1_epi8(char(2 * pair))));
}

// Adds the products of four groups, `apart` registers from one to the next, of eight outputs of a block.
template <int R>
VLMC_INLINE void add(const I* values, int apart, bool upper, const I (&places)[2], const I (&x)[R], I (&sums)[R][2]) {
  const I y0 = _mm256_loadu_si256(values), y1 = _mm256_loadu_si256(values + apart);
  const I y2 = _mm256_loadu_si256(values + 2 * apart), y3 = _mm256_loadu_si256(values + 3 * apart);
  const I a = upper ? _mm256_unpackhi_epi8(y0, y1) : _mm256_unpacklo_epi8(y0, y1);
  const I b = upper ? _mm256_unpackhi_epi8(y2, y3) : _mm256_unpacklo_epi8(y2, y3);
  const I weights[2] = {_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)};
  VLMC_UNROLL for (int q = 0; q < 2; q++) {
    const I size = _mm256_abs_epi8(weights[q]);  // 128 at most, as an unsigned number
    VLMC_UNROLL for (int r = 0; r < R; r++) {
      const I other = _mm256_sign_epi8(_mm256_shuffle_epi8(x[r], places[q]), weights[q]);
      const I pairs = _mm256_maddubs_epi16(size, other);  // at most 2 * 128 * 127: it fits
      sums[r][q] = _mm256_add_epi32(sums[r][q], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
  }
}

template <bool Dense, bool Odd, int R>
VLMC_INLINE void four_groups(const char* values, const uint32_t* positions, bool upper, const char* x,
                             I (&sums)[R][2]) {
  constexpr int pairs = Dense ? 2 : 1;
  const I* groups = reinterpret_cast<const I*>(values) + Odd * pairs;
  I rows[R];
  VLMC_UNROLL for (int r = 0; r < R; r++) rows[r] = twice(x + r * kChunk + Odd * 16);
  VLMC_UNROLL for (int pair = 0; pair < pairs; pair++) {
    I places[2];
    VLMC_UNROLL for (int q = 0; q < 2; q++) places[q] = Dense ? columns(pair) : kept<Odd>(positions + 4 * q);
    add<R>(groups + pair, 2 * pairs, upper, places, rows, sums);
  }
}

// Adds one span's sums for R rows from row `from` on to those that are in `out`.
template <bool Dense, int R>
VLMC_INLINE void span_of(const Segment& s, int block, int from, int64_t span, float* out) {
  constexpr size_t chunk_bytes = kLanes * kGroups * (Dense ? 4 : 2);
  const int64_t first = span * s.span_chunks, last = first + s.span_chunks < s.chunks ? first + s.span_chunks : s.chunks;
  VLMC_UNROLL for (int half = 0; half < 2; half++) {
    I sums[R][2];
    VLMC_UNROLL for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
    for (int64_t chunk = first; chunk < last; chunk++) {
      const char* values = s.values + block * s.values_stride + chunk * chunk_bytes;
      const uint32_t* positions = Dense ? nullptr : s.positions + block * s.positions_stride + chunk * kLanes + half * kHalf;
      if (R == 1) {
        const char* ahead = values + kAhead + half * (chunk_bytes / 2);
        VLMC_UNROLL for (size_t at = 0; at < chunk_bytes / 2; at += kLine) __builtin_prefetch(ahead + at, 0, kSecondCache);
        if (!Dense && half == 0) __builtin_prefetch(positions + (1 + kAhead / chunk_bytes) * kLanes, 0, kSecondCache);
      }
      const char* x = reinterpret_cast<const char*>(s.whole_x) + (chunk * s.rows + from) * kChunk;
      four_groups<Dense, false, R>(values, positions, half, x, sums);
      four_groups<Dense, true, R>(values, positions, half, x, sums);
    }
    const __m256 scales = _mm256_loadu_ps(s.scales + block * s.scales_stride + span * kLanes + half * kHalf);
    VLMC_UNROLL for (int r = 0; r < R; r++) {
      const I lower = _mm256_permute2x128_si256(sums[r][0], sums[r][1], 0x20);
      const I upper = _mm256_permute2x128_si256(sums[r][0], sums[r][1], 0x31);
      const __m256 sum = _mm256_cvtepi32_ps(_mm256_add_epi32(lower, upper));
      const __m256 scale = _mm256_mul_ps(scales, _mm256_set1_ps(s.x_scales[span * s.rows + from + r]));
      float* to = out + ((from + r) * s.blocks + block) * kLanes + half * kHalf;
      _mm256_storeu_ps(to, _mm256_fmadd_ps(sum, scale, _mm256_loadu_ps(to)));
    }
  }
}

template <bool Dense, int R>
VLMC_TARGET void rows_of(const Segment& s, int block, int from, float* out) {
  const int64_t spans = (s.chunks + s.span_chunks - 1) / s.span_chunks;
  for (int64_t span = 0; span < spans; span++) span_of<Dense, R>(s, block, from, span, out);
}

template <bool Dense>
VLMC_TARGET void run(const Segment& s, float* out) {
  std::memset(out, 0, size_t(s.rows) * s.blocks * kLanes * sizeof(float));
  for (int block = 0; block < s.blocks; block++)
    for (int row = 0; row < s.rows; row += kRows) switch (s.rows - row) {
        case 1: rows_of<Dense, 1>(s, block, row, out); break;
        case 2: rows_of<Dense, 2>(s, block, row, out); break;
        case 3: rows_of<Dense, 3>(s, block, row, out); break;
        default: rows_of<Dense, 4>(s, block, row, out);
      }
}

// The scale of some columns; NaN where one of them is no finite number, as then no sum is one.
VLMC_TARGET float scale_of(const float* x, int64_t columns) {
  __m256 most = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
  const __m256 size = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  for (int64_t i = 0; i + 8 <= columns; i += 8) {
    const __m256 value = _mm256_and_ps(_mm256_loadu_ps(x + i), size);
    most = _mm256_max_ps(most, value);
    odd = _mm256_or_ps(odd, _mm256_cmp_ps(value, _mm256_set1_ps(FLT_MAX), _CMP_NLE_UQ));
  }
  alignas(32) float found[8];
  _mm256_store_ps(found, most);
  bool finite = _mm256_movemask_ps(odd) == 0;
  float largest = 0;
  for (float one : found) largest = one > largest ? one : largest;
  for (int64_t i = columns & ~int64_t(7); i < columns; i++) {
    const float one = std::fabs(x[i]);
    finite = finite && one <= FLT_MAX;
    largest = one > largest ? one : largest;
  }
  return finite ? largest / 127 : NAN;
}

// One chunk in whole numbers, in the order that the kernel reads.
VLMC_TARGET void round_chunk(const float* x, float factor, int8_t* to) {
  const __m256 by = _mm256_set1_ps(factor);
  I whole[4];
  VLMC_UNROLL for (int i = 0; i < 4; i++) whole[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), by));
  const I low = _mm256_packs_epi32(whole[0], whole[1]), high = _mm256_packs_epi32(whole[2], whole[3]);
  _mm256_storeu_si256(reinterpret_cast<I*>(to), _mm256_packs_epi16(low, high));
}

}  // namespace avx2int8

VLMC_TARGET void round_rows(const float* x, int64_t rows, const Product& product, const WholeRows& to) {
  const int64_t chunks = product.chunks(), inputs = product.inputs, span_chunks = product.span / kChunk;
  for (int64_t row = 0; row < rows; row++, x += inputs)
    for (int64_t chunk = 0, span = 0; chunk < chunks; span++) {
      const int64_t begin = chunk * kChunk, end = begin + product.span < inputs ? begin + product.span : inputs;
      const float scale = avx2int8::scale_of(x + begin, end - begin), factor = scale > FLT_MIN ? 1 / scale : 0;
      to.scales[span * to.places + row] = scale;
      for (int64_t i = 0; i < span_chunks && chunk < chunks; i++, chunk++) {
        float padded[kChunk] = {};
        const int64_t left = inputs - chunk * kChunk;
        if (left < kChunk) std::memcpy(padded, x + chunk * kChunk, size_t(left) * sizeof(float));
        int8_t* place = to.x + ((chunk / to.side * to.places + row) * to.side + chunk % to.side) * kChunk;
        avx2int8::round_chunk(left < kChunk ? padded : x + chunk * kChunk, factor, place);
      }
    }
}

// Any number of rows, and blocks one by one: side by side they would be streams of memory by turns.
Kernel find_whole(bool dense, int, int blocks) {
  static const bool present = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return !present || blocks > 1 ? nullptr : dense ? &avx2int8::run<true> : &avx2int8::run<false>;
}

}  // namespace vlmc
#endif
