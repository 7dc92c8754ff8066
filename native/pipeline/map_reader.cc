#include "pipeline/map_reader.h"

namespace firn {

Status MissingRecord(const Id& id, RecordClass record_class) {
  const char* what = record_class == RecordClass::kChunk ? "chunk " : "map object ";
  return Status::Error(Code::kChunkMissing,
                       what + ToHex(id) + " is in no pack that the index knows")
      .DataLoss();
}

Status CheckRecordMatches(const RecordHeader& header, const Id& id, const ChunkPlace& place) {
  if (header.id == id && header.stored_length == place.stored_length &&
      header.raw_length == place.raw_length && header.record_class == place.record_class) {
    return Status::Ok();
  }
  return Status::Error(Code::kCorruptIndex, "the index points to a place where another record is");
}

Status CheckLeafFits(const MapLeaf& leaf, const MapNode::Leaf& row, uint64_t segment,
                     uint64_t disk_bytes) {
  if (leaf.data_pages() != row.data_pages) {
    return Status::Error(Code::kCorruptObject, "a map node and its leaf count differently");
  }
  uint64_t page = segment * kSegmentPages;
  for (const LeafRun& run : leaf.runs) {
    page += run.pages;
    if (!run.hole && page > DivideUp(disk_bytes, kPageBytes)) {
      return Status::Error(Code::kCorruptObject, "a map has data beyond the disk's end");
    }
  }
  return Status::Ok();
}

Status MapReader::ReadRecord(const Id& id, RecordClass record_class,
                             std::vector<uint8_t>* content) {
  const std::optional<ChunkPlace> first = index_->Find(id);
  if (!first) return MissingRecord(id, record_class);
  Status status = ReadRecordAt(*first, id, record_class, content);
  if (status.ok()) return status;
  for (const ChunkPlace& place : index_->FindAll(id)) {
    if (place.pack == first->pack && place.offset == first->offset) continue;
    if (ReadRecordAt(place, id, record_class, content).ok()) return Status::Ok();
  }
  return status;
}

Status MapReader::ReadRecordAt(const ChunkPlace& place, const Id& id, RecordClass record_class,
                               std::vector<uint8_t>* content) {
  if (place.record_class != record_class) return MissingRecord(id, record_class);
  // The index is not to be believed about sizes before it allocates memory.
  if (place.stored_length > kRecordContentMax || place.raw_length > kRecordContentMax) {
    return Status::Error(Code::kCorruptIndex, "the index names a record of impossible size");
  }
  FIRN_ASSIGN_OR_RETURN(std::shared_ptr<File> file, packs_->Open(index_->pack_name(place.pack)));
  stored_.resize(kRecordHeaderBytes + place.stored_length);
  Status read = file->ReadAt(place.offset, stored_);
  if (read.code() == Code::kDiskTruncated) {
    return Status::Error(Code::kCorruptPack, "the pack ends inside a record")
        .At(file->path(), place.offset)
        .DataLoss();
  }
  FIRN_RETURN_IF_ERROR(read);
  Result<RecordHeader> header = RecordHeader::Decode(stored_.data());
  if (!header.ok()) return std::move(header).TakeStatus().At(file->path(), place.offset);
  Status status = CheckRecordMatches(*header, id, place);
  content->resize(place.raw_length);
  if (status.ok()) {
    status = decoder_.Decode(*header, std::span(stored_).subspan(kRecordHeaderBytes), *content,
                             index_->pack_name(place.pack).writer());
  }
  if (!status.ok()) return std::move(status).At(file->path(), place.offset);
  return Status::Ok();
}

Result<MapRoot> MapReader::ReadRoot(const Id& id) {
  FIRN_RETURN_IF_ERROR(ReadRecord(id, RecordClass::kMap, &content_));
  return DecodeRoot(content_);
}

Result<MapNode> MapReader::ReadNode(const Id& id) {
  FIRN_RETURN_IF_ERROR(ReadRecord(id, RecordClass::kMap, &content_));
  return DecodeNode(content_);
}

Result<MapLeaf> MapReader::ReadLeaf(const Id& id) {
  FIRN_RETURN_IF_ERROR(ReadRecord(id, RecordClass::kMap, &content_));
  return DecodeLeaf(content_, chunking_);
}

Status MapReader::VisitLeaves(const MapRoot& root, const LeafVisitor& visit) {
  for (const MapRoot::Node& row : root.nodes) {
    FIRN_ASSIGN_OR_RETURN(MapNode node, ReadNode(row.id));
    uint64_t data_pages = 0;
    for (const MapNode::Leaf& leaf_row : node.leaves) {
      const uint64_t segment = uint64_t{row.index} * kNodeLeaves + leaf_row.index;
      FIRN_ASSIGN_OR_RETURN(MapLeaf leaf, ReadLeaf(leaf_row.id));
      FIRN_RETURN_IF_ERROR(CheckLeafFits(leaf, leaf_row, segment, root.disk_bytes));
      data_pages += leaf_row.data_pages;
      FIRN_RETURN_IF_ERROR(visit(segment, leaf));
    }
    if (node.leaves.size() != row.leaves || data_pages != row.data_pages) {
      return Status::Error(Code::kCorruptObject, "a map root and its node count differently");
    }
  }
  return Status::Ok();
}

}  // namespace firn
