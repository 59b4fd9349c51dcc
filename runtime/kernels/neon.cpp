// NEON (every 64-bit Arm): 4 outputs in a register, four registers to a block, up to 2 rows at once.

#include "layout.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#define VLMC_TARGET
#define VLMC_INLINE static inline __attribute__((always_inline))
#define VLMC_UNROLL _Pragma("GCC unroll 16")

namespace vlmc {
namespace neon {

struct Vectors {
  using F = float32x4_t;
  using I = uint32x4_t;
  static constexpr int lanes = 4, rows = 2, chains = 4;
  static constexpr int blocks(int) { return 1; }
  static constexpr int at_once(bool, int) { return 4; }

  VLMC_INLINE F zero() { return vdupq_n_f32(0); }
  VLMC_INLINE F add(F a, F b) { return vaddq_f32(a, b); }
  VLMC_INLINE F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  VLMC_INLINE F load(const float* p) { return vld1q_f32(p); }
  VLMC_INLINE F repeat(const float* p) { return vld1q_dup_f32(p); }
  VLMC_INLINE void store(float* p, F a) { vst1q_f32(p, a); }
  VLMC_INLINE I positions(const uint32_t* p) { return vld1q_u32(p); }
  template <int Bits>
  VLMC_INLINE I right(I a) {
    return vshrq_n_u32(a, Bits);
  }
  // The places of the four bytes of the selected value, for a table look-up.
  VLMC_INLINE uint8x16_t control(I position) {
    const I low = vandq_u32(position, vdupq_n_u32(3));
    return vreinterpretq_u8_u32(vmlaq_u32(vdupq_n_u32(0x03020100), low, vdupq_n_u32(0x04040404)));
  }
  VLMC_INLINE uint8x16_t four(const float* p) { return vreinterpretq_u8_f32(vld1q_f32(p)); }
  VLMC_INLINE F select(uint8x16_t four, uint8x16_t control) { return vreinterpretq_f32_u8(vqtbl1q_u8(four, control)); }

  // `quarter` 0 to 3: which four of the block's outputs.
  template <Type T>
  VLMC_INLINE void pair(const char* p, int quarter, F& first, F& second) {
    if constexpr (T == kFloat32) {
      first = vld1q_f32(reinterpret_cast<const float*>(p + 16 * quarter));
      second = vld1q_f32(reinterpret_cast<const float*>(p + 64 + 16 * quarter));
    } else if constexpr (T == kBfloat16) {
      const I both = vld1q_u32(reinterpret_cast<const uint32_t*>(p + 16 * quarter));
      first = vreinterpretq_f32_u32(vshlq_n_u32(both, 16));
      second = vreinterpretq_f32_u32(vandq_u32(both, vdupq_n_u32(0xffff0000u)));
    } else if constexpr (T == kFloat16) {
      first = vcvt_f32_f16(vld1_f16(reinterpret_cast<const float16_t*>(p + 8 * quarter)));
      second = vcvt_f32_f16(vld1_f16(reinterpret_cast<const float16_t*>(p + 32 + 8 * quarter)));
    } else {
      first = widened(p + 4 * quarter);
      second = widened(p + 16 + 4 * quarter);
    }
  }

  VLMC_INLINE F widened(const char* p) {
    int32_t four;
    __builtin_memcpy(&four, p, 4);
    const int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
  }
};

#include "kernel.h"

static bool present() { return true; }

}  // namespace neon

extern const InstructionSet kNeon = {"neon", neon::Vectors::rows, neon::Vectors::blocks, neon::present, neon::find, nullptr, nullptr, false};

}  // namespace vlmc
#endif
