#include "stream/whole_job.h"

#include <algorithm>

namespace firn {

namespace {

constexpr uint64_t kLeafBytes = 2 * sizeof(Id);  // in the set
constexpr uint64_t kLeavesShare = 2;             // of the memory

}  // namespace

WholeJob::WholeJob(FileSystem& fs, const Tuning& tuning, WholeOptions options)
    : Job(fs, tuning),
      options_(std::move(options)),
      known_(*options_.known),
      keys_(options_.repository.keys()) {}
WholeJob::~WholeJob() = default;

void WholeJob::ForgetWhatMoved() {
  const RepositoryListing& listing = options_.repository.listing;
  const std::set<PackName> listed(listing.packs.begin(), listing.packs.end());
  const std::set<PackName> condemned(listing.condemned.begin(), listing.condemned.end());
  const bool stands = std::all_of(
      known_.packs_.begin(), known_.packs_.end(),
      [&](const PackName& name) { return listed.contains(name) && !condemned.contains(name); });
  if (stands) return;
  known_.packs_.clear();
  known_.leaves_ = std::make_unique<IdSet>();
  known_.leaf_count_ = 0;
}

// True if the leaf and its chunks were found before. Beyond the bound they are looked up again.
bool WholeJob::IsKnown(const Id& leaf) {
  if (leaf == Id{} || known_.leaf_count_ * kLeafBytes > tuning_.memory_bytes / kLeavesShare) {
    return false;
  }
  if (!known_.leaves_->Insert(leaf)) return true;
  ++known_.leaf_count_;
  return false;
}

Status WholeJob::WalkLeaf(const MapNode::Leaf& row, uint64_t segment, uint64_t disk_bytes,
                          MapReader* maps) {
  // The same leaf may stand at the end of one disk and reach beyond the end of another.
  const bool at_end = (segment + 1) * kSegmentBytes > disk_bytes;
  const bool known = IsKnown(row.id);
  if (known && !at_end) return Status::Ok();
  if (!index_->Rely(row.id)) return MissingRecord(row.id, RecordClass::kMap);
  FIRN_ASSIGN_OR_RETURN(const MapLeaf leaf, maps->ReadLeaf(row.id));
  FIRN_RETURN_IF_ERROR(CheckLeafFits(leaf, row, segment, disk_bytes));
  for (const LeafRun& run : leaf.runs) {
    if (run.hole) continue;
    ++stats_.chunks;
    if (!index_->RelyOnChunk(run.id, run.pages * kPageBytes)) {
      return MissingRecord(run.id, RecordClass::kChunk);
    }
  }
  return Status::Ok();
}

Status WholeJob::WalkNode(const MapRoot::Node& row, uint64_t disk_bytes, MapReader* maps) {
  if (!index_->Rely(row.id)) return MissingRecord(row.id, RecordClass::kMap);
  FIRN_ASSIGN_OR_RETURN(const MapNode node, maps->ReadNode(row.id));
  uint64_t data_pages = 0;
  for (const MapNode::Leaf& leaf : node.leaves) {
    FIRN_RETURN_IF_ERROR(CheckStopped());
    const uint64_t segment = uint64_t{row.index} * kNodeLeaves + leaf.index;
    FIRN_RETURN_IF_ERROR(WalkLeaf(leaf, segment, disk_bytes, maps));
    data_pages += leaf.data_pages;
    stats_.done_bytes += kSegmentBytes;
  }
  if (data_pages == row.data_pages && node.leaves.size() == row.leaves) return Status::Ok();
  return Status::Error(Code::kCorruptObject, "a map root and its node count differently");
}

Status WholeJob::Walk() {
  struct Task {
    MapRoot::Node row;
    uint64_t disk_bytes = 0;
  };
  const auto make_reader = [this] {
    return MapReader(index_.get(), pack_files_.get(), keys_, options_.repository.chunking);
  };
  std::vector<Task> tasks;
  MapReader roots = make_reader();
  for (const WholeMap& map : options_.maps) {
    FIRN_RETURN_IF_ERROR(CheckStopped());
    if (!index_->Rely(map.root)) return MissingRecord(map.root, RecordClass::kMap);
    FIRN_ASSIGN_OR_RETURN(const MapRoot root, roots.ReadRoot(map.root));
    if (root.disk_bytes != map.disk_bytes) {
      return Status::Error(Code::kCorruptObject, "a map and its point differ on the disk's size");
    }
    for (const MapRoot::Node& row : root.nodes) {
      stats_.total_bytes += uint64_t{row.leaves} * kSegmentBytes;
      tasks.push_back({row, root.disk_bytes});
    }
  }
  std::atomic<size_t> next = 0;
  return RunWorkers(tuning_.workers, [&](uint32_t) -> Status {
    MapReader maps = make_reader();
    for (size_t i = next++; i < tasks.size(); i = next++) {
      FIRN_RETURN_IF_ERROR(WalkNode(tasks[i].row, tasks[i].disk_bytes, &maps));
    }
    return Status::Ok();
  });
}

Status WholeJob::DoRun() {
  const RepositoryListing& listing = options_.repository.listing;
  FIRN_RETURN_IF_ERROR(options_.repository.chunking.Check());
  stats_.workers = tuning_.workers;
  ForgetWhatMoved();
  FIRN_ASSIGN_OR_RETURN(index_, ChunkIndex::Open(fs_, listing));
  pack_files_ = std::make_unique<PackFiles>(fs_, listing.root, false);
  stats_.phase = Phase::kFinish;
  Status walked = Walk();
  if (!walked.ok()) {
    // A leaf is noted before its chunks are looked up.
    known_.leaves_ = std::make_unique<IdSet>();
    known_.leaf_count_ = 0;
    known_.packs_.clear();
    return walked;
  }
  for (const PackName& name : index_->ReliedPacks()) known_.packs_.insert(name);
  packs_.assign(known_.packs_.begin(), known_.packs_.end());
  return Status::Ok();
}

}  // namespace firn
