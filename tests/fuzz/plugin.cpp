// The TensorRT plugin under whatever TensorRT, a parser or an engine could hand it: fields of any name, type and length,
// any number of inputs and outputs, any shapes, types and formats, in any order of calls. No call may end the process, and
// every refusal is told to the logger in one line.
//
//   storm_tensorrt_fuzz LIBRARY SEED CASES SECONDS     ends after as many cases or seconds, 0: no limit
//
// The launches fail without a GPU, after everything has been checked; with one there is no memory behind the addresses, so
// that only launches that are refused are tried.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "plugin_library.h"

namespace {

using namespace storm::test;

class Dice {
 public:
  explicit Dice(uint64_t seed) : engine_(seed) {}
  int64_t below(int64_t limit) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(limit)); }
  bool once_in(int64_t times) { return below(times) == 0; }
  template <class T>
  T any_of(std::initializer_list<T> values) {
    return values.begin()[below(static_cast<int64_t>(values.size()))];
  }
  int64_t word() { return static_cast<int64_t>(engine_()); }

 private:
  std::mt19937_64 engine_;
};

struct Counts {
  int64_t taken = 0, refused = 0;
} counts;

// Of a call that was refused: whether it said so.
void note(bool taken, bool must_tell) {
  (taken ? counts.taken : counts.refused) += 1;
  if (!taken && must_tell) {
    expect(logger.last.rfind("storm::", 0) == 0, "a refusal says '" + logger.last + "'");
    expect(logger.last.find('\n') == std::string::npos, "a refusal has lines");
  }
  logger.last.clear();
}

Dims any_dims(Dice& dice, Dims dims) {
  if (dice.once_in(12)) dims.nbDims = static_cast<int32_t>(dice.any_of<int64_t>({-1, 0, 1, 2, 4, 8, 9, 100, INT32_MIN}));
  if (dice.once_in(8)) {
    dims.d[dice.below(Dims::MAX_DIMS)] = dice.any_of<int64_t>(
        {-1, 0, 1, 255, 257, 70000, int64_t{1} << 31, int64_t{1} << 40, int64_t{1} << 62, INT64_MAX, INT64_MIN});
  }
  return dims;
}

DataType any_type(Dice& dice, DataType type) {
  if (!dice.once_in(12)) return type;
  return static_cast<DataType>(dice.any_of<int32_t>({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 99, -1}));
}

PluginTensorDesc any_desc(Dice& dice, PluginTensorDesc desc) {
  desc.dims = any_dims(dice, desc.dims);
  desc.type = any_type(dice, desc.type);
  if (dice.once_in(12)) desc.format = static_cast<TensorFormat>(dice.below(14) - 1);
  return desc;
}

// Fields of an ONNX node or of an engine, some of them wrong.
IPluginV3* any_plugin(Dice& dice, const Library& library, const char* name) {
  const bool is_engine = dice.once_in(2);
  int32_t narrow = static_cast<int32_t>(dice.below(2)), version = 1;
  int64_t wide = dice.below(2);
  if (dice.once_in(6)) narrow = static_cast<int32_t>(dice.word());
  if (dice.once_in(6)) version = static_cast<int32_t>(dice.word());
  const bool is_wide = dice.once_in(3);
  PluginField reverse("reverse", is_wide ? static_cast<const void*>(&wide) : &narrow,
                      is_wide ? PluginFieldType::kINT64 : PluginFieldType::kINT32, 1);
  if (dice.once_in(10)) reverse.data = nullptr;
  if (dice.once_in(10)) reverse.length = static_cast<int32_t>(dice.any_of<int64_t>({0, -1, INT32_MIN}));
  if (dice.once_in(10)) reverse.name = dice.any_of<const char*>({nullptr, "", "Reverse", "engine_version"});
  if (dice.once_in(10)) reverse.type = dice.any_of({PluginFieldType::kUNKNOWN, PluginFieldType::kCHAR,
                                                    PluginFieldType::kFLOAT32});
  std::vector<PluginField> fields = {reverse, PluginField("engine_version", &version, PluginFieldType::kINT32, 1)};
  if (dice.once_in(8)) fields.erase(fields.begin() + dice.below(2));
  if (dice.once_in(8)) fields.insert(fields.begin(), fields.back());
  PluginFieldCollection collection{static_cast<int32_t>(fields.size()), fields.data()};
  if (dice.once_in(20)) collection.fields = nullptr;
  if (dice.once_in(20)) collection.nbFields = static_cast<int32_t>(dice.any_of<int64_t>({0, -1}));
  const auto phase = is_engine ? TensorRTPhase::kRUNTIME : TensorRTPhase::kBUILD;
  return library.creator(name).createPlugin(dice.once_in(9) ? nullptr : name, dice.once_in(30) ? nullptr : &collection,
                                            phase);
}

void one_case(Dice& dice, const Library& library, bool may_launch) {
  const Case one = dice.once_in(2) ? scan_case(1 + dice.below(3), 1 + dice.below(300), 1 + dice.below(70), 1 + dice.below(260))
                                   : conv_case(1 + dice.below(3), 1 + dice.below(300), 1 + dice.below(70), 2 + dice.below(9));
  IPluginV3* const made = any_plugin(dice, library, one.name);
  note(made != nullptr, true);
  if (made == nullptr) return;
  const Plugin plugin(made);
  const DataType type = dice.any_of({DataType::kFLOAT, DataType::kHALF, DataType::kBF16});

  // As many values as the operator has are always there; what is said of their number may be less or more.
  const int32_t right = static_cast<int32_t>(one.inputs.size());
  const auto count_of = [&](int32_t of) {
    return dice.once_in(10) ? static_cast<int32_t>(dice.any_of<int64_t>({0, 1, of - 1, of + 1, -1, INT32_MAX})) : of;
  };
  std::vector<PluginTensorDesc> in = describe_all(one, type, false), out = describe_all(one, type, true);
  std::vector<DynamicPluginTensorDesc> values = dynamic(one, type);
  std::vector<DataType> in_types, out_types(2);
  for (PluginTensorDesc& desc : in) desc = dice.once_in(4) ? any_desc(dice, desc) : desc;
  for (DynamicPluginTensorDesc& value : values) {
    if (!dice.once_in(4)) continue;
    value.desc = any_desc(dice, value.desc);
    value.max = any_dims(dice, value.max);
  }
  for (const PluginTensorDesc& desc : in) in_types.push_back(desc.type);

  const int64_t calls = 1 + dice.below(6);
  for (int64_t call = 0; call < calls; ++call) {
    const int32_t inputs = count_of(right), outputs = count_of(2);
    switch (dice.below(7)) {
      case 0:
        note(plugin.build->getOutputDataTypes(out_types.data(), outputs, in_types.data(), inputs) == 0, true);
        break;
      case 1: {
        Builder builder;
        std::vector<DimsExprs> shapes(one.inputs.size()), output_shapes(2);
        for (size_t i = 0; i < shapes.size(); ++i) {
          shapes[i].nbDims = static_cast<int32_t>(one.inputs[i].size());
          for (int32_t axis = 0; axis < shapes[i].nbDims; ++axis) shapes[i].d[axis] = builder.symbol();
        }
        note(plugin.build->getOutputShapes(shapes.data(), inputs, nullptr, 0, output_shapes.data(), outputs, builder) == 0,
             true);
        break;
      }
      case 2: {
        const int32_t position = static_cast<int32_t>(
            dice.once_in(6) ? dice.any_of<int64_t>({-1, 11, 12, INT32_MAX, INT32_MIN}) : dice.below(right + 2));
        note(plugin.build->supportsFormatCombination(position, values.data(), inputs, outputs), false);
        break;
      }
      case 3:
        note(plugin.build->configurePlugin(values.data(), inputs, values.data() + right, outputs) == 0, true);
        break;
      case 4: {
        const size_t bytes = plugin.build->getWorkspaceSize(values.data(), inputs, values.data() + right, outputs);
        expect(bytes < size_t{1} << 50, "a workspace of " + std::to_string(bytes) + " bytes");
        note(true, false);
        break;
      }
      case 5:
        note(plugin.runtime->onShapeChange(in.data(), inputs, out.data(), outputs) == 0, true);
        break;
      default: {
        if (!may_launch && plugin.runtime->onShapeChange(in.data(), right, out.data(), 2) == 0) break;
        const std::vector<const void*> from(one.inputs.size(), nullptr);
        const std::vector<void*> to(2, nullptr);
        note(plugin.runtime->enqueue(in.data(), out.data(), from.data(), to.data(), nullptr, nullptr) == 0, true);
      }
    }
  }
  const std::unique_ptr<IPluginV3> copy(dice.once_in(2) ? made->clone() : plugin.runtime->attachToContext(nullptr));
  expect(copy != nullptr, "no copy was made");
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 5) {
    std::fprintf(stderr, "usage: %s libstorm_tensorrt.so SEED CASES SECONDS\n", arguments[0]);
    return 2;
  }
  const uint64_t seed = std::strtoull(arguments[2], nullptr, 10);
  const int64_t cases = std::atoll(arguments[3]);
  const std::chrono::duration<double> limit(std::atof(arguments[4]));
  const auto begin = std::chrono::steady_clock::now();
  int64_t done = 0;
  try {
    const Library library(arguments[1]);
    const bool has_no_driver = dlopen("libcuda.so.1", RTLD_NOW) == nullptr;
    for (; cases == 0 || done < cases; ++done) {
      if (limit.count() > 0 && std::chrono::steady_clock::now() - begin > limit) break;
      Dice dice(seed * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(done));
      one_case(dice, library, has_no_driver);
    }
  } catch (const std::exception& error) {
    std::printf("FAILED: case %lld: %s\n", static_cast<long long>(done), error.what());
    return 1;
  }
  std::printf("%lld cases: %lld calls taken, %lld refused\n", static_cast<long long>(done),
              static_cast<long long>(counts.taken), static_cast<long long>(counts.refused));
  return 0;
}
