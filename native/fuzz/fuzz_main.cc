// One target as a libFuzzer program. FIRN_FUZZ_TARGET is its name.
#include <random>

#include "fuzz/fuzz_input.h"
#include "fuzz/fuzz_target.h"

namespace {

constexpr const firn::fuzz::Target* kTarget = firn::fuzz::FindTarget(FIRN_FUZZ_TARGET);
static_assert(kTarget != nullptr);

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kTarget->run({data, size});
  return 0;
}

// Bytes are libFuzzer's to change; of images, every other time, it is one record and no other.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
  if (!kTarget->images || seed % 8 == 0) return LLVMFuzzerMutate(data, size, max_size);
  firn::fuzz::FuzzInput input = firn::fuzz::FuzzInput::Decode({data, size});
  firn::fuzz::Mutate(&input, seed, LLVMFuzzerMutate);
  const std::vector<uint8_t> bytes = input.Encode();
  if (bytes.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::copy(bytes.begin(), bytes.end(), data);
  return bytes.size();
}
