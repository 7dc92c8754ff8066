// VHDX, VHD and chains of layers: opened, inspected, mapped and read in every way there is.
#include <algorithm>
#include <string>
#include <vector>

#include "disk/disk.h"
#include "disk/vhd_format.h"
#include "disk/vhdx_format.h"
#include "fuzz/fuzz_input.h"
#include "fuzz/fuzz_target.h"
#include "fuzz/memory_file_system.h"

namespace firn::fuzz {
namespace {

// --- Checksums, so that what is behind them is reached ---

template <typename Seal>
void SealStructure(SparseImage* image, uint64_t offset, uint64_t length, Seal seal) {
  std::optional<std::vector<uint8_t>> bytes = image->TryRead(offset, length);
  if (!bytes) return;
  seal(*bytes);
  image->Write(offset, *bytes);
}

void SealVhdxLog(SparseImage* image, const std::vector<uint8_t>& header) {
  const uint64_t length = LoadLe<uint32_t>(&header[vhdx::header::kLogLength]);
  const uint64_t begin = LoadLe<uint64_t>(&header[vhdx::header::kLogOffset]);
  if (!RangeInside(begin, length, image->size()) || !IsAligned(begin | length, 4096)) return;
  // Only where there is something: most of a log is not.
  uint64_t at = begin;
  while (const auto page = image->NextPage(at)) {
    at = RoundUp(page->first + 1, vhdx::log::kSectorBytes);
    const uint64_t position = RoundDown(page->first, vhdx::log::kSectorBytes) - begin;
    if (position >= length) return;
    const std::vector<uint8_t> start = image->Read(begin + position, vhdx::log::kEntryHeaderBytes);
    if (!vhdx::HasSignature(start, vhdx::log::kEntrySignature)) continue;
    const uint64_t bytes = LoadLe<uint32_t>(&start[vhdx::log::kEntryLength]);
    if (bytes < vhdx::log::kSectorBytes || bytes > std::min(length, 256 * kKiB)) continue;
    std::vector<uint8_t> entry(bytes);  // which may go round the end
    const uint64_t before_end = std::min(bytes, length - position);
    image->Read(begin + position, std::span(entry).first(before_end));
    image->Read(begin, std::span(entry).subspan(before_end));
    vhdx::SealChecksum(entry, vhdx::log::kChecksum);
    image->Write(begin + position, std::span(entry).first(vhdx::log::kEntryHeaderBytes));
  }
}

void SealVhdx(SparseImage* image) {
  for (const uint64_t offset : vhdx::kRegionTableOffsets) {
    SealStructure(image, offset, vhdx::region::kTableBytes,
                  [](auto& bytes) { vhdx::SealChecksum(bytes, vhdx::region::kChecksum); });
  }
  for (const uint64_t offset : vhdx::kHeaderOffsets) {
    SealStructure(image, offset, vhdx::header::kBytes, [&](auto& bytes) {
      SealVhdxLog(image, bytes);
      vhdx::SealChecksum(bytes, vhdx::header::kChecksum);
    });
  }
}

void SealVhd(SparseImage* image) {
  const auto seal_footer = [](auto& bytes) { vhd::SealChecksum(bytes, vhd::footer::kChecksum); };
  SealStructure(image, 0, vhd::footer::kBytes, seal_footer);
  if (image->size() < vhd::footer::kBytes) return;
  const uint64_t end = image->size() - vhd::footer::kBytes;
  SealStructure(image, end, vhd::footer::kBytes, seal_footer);
  const std::vector<uint8_t> footer = image->Read(end, vhd::footer::kBytes);
  SealStructure(image, LoadBe<uint64_t>(&footer[vhd::footer::kDataOffset]),
                vhd::dynamic_header::kBytes,
                [](auto& bytes) { vhd::SealChecksum(bytes, vhd::dynamic_header::kChecksum); });
}

// --- What every disk promises ---

// Extents cover what was asked for, in order and without gaps.
void CheckMap(const Disk& disk, uint64_t offset, uint64_t length) {
  std::vector<Extent> extents;
  if (!disk.Map(offset, length, &extents).ok()) return;
  uint64_t position = offset;
  for (const Extent& extent : extents) {
    FIRN_FUZZ_CHECK(extent.offset == position && extent.length > 0);
    FIRN_FUZZ_CHECK(extent.length <= length - (position - offset));
    FIRN_FUZZ_CHECK(extent.source == nullptr || extent.source->buffered != nullptr);
    position += extent.length;
  }
  FIRN_FUZZ_CHECK(position == offset + length);
}

// A range reads the same in one piece and in two, and what NextPresent passes over is zero.
void CheckReads(const Disk& disk, uint64_t offset, uint64_t present) {
  const uint64_t length = std::min<uint64_t>(disk.size() - offset, 8 * kKiB);
  std::vector<uint8_t> whole(length);
  if (!disk.Read(offset, whole).ok()) return;
  std::vector<uint8_t> halves(length);
  const uint64_t half = length / 3;
  FIRN_FUZZ_CHECK(disk.Read(offset, std::span(halves).first(half)).ok());
  FIRN_FUZZ_CHECK(disk.Read(offset + half, std::span(halves).subspan(half)).ok());
  FIRN_FUZZ_CHECK(whole == halves);
  const uint64_t passed = std::min(present - offset, length);
  FIRN_FUZZ_CHECK(std::all_of(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(passed),
                              [](uint8_t byte) { return byte == 0; }));
}

void Walk(const Disk& disk) {
  FIRN_FUZZ_CHECK(disk.size() > 0 && disk.size() <= 64 * kTiB);
  uint64_t position = 0;
  for (int steps = 0; steps < 24 && position < disk.size(); ++steps) {
    const Result<uint64_t> next = disk.NextPresent(position);
    if (!next.ok()) return;
    FIRN_FUZZ_CHECK(*next >= position && *next <= disk.size());
    CheckReads(disk, position, *next);
    CheckMap(disk, position, std::min<uint64_t>(disk.size() - position, 3 * kMiB + 512));
    position = *next + (steps % 2 == 0 ? 300 * kKiB : 5 * kMiB);
  }
  const uint64_t tail = std::min<uint64_t>(disk.size(), 64 * kKiB);
  CheckMap(disk, disk.size() - tail, tail);
  // In the middle of a very large disk, tables end where nothing should read on.
  CheckMap(disk, disk.size() / 2, std::min<uint64_t>(disk.size() - disk.size() / 2, 64 * kMiB));
  (void)disk.CheckUnchanged();
}

void OpenAndWalk(MemoryFileSystem& files, const std::string& path) {
  OpenDiskOptions options;
  options.direct = false;
  options.parent_folders = {"/base"};
  options.max_depth = 8;
  const Result<Inspection> inspection = InspectDisk(files, path, options);
  const Result<std::unique_ptr<Disk>> disk = Disk::Open(files, path, options);
  // Whoever looks first must not be told that all is well.
  if (inspection.ok()) FIRN_FUZZ_CHECK(inspection->error.ok() == disk.ok());
  if (disk.ok()) Walk(**disk);
}

void RunImages(Input bytes, const std::array<const char*, kFilesMax>& names,
               void (*seal)(SparseImage* image)) {
  const FuzzInput input = FuzzInput::Decode(bytes);
  std::array<SparseImage, kFilesMax> images = input.Build();
  MemoryFileSystem files;
  for (size_t i = 0; i < kFilesMax && names[i] != nullptr; ++i) {
    if (images[i].size() == 0 && i > 0) continue;
    if ((input.flags & kUnsealed) == 0) seal(&images[i]);
    files.Add(names[i], std::move(images[i]));
  }
  OpenAndWalk(files, names[0]);
}

}  // namespace

void RunVhdx(Input input) { RunImages(input, {"/vm/disk.vhdx"}, SealVhdx); }

void RunVhd(Input input) {
  RunImages(input, {"/vm/disk.vhd", "/vm/parent.vhd", "/base/base.vhd"}, SealVhd);
}

void RunChain(Input input) {
  RunImages(input,
            {"/vm/child.avhdx", "/vm/parent.vhdx", "/base/grandparent.vhdx", "/secret/other.vhdx"},
            SealVhdx);
}

}  // namespace firn::fuzz
