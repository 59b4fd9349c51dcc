// The few parts of ONNX Runtime's C interface that a custom operator needs, declared by hand: its wheel has no headers.
//
// The interface is a table of function pointers that only ever grows at its end, so a function is known by its place.
// Checked on 1.22.0 and 1.32.0; everything here exists since API version 17 (ONNX Runtime 1.17).

#pragma once
#include <cstddef>
#include <cstdint>

namespace ort {

constexpr uint32_t kVersion = 17;

struct Status;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct ShapeInfo;
struct Allocator {
  uint32_t version;
  void* (*alloc)(Allocator*, size_t);
  void (*free)(Allocator*, void*);
};

using Function = void (*)();

struct Api {
  Function functions[279];
};

struct ApiBase {
  const Api* (*get_api)(uint32_t version);
  const char* (*version)();
};

enum ElementType : int { kUndefined = 0, kFloat = 1, kInt8Tensor = 3, kHalf = 10, kUint32 = 12, kBrainFloat = 16 };
enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };
enum Characteristic : int { kRequired = 0, kOptional = 1 };

// Every function's place and type.
template <int Place, class Signature>
struct Call {
  static Signature* of(const Api* api) { return reinterpret_cast<Signature*>(api->functions[Place]); }
};

using CreateStatus = Call<0, Status*(ErrorCode, const char*)>;
using CreateCustomOpDomain = Call<26, Status*(const char*, Domain**)>;
using CustomOpDomainAdd = Call<27, Status*(Domain*, const struct CustomOp*)>;
using AddCustomOpDomain = Call<28, Status*(SessionOptions*, Domain*)>;
using GetTensorMutableData = Call<51, Status*(Value*, void**)>;
using GetTensorElementType = Call<60, Status*(const ShapeInfo*, ElementType*)>;
using GetDimensionsCount = Call<61, Status*(const ShapeInfo*, size_t*)>;
using GetDimensions = Call<62, Status*(const ShapeInfo*, int64_t*, size_t)>;
using GetTensorTypeAndShape = Call<65, Status*(const Value*, ShapeInfo**)>;
using KernelInfoGetAttributeInt64 = Call<86, Status*(const KernelInfo*, const char*, int64_t*)>;
using KernelContextGetInputCount = Call<88, Status*(const KernelContext*, size_t*)>;
using KernelContextGetInput = Call<90, Status*(const KernelContext*, size_t, const Value**)>;
using KernelContextGetOutput = Call<91, Status*(KernelContext*, size_t, const int64_t*, size_t, Value**)>;
using ReleaseTensorTypeAndShapeInfo = Call<99, void(ShapeInfo*)>;
using ReleaseAllocator = Call<132, void(Allocator*)>;
using KernelContextParallelFor = Call<274, Status*(const KernelContext*, void (*)(void*, size_t), size_t, size_t, void*)>;
using KernelInfoGetAllocator = Call<278, Status*(const KernelInfo*, int memory_type, Allocator**)>;

// What a library tells of an operator. ONNX Runtime reads no further than `version` allows.
struct CustomOp {
  uint32_t version;
  void* (*create_kernel)(const CustomOp*, const Api*, const KernelInfo*);
  const char* (*name)(const CustomOp*);
  const char* (*provider)(const CustomOp*);
  ElementType (*input_type)(const CustomOp*, size_t);
  size_t (*input_count)(const CustomOp*);
  ElementType (*output_type)(const CustomOp*, size_t);
  size_t (*output_count)(const CustomOp*);
  void (*compute)(void*, KernelContext*);
  void (*destroy)(void*);
  Characteristic (*input_characteristic)(const CustomOp*, size_t);
  Characteristic (*output_characteristic)(const CustomOp*, size_t);
  int (*input_memory)(const CustomOp*, size_t);
  int (*variadic[4])(const CustomOp*);
  Status* (*create_kernel_2)(const CustomOp*, const Api*, const KernelInfo*, void**);
  Status* (*compute_2)(void*, KernelContext*);
  Status* (*infer_shape)(const CustomOp*, void*);
  int (*start_version)(const CustomOp*);
  int (*end_version)(const CustomOp*);
};

}  // namespace ort
