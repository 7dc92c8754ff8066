#include "bench/bench_data.h"

#include <algorithm>
#include <cstring>

#include "chunk/page.h"
#include "io/aligned_buffer.h"

namespace firn {

namespace {

// Matches of some tens of bytes, as programs and documents have: longer ones flatter decompressors.
constexpr size_t kPieceBytes = 64;
constexpr uint64_t kWriteBytes = 4 * kMiB;

// Splitmix64: a good mixture of a counter, a few instructions for eight bytes.
uint64_t Mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

// A number in [0, 1) of 53 random bits.
double Fraction(uint64_t random) { return static_cast<double>(random >> 11) * 0x1.0p-53; }

void FillRandom(uint64_t* state, uint8_t* out, size_t length) {
  size_t done = 0;
  for (; done + sizeof(uint64_t) <= length; done += sizeof(uint64_t)) {
    const uint64_t value = Mix(++*state);
    std::memcpy(out + done, &value, sizeof value);
  }
  const uint64_t value = Mix(++*state);
  std::memcpy(out + done, &value, length - done);
}

// One page, of random bytes and copies of what the page already holds.
void FillPage(uint64_t state, size_t random_bytes, uint8_t* page) {
  for (size_t at = 0; at < kPageBytes; at += kPieceBytes) {
    FillRandom(&state, page + at, random_bytes);
    const size_t filled = at + random_bytes;
    const size_t rest = kPieceBytes - random_bytes;
    // Byte by byte, as the source may reach into what is being copied.
    const size_t distance = 1 + static_cast<size_t>(Mix(++state) % filled);
    for (size_t i = 0; i < rest; ++i) page[filled + i] = page[filled + i - distance];
  }
}

}  // namespace

Status BenchData::Check() const {
  if (entropy >= 0.05 && entropy <= 1 && duplicates >= 0 && duplicates <= 0.95) return Status::Ok();
  return Status::Error(Code::kInvalidArgument,
                       "entropy is 0.05 to 1 and the share of duplicates 0 to 0.95");
}

uint64_t BenchData::SourceUnit(uint64_t number) const {
  // A unit may be a copy of one that is a copy itself: then it is of that one's source.
  while (number > 0) {
    const uint64_t random = Mix(seed ^ Mix(number));
    if (Fraction(random) >= duplicates) break;
    number = Mix(random) % number;
  }
  return number;
}

void BenchData::Fill(uint64_t offset, std::span<uint8_t> out) const {
  const auto random_bytes =
      std::clamp<size_t>(static_cast<size_t>(entropy * kPieceBytes), 4, kPieceBytes);
  uint64_t known_unit = UINT64_MAX;
  uint64_t source = 0;
  for (size_t done = 0; done < out.size(); done += kPageBytes) {
    const uint64_t unit = (offset + done) / kUnitBytes;
    if (unit != known_unit) source = SourceUnit(unit);
    known_unit = unit;
    const uint64_t page = (offset + done) % kUnitBytes / kPageBytes;
    const uint64_t number = source * (kUnitBytes / kPageBytes) + page;
    FillPage(Mix(Mix(seed) ^ number), random_bytes, out.data() + done);
  }
}

Status MakeDataJob::DoRun() {
  FIRN_RETURN_IF_ERROR(options_.data.Check());
  if (!IsAligned(options_.bytes, kPageBytes)) {
    return Status::Error(Code::kInvalidArgument, "test data comes in whole pages");
  }
  FIRN_ASSIGN_OR_RETURN(AlignedBuffer buffer, AlignedBuffer::Allocate(kWriteBytes));
  FIRN_ASSIGN_OR_RETURN(
      std::unique_ptr<File> file,
      fs_.Open(options_.path, {.access = Access::kCreateNew, .direct = true, .no_follow = true}));
  stats_.total_bytes = options_.bytes;
  stats_.phase = Phase::kCopy;
  // Reserved at once, so that the file lies in few pieces; where that can't be, it grows.
  const Status reserved = file->Preallocate(0, options_.bytes);
  if (!reserved.ok() && reserved.code() != Code::kUnsupported) return reserved;
  for (uint64_t done = 0; done < options_.bytes;) {
    const uint64_t length = std::min(kWriteBytes, options_.bytes - done);
    FIRN_RETURN_IF_ERROR(pace_.AwaitTurn(length));
    options_.data.Fill(done, buffer.span().first(length));
    FIRN_RETURN_IF_ERROR(file->WriteAt(done, buffer.span().first(length)));
    done += length;
    stats_.written_bytes += length;
    stats_.done_bytes += length;
  }
  stats_.phase = Phase::kFinish;
  FIRN_RETURN_IF_ERROR(file->Sync());
  file->DropCache();
  return Status::Ok();
}

}  // namespace firn
