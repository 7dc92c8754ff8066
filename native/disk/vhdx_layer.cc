#include "disk/vhdx_layer.h"

#include <algorithm>
#include <vector>

#include "disk/metadata_reader.h"
#include "disk/sector_bitmap.h"
#include "disk/vhdx_bat.h"
#include "disk/vhdx_format.h"
#include "disk/vhdx_header.h"
#include "disk/vhdx_log.h"
#include "disk/vhdx_metadata.h"

namespace firn {
namespace {

class VhdxLayer final : public Layer {
 public:
  struct Parts {
    DiskIdentity identity;
    VhdxHeader header;
    std::optional<ParentReference> parent;
    std::unique_ptr<MetadataReader> reader;
    std::unique_ptr<VhdxBat> bat;
  };

  VhdxLayer(LayerFiles files, Parts parts)
      : Layer(std::move(files), parts.identity, parts.header.data_write_guid,
              std::move(parts.parent)),
        header_(parts.header),
        reader_(std::move(parts.reader)),
        bat_(std::move(parts.bat)) {}

  Status Map(uint64_t offset, uint64_t length, std::vector<LayerRun>* runs) const override {
    const uint64_t block_size = bat_->layout().block_size;
    while (length > 0) {
      const uint64_t block = offset / block_size;
      const uint64_t within = offset % block_size;
      const uint64_t piece = std::min(length, block_size - within);
      FIRN_RETURN_IF_ERROR(MapInBlock(block, within, piece, runs));
      offset += piece;
      length -= piece;
    }
    return Status::Ok();
  }

  Result<uint64_t> NextData(uint64_t offset) const override {
    return NextOfKind(offset, VhdxBat::kData);
  }

  Result<uint64_t> NextNotZero(uint64_t offset) const override {
    const uint8_t absent = parent() != nullptr ? VhdxBat::kAbsent : uint8_t{0};
    return NextOfKind(offset, VhdxBat::kData | absent);
  }

  Status CheckUnchanged() const override {
    FIRN_RETURN_IF_ERROR(CheckSizeUnchanged());
    LayerInfo scratch;
    scratch.path = path();
    FIRN_ASSIGN_OR_RETURN(const VhdxHeader now, ReadVhdxHeader(file(), file_bytes(), &scratch));
    if (now.sequence_number == header_.sequence_number &&
        now.file_write_guid == header_.file_write_guid) {
      return Status::Ok();
    }
    return Status::Error(Code::kSourceChanged,
                         "the file was opened for writing: its header is another one now")
        .At(path(), vhdx::kHeaderOffsets[0]);
  }

 private:
  Result<uint64_t> NextOfKind(uint64_t offset, uint8_t kinds) const {
    if (offset >= size()) return size();
    const uint64_t block_size = bat_->layout().block_size;
    FIRN_ASSIGN_OR_RETURN(const uint64_t block, bat_->FindBlock(offset / block_size, kinds));
    return std::min(std::max(offset, block * block_size), size());
  }

  // `within`: bytes into the block.
  Status MapInBlock(uint64_t block, uint64_t within, uint64_t length,
                    std::vector<LayerRun>* runs) const {
    FIRN_ASSIGN_OR_RETURN(const uint64_t entry, bat_->PayloadEntry(block));
    const uint64_t offset = block * bat_->layout().block_size + within;
    const uint64_t source_offset = vhdx::BatOffsetOf(entry) + within;
    switch (vhdx::PayloadStateOf(entry)) {
      case vhdx::PayloadState::kFullyPresent:
        AppendData(offset, length, source_offset, runs);
        return Status::Ok();
      case vhdx::PayloadState::kPartiallyPresent:
        return MapBySectors(block, within, length, source_offset, runs);
      case vhdx::PayloadState::kNotPresent:
        if (parent() != nullptr) {
          AppendRun({offset, length, LayerRun::Kind::kParent, 0}, runs);
          return Status::Ok();
        }
        break;
      default:
        break;
    }
    AppendRun({offset, length, LayerRun::Kind::kZero, 0}, runs);
    return Status::Ok();
  }

  Status MapBySectors(uint64_t block, uint64_t within, uint64_t length, uint64_t source_offset,
                      std::vector<LayerRun>* runs) const {
    const vhdx::BatLayout& layout = bat_->layout();
    FIRN_ASSIGN_OR_RETURN(const uint64_t bitmap, bat_->BitmapOffset(layout.ChunkOf(block)));
    const uint64_t first_bit = layout.FirstBit(block) + within / layout.sector_size;
    const uint64_t end_bit = layout.FirstBit(block) + DivideUp(within + length, layout.sector_size);
    const uint64_t first_byte = first_bit / 8;
    std::vector<uint8_t> bits(DivideUp(end_bit, 8) - first_byte);
    FIRN_RETURN_IF_ERROR(reader_->ReadCached(bitmap + first_byte, bits));

    const uint64_t block_start = block * layout.block_size;
    const uint64_t block_source = source_offset - within;
    const uint64_t end = within + length;
    uint64_t bit = first_bit - first_byte * 8;
    const uint64_t bits_end = end_bit - first_byte * 8;
    while (bit < bits_end) {
      const uint64_t run_end = BitRunEnd(bits, bit, bits_end, BitOrder::kLeastSignificantFirst);
      const bool present = TestBit(bits, bit, BitOrder::kLeastSignificantFirst);
      // The range need not start or end with a sector.
      const uint64_t run_sector = first_byte * 8 + run_end - layout.FirstBit(block);
      const uint64_t to = std::min(run_sector * layout.sector_size, end);
      if (present) {
        AppendData(block_start + within, to - within, block_source + within, runs);
      } else {
        AppendRun({block_start + within, to - within, LayerRun::Kind::kParent, 0}, runs);
      }
      within = to;
      bit = run_end;
    }
    return Status::Ok();
  }

  // What a replay would have extended the file by is zero.
  void AppendData(uint64_t offset, uint64_t length, uint64_t source_offset,
                  std::vector<LayerRun>* runs) const {
    const uint64_t in_file =
        source_offset >= file_bytes() ? 0 : std::min(length, file_bytes() - source_offset);
    AppendRun({offset, in_file, LayerRun::Kind::kData, source_offset}, runs);
    AppendRun({offset + in_file, length - in_file, LayerRun::Kind::kZero, 0}, runs);
  }

  const VhdxHeader header_;
  const std::unique_ptr<const MetadataReader> reader_;
  const std::unique_ptr<const VhdxBat> bat_;
};

DiskIdentity IdentityOf(const VhdxMetadata& metadata) {
  DiskIdentity identity;
  identity.format = DiskFormat::kVhdx;
  identity.kind = metadata.has_parent               ? DiskKind::kDifferencing
                  : metadata.leave_blocks_allocated ? DiskKind::kFixed
                                                    : DiskKind::kDynamic;
  identity.size = metadata.virtual_size;
  identity.block_size = metadata.block_size;
  identity.logical_sector_size = metadata.logical_sector_size;
  identity.physical_sector_size = metadata.physical_sector_size;
  identity.disk_id = metadata.disk_id;
  return identity;
}

}  // namespace

Result<std::unique_ptr<Layer>> OpenVhdxLayer(LayerFiles files, LayerInfo* info) {
  // The order of checks is that of what each needs: from the log on, all reads go through its
  // overlay.
  File& file = *files.buffered;
  info->identity.format = DiskFormat::kVhdx;
  FIRN_RETURN_IF_ERROR(ReadVhdxFileId(file, files.bytes, info));
  VhdxLayer::Parts parts;
  FIRN_ASSIGN_OR_RETURN(parts.header, ReadVhdxHeader(file, files.bytes, info));
  FIRN_ASSIGN_OR_RETURN(VhdxReplay replay, ReplayVhdxLog(file, files.bytes, parts.header, info));
  parts.reader =
      std::make_unique<MetadataReader>(file, replay.file_bytes, std::move(replay.overlay));
  FIRN_ASSIGN_OR_RETURN(const VhdxRegions regions,
                        ReadVhdxRegions(*parts.reader, parts.header, info));
  FIRN_ASSIGN_OR_RETURN(const VhdxMetadata metadata,
                        ReadVhdxMetadata(*parts.reader, regions.metadata, info));
  parts.identity = IdentityOf(metadata);
  info->identity = parts.identity;
  if (metadata.has_parent) {
    info->parent_locator = metadata.parent_locator;
    FIRN_ASSIGN_OR_RETURN(ParentReference parent,
                          InterpretParentLocator(metadata.parent_locator, info));
    info->parent_linkage = GuidToString(parent.linkages.front());
    parts.parent = std::move(parent);
  }
  const vhdx::BatLayout layout =
      vhdx::MakeBatLayout(metadata.virtual_size, metadata.block_size, metadata.logical_sector_size,
                          metadata.has_parent);
  FIRN_ASSIGN_OR_RETURN(parts.bat, VhdxBat::Open(*parts.reader, layout, metadata.has_parent,
                                                 parts.header, regions, info));
  return std::unique_ptr<Layer>(new VhdxLayer(std::move(files), std::move(parts)));
}

}  // namespace firn
