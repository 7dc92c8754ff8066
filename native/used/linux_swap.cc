#include "used/linux_swap.h"

#include <vector>

#include "core/bytes.h"

namespace firn {
namespace {

constexpr uint64_t kSwapPageBytes = 4096;
// The header is one page; what boot loaders or other tools may have left behind it stays too.
constexpr uint64_t kHeadBytes = 64 * kKiB;

}  // namespace

Result<VolumeUse> FindUsedInSwap(const VolumeReader& volume, SkipList* skip) {
  // linux/swap.h, union swap_header: at 1024 version, last page, number of bad pages.
  FIRN_ASSIGN_OR_RETURN(const std::vector<uint8_t> header, volume.Read(0, kSwapPageBytes));
  const uint32_t version = LoadLe<uint32_t>(&header[1024]);
  const uint64_t last_page = LoadLe<uint32_t>(&header[1028]);
  const uint32_t bad_pages = LoadLe<uint32_t>(&header[1032]);
  if (version != 1) return Keep(keep::kUnknownFeature, "the swap space is of another version");
  if (bad_pages != 0) return Keep(keep::kUnknownFeature, "the swap space has bad pages");
  const uint64_t end = (last_page + 1) * kSwapPageBytes;
  if (end > volume.size() || end <= kHeadBytes) {
    return Keep(keep::kInconsistent, "the swap space has a size that is not its partition's");
  }
  skip->Add(volume.begin() + kHeadBytes, volume.begin() + end);
  VolumeUse use;
  use.used_bytes = kHeadBytes;
  use.page_file_bytes = end - kHeadBytes;
  return use;
}

}  // namespace firn
