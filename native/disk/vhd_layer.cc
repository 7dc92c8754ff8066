#include "disk/vhd_layer.h"

#include <algorithm>
#include <vector>

#include "disk/metadata_reader.h"
#include "disk/raw_layer.h"
#include "disk/sector_bitmap.h"
#include "disk/vhd_format.h"
#include "disk/vhd_header.h"

namespace firn {
namespace {

constexpr uint64_t kErrorsMax = 16;

Status CheckFooterUnchanged(File& file, const Layer& layer, uint64_t file_bytes,
                            const VhdFooter& then) {
  LayerInfo scratch;
  scratch.path = layer.path();
  VhdFooter now;
  FIRN_ASSIGN_OR_RETURN(const bool found, FindVhdFooter(file, file_bytes, &scratch, &now));
  if (found && now.bytes == then.bytes) return Status::Ok();
  return Status::Error(Code::kSourceChanged, "the VHD's footer is another one now")
      .At(layer.path(), then.payload_end);
}

class FixedVhdLayer final : public RawLayer {
 public:
  FixedVhdLayer(LayerFiles files, const DiskIdentity& identity, const VhdFooter& footer)
      : RawLayer(std::move(files), identity, footer.uuid), footer_(footer) {}

  Status CheckUnchanged() const override {
    FIRN_RETURN_IF_ERROR(RawLayer::CheckUnchanged());
    return CheckFooterUnchanged(file(), *this, file_bytes(), footer_);
  }

 private:
  const VhdFooter footer_;
};

// The block allocation table: which sector each block's bitmap starts at.
struct VhdBat {
  uint64_t virtual_size = 0;
  uint64_t block_size = 0;
  std::vector<uint32_t> sectors;  // kBatAbsent where there is no block
  std::vector<uint32_t> present;  // the numbers of blocks that are there, ascending

  uint64_t BytesInBlock(uint64_t block) const {
    return std::min(block_size, virtual_size - block * block_size);
  }
  uint64_t Offset(uint64_t block) const { return sectors[block] * vhd::kSectorBytes; }
  uint64_t DataOffset(uint64_t block) const { return Offset(block) + vhd::BitmapBytes(block_size); }
  uint64_t DataEnd(uint64_t block) const { return DataOffset(block) + BytesInBlock(block); }
};

class DynamicVhdLayer final : public Layer {
 public:
  DynamicVhdLayer(LayerFiles files, const DiskIdentity& identity, const VhdFooter& footer,
                  VhdBat bat, std::optional<ParentReference> parent)
      : Layer(std::move(files), identity, footer.uuid, std::move(parent)),
        footer_(footer),
        bat_(std::move(bat)),
        bitmaps_(file(), file_bytes(), LogOverlay()) {}

  Status Map(uint64_t offset, uint64_t length, std::vector<LayerRun>* runs) const override {
    while (length > 0) {
      const uint64_t block = offset / bat_.block_size;
      const uint64_t within = offset % bat_.block_size;
      const uint64_t piece = std::min(length, bat_.block_size - within);
      if (bat_.sectors[block] == vhd::kBatAbsent) {
        AppendRun({offset, piece, AbsentKind(), 0}, runs);
      } else if (parent() != nullptr) {
        FIRN_RETURN_IF_ERROR(MapBySectors(block, within, piece, runs));
      } else {
        // Windows ignores the bitmap of a dynamic disk's block, whatever the specification says of
        // its zeros.
        AppendRun({offset, piece, LayerRun::Kind::kData, bat_.DataOffset(block) + within}, runs);
      }
      offset += piece;
      length -= piece;
    }
    return Status::Ok();
  }

  Result<uint64_t> NextData(uint64_t offset) const override {
    if (offset >= size()) return size();
    const auto next = std::ranges::lower_bound(bat_.present, offset / bat_.block_size);
    if (next == bat_.present.end()) return size();
    return std::max(offset, *next * bat_.block_size);
  }

  Result<uint64_t> NextNotZero(uint64_t offset) const override {
    // A block that a differencing VHD lacks is its parent's: the format has no way to say zero.
    return parent() != nullptr ? std::min(offset, size()) : NextData(offset);
  }

  std::string LinkageToString(const Guid& id) const override { return VhdUuidToString(id); }

  Status CheckUnchanged() const override {
    FIRN_RETURN_IF_ERROR(CheckSizeUnchanged());
    return CheckFooterUnchanged(file(), *this, file_bytes(), footer_);
  }

 private:
  LayerRun::Kind AbsentKind() const {
    return parent() != nullptr ? LayerRun::Kind::kParent : LayerRun::Kind::kZero;
  }

  Status MapBySectors(uint64_t block, uint64_t within, uint64_t length,
                      std::vector<LayerRun>* runs) const {
    const uint64_t first_byte = within / vhd::kSectorBytes / 8;
    const uint64_t end = within + length;
    std::vector<uint8_t> bits(DivideUp(DivideUp(end, vhd::kSectorBytes), 8) - first_byte);
    FIRN_RETURN_IF_ERROR(bitmaps_.ReadCached(bat_.Offset(block) + first_byte, bits));

    uint64_t bit = within / vhd::kSectorBytes - first_byte * 8;
    const uint64_t bits_end = DivideUp(end, vhd::kSectorBytes) - first_byte * 8;
    while (bit < bits_end) {
      const bool present = TestBit(bits, bit, BitOrder::kMostSignificantFirst);
      bit = BitRunEnd(bits, bit, bits_end, BitOrder::kMostSignificantFirst);
      const uint64_t to = std::min((first_byte * 8 + bit) * vhd::kSectorBytes, end);
      AppendRun({block * bat_.block_size + within, to - within,
                 present ? LayerRun::Kind::kData : LayerRun::Kind::kParent,
                 present ? bat_.DataOffset(block) + within : 0},
                runs);
      within = to;
    }
    return Status::Ok();
  }

  const VhdFooter footer_;
  const VhdBat bat_;
  const MetadataReader bitmaps_;
};

Result<VhdBat> ReadBat(File& file, const VhdFooter& footer, const VhdDynamicHeader& header) {
  VhdBat bat;
  bat.virtual_size = footer.virtual_size;
  bat.block_size = header.block_size;
  bat.sectors.resize(header.blocks);
  FIRN_RETURN_IF_ERROR(
      file.ReadAt(header.table_offset, std::span(reinterpret_cast<uint8_t*>(bat.sectors.data()),
                                                 bat.sectors.size() * vhd::kBatEntryBytes)));
  for (uint32_t block = 0; block < header.blocks; ++block) {
    bat.sectors[block] = SwapBytes(bat.sectors[block]);
    if (bat.sectors[block] != vhd::kBatAbsent) bat.present.push_back(block);
  }
  return bat;
}

// Every block lies inside the file, clear of the headers, the table and all other blocks.
Status CheckBat(const VhdBat& bat, const VhdFooter& footer, const VhdDynamicHeader& header,
                LayerInfo* info) {
  const auto overlaps = [&](uint32_t block, uint64_t offset, uint64_t length) {
    return bat.Offset(block) < offset + length && offset < bat.DataEnd(block);
  };
  const uint64_t table_bytes = bat.sectors.size() * vhd::kBatEntryBytes;
  std::vector<uint32_t> by_place = bat.present;
  std::ranges::sort(by_place, {}, [&](uint32_t block) { return bat.sectors[block]; });

  Status first;
  uint64_t errors = 0;
  uint64_t taken_until = 0;
  for (const uint32_t block : by_place) {
    const uint64_t at = header.table_offset + uint64_t{block} * vhd::kBatEntryBytes;
    const auto name = [&] {
      return "block " + std::to_string(block) + " (at " + std::to_string(bat.Offset(block)) +
             " of the file) ";
    };
    const bool truncated = bat.DataEnd(block) > footer.payload_end;
    const bool misplaced = bat.Offset(block) < taken_until ||
                           overlaps(block, 0, vhd::footer::kBytes) ||
                           overlaps(block, footer.data_offset, vhd::dynamic_header::kBytes) ||
                           overlaps(block, header.table_offset, table_bytes);
    taken_until = std::max(taken_until, bat.DataEnd(block));
    if (!truncated && !misplaced) continue;
    if (++errors > kErrorsMax) continue;
    Status error =
        truncated
            ? Truncated(info, "block-truncated", name() + "reaches past the end of the file", at)
            : Invalid(info, "bat-overlap", name() + "overlaps another structure or block", at);
    if (first.ok()) first = std::move(error);
  }
  if (errors > kErrorsMax) {
    AddFinding(info, DiskFinding::Severity::kError, "bat-more",
               std::to_string(errors - kErrorsMax) + " more errors in the BAT");
  }
  return first;
}

}  // namespace

Result<std::unique_ptr<Layer>> OpenVhdLayer(LayerFiles files, LayerInfo* info) {
  File& file = *files.buffered;
  info->identity.format = DiskFormat::kVhd;
  FIRN_ASSIGN_OR_RETURN(const VhdFooter footer, ReadVhdFooter(file, files.bytes, info));
  DiskIdentity identity;
  identity.format = DiskFormat::kVhd;
  identity.size = footer.virtual_size;
  identity.disk_id = footer.uuid;
  identity.kind = footer.type == vhd::Type::kFixed     ? DiskKind::kFixed
                  : footer.type == vhd::Type::kDynamic ? DiskKind::kDynamic
                                                       : DiskKind::kDifferencing;
  info->identity = identity;
  if (footer.type == vhd::Type::kFixed) {
    return std::unique_ptr<Layer>(new FixedVhdLayer(std::move(files), identity, footer));
  }

  FIRN_ASSIGN_OR_RETURN(const VhdDynamicHeader header, ReadVhdDynamicHeader(file, footer, info));
  identity.block_size = header.block_size;
  info->identity = identity;
  info->blocks = header.blocks;
  std::optional<ParentReference> parent;
  if (footer.type == vhd::Type::kDifferencing) {
    info->parent_linkage = VhdUuidToString(header.parent_uuid);
    for (const ParentReference::Location& location : header.parent_locations) {
      info->parent_locator.emplace_back(location.key, location.path);
    }
    parent = ParentReference{header.parent_locations, {header.parent_uuid}};
  }
  FIRN_ASSIGN_OR_RETURN(VhdBat bat, ReadBat(file, footer, header));
  uint64_t& present = parent ? info->blocks_partial : info->blocks_full;
  present = bat.present.size();
  FIRN_RETURN_IF_ERROR(CheckBat(bat, footer, header, info));
  return std::unique_ptr<Layer>(
      new DynamicVhdLayer(std::move(files), identity, footer, std::move(bat), std::move(parent)));
}

}  // namespace firn
