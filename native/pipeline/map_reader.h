// Stored maps and single records, read and checked.
//
// A MapReader belongs to one thread. Every object's id is recomputed before it is believed; what a
// damaged or hostile repository can do is make it fail.
#ifndef FIRN_PIPELINE_MAP_READER_H_
#define FIRN_PIPELINE_MAP_READER_H_

#include <functional>
#include <vector>

#include "chunk/map_format.h"
#include "codec/record.h"
#include "index/chunk_index.h"
#include "pack/pack_reader.h"

namespace firn {

class MapReader {
 public:
  MapReader(const ChunkIndex* index, PackFiles* packs, const RepositoryKeys& keys,
            const ChunkingParameters& chunking)
      : index_(index), packs_(packs), decoder_(keys), chunking_(chunking) {}

  // Content of any record, by id: where one copy is damaged or gone, of another. kChunkMissing when
  // no index run has it, else what is wrong with the first copy. `content` keeps its memory between
  // calls.
  Status ReadRecord(const Id& id, RecordClass record_class, std::vector<uint8_t>* content);

  Result<MapRoot> ReadRoot(const Id& id);
  Result<MapNode> ReadNode(const Id& id);
  Result<MapLeaf> ReadLeaf(const Id& id);

  // Calls `visit` for each stored segment, in order, until it fails. A node and its leaves must
  // agree in their counts.
  using LeafVisitor = std::function<Status(uint64_t segment, const MapLeaf& leaf)>;
  Status VisitLeaves(const MapRoot& root, const LeafVisitor& visit);

 private:
  Status ReadRecordAt(const ChunkPlace& place, const Id& id, RecordClass record_class,
                      std::vector<uint8_t>* content);

  const ChunkIndex* const index_;
  PackFiles* const packs_;
  RecordDecoder decoder_;
  const ChunkingParameters chunking_;
  std::vector<uint8_t> stored_;
  std::vector<uint8_t> content_;
};

// The error for an id that no index run knows.
Status MissingRecord(const Id& id, RecordClass record_class);

// What the index promised must be what the record's own header says.
Status CheckRecordMatches(const RecordHeader& header, const Id& id, const ChunkPlace& place);

// What a leaf must be in its place: of as many pages as its node says, and hole beyond the disk's
// end.
Status CheckLeafFits(const MapLeaf& leaf, const MapNode::Leaf& row, uint64_t segment,
                     uint64_t disk_bytes);

}  // namespace firn

#endif  // FIRN_PIPELINE_MAP_READER_H_
