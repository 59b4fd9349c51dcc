// The plain C entry, without ONNX Runtime: for tests, benchmarks and the runtime through ctypes.

#include <cstdlib>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "matmul.h"

#define VLMC_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

bool usable(const vlmc::Product& p) {
  if (p.rows < 0 || p.inputs < 0 || p.outputs < 0 || p.type < vlmc::kFloat32 || p.type > vlmc::kInt8) return false;
  if (!p.dense && p.inputs % vlmc::kGroup) return false;
  if (p.type == vlmc::kInt8 && (p.span <= 0 || p.span % vlmc::kChunk || !p.scales)) return false;
  return true;
}

}  // namespace

// The name of an instruction set that this CPU has: the best one for null, else the one of that name; null: not here.
VLMC_EXPORT const char* vlmc_instruction_set(const char* name) {
  const vlmc::InstructionSet* set = vlmc::choose(name);
  return set ? set->name : nullptr;
}

// Computes share `part` of `parts` of a product; several threads may each call it for one. 0: done; 1: the product is not
// one; 2: the CPU lacks that instruction set; 3: no memory.
VLMC_EXPORT int vlmc_matmul(const vlmc::Product* product, const char* name, int64_t part, int64_t parts) {
  if (!usable(*product) || part < 0 || part >= parts) return 1;
  const vlmc::InstructionSet* set = vlmc::choose(name);
  if (!set) return 2;
  if (product->rows == 0 || product->outputs == 0) return 0;
  const vlmc::Matmul matmul(*product, *set);
  float* packed = nullptr;
  if (const size_t floats = matmul.packed_floats()) {
    packed = static_cast<float*>(std::malloc(floats * sizeof(float)));
    if (!packed) return 3;
    for (int64_t task = 0; task < matmul.packing_tasks(); task++) matmul.pack(task, packed);
  }
  const int64_t tasks = matmul.tasks();
  for (int64_t task = tasks * part / parts; task < tasks * (part + 1) / parts; task++) matmul.run(task, packed);
  std::free(packed);
  return 0;
}

// Reads memory as fast as one thread can, several streams at once as a product of few rows does, and returns something of
// it: what such a product is measured against.
VLMC_EXPORT uint64_t vlmc_read(const uint64_t* words, int64_t count) {
  constexpr int64_t kStreams = 4, kLine = 8, kAhead = 256;  // words
  const int64_t each = count / kStreams / kLine * kLine;
  uint64_t found[kLine] = {};
  for (int64_t i = 0; i < each; i += kLine)
    for (int64_t stream = 0; stream < kStreams; stream++) {
      const uint64_t* line = words + stream * each + i;
      __builtin_prefetch(line + kAhead);
      for (int64_t j = 0; j < kLine; j++) found[j] |= line[j];
    }
  for (int64_t i = kStreams * each; i < count; i++) found[0] |= words[i];
  for (int64_t j = 1; j < kLine; j++) found[0] |= found[j];
  return found[0];
}

// Has this thread take numbers below 1.2e-38 as zero, or not, and says whether it did: x86 computes with them in microcode,
// a hundred times slower. Other CPUs are quick with them: nothing changes.
VLMC_EXPORT int vlmc_flush_subnormals(int flush) {
#if defined(__x86_64__)
  constexpr unsigned kBoth = 0x8040;  // of results, FTZ, and of operands, DAZ
  const unsigned before = _mm_getcsr();
  _mm_setcsr(flush ? before | kBoth : before & ~kBoth);
  return (before & kBoth) == kBoth;
#else
  return flush;
#endif
}
