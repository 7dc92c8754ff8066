#include "disk/raw_layer.h"

#include <algorithm>

namespace firn {

Status RawLayer::Map(uint64_t offset, uint64_t length, std::vector<LayerRun>* runs) const {
  const uint64_t end = offset + length;
  while (offset < end) {
    FIRN_ASSIGN_OR_RETURN(const DataRange range, holes_.Next(file(), offset, size()));
    const uint64_t data_begin = std::clamp(range.begin, offset, end);
    const uint64_t data_end = std::clamp(range.end, data_begin, end);
    AppendRun({offset, data_begin - offset, LayerRun::Kind::kZero, 0}, runs);
    AppendRun({data_begin, data_end - data_begin, LayerRun::Kind::kData, data_begin}, runs);
    offset = data_end;
  }
  return Status::Ok();
}

Result<uint64_t> RawLayer::NextData(uint64_t offset) const {
  if (offset >= size()) return size();
  FIRN_ASSIGN_OR_RETURN(const DataRange range, holes_.Next(file(), offset, size()));
  return std::min(std::max(range.begin, offset), size());
}

Result<std::unique_ptr<Layer>> OpenRawLayer(LayerFiles files, LayerInfo* info) {
  DiskIdentity identity;
  identity.format = DiskFormat::kRaw;
  identity.kind = DiskKind::kFixed;
  identity.size = files.bytes;
  info->identity = identity;
  if (identity.size == 0) return Invalid(info, "empty-file", "the file is empty", 0);
  return std::unique_ptr<Layer>(new RawLayer(std::move(files), identity, Guid{}));
}

}  // namespace firn
