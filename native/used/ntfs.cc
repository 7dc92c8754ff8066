#include "used/ntfs.h"

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "used/bitmap.h"
#include "used/ntfs_format.h"
#include "used/ntfs_scan.h"
#include "used/ntfs_state.h"
#include "used/ntfs_volume.h"

namespace firn {
namespace {

// Clusters looked at together: two bitmaps of 32 MiB, or 1 TiB of clusters of 4 KiB.
constexpr uint64_t kWindowClusters = uint64_t{1} << 28;

Status Bad(const std::string& why) { return Keep(keep::kInconsistent, why); }

// Walks the clusters window by window.
class ClusterWalk {
 public:
  ClusterWalk(const NtfsVolume& volume, const UsedOptions& options, SkipList* skip)
      : volume_(volume), options_(options), skip_(skip), scan_(volume) {}

  Status Run() {
    FIRN_RETURN_IF_ERROR(OpenBitmap());
    for (uint64_t at = 0; at < volume_.clusters(); at += kWindowClusters) {
      FIRN_RETURN_IF_ERROR(Visit(at, std::min(kWindowClusters, volume_.clusters() - at)));
    }
    return Status::Ok();
  }

  VolumeUse use() const {
    VolumeUse use;
    use.used_bytes = used_clusters_ * volume_.cluster_bytes();
    use.page_file_bytes = page_file_clusters_ * volume_.cluster_bytes();
    return use;
  }

 private:
  Status OpenBitmap() {
    FIRN_ASSIGN_OR_RETURN(const NtfsLoadedRecord record, volume_.Load(ntfs::number::kBitmap));
    FIRN_ASSIGN_OR_RETURN(bitmap_, volume_.OpenData(record, ntfs::number::kBitmap));
    const uint64_t bytes = RoundUp(DivideUp(volume_.clusters(), 8), 8);
    if (bitmap_.size < bytes || bitmap_.initialized < bytes) {
      return Bad("$Bitmap is shorter than the volume");
    }
    return Status::Ok();
  }

  Status Visit(uint64_t first, uint64_t count) {
    std::vector<uint8_t> used(RoundUp(DivideUp(count, 8), 8));
    FIRN_RETURN_IF_ERROR(ReadBitmap(first / 8, used));
    std::vector<uint8_t> claimed(used.size());
    FIRN_RETURN_IF_ERROR(scan_.Claim(first, claimed));
    for (size_t i = 0; i < used.size(); i += 8) {
      if ((LoadLe<uint64_t>(&claimed[i]) & ~LoadLe<uint64_t>(&used[i])) != 0) {
        return Bad("$Bitmap calls clusters free that files claim");
      }
    }
    if (first == 0) FIRN_RETURN_IF_ERROR(CheckHibernation());
    used_clusters_ += CountSetBits(used, 0, count);
    if (options_.skip_page_files) ClearPageFiles(first, count, used);
    // $Boot has its clusters, but its copy of the boot sector may not be all there is in them.
    if (first == 0) SetBits(used, 0, std::min(BootClusters(), count));
    for (uint64_t at = 0; at < count;) {
      const uint64_t from = FindBit(used, at, count, false);
      const uint64_t to = FindBit(used, from, count, true);
      const uint64_t base = volume_.reader().begin();
      skip_->Add(base + (first + from) * volume_.cluster_bytes(),
                 base + (first + to) * volume_.cluster_bytes());
      at = to;
    }
    return Status::Ok();
  }

  // In pieces, so that a cancellation is seen between them.
  Status ReadBitmap(uint64_t offset, std::span<uint8_t> out) const {
    for (size_t done = 0; done < out.size();) {
      const size_t piece = std::min<size_t>(out.size() - done, kMiB);
      FIRN_RETURN_IF_ERROR(volume_.Read(bitmap_, offset + done, out.subspan(done, piece)));
      done += piece;
    }
    return Status::Ok();
  }

  Status CheckHibernation() const {
    const NtfsPageFiles& files = scan_.page_files();
    if (files.hibernation_unclear) {
      return Keep(keep::kHibernated, "hiberfil.sys is stored in a way that is not read");
    }
    if (!files.hibernation_cluster) return Status::Ok();
    const uint64_t length = std::min<uint64_t>(volume_.cluster_bytes(), 4096);
    FIRN_ASSIGN_OR_RETURN(
        const std::vector<uint8_t> head,
        volume_.reader().Read(*files.hibernation_cluster * volume_.cluster_bytes(), length));
    return CheckHibernationFile(head);
  }

  void ClearPageFiles(uint64_t first, uint64_t count, std::span<uint8_t> used) {
    for (const NtfsRun& run : scan_.page_files().runs) {
      const uint64_t begin = std::max(run.lcn, first);
      const uint64_t end = std::min(run.lcn + run.length, first + count);
      if (begin >= end) continue;
      ClearBits(used, begin - first, end - first);
      page_file_clusters_ += end - begin;
    }
  }

  uint64_t BootClusters() const {
    return DivideUp(uint64_t{ntfs::boot::kCodeSectors} * volume_.sector_bytes(),
                    volume_.cluster_bytes());
  }

  const NtfsVolume& volume_;
  const UsedOptions& options_;
  SkipList* const skip_;
  NtfsScan scan_;
  NtfsStream bitmap_;
  uint64_t used_clusters_ = 0;
  uint64_t page_file_clusters_ = 0;
};

}  // namespace

Result<VolumeUse> FindUsedInNtfs(const VolumeReader& reader, const UsedOptions& options,
                                 SkipList* skip) {
  FIRN_ASSIGN_OR_RETURN(const std::unique_ptr<NtfsVolume> volume, NtfsVolume::Open(reader));
  FIRN_RETURN_IF_ERROR(CheckNtfsVolumeFlags(*volume));
  FIRN_RETURN_IF_ERROR(CheckNtfsLog(*volume, options.quiesced));
  if (options.keep_shadow_copies) FIRN_RETURN_IF_ERROR(CheckNoShadowCopies(reader));
  ClusterWalk walk(*volume, options, skip);
  FIRN_RETURN_IF_ERROR(walk.Run());
  return walk.use();
}

}  // namespace firn
