// The kernels against sums in double, without Python: built with sanitizers (`make sanitize`), or for Arm and run by
// qemu-user (`make check-arm`). Every array has exactly its size, so that reading past its end is seen.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "matmul.h"

using namespace vlmc;

namespace {

std::mt19937 draw(7);

double uniform() { return std::uniform_real_distribution<double>(-2, 2)(draw); }

// Bits of a small value of a type, and what they are worth; multiples of 1/16 are exact in every type.
uint32_t random_bits(Type type, double& worth) {
  const int sixteenths = int(draw() % 31) - 15;
  worth = type == kInt8 ? sixteenths : sixteenths / 16.0;
  const float value = float(worth);
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (type == kInt8) return uint32_t(sixteenths) & 0xff;
  if (type == kBfloat16) return bits >> 16;
  if (type == kFloat32) return bits;
  return sixteenths == 0 ? 0 : (bits >> 16 & 0x8000) | (((bits >> 23 & 0xff) - 112) << 10) | (bits >> 13 & 0x3ff);
}

struct Case {
  Product product{};
  std::vector<char> values;
  std::vector<uint32_t> positions;
  std::vector<float> x, scales, bias, y;
  std::vector<double> weight, worth;  // outputs x inputs; what every place of `values` is worth

  Case(Type type, bool dense, int64_t rows, int64_t inputs, int64_t outputs) {
    product.rows = rows, product.inputs = inputs, product.outputs = outputs;
    product.type = type, product.dense = dense, product.span = 64;
    const int64_t blocks = product.blocks(), chunks = product.chunks(), kept = dense ? 4 : 2;
    weight.assign(outputs * inputs, 0);
    values.resize(blocks * chunks * product.chunk_bytes());
    if (!dense) positions.resize(blocks * chunks * kLanes);
    scales.resize(blocks * product.spans() * kLanes);
    for (float& scale : scales) scale = float(std::abs(uniform()) + 0.1);
    for (int64_t row = 0; row < blocks * kLanes; row++)
      for (int64_t group = 0; group < chunks * kGroups; group++) fill(row, group, kept);
    for (int64_t i = 0; i < rows * inputs; i++) x.push_back(float(int(draw() % 65) - 32) / 16);  // exact in bf16
    for (int64_t i = 0; i < outputs; i++) bias.push_back(float(uniform()));
    y.assign(rows * outputs, NAN);
    product.x = x.data(), product.values = values.data(), product.positions = positions.data();
    product.scales = scales.data(), product.bias = bias.data(), product.y = y.data();
  }

  void fill(int64_t row, int64_t group, int64_t kept) {
    const int64_t block = row / kLanes, lane = row % kLanes, chunk = group / kGroups;
    const Type type = Type(product.type);
    uint32_t first = draw() % 3, second = first + 1 + draw() % (3 - first);
    if (kept == 2) positions[(block * product.chunks() + chunk) * kLanes + lane] |= (first | second << 2) << group % kGroups * 4;
    for (int64_t k = 0; k < kept; k++) {
      const int64_t column = group * kGroup + (kept == 4 ? k : k == 0 ? first : second);
      double worth = 0;
      const bool inside = row < product.outputs && column < product.inputs;
      const uint32_t bits = inside ? random_bits(type, worth) : 0;
      const int64_t pair = k / 2, of = k % 2, in_pair = type == kBfloat16 ? lane * 2 + of : of * kLanes + lane;
      const int64_t place = ((block * product.chunks() * kGroups + group) * (kept / 2) + pair) * 2 * kLanes + in_pair;
      std::memcpy(values.data() + place * size_of(type), &bits, size_of(type));
      if (!inside) continue;
      if (type == kInt8) worth *= scales[(block * product.spans() + column / product.span) * kLanes + lane];
      weight[row * product.inputs + column] = worth;
    }
  }

  // x as the product reads it: in int8, it is rounded with a scale for every row and span.
  std::vector<float> rounded_x(bool whole) const {
    std::vector<float> found = x;
    for (int64_t row = 0; whole && row < product.rows; row++)
      for (int64_t from = 0; from < product.inputs; from += product.span) {
        float *begin = &found[row * product.inputs + from], *end = begin + std::min(product.span, product.inputs - from);
        float largest = 0;
        for (const float* one = begin; one < end; one++) largest = std::max(largest, std::abs(*one));
        const float scale = largest / 127;
        for (float* one = begin; one < end && scale > 0; one++) *one = std::nearbyint(*one * (1 / scale)) * scale;
      }
    return found;
  }

  bool holds(bool whole) const {
    const std::vector<float> read = rounded_x(whole);
    for (int64_t row = 0; row < product.rows; row++)
      for (int64_t output = 0; output < product.outputs; output++) {
        double sum = bias[output], scale = std::abs(sum);
        for (int64_t i = 0; i < product.inputs; i++) {
          const double term = double(read[row * product.inputs + i]) * weight[output * product.inputs + i];
          sum += term, scale += std::abs(term);
        }
        if (!(std::abs(y[row * product.outputs + output] - sum) <= 2e-6 * scale)) return false;
      }
    return true;
  }
};

bool holds(const InstructionSet& set, Type type, bool dense, int64_t rows, int64_t inputs, int64_t outputs) {
  Case one(type, dense, rows, inputs, outputs);
  bool right = true;
  for (one.product.round = kExact; one.product.round <= kToInt8; one.product.round++) {
    std::fill(one.y.begin(), one.y.end(), NAN);
    const Matmul matmul(one.product, set);
    std::vector<float> packed(matmul.packed_floats());
    for (int64_t task = 0; task < matmul.packing_tasks(); task++) matmul.pack(task, packed.data());
    for (int64_t task = 0; task < matmul.tasks(); task++) matmul.run(task, packed.data());
    const bool whole = one.product.round == kToInt8 && type == kInt8 && set.find_whole && set.find_whole(dense, 1, 1);
    right = right && one.holds(whole);
  }
  if (right) return true;
  std::printf("%s, type %d, dense %d: wrong for %ld rows, %ld inputs, %ld outputs\n", set.name, int(type), int(dense),
              long(rows), long(inputs), long(outputs));
  return false;
}

}  // namespace

int main() {
  const int64_t sizes[][2] = {{4, 1}, {32, 16}, {36, 17}, {100, 33}, {672, 40}, {2600, 17}};
  int wrong = 0, seen = 0;
  for (const char* name : {"amx", "avx512", "avx2", "neon", "portable"}) {
    const InstructionSet* set = choose(name);
    if (!set) continue;
    std::printf("%s\n", name);
    for (int type = kFloat32; type <= kInt8; type++)
      for (int dense = 0; dense < 2; dense++)
        for (const auto& size : sizes)
          for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 70}) seen++, wrong += !holds(*set, Type(type), dense, rows, size[0], size[1]);
  }
  std::printf("%d products, %d wrong\n", seen, wrong);
  return wrong != 0;
}
