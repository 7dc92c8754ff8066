// A file whose bytes are the disk's: a raw image, or the payload of a fixed VHD. Holes of the file
// are holes of the disk.
#ifndef FIRN_DISK_RAW_LAYER_H_
#define FIRN_DISK_RAW_LAYER_H_

#include <memory>

#include "core/status.h"
#include "disk/file_holes.h"
#include "disk/layer.h"

namespace firn {

class RawLayer : public Layer {
 public:
  // The disk is the first identity.size bytes of the file. REQUIRES: the file has them.
  RawLayer(LayerFiles files, const DiskIdentity& identity, const Guid& linkage_id)
      : Layer(std::move(files), identity, linkage_id, std::nullopt) {}

  Status Map(uint64_t offset, uint64_t length, std::vector<LayerRun>* runs) const override;
  Result<uint64_t> NextData(uint64_t offset) const override;
  Result<uint64_t> NextNotZero(uint64_t offset) const override { return NextData(offset); }
  Status CheckUnchanged() const override { return CheckSizeUnchanged(); }

 private:
  FileHoles holes_;
};

// The disk is as long as the file, to the byte: a length that is no multiple of the sector size is
// kept.
Result<std::unique_ptr<Layer>> OpenRawLayer(LayerFiles files, LayerInfo* info);

}  // namespace firn

#endif  // FIRN_DISK_RAW_LAYER_H_
