// The targets: what is run over whatever bytes a fuzzer, or a test that replays what one found,
// comes up with.
//
// A target returns, whatever it is given; what breaks a promise of the code under test ends the
// process through FIRN_FUZZ_CHECK. That nothing is read past a buffer, and no number overflows, is
// for the sanitizers to see.
#ifndef FIRN_FUZZ_FUZZ_TARGET_H_
#define FIRN_FUZZ_FUZZ_TARGET_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>

namespace firn::fuzz {

using Input = std::span<const uint8_t>;

// Images, as FuzzInputs.
void RunVhdx(Input input);   // one layer
void RunVhd(Input input);    // a layer, and its parent if it asks for one
void RunChain(Input input);  // VHDX layers in two folders
void RunMbr(Input input);
void RunGpt(Input input);
void RunNtfs(Input input);
void RunExt4(Input input);
// The repository's and the stream's own formats: flags, then the bytes as they would stand there.
void RunPack(Input input);
void RunIndex(Input input);
void RunMap(Input input);
void RunStream(Input input);

struct Target {
  std::string_view name;
  void (*run)(Input input);
  bool images;  // its inputs are FuzzInputs
};

inline constexpr Target kTargets[] = {
    {"vhdx", RunVhdx, true}, {"vhd", RunVhd, true},        {"chain", RunChain, true},
    {"mbr", RunMbr, true},   {"gpt", RunGpt, true},        {"ntfs", RunNtfs, true},
    {"ext4", RunExt4, true}, {"pack", RunPack, false},     {"index", RunIndex, false},
    {"map", RunMap, false},  {"stream", RunStream, false},
};

// Null if there is none.
constexpr const Target* FindTarget(std::string_view name) {
  for (const Target& target : kTargets) {
    if (target.name == name) return &target;
  }
  return nullptr;
}

#define FIRN_FUZZ_CHECK(condition)                                                               \
  do {                                                                                           \
    if (!(condition)) {                                                                          \
      std::fprintf(stderr, "%s:%d: it does not hold that %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                              \
    }                                                                                            \
  } while (false)

}  // namespace firn::fuzz

#endif  // FIRN_FUZZ_FUZZ_TARGET_H_
