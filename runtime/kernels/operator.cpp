// The operators vlmc::MatMul24 and vlmc::MatMulDense for ONNX Runtime: Y = X W^T + bias, W packed as layout.h says.
//
// Inputs: X (fp32, [..., in_features]), values (fp32, bf16, fp16 or int8), positions (uint32; of MatMul24 only, and left out
// there for a dense weight), bias (fp32, [out_features]; may be left out), scales (fp32, int8 only). Attributes:
// out_features, in_features, span (columns that share a scale), accuracy_level (1: X is not rounded; 3: it may be to bf16,
// with many rows; 4: it may be to int8, for int8 weights). Threads are ONNX Runtime's own.

#include <atomic>
#include <cstdlib>
#include <new>

#include "matmul.h"
#include "onnxruntime_abi.h"

namespace {

using vlmc::Product;
using Failure = ort::Status*;

constexpr size_t kMaxDimensions = 16;
constexpr size_t kInputs = 5;  // X, values, positions, bias, scales
constexpr int64_t kBrainFloatActivations = 3, kInt8Activations = 4;  // as of MatMulNBits' accuracy_level
constexpr int64_t kWorthSharing = 32 << 10;  // multiply-adds: below, waking other threads costs more than it saves

#define VLMC_TRY(call) \
  if (Failure failure = (call)) return failure

struct Tensor {
  const void* data = nullptr;
  ort::ElementType type = ort::kUndefined;
  int64_t dimensions[kMaxDimensions] = {};
  size_t rank = 0;
  int64_t elements = 0;
};

class Kernel {
 public:
  Kernel(const ort::Api* api, bool dense) : api_(api), dense_(dense) {}
  ~Kernel() {
    if (allocator_) ort::ReleaseAllocator::of(api_)(allocator_);
  }

  Failure start(const ort::KernelInfo* info) {
    VLMC_TRY(ort::KernelInfoGetAttributeInt64::of(api_)(info, "out_features", &outputs_));
    VLMC_TRY(ort::KernelInfoGetAttributeInt64::of(api_)(info, "in_features", &inputs_));
    VLMC_TRY(ort::KernelInfoGetAttributeInt64::of(api_)(info, "span", &span_));
    VLMC_TRY(ort::KernelInfoGetAttributeInt64::of(api_)(info, "accuracy_level", &accuracy_level_));
    const char* name = std::getenv("VLMC_CPU");
    set_ = vlmc::choose(name);
    if (!set_) return failed("VLMC_CPU names an instruction set that this CPU or this build lacks");
    return ort::KernelInfoGetAllocator::of(api_)(info, 0, &allocator_);
  }

  Failure compute(ort::KernelContext* context) {
    Tensor inputs[kInputs];
    size_t count = 0;
    VLMC_TRY(ort::KernelContextGetInputCount::of(api_)(context, &count));
    for (size_t i = 0; i < count && i < kInputs - dense_; i++) VLMC_TRY(read(context, i, inputs[i + (dense_ && i > 1)]));
    Product product{};
    VLMC_TRY(describe(inputs, product));
    inputs[0].dimensions[inputs[0].rank - 1] = outputs_;
    ort::Value* output = nullptr;
    void* y = nullptr;
    VLMC_TRY(ort::KernelContextGetOutput::of(api_)(context, 0, inputs[0].dimensions, inputs[0].rank, &output));
    VLMC_TRY(ort::GetTensorMutableData::of(api_)(output, &y));
    product.y = static_cast<float*>(y);
    return product.rows ? multiply(context, product) : nullptr;
  }

 private:
  Failure failed(const char* message) const { return ort::CreateStatus::of(api_)(ort::kInvalidArgument, message); }

  Failure read(ort::KernelContext* context, size_t index, Tensor& to) const {
    const ort::Value* value = nullptr;
    VLMC_TRY(ort::KernelContextGetInput::of(api_)(context, index, &value));
    if (!value) return nullptr;  // left out
    ort::ShapeInfo* shape = nullptr;
    VLMC_TRY(ort::GetTensorTypeAndShape::of(api_)(value, &shape));
    Failure failure = ort::GetTensorElementType::of(api_)(shape, &to.type);
    if (!failure) failure = ort::GetDimensionsCount::of(api_)(shape, &to.rank);
    if (!failure && to.rank > kMaxDimensions) failure = failed("MatMul24: too many dimensions");
    if (!failure) failure = ort::GetDimensions::of(api_)(shape, to.dimensions, to.rank);
    ort::ReleaseTensorTypeAndShapeInfo::of(api_)(shape);
    if (failure) return failure;
    to.elements = 1;
    for (size_t i = 0; i < to.rank; i++) to.elements *= to.dimensions[i];
    return ort::GetTensorMutableData::of(api_)(const_cast<ort::Value*>(value), const_cast<void**>(&to.data));
  }

  // Checks every size before a pointer is followed: a graph may come from anywhere.
  Failure describe(const Tensor (&inputs)[kInputs], Product& to) const {
    const Tensor &x = inputs[0], &values = inputs[1], &positions = inputs[2], &bias = inputs[3], &scales = inputs[4];
    if (x.rank == 0 || x.type != ort::kFloat || x.dimensions[x.rank - 1] != inputs_)
      return failed("MatMul24: X must be float [..., in_features]");
    to.inputs = inputs_;
    to.rows = 1;
    for (size_t i = 0; i + 1 < x.rank; i++) to.rows *= x.dimensions[i];
    to.outputs = outputs_;
    to.span = span_;
    to.round = accuracy_level_ == kBrainFloatActivations ? vlmc::kToBfloat16
               : accuracy_level_ == kInt8Activations    ? vlmc::kToInt8
                                                        : vlmc::kExact;
    to.dense = positions.type == ort::kUndefined;
    switch (values.type) {
      case ort::kFloat: to.type = vlmc::kFloat32; break;
      case ort::kBrainFloat: to.type = vlmc::kBfloat16; break;
      case ort::kHalf: to.type = vlmc::kFloat16; break;
      case ort::kInt8Tensor: to.type = vlmc::kInt8; break;
      default: return failed("MatMul24: values must be float, bfloat16, float16 or int8");
    }
    if (outputs_ <= 0 || inputs_ <= 0 || inputs_ % vlmc::kGroup) return failed("MatMul24: inputs must come in groups of four");
    if (to.type == vlmc::kInt8 && (span_ <= 0 || span_ % vlmc::kChunk)) return failed("MatMul24: span must be a multiple of 32");
    const int64_t words = to.blocks() * to.chunks() * vlmc::kLanes;
    if (values.elements != words * vlmc::kGroups * (to.dense ? 4 : 2)) return failed("MatMul24: values do not fit in_features and out_features");
    if (!to.dense && (positions.type != ort::kUint32 || positions.elements != words))
      return failed("MatMul24: positions do not fit in_features and out_features");
    if (bias.data && (bias.type != ort::kFloat || bias.elements != outputs_)) return failed("MatMul24: bias must be float [out_features]");
    if (to.type == vlmc::kInt8 && (scales.type != ort::kFloat || scales.elements != to.blocks() * to.spans() * vlmc::kLanes))
      return failed("MatMul24: scales do not fit in_features, out_features and span");
    to.x = static_cast<const float*>(x.data);
    to.values = values.data;
    to.positions = static_cast<const uint32_t*>(positions.data);
    to.bias = static_cast<const float*>(bias.data);
    to.scales = static_cast<const float*>(scales.data);
    return nullptr;
  }

  Failure multiply(ort::KernelContext* context, const Product& product) const {
    const vlmc::Matmul matmul(product, *set_);
    struct Work {
      const vlmc::Matmul& matmul;
      float* packed;
    } work{matmul, nullptr};
    if (const size_t floats = matmul.packed_floats()) {
      work.packed = static_cast<float*>(allocator_->alloc(allocator_, floats * sizeof(float)));
      if (!work.packed) return ort::CreateStatus::of(api_)(ort::kFail, "MatMul24: no memory");
    }
    const bool share = product.rows * product.inputs * product.outputs >= kWorthSharing;
    const auto pack = [](void* it, size_t task) { static_cast<Work*>(it)->matmul.pack(int64_t(task), static_cast<Work*>(it)->packed); };
    const auto run = [](void* it, size_t task) { static_cast<Work*>(it)->matmul.run(int64_t(task), static_cast<Work*>(it)->packed); };
    Failure failure = each(context, matmul.packing_tasks(), share, pack, &work);
    if (!failure) failure = each(context, matmul.tasks(), share, run, &work);
    if (work.packed) allocator_->free(allocator_, work.packed);
    return failure;
  }

  Failure each(ort::KernelContext* context, int64_t tasks, bool share, void (*work)(void*, size_t), void* with) const {
    if (share && tasks > 1) return ort::KernelContextParallelFor::of(api_)(context, work, size_t(tasks), 0, with);
    for (int64_t task = 0; task < tasks; task++) work(with, size_t(task));
    return nullptr;
  }

  const ort::Api* api_;
  const bool dense_;  // there is no input for positions
  ort::Allocator* allocator_ = nullptr;
  const vlmc::InstructionSet* set_ = nullptr;
  int64_t inputs_ = 0, outputs_ = 0, span_ = 0, accuracy_level_ = 0;
};

template <bool Dense>
Failure create(const ort::CustomOp*, const ort::Api* api, const ort::KernelInfo* info, void** to) {
  void* place = std::malloc(sizeof(Kernel));
  if (!place) return ort::CreateStatus::of(api)(ort::kFail, "MatMul24: no memory");
  Kernel* kernel = new (place) Kernel(api, Dense);
  Failure failure = kernel->start(info);
  if (failure) {
    kernel->~Kernel();
    std::free(place);
  } else {
    *to = kernel;
  }
  return failure;
}

void destroy(void* kernel) {
  static_cast<Kernel*>(kernel)->~Kernel();
  std::free(kernel);
}

template <bool Dense>
constexpr ort::CustomOp kOperator = {
    ort::kVersion,
    nullptr,
    [](const ort::CustomOp*) -> const char* { return Dense ? "MatMulDense" : "MatMul24"; },
    [](const ort::CustomOp*) -> const char* { return "CPUExecutionProvider"; },
    [](const ort::CustomOp*, size_t index) {
      return index == 1 ? ort::kUndefined : index == 2 && !Dense ? ort::kUint32 : ort::kFloat;
    },
    [](const ort::CustomOp*) -> size_t { return kInputs - Dense; },
    [](const ort::CustomOp*, size_t) { return ort::kFloat; },
    [](const ort::CustomOp*) -> size_t { return 1; },
    nullptr,
    destroy,
    [](const ort::CustomOp*, size_t index) { return index < 2 ? ort::kRequired : ort::kOptional; },
    [](const ort::CustomOp*, size_t) { return ort::kRequired; },
    [](const ort::CustomOp*, size_t) { return 0; },
    {[](const ort::CustomOp*) { return 1; }, [](const ort::CustomOp*) { return 1; }, [](const ort::CustomOp*) { return 1; },
     [](const ort::CustomOp*) { return 1; }},
    create<Dense>,
    [](void* kernel, ort::KernelContext* context) { return static_cast<Kernel*>(kernel)->compute(context); },
    nullptr,
    [](const ort::CustomOp*) { return 1; },
    [](const ort::CustomOp*) { return 1; },
};

}  // namespace

// ONNX Runtime calls this by its name when a session registers the library; domains live as long as the process.
extern "C" __attribute__((visibility("default"))) ort::Status* RegisterCustomOps(ort::SessionOptions* options,
                                                                                 const ort::ApiBase* base) {
  const ort::Api* api = base->get_api(ort::kVersion);
  if (!api) return nullptr;  // there is no way to tell: the operator will be found missing
  static std::atomic<ort::Domain*> domain{nullptr};
  ort::Domain* found = domain.load();
  if (!found) {  // two threads may both come here: one domain more does no harm
    VLMC_TRY(ort::CreateCustomOpDomain::of(api)("vlmc", &found));
    VLMC_TRY(ort::CustomOpDomainAdd::of(api)(found, &kOperator<false>));
    VLMC_TRY(ort::CustomOpDomainAdd::of(api)(found, &kOperator<true>));
    domain.store(found);
  }
  return ort::AddCustomOpDomain::of(api)(options, found);
}
