// Goes through all records of the $MFT and compares what the files claim with what $Bitmap says.
//
// $Bitmap has no checksum, and NTFS keeps no count of free clusters. So the files themselves are
// the second witness: a cluster is free only if $Bitmap says so and no file claims it. One cluster
// that contradicts this, or that two files claim, and the volume is not believed at all.
//
// Memory is bounded by looking at one window of clusters at a time; a volume of many windows has
// its $MFT read that often. For one thread.
#ifndef FIRN_USED_NTFS_SCAN_H_
#define FIRN_USED_NTFS_SCAN_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/status.h"
#include "used/ntfs_record.h"
#include "used/ntfs_volume.h"

namespace firn {

// The clusters of pagefile.sys, swapfile.sys and hiberfil.sys in the volume's root.
struct NtfsPageFiles {
  std::vector<NtfsRun> runs;
  // Where hiberfil.sys begins; its content was not looked at.
  std::optional<uint64_t> hibernation_cluster;
  // It is there, but its clusters are stored in a way that is not read.
  bool hibernation_unclear = false;
};

class NtfsScan {
 public:
  // `volume` must outlive the scan.
  explicit NtfsScan(const NtfsVolume& volume) : volume_(volume) {}

  // Marks in `claimed`, a bitmap for the clusters from `first` on, what files claim of them. Keep
  // if a record is damaged or two claim the same cluster.
  Status Claim(uint64_t first, std::span<uint8_t> claimed);

  // After the first Claim.
  const NtfsPageFiles& page_files() const { return page_files_; }

 private:
  Status ClaimRecord(uint64_t number, std::span<uint8_t> bytes);
  Status ClaimAttribute(const NtfsAttribute& attribute);
  void NotePageFile(const NtfsRecord& record);

  const NtfsVolume& volume_;
  uint64_t first_ = 0;
  std::span<uint8_t> claimed_;
  uint64_t empty_records_ = 0;
  bool page_files_known_ = false;
  NtfsPageFiles page_files_;
};

}  // namespace firn

#endif  // FIRN_USED_NTFS_SCAN_H_
