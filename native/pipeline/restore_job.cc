#include "pipeline/restore_job.h"

#include <algorithm>

#include "pipeline/restore_worker.h"

namespace firn {

namespace {

// Reading this much more is cheaper than another request.
constexpr uint64_t kGapBytesMax = 256 * kKiB;

// Where the record at `place` ends, rounded so that the range can be read unbuffered.
uint64_t RecordEnd(const ChunkPlace& place) {
  return RoundUp(uint64_t{place.offset} + kRecordHeaderBytes + place.stored_length, kPackAlignment);
}

RestoreMemory PlanMemory(const Tuning& tuning, uint64_t range_buffer, uint64_t output_buffer) {
  RestoreMemory plan;
  const uint64_t window_bytes = std::clamp<uint64_t>(tuning.memory_bytes / 4, 4 * kMiB, kGiB);
  plan.references_max = window_bytes / sizeof(ChunkReference);
  const uint64_t rest = tuning.memory_bytes - std::min(tuning.memory_bytes, window_bytes);
  const uint64_t least = plan.worker_bytes(range_buffer, output_buffer);
  plan.workers =
      static_cast<uint32_t>(std::clamp<uint64_t>(rest / least, 1, std::max(1u, tuning.workers)));
  return plan;
}

}  // namespace

std::vector<PackRange> PlanPackRanges(std::vector<ChunkReference>* window,
                                      uint64_t range_bytes_max) {
  std::sort(window->begin(), window->end(), [](const ChunkReference& a, const ChunkReference& b) {
    if (a.place.pack != b.place.pack) return a.place.pack < b.place.pack;
    if (a.place.offset != b.place.offset) return a.place.offset < b.place.offset;
    return a.first_page < b.first_page;
  });
  std::vector<PackRange> ranges;
  for (size_t i = 0; i < window->size(); ++i) {
    const ChunkPlace& place = (*window)[i].place;
    const uint64_t begin = RoundDown(place.offset, kPackAlignment);
    const uint64_t end = RecordEnd(place);
    const bool joins = !ranges.empty() && ranges.back().pack == place.pack &&
                       begin <= ranges.back().end + kGapBytesMax &&
                       std::max(end, ranges.back().end) - ranges.back().begin <= range_bytes_max;
    if (joins) {
      ranges.back().end = std::max(end, ranges.back().end);
      ranges.back().last = i + 1;
    } else {
      ranges.push_back({place.pack, begin, end, i, i + 1});
    }
  }
  return ranges;
}

RestoreJob::RestoreJob(FileSystem& fs, const Tuning& tuning, RestoreOptions options)
    : Job(fs, tuning), options_(std::move(options)) {}
RestoreJob::~RestoreJob() = default;

Status RestoreJob::DoRun() {
  const RepositoryView& repository = options_.repository;
  FIRN_RETURN_IF_ERROR(repository.chunking.Check());
  shared_ = std::make_unique<Shared>(repository);
  FIRN_ASSIGN_OR_RETURN(shared_->index, ChunkIndex::Open(fs_, repository.listing));
  shared_->buffered_packs = std::make_unique<PackFiles>(fs_, repository.listing.root, false);
  shared_->direct_packs =
      std::make_unique<PackFiles>(fs_, repository.listing.root, tuning_.io != IoMode::kBuffered);
  // A chunk of this repository's chunking fits both buffers, whatever else is in them.
  const uint64_t chunk_bytes = uint64_t{repository.chunking.max_pages} * kPageBytes;
  shared_->range_buffer_bytes =
      RoundUp(RestoreMemory::kRangeBytes + RecordBytesMax(static_cast<uint32_t>(chunk_bytes)),
              kPageBytes) +
      kPageBytes;
  shared_->output_buffer_bytes = RestoreMemory::kOutputBytes + chunk_bytes;
  shared_->memory = PlanMemory(tuning_, shared_->range_buffer_bytes, shared_->output_buffer_bytes);
  stats_.workers = shared_->memory.workers;
  stats_.memory_bytes =
      shared_->memory.references_max * sizeof(ChunkReference) +
      shared_->memory.workers *
          shared_->memory.worker_bytes(shared_->range_buffer_bytes, shared_->output_buffer_bytes);
  for (const RestoreDisk& disk : options_.disks) FIRN_RETURN_IF_ERROR(RestoreOne(disk));
  return Status::Ok();
}

Status RestoreJob::RestoreOne(const RestoreDisk& disk) {
  MapReader maps(shared_->index.get(), shared_->buffered_packs.get(), shared_->keys,
                 options_.repository.chunking);
  FIRN_ASSIGN_OR_RETURN(MapRoot root, maps.ReadRoot(disk.root));
  for (const MapRoot::Node& node : root.nodes) stats_.total_bytes += node.data_pages * kPageBytes;
  if (disk.create.identity.size != root.disk_bytes) {
    return Status::Error(Code::kCorruptObject, "a point and its map disagree on the disk's size")
        .DataLoss();
  }
  CreateDiskOptions create = disk.create;
  create.direct = tuning_.io != IoMode::kBuffered;
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<DiskWriter> target,
                        DiskWriter::Create(fs_, disk.path, create));
  stats_.phase = Phase::kCopy;
  std::vector<ChunkReference> window;
  FIRN_RETURN_IF_ERROR(maps.VisitLeaves(root, [&](uint64_t segment, const MapLeaf& leaf) {
    return AddLeaf(segment, leaf, root.disk_bytes, target.get(), &window);
  }));
  FIRN_RETURN_IF_ERROR(RunWindow(&window, target.get()));
  stats_.phase = Phase::kFinish;
  return target->Finish();
}

// Allocates a segment's data in the target and puts its chunks into the window; works the window
// off when it is full.
Status RestoreJob::AddLeaf(uint64_t segment, const MapLeaf& leaf, uint64_t disk_bytes,
                           DiskWriter* target, std::vector<ChunkReference>* window) {
  FIRN_RETURN_IF_ERROR(CheckStopped());
  std::vector<TargetExtent> ignored;
  uint64_t page = segment * kSegmentPages;
  for (const LeafRun& run : leaf.runs) {
    const uint64_t first_page = page;
    page += run.pages;
    if (run.hole) continue;
    const std::optional<ChunkPlace> place = shared_->index->Find(run.id);
    if (!place || place->record_class != RecordClass::kChunk) {
      return MissingRecord(run.id, RecordClass::kChunk);
    }
    if (place->raw_length != run.pages * kPageBytes ||
        place->stored_length > RecordBytesMax(place->raw_length)) {
      return Status::Error(Code::kCorruptIndex, "index and map disagree on a chunk's length");
    }
    const uint64_t begin = first_page * kPageBytes;
    if (begin >= disk_bytes) {
      return Status::Error(Code::kCorruptObject, "a map has data beyond the disk's end");
    }
    ignored.clear();
    FIRN_RETURN_IF_ERROR(target->MapWrite(
        begin, std::min<uint64_t>(place->raw_length, disk_bytes - begin), &ignored));
    window->push_back({run.id, *place, first_page});
  }
  if (window->size() < shared_->memory.references_max) return Status::Ok();
  return RunWindow(window, target);
}

// Restores all that the window refers to, and empties it.
Status RestoreJob::RunWindow(std::vector<ChunkReference>* window, DiskWriter* target) {
  shared_->ranges = PlanPackRanges(window, RestoreMemory::kRangeBytes);
  shared_->next_range = 0;
  shared_->window = window;
  shared_->target = target;
  FIRN_RETURN_IF_ERROR(RunWorkers(shared_->memory.workers, [this](uint32_t) -> Status {
    FIRN_ASSIGN_OR_RETURN(std::unique_ptr<RestoreWorker> worker, RestoreWorker::Create(this));
    return worker->Run();
  }));
  window->clear();
  return Status::Ok();
}

}  // namespace firn
