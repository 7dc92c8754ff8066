#include "disk/disk.h"

#include <algorithm>
#include <cstring>

#include "disk/layer.h"
#include "disk/layer_chain.h"

namespace firn {
namespace {

void AppendExtent(const Extent& extent, std::vector<Extent>* extents) {
  if (extent.length == 0) return;
  if (!extents->empty()) {
    Extent& last = extents->back();
    const bool adjacent =
        last.offset + last.length == extent.offset && last.source == extent.source;
    const bool continues =
        extent.source == nullptr || last.source_offset + last.length == extent.source_offset;
    if (adjacent && continues) {
      last.length += extent.length;
      return;
    }
  }
  extents->push_back(extent);
}

class ChainDisk final : public Disk {
 public:
  ChainDisk(std::vector<std::unique_ptr<Layer>> layers, std::vector<LayerInfo> infos)
      : layers_(std::move(layers)), infos_(std::move(infos)) {
    uint64_t visible = layers_.front()->size();
    for (const std::unique_ptr<Layer>& layer : layers_) {
      visible = std::min(visible, layer->size());
      visible_.push_back(visible);
    }
  }

  const DiskIdentity& identity() const override { return layers_.front()->identity(); }
  const std::vector<LayerInfo>& layers() const override { return infos_; }

  Status Map(uint64_t offset, uint64_t length, std::vector<Extent>* extents) const override {
    if (!RangeInside(offset, length, size())) {
      return Status::Error(Code::kInvalidArgument, "the range to map is not inside the disk")
          .At(layers_.front()->path(), offset);
    }
    return MapLayer(0, offset, length, extents);
  }

  Result<uint64_t> NextPresent(uint64_t offset) const override {
    std::vector<uint64_t> next(layers_.size(), 0);
    std::vector<bool> known(layers_.size(), false);
    while (offset < size()) {
      // The layer that has data first; a layer's answer stays good until the search passes it.
      size_t owner = 0;
      uint64_t best = size();
      for (size_t i = 0; i < layers_.size(); ++i) {
        if (!known[i] || next[i] < offset) {
          FIRN_ASSIGN_OR_RETURN(next[i], layers_[i]->NextData(offset));
          known[i] = true;
        }
        const bool is_visible = next[i] < visible_[i];
        if (is_visible && next[i] < best) best = next[i], owner = i;
      }
      FIRN_ASSIGN_OR_RETURN(const uint64_t shown, SkipHidden(owner, best));
      if (shown == best) return best;
      offset = shown;
    }
    return size();
  }

  Status CheckUnchanged() const override {
    for (const std::unique_ptr<Layer>& layer : layers_) {
      FIRN_RETURN_IF_ERROR(layer->CheckUnchanged());
    }
    return Status::Ok();
  }

 private:
  Status MapLayer(size_t index, uint64_t offset, uint64_t length,
                  std::vector<Extent>* extents) const {
    if (index >= layers_.size() || offset >= visible_[index]) {
      AppendExtent({offset, length, nullptr, 0}, extents);
      return Status::Ok();
    }
    const Layer& layer = *layers_[index];
    const uint64_t inside = std::min(length, visible_[index] - offset);
    std::vector<LayerRun> runs;
    FIRN_RETURN_IF_ERROR(layer.Map(offset, inside, &runs));
    for (const LayerRun& run : runs) {
      switch (run.kind) {
        case LayerRun::Kind::kData:
          AppendExtent({run.offset, run.length, &layer.source(), run.source_offset}, extents);
          break;
        case LayerRun::Kind::kZero:
          AppendExtent({run.offset, run.length, nullptr, 0}, extents);
          break;
        case LayerRun::Kind::kParent:
          FIRN_RETURN_IF_ERROR(MapLayer(index + 1, run.offset, run.length, extents));
          break;
      }
    }
    // A parent may be shorter than its child; what it lacks is zero.
    AppendExtent({offset + inside, length - inside, nullptr, 0}, extents);
    return Status::Ok();
  }

  // Where layers above `owner` stop hiding `offset` with zeros; `offset` itself if none does.
  Result<uint64_t> SkipHidden(size_t owner, uint64_t offset) const {
    for (size_t i = 0; i < owner; ++i) {
      FIRN_ASSIGN_OR_RETURN(const uint64_t shown, layers_[i]->NextNotZero(offset));
      if (shown > offset) return shown;
    }
    return offset;
  }

  const std::vector<std::unique_ptr<Layer>> layers_;  // the child first
  const std::vector<LayerInfo> infos_;
  std::vector<uint64_t> visible_;  // how much of each layer its children show
};

}  // namespace

const char* FormatName(DiskFormat format) {
  switch (format) {
    case DiskFormat::kRaw:
      return "raw";
    case DiskFormat::kVhd:
      return "vhd";
    case DiskFormat::kVhdx:
      return "vhdx";
  }
  return "unknown";
}

const char* KindName(DiskKind kind) {
  switch (kind) {
    case DiskKind::kFixed:
      return "fixed";
    case DiskKind::kDynamic:
      return "dynamic";
    case DiskKind::kDifferencing:
      return "differencing";
  }
  return "unknown";
}

Result<std::unique_ptr<Disk>> Disk::Open(FileSystem& fs, const std::string& path,
                                         const OpenDiskOptions& options) {
  LayerChain chain(fs, options);
  FIRN_RETURN_IF_ERROR(chain.Open(path));
  return std::unique_ptr<Disk>(new ChainDisk(std::move(chain.layers()), std::move(chain.infos())));
}

Status Disk::Read(uint64_t offset, std::span<uint8_t> out) const {
  std::vector<Extent> extents;
  FIRN_RETURN_IF_ERROR(Map(offset, out.size(), &extents));
  for (const Extent& extent : extents) {
    const std::span<uint8_t> piece = out.subspan(extent.offset - offset, extent.length);
    if (extent.source == nullptr) {
      std::memset(piece.data(), 0, piece.size());
    } else {
      FIRN_RETURN_IF_ERROR(extent.source->buffered->ReadAt(extent.source_offset, piece));
    }
  }
  return Status::Ok();
}

Result<Inspection> InspectDisk(FileSystem& fs, const std::string& path,
                               const OpenDiskOptions& options) {
  OpenDiskOptions buffered = options;
  buffered.direct = false;
  FIRN_RETURN_IF_ERROR(fs.Open(path, {}).status());
  LayerChain chain(fs, buffered);
  Inspection inspection;
  inspection.error = chain.Open(path);
  inspection.layers = std::move(chain.infos());
  return inspection;
}

}  // namespace firn
