// An NTFS volume's geometry, its records, and its files' bytes.
//
// For one thread. Open has checked the boot sector and that the $MFT's record can be believed;
// everything else is checked as it is read.
#ifndef FIRN_USED_NTFS_VOLUME_H_
#define FIRN_USED_NTFS_VOLUME_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/status.h"
#include "used/ntfs_record.h"
#include "used/volume_reader.h"

namespace firn {

// The unnamed, uncompressed data of a file.
struct NtfsStream {
  std::vector<NtfsRun> runs;  // from VCN 0, without gaps
  uint64_t size = 0;
  uint64_t initialized = 0;
};

// A record and the memory that it points into.
struct NtfsLoadedRecord {
  std::vector<uint8_t> bytes;
  NtfsRecord record;
};

class NtfsVolume {
 public:
  // `reader` must outlive the volume.
  static Result<std::unique_ptr<NtfsVolume>> Open(const VolumeReader& reader);

  const VolumeReader& reader() const { return reader_; }
  uint32_t sector_bytes() const { return sector_bytes_; }
  uint32_t cluster_bytes() const { return cluster_bytes_; }
  uint32_t record_bytes() const { return record_bytes_; }
  uint64_t clusters() const { return clusters_; }
  // Records that were ever written; behind them nothing is defined.
  uint64_t records() const { return mft_.initialized / record_bytes_; }

  // A record in use, whole and in its place; else a Keep.
  Result<NtfsLoadedRecord> Load(uint64_t number) const;
  // All data of the file of a base record, by its attribute list if it has one.
  Result<NtfsStream> OpenData(const NtfsLoadedRecord& base, uint64_t number) const;
  // Fills `out`. REQUIRES: the range lies inside the stream's initialized size.
  Status Read(const NtfsStream& stream, uint64_t offset, std::span<uint8_t> out) const;
  Status ReadMft(uint64_t first_record, std::span<uint8_t> out) const {
    return Read(mft_, first_record * record_bytes_, out);
  }

 private:
  explicit NtfsVolume(const VolumeReader& reader) : reader_(reader) {}
  Status ReadBootSector(uint64_t* mft_cluster);
  Status OpenMft(uint64_t mft_cluster);
  Status AppendPieces(const NtfsLoadedRecord& base, uint64_t number, NtfsStream* stream) const;
  Result<std::vector<uint8_t>> ReadList(const NtfsAttribute& list) const;

  const VolumeReader& reader_;
  uint32_t sector_bytes_ = 0;
  uint32_t cluster_bytes_ = 0;
  uint32_t record_bytes_ = 0;
  uint64_t clusters_ = 0;
  NtfsStream mft_;
};

}  // namespace firn

#endif  // FIRN_USED_NTFS_VOLUME_H_
