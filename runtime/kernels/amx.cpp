// AMX: tiles of x and of weights, multiplied into tiles of sums. See tiles.h.
//
// x lies packed as [16 rows][step][plane][row][64 bytes], a step being what one tile of weights covers: one chunk of 32
// columns in bf16, two chunks in int8. A task takes some rows and some outputs; while columns of one pass are multiplied, its
// x stays in the second cache and the weights pass by. The unit takes numbers below the normal range for zeros, and spread
// weights multiply every x: one that is no finite number leaves none in its whole row, as a dense product does.

#include "tiles.h"

#if VLMC_TILES
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#define VLMC_TARGET __attribute__((target("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")))
#define VLMC_INLINE VLMC_TARGET static inline __attribute__((always_inline))
#define VLMC_UNROLL _Pragma("GCC unroll 16")

namespace vlmc {
namespace amx {

using I = __m512i;
using F = __m512;

constexpr int kRows = 16;              // of a tile
constexpr size_t kRowBytes = 64;       // of a tile
constexpr size_t kTile = kRows * kRowBytes;
constexpr size_t kAhead = 3 * kTile;  // of x
constexpr int kAtOnce = 2;             // tiles of x, and of weights, that make four tiles of sums
constexpr int64_t kFewestRows = 9;     // fewer stay in the registers of a vector unit,
constexpr int64_t kFewestWhole = 3;    // which is slower in whole numbers
constexpr int64_t kStepsInPass = 64;   // a strip of 32 outputs takes 128 KiB
constexpr size_t kTaskBytes = 1 << 20;  // of x in a pass: it stays in the second cache
constexpr int64_t kEnoughTasks = 16;   // for threads to share

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Tells the unit how large tiles are: all of them whole.
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

// Pairs of kept weights as they are in bf16, of bf16 or int8 weights.
template <Type T>
VLMC_INLINE I pairs(const char* p) {
  if constexpr (T == kBfloat16) return _mm512_loadu_si512(p);
  const F first = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  const F second = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + kLanes))));
  const I upper = _mm512_castps_si512(second);  // whole numbers of 8 bits: what is cut off is zeros
  return _mm512_mask_blend_epi16(0x55555555, upper, _mm512_srli_epi32(_mm512_castps_si512(first), 16));
}

// A chunk of 16 outputs as a tile of bf16: [16 pairs of columns][16 outputs][2].
template <Type T, bool Dense>
VLMC_TARGET void spread(const char* values, const uint32_t* positions, char* to) {
  constexpr size_t pair_bytes = size_of(T) * kLanes * 2;
  if constexpr (Dense) {
    VLMC_UNROLL for (int pair = 0; pair < kRows; pair++)
      _mm512_store_si512(to + pair * kRowBytes, pairs<T>(values + pair * pair_bytes));
  } else {
    const I lower = _mm512_load_si512(kLower.bytes), upper = _mm512_load_si512(kUpper.bytes);
    const I begins = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c));
    I places = _mm512_loadu_si512(positions);
    VLMC_UNROLL for (int group = 0; group < kGroups; group++) {
      const I both = pairs<T>(values + group * pair_bytes);
      const I low = _mm512_or_si512(_mm512_permutexvar_epi32(places, lower), begins);  // reads four bits of each
      const I high = _mm512_or_si512(_mm512_permutexvar_epi32(places, upper), begins);
      _mm512_store_si512(to + 2 * group * kRowBytes, _mm512_shuffle_epi8(both, low));
      _mm512_store_si512(to + (2 * group + 1) * kRowBytes, _mm512_shuffle_epi8(both, high));
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

using Spread = void (*)(const char*, const uint32_t*, char*);

Spread spreading(const Product& product, bool whole) {
  if (whole) return product.dense ? spread_whole<true> : spread_whole<false>;
  if (product.type == kInt8) return product.dense ? spread<kInt8, true> : spread<kInt8, false>;
  return product.dense ? nullptr : spread<kBfloat16, false>;  // dense bf16 lies in tiles as it is
}

// A macro, as the intrinsics take the names of tiles from the text of their arguments.
#define VLMC_MULTIPLY(sums, x, weights)    \
  if constexpr (Whole)                     \
    _tile_dpbssd(sums, x, weights);        \
  else                                     \
    _tile_dpbf16ps(sums, x, weights)

// Multiplies A tiles of rows with B blocks of outputs over some steps, and writes the sums as [16 A][16 B].
template <bool Whole, int A, int B>
VLMC_TARGET void product_of(const char* x, size_t x_apart, int planes, const char* weights, size_t apart, int64_t steps, float* sums) {
  _tile_zero(0);
  if constexpr (B > 1) _tile_zero(1);
  if constexpr (A > 1) _tile_zero(2);
  if constexpr (A > 1 && B > 1) _tile_zero(3);
  for (int64_t step = 0; step < steps; step++, weights += kTile) {
    _tile_loadd(6, weights, kRowBytes);
    if constexpr (B > 1) _tile_loadd(7, weights + apart, kRowBytes);
    for (int plane = 0; plane < planes; plane++, x += kTile) {
      if constexpr (!Whole)  // the next step's x on its way from the second cache
        for (int a = 0; a < A; a++)
          VLMC_UNROLL for (size_t at = 0; at < kTile; at += kLine) __builtin_prefetch(x + a * x_apart + kAhead + at);
      _tile_loadd(4, x, kRowBytes);
      if constexpr (A > 1) _tile_loadd(5, x + x_apart, kRowBytes);
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
  constexpr size_t row_bytes = B * kLanes * sizeof(float);
  _tile_stored(0, sums, row_bytes);
  if constexpr (B > 1) _tile_stored(1, sums + kLanes, row_bytes);
  if constexpr (A > 1) _tile_stored(2, sums + kRows * B * kLanes, row_bytes);
  if constexpr (A > 1 && B > 1) _tile_stored(3, sums + kRows * B * kLanes + kLanes, row_bytes);
}

template <bool Whole>
auto products(int tiles, int blocks) {
  return tiles > 1 ? blocks > 1 ? &product_of<Whole, 2, 2> : &product_of<Whole, 2, 1>
                   : blocks > 1 ? &product_of<Whole, 1, 2> : &product_of<Whole, 1, 1>;
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

// What is left of a number when its upper half is taken away, exactly; nothing of one that is not finite.
VLMC_INLINE F rest(F a) {
  const F upper = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(-65536)));
  const __mmask16 finite = _knot_mask16(_mm512_fpclass_ps_mask(a, 0x99));  // no NaN, no infinity
  return _mm512_maskz_sub_ps(finite, a, upper);
}

// A NaN keeps a bit in its upper half.
VLMC_INLINE F quiet(F a) {
  const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  return _mm512_castsi512_ps(_mm512_mask_or_epi32(_mm512_castps_si512(a), nan, _mm512_castps_si512(a), _mm512_set1_epi32(0x00400000)));
}

// Adds what rounds the upper half to nearest and ties to even once the rest is cut off; a NaN stays one.
VLMC_INLINE F rounded(F a) {
  const I bits = _mm512_castps_si512(a);
  const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __mmask16 number = _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q);
  return quiet(_mm512_castsi512_ps(_mm512_mask_add_epi32(bits, number, bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)))));
}

// One row of x, rounded to bf16 or in three parts that add up to it.
VLMC_TARGET void pack_row(const float* x, int64_t inputs, int planes, char* to) {
  for (int64_t column = 0; column < inputs; column += kChunk) {
    const int64_t left = inputs - column;
    const auto mask = [](int64_t many) { return __mmask16(many >= 16 ? 0xffff : many <= 0 ? 0 : (1 << many) - 1); };
    F a = _mm512_maskz_loadu_ps(mask(left), x + column), b = _mm512_maskz_loadu_ps(mask(left - 16), x + column + 16);
    a = planes == 1 ? rounded(a) : quiet(a), b = planes == 1 ? rounded(b) : quiet(b);
    for (int plane = 0; plane < planes; plane++, to += kTile) {
      _mm512_storeu_si512(to, upper_halves(a, b));
      a = rest(a), b = rest(b);
    }
  }
}

// Sums [rows][blocks][16] and where in y they belong.
struct Place {
  int64_t output;
  int blocks;
  int64_t row, rows;
};

constexpr size_t kSums = kAtOnce * kRows * kAtOnce * kLanes;

// Of a block's outputs, those that there are.
VLMC_INLINE __mmask16 there(const Product& product, int64_t output) {
  const int64_t width = product.outputs - output;
  return __mmask16(width >= kLanes ? 0xffff : (1 << width) - 1);
}

// Adds what is in y.
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

// Adds scaled sums of one span. Those of whole numbers are added as the kernel for few rows adds them, so that a row's answer
// is the same whatever stands beside it.
template <bool Whole>
VLMC_TARGET void gather(const Place& place, const float* sums, const float* scales, int64_t scales_apart, const float* x_scales,
                        int64_t x_scales_apart, float* total) {
  F scale[kAtOnce];
  for (int b = 0; b < kAtOnce; b++) scale[b] = b < place.blocks ? _mm512_loadu_ps(scales + b * scales_apart) : _mm512_setzero_ps();
  for (int64_t r = 0; r < place.rows; r++) {
    const F of_row = Whole ? _mm512_set1_ps(x_scales[r / kRows * x_scales_apart + r % kRows]) : _mm512_setzero_ps();
    for (int b = 0; b < place.blocks; b++, sums += kLanes, total += kLanes) {
      const F sum = Whole ? _mm512_cvtepi32_ps(_mm512_load_si512(sums)) : _mm512_load_ps(sums);
      const F by = Whole ? _mm512_mul_ps(scale[b], of_row) : scale[b];
      _mm512_store_ps(total, _mm512_fmadd_ps(sum, by, _mm512_load_ps(total)));
    }
  }
}

}  // namespace amx

using namespace amx;

// Blocks of outputs and columns that a strip covers.
struct Tiled::Part {
  int64_t block;
  int blocks;
  int64_t first_step, steps;
  int64_t row_tile_from, row_tile_to;
};

bool Tiled::present() {
  static const bool found = [] {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr unsigned bf16 = 1u << 22, tile = 1u << 24, int8 = 1u << 25, needed = bf16 | tile | int8;
    constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, of Linux 5.16 on
    return (d & needed) == needed && __builtin_cpu_supports("avx512vbmi") && syscall(SYS_arch_prctl, request, tile_data) == 0;
  }();
  return found;
}

bool Tiled::takes(const Product& product) {
  if (product.inputs == 0) return false;
  if (product.type == kInt8 && product.round == kToInt8)
    return product.rows >= kFewestWhole && product.span % (2 * kChunk) == 0 && product.span / (2 * kChunk) <= kStepsInPass;
  return product.rows >= kFewestRows && (product.type == kInt8 || product.type == kBfloat16);
}

Tiled::Tiled(const Product& product)
    : product_(product),
      whole_(product.type == kInt8 && product.round == kToInt8),
      planes_(whole_ || (product.type == kBfloat16 && product.round == kToBfloat16) ? 1 : 3),
      row_tiles_(ceil_div(product.rows, kRows)),
      step_chunks_(whole_ ? 2 : 1),
      steps_(ceil_div(product.chunks(), step_chunks_)) {
  const int64_t tile_bytes = std::min(steps_, kStepsInPass) * planes_ * int64_t(kTile);
  const int64_t pairs = ceil_div(row_tiles_, kAtOnce), most = std::max<int64_t>(1, kTaskBytes / (kAtOnce * std::max<int64_t>(1, tile_bytes)));
  row_tasks_ = std::max<int64_t>(1, ceil_div(pairs, most));
  const int64_t blocks = product.blocks(), parts = ceil_div(kEnoughTasks, row_tasks_);
  blocks_in_task_ = std::max<int64_t>(1, ceil_div(ceil_div(blocks, parts), kAtOnce)) * kAtOnce;
  output_tasks_ = ceil_div(blocks, blocks_in_task_);
}

size_t Tiled::packed_floats() const {
  const size_t tiles = size_t(row_tiles_ * steps_ * planes_) * kTile / sizeof(float);
  return tiles + size_t(whole_ ? row_tiles_ * product_.spans() * kRows : 0) + kLine / sizeof(float);
}

const char* Tiled::tile(const float* packed, int64_t row_tile, int64_t step) const {
  const size_t past = reinterpret_cast<uintptr_t>(packed) % kLine;  // a row that lies in two lines takes twice as long
  return reinterpret_cast<const char*>(packed) + (past ? kLine - past : 0) + (row_tile * steps_ + step) * planes_ * kTile;
}

const float* Tiled::x_scales(const float* packed, int64_t row_tile) const {
  return reinterpret_cast<const float*>(tile(packed, row_tiles_, 0)) + row_tile * product_.spans() * kRows;
}

void Tiled::pack(int64_t task, float* packed) const {
  const int64_t first = task * kRows, rows = std::min<int64_t>(kRows, product_.rows - first), inputs = product_.inputs;
  char* to = const_cast<char*>(tile(packed, task, 0));
  if (rows < kRows || whole_) std::memset(to, 0, steps_ * planes_ * kTile);
  const float* x = product_.x + first * inputs;
  if (whole_)
    round_rows(x, rows, product_, {reinterpret_cast<int8_t*>(to), const_cast<float*>(x_scales(packed, task)), kRows, step_chunks_});
  for (int64_t row = 0; !whole_ && row < rows; row++) pack_row(x + row * inputs, inputs, planes_, to + row * kRowBytes);
}

void Tiled::run(int64_t task, const float* packed) const {
  const int64_t row_task = task / output_tasks_, from = task % output_tasks_ * blocks_in_task_;
  const int64_t to = std::min(from + blocks_in_task_, product_.blocks());
  Part part{};
  const int64_t pairs = ceil_div(row_tiles_, kAtOnce);
  part.row_tile_from = row_task * pairs / row_tasks_ * kAtOnce;
  part.row_tile_to = std::min((row_task + 1) * pairs / row_tasks_ * kAtOnce, row_tiles_);
  const int64_t span = whole_ ? product_.span / kChunk / step_chunks_ : 1;
  const int64_t in_pass = kStepsInPass / span * span;
  configure();
  for (part.first_step = 0; part.first_step < steps_; part.first_step += in_pass) {
    part.steps = std::min(in_pass, steps_ - part.first_step);
    for (part.block = from; part.block < to; part.block += kAtOnce) {
      part.blocks = int(std::min<int64_t>(kAtOnce, to - part.block));
      strip(part, packed);
    }
  }
  release();
}

// Some outputs and columns for all rows of the task: their weights are spread once.
void Tiled::strip(const Part& part, const float* packed) const {
  alignas(64) char spread[kAtOnce * kStepsInPass * kTile];
  const auto into_tile = spreading(product_, whole_);
  const int64_t all = product_.chunks(), from = part.first_step * step_chunks_;
  const int64_t to = std::min(from + part.steps * step_chunks_, all);
  const char* values = static_cast<const char*>(product_.values);
  const size_t chunk_bytes = product_.chunk_bytes(), apart = into_tile ? kStepsInPass * kTile : all * kTile;
  const char* weights = into_tile ? spread : values + (part.block * all + from) * chunk_bytes;
  for (int b = 0; into_tile && b < part.blocks; b++) {
    for (int64_t chunk = from; chunk < to; chunk++) {
      const int64_t at = (part.block + b) * all + chunk;
      const uint32_t* positions = product_.dense ? nullptr : product_.positions + at * kLanes;
      into_tile(values + at * chunk_bytes, positions, spread + b * apart + (chunk - from) * kTile / step_chunks_);
    }
    if (whole_ && (to - from) % step_chunks_)  // half of the last tile
      std::memset(spread + b * apart + (to - from) * kTile / step_chunks_, 0, kTile / step_chunks_);
  }
  for (int64_t tile = part.row_tile_from; tile < part.row_tile_to; tile += kAtOnce)
    rows(part, weights, apart, tile, int(std::min<int64_t>(kAtOnce, part.row_tile_to - tile)), packed);
}

// One or two tiles of rows. Where columns share scales, sums of one span after the other are scaled and gathered.
void Tiled::rows(const Part& part, const char* weights, size_t apart, int64_t row_tile, int tiles, const float* packed) const {
  alignas(64) float sums[kSums], total[kSums];
  const auto multiplied = whole_ ? products<true>(tiles, part.blocks) : products<false>(tiles, part.blocks);
  const size_t x_apart = size_t(steps_ * planes_) * kTile;
  const int64_t first = row_tile * kRows, end = part.first_step + part.steps;
  const Place place{part.block * kLanes, part.blocks, first, std::min<int64_t>(tiles * kRows, product_.rows - first)};
  if (product_.type != kInt8) {
    multiplied(tile(packed, row_tile, part.first_step), x_apart, planes_, weights, apart, part.steps, sums);
    if (part.first_step) add_before(product_, place, sums);
    return write(product_, place, sums, end == steps_);
  }
  std::memset(total, 0, sizeof total);
  if (part.first_step) add_before(product_, place, total);
  const int64_t span = product_.span / kChunk / step_chunks_, spans = product_.spans();
  for (int64_t from = part.first_step, to; from < end; from = to) {
    to = std::min(end, (from / span + 1) * span);
    multiplied(tile(packed, row_tile, from), x_apart, planes_, weights + (from - part.first_step) * kTile, apart, to - from, sums);
    const float* scales = product_.scales + (part.block * spans + from / span) * kLanes;
    if (whole_)
      gather<true>(place, sums, scales, spans * kLanes, x_scales(packed, row_tile) + from / span * kRows, spans * kRows, total);
    else
      gather<false>(place, sums, scales, spans * kLanes, nullptr, 0, total);
  }
  write(product_, place, total, end == steps_);
}

}  // namespace vlmc
#endif
