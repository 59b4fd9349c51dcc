// Plain C++: what a CPU without AVX2 or NEON gets, and what the other instruction sets are tested against.

#include <cstring>

#include "layout.h"

#define VLMC_TARGET
#define VLMC_INLINE static inline
#define VLMC_UNROLL

namespace vlmc {
namespace portable {

struct Vectors {
  using F = float;
  using I = uint32_t;
  static constexpr int lanes = 1, rows = 2, chains = 0;
  static constexpr int blocks(int) { return 1; }
  static constexpr int at_once(bool, int) { return kLanes; }

  VLMC_INLINE F zero() { return 0; }
  VLMC_INLINE F add(F a, F b) { return a + b; }
  VLMC_INLINE F fma(F a, F b, F c) { return a * b + c; }
  VLMC_INLINE F load(const float* p) { return *p; }
  VLMC_INLINE F repeat(const float* p) { return *p; }
  VLMC_INLINE void store(float* p, F a) { *p = a; }
  VLMC_INLINE I positions(const uint32_t* p) { return *p; }
  template <int Bits>
  VLMC_INLINE I right(I a) {
    return a >> Bits;
  }
  VLMC_INLINE I control(I position) { return position & 3; }
  VLMC_INLINE const float* four(const float* p) { return p; }
  VLMC_INLINE F select(const float* four, I control) { return four[control]; }

  template <Type T>
  VLMC_INLINE void pair(const char* p, int lane, F& first, F& second) {
    constexpr int apart = T == kBfloat16 ? 1 : kLanes;
    const int at = T == kBfloat16 ? 2 * lane : lane;
    first = widened<T>(p, at);
    second = widened<T>(p, at + apart);
  }

  template <Type T>
  VLMC_INLINE F widened(const char* p, int at) {
    if constexpr (T == kInt8) return reinterpret_cast<const int8_t*>(p)[at];
    if constexpr (T == kFloat32) return of_bits(bits<uint32_t>(p, at));
    if constexpr (T == kBfloat16) return of_bits(uint32_t(bits<uint16_t>(p, at)) << 16);
    if constexpr (T == kFloat16) return of_half(bits<uint16_t>(p, at));
  }

  template <class U>
  VLMC_INLINE U bits(const char* p, int at) {
    U found;
    std::memcpy(&found, p + at * sizeof(U), sizeof(U));
    return found;
  }

  VLMC_INLINE F of_bits(uint32_t bits) {
    F found;
    std::memcpy(&found, &bits, 4);
    return found;
  }

  // Moves exponent and mantissa into place and multiplies by 2^112, which makes small numbers normal ones.
  VLMC_INLINE F of_half(uint32_t half) {
    const uint32_t sign = (half & 0x8000) << 16, rest = half & 0x7fff;
    if (rest >= 0x7c00) return of_bits(sign | 0x7f800000 | rest << 13);
    return of_bits(sign | rest << 13) * 0x1p112f;
  }
};

#include "kernel.h"

static bool present() { return true; }

}  // namespace portable

extern const InstructionSet kPortable = {"portable", portable::Vectors::rows, portable::Vectors::blocks, portable::present,
                                         portable::find, nullptr, nullptr, false};

}  // namespace vlmc
