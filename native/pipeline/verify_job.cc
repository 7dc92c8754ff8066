#include "pipeline/verify_job.h"

#include <algorithm>

#include "pipeline/pack_verifier.h"

namespace firn {

VerifyJob::VerifyJob(FileSystem& fs, const Tuning& tuning, VerifyOptions options)
    : Job(fs, tuning), options_(std::move(options)), keys_(options_.repository.keys()) {}
VerifyJob::~VerifyJob() = default;

void VerifyJob::AddProblem(Problem problem) {
  std::lock_guard lock(mutex_);
  ++result_.problem_count;
  if (result_.problems.size() < VerifyResult::kProblemsMax) {
    result_.problems.push_back(std::move(problem));
  }
}

Status VerifyJob::DoRun() {
  const RepositoryListing& listing = options_.repository.listing;
  FIRN_RETURN_IF_ERROR(options_.repository.chunking.Check());
  // A bad index run is a problem like others: the rest is looked at without it.
  RepositoryListing good = listing;
  good.index_runs.clear();
  for (const std::string& name : listing.index_runs) {
    Result<std::unique_ptr<IndexRun>> run =
        IndexRun::Open(fs_, JoinPath(JoinPath(listing.root, "index"), name), listing.index_key);
    Status status = run.ok() ? Status::Ok() : std::move(run).TakeStatus();
    if (status.ok() && options_.read_data) status = (*run)->Verify();
    if (status.ok()) {
      good.index_runs.push_back(name);
    } else {
      AddProblem({std::move(status), "index/" + name, {}, {}});
    }
  }
  FIRN_ASSIGN_OR_RETURN(index_, ChunkIndex::Open(fs_, good));
  packs_ = std::make_unique<PackFiles>(fs_, listing.root, false);
  stats_.workers = tuning_.workers;
  stats_.phase = Phase::kCopy;
  FIRN_RETURN_IF_ERROR(CheckPackFiles());
  FIRN_RETURN_IF_ERROR(WalkMaps());
  if (options_.read_data) FIRN_RETURN_IF_ERROR(VerifyPacks());
  stats_.phase = Phase::kFinish;
  SetAsideHealed();
  return result_.problems.empty() ? Status::Ok() : AttributeProblems();
}

// Every pack that an index run names has the size that it was written with, or is not there.
Status VerifyJob::CheckPackFiles() {
  const RepositoryListing& listing = options_.repository.listing;
  for (const PackName& name : listing.packs) {
    FIRN_RETURN_IF_ERROR(CheckStopped());
    const std::string path = JoinPath(listing.root, name.RelativePath());
    Result<std::unique_ptr<File>> file = fs_.Open(path, {});
    Result<uint64_t> size = file.ok() ? (*file)->Size() : Result<uint64_t>(file.status());
    if (!size.ok()) AddProblem({size.status(), name.RelativePath(), {}, {}});
    pack_bytes_[name] = size.ok() ? *size : 0;
    if (options_.read_data && size.ok()) stats_.total_bytes += *size;
  }
  for (const auto& run : index_->runs()) {
    for (const IndexPack& pack : run->packs()) {
      auto place = pack_bytes_.find(pack.name);
      if (place == pack_bytes_.end() || place->second == pack.file_bytes) continue;
      AddProblem({Status::Error(Code::kCorruptPack, "the pack has not the size it was written with")
                      .At(pack.name.RelativePath(), place->second)
                      .DataLoss(),
                  pack.name.RelativePath(),
                  {},
                  {},
                  pack.name});
    }
  }
  return Status::Ok();
}

Status VerifyJob::WalkMaps() {
  MapReader maps(index_.get(), packs_.get(), keys_, options_.repository.chunking);
  for (const Id& root : options_.roots) {
    FIRN_RETURN_IF_ERROR(WalkMap(root, &maps, [&](const MapLeaf& leaf) {
      for (const LeafRun& run : leaf.runs) {
        if (!run.hole) CheckChunk(root, run);
      }
    }));
  }
  return Status::Ok();
}

// Visits the leaves of a map, those that another map has had only once. What can't be read becomes
// a problem.
Status VerifyJob::WalkMap(const Id& root_id, MapReader* maps, const LeafCheck& check) {
  const auto report = [&](Status status, const Id& id) {
    AddProblem({std::move(status), "", id, {root_id}});
  };
  Result<MapRoot> root = maps->ReadRoot(root_id);
  if (!root.ok()) {
    report(std::move(root).TakeStatus(), root_id);
    return Status::Ok();
  }
  for (const MapRoot::Node& node_row : root->nodes) {
    Result<MapNode> node = maps->ReadNode(node_row.id);
    if (!node.ok()) {
      report(std::move(node).TakeStatus(), node_row.id);
      continue;
    }
    uint64_t data_pages = 0;
    for (const MapNode::Leaf& leaf_row : node->leaves) {
      FIRN_RETURN_IF_ERROR(CheckStopped());
      data_pages += leaf_row.data_pages;
      const uint64_t segment = uint64_t{node_row.index} * kNodeLeaves + leaf_row.index;
      // A leaf that another map has had is good, but for the disk's end, which may be another. (A
      // leaf that claims the id of an empty place in the set is not one.)
      const bool at_end = (segment + 1) * kSegmentBytes > root->disk_bytes;
      if (!at_end && leaf_row.id != Id{} && !seen_leaves_.Insert(leaf_row.id)) continue;
      Result<MapLeaf> leaf = maps->ReadLeaf(leaf_row.id);
      if (!leaf.ok()) {
        report(std::move(leaf).TakeStatus(), leaf_row.id);
        continue;
      }
      Status fits = CheckLeafFits(*leaf, leaf_row, segment, root->disk_bytes);
      if (!fits.ok()) report(std::move(fits), leaf_row.id);
      check(*leaf);
    }
    if (data_pages != node_row.data_pages || node->leaves.size() != node_row.leaves) {
      report(Status::Error(Code::kCorruptObject, "a map root and its node count differently"),
             node_row.id);
    }
  }
  return Status::Ok();
}

void VerifyJob::CheckChunk(const Id& root, const LeafRun& run) {
  ++result_.chunks;
  const std::optional<ChunkPlace> place = index_->Find(run.id);
  if (!place || place->record_class != RecordClass::kChunk) {
    AddProblem({MissingRecord(run.id, RecordClass::kChunk), "", run.id, {root}});
    return;
  }
  const PackName name = index_->pack_name(place->pack);
  // Of all its copies the index gives one that is not known to be damaged, if there is any.
  if (index_->IsDamaged(place->pack, run.id)) {
    AddProblem({Status::Error(Code::kCorruptChunk, "a scrub found the only copy damaged")
                    .At(name.RelativePath(), place->offset)
                    .DataLoss(),
                name.RelativePath(),
                run.id,
                {root},
                name});
    return;
  }
  const bool inside = RangeInside(
      place->offset, uint64_t{kRecordHeaderBytes} + place->stored_length, pack_bytes_[name]);
  if (inside && place->raw_length == run.pages * kPageBytes) return;
  AddProblem(
      {Status::Error(Code::kCorruptIndex, "the index names a place that can't hold the chunk")
           .At(name.RelativePath(), place->offset),
       name.RelativePath(),
       run.id,
       {root}});
}

Status VerifyJob::VerifyPacks() {
  const std::vector<PackName>& packs = options_.repository.listing.packs;
  const IndexCheck index_check(*index_, packs);
  const PackVerifierJob job{.fs = &fs_,
                            .tuning = tuning_,
                            .stats = &stats_,
                            .root = options_.repository.listing.root,
                            .keys = keys_,
                            .index = &index_check,
                            .report = [this](Problem problem) { AddProblem(std::move(problem)); },
                            .pace = &pace_};
  std::atomic<size_t> next = 0;
  const auto worker = [&](uint32_t) -> Status {
    FIRN_ASSIGN_OR_RETURN(std::unique_ptr<PackVerifier> verifier, PackVerifier::Create(&job));
    for (size_t i = next++; i < packs.size(); i = next++) {
      FIRN_RETURN_IF_ERROR(verifier->Verify(packs[i]));
    }
    return Status::Ok();
  };
  result_.packs = packs.size();
  return RunWorkers(tuning_.workers, worker);
}

// Damage that a scrub has named, and that another copy makes good, is nobody's concern any more.
// The copy is read: that it is there is not enough.
void VerifyJob::SetAsideHealed() {
  if (options_.repository.listing.damaged.empty()) return;
  std::map<PackName, uint32_t> known;
  for (uint32_t pack = 0; pack < options_.repository.listing.packs.size(); ++pack) {
    if (index_->HasDamage(pack)) known[options_.repository.listing.packs[pack]] = pack;
  }
  MapReader copies(index_.get(), packs_.get(), keys_, options_.repository.chunking);
  std::vector<uint8_t> content;
  const auto is_healed = [&](const Problem& problem) {
    if (!problem.pack) return false;
    const auto pack = known.find(*problem.pack);
    if (pack == known.end()) return false;
    if (!problem.id) return true;  // its records are judged one by one
    if (!index_->IsDamaged(pack->second, *problem.id)) return false;
    const std::optional<ChunkPlace> place = index_->Find(*problem.id);
    return place && copies.ReadRecord(*problem.id, place->record_class, &content).ok();
  };
  result_.healed = std::erase_if(result_.problems, is_healed);
  result_.problem_count -= result_.healed;
}

// A second walk, only when something is wrong: which maps need the records and packs that are?
Status VerifyJob::AttributeProblems() {
  std::map<Id, std::vector<Problem*>> by_id;
  std::map<std::string, std::vector<Problem*>> by_pack;  // packs that are wrong as a whole
  for (Problem& problem : result_.problems) {
    if (problem.id) {
      by_id[*problem.id].push_back(&problem);
    } else if (problem.status.code() != Code::kCorruptIndex) {
      by_pack[problem.object].push_back(&problem);
    }
  }
  const auto blame = [](std::vector<Problem*>& problems, const Id& root) {
    for (Problem* problem : problems) {
      auto& roots = problem->roots;
      if (std::find(roots.begin(), roots.end(), root) == roots.end()) roots.push_back(root);
    }
  };
  MapReader maps(index_.get(), packs_.get(), keys_, options_.repository.chunking);
  for (const Id& root : options_.roots) {
    FIRN_RETURN_IF_ERROR(VisitRecords(root, &maps, [&](const Id& id) {
      if (auto found = by_id.find(id); found != by_id.end()) blame(found->second, root);
      const std::optional<ChunkPlace> place = index_->Find(id);
      if (!place || by_pack.empty()) return;
      auto found = by_pack.find(index_->pack_name(place->pack).RelativePath());
      if (found != by_pack.end()) blame(found->second, root);
    }));
  }
  return Status::Ok();
}

// Names every record that a map needs, as far as its objects can be read.
Status VerifyJob::VisitRecords(const Id& root_id, MapReader* maps, const RecordVisitor& visit) {
  visit(root_id);
  const Result<MapRoot> root = maps->ReadRoot(root_id);
  if (!root.ok()) return Status::Ok();
  for (const MapRoot::Node& node_row : root->nodes) {
    visit(node_row.id);
    const Result<MapNode> node = maps->ReadNode(node_row.id);
    if (!node.ok()) continue;
    for (const MapNode::Leaf& leaf_row : node->leaves) {
      FIRN_RETURN_IF_ERROR(CheckStopped());
      visit(leaf_row.id);
      const Result<MapLeaf> leaf = maps->ReadLeaf(leaf_row.id);
      if (!leaf.ok()) continue;
      for (const LeafRun& run : leaf->runs) {
        if (!run.hole) visit(run.id);
      }
    }
  }
  return Status::Ok();
}

}  // namespace firn
