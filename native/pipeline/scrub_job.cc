#include "pipeline/scrub_job.h"

#include <algorithm>
#include <set>

namespace firn {

// One thread's part.
class ScrubJob::Worker {
 public:
  explicit Worker(ScrubJob* job) : job_(job) {
    verifier_job_ = {.fs = &job->fs_,
                     .tuning = job->tuning_,
                     .stats = &job->stats_,
                     .root = job->options_.repository.listing.root,
                     .keys = job->options_.repository.keys(),
                     .index = job->index_check_.get(),
                     .report = [this](Problem problem) { problems_.push_back(std::move(problem)); },
                     .pace = &job->pace_};
  }

  // Takes packs until there are none or the time is up. The first is read however short the time
  // is, so that runs that are all too short still get through.
  Status Run(std::atomic<size_t>* next) {
    FIRN_ASSIGN_OR_RETURN(verifier_, PackVerifier::Create(&verifier_job_));
    const std::vector<PackName>& packs = job_->options_.packs;
    for (size_t i = (*next)++; i < packs.size(); i = (*next)++) {
      if (i > 0 && job_->IsTimeUp()) break;
      FIRN_RETURN_IF_ERROR(Scrub(packs[i]));
    }
    return Status::Ok();
  }

 private:
  Status Scrub(const PackName& name) {
    problems_.clear();
    FIRN_RETURN_IF_ERROR(verifier_->Verify(name));
    if (!problems_.empty()) {
      problems_.clear();
      FIRN_RETURN_IF_ERROR(verifier_->Verify(name));
    }
    ScrubbedPack pack = Judge(name);
    job_->Finish(std::move(pack), std::move(problems_));
    return Status::Ok();
  }

  ScrubbedPack Judge(const PackName& name) {
    ScrubbedPack pack;
    pack.name = name;
    const std::string path = JoinPath(job_->options_.repository.listing.root, name.RelativePath());
    Result<std::unique_ptr<File>> file = job_->fs_.Open(path, {});
    Result<uint64_t> size = file.ok() ? (*file)->Size() : Result<uint64_t>(file.status());
    if (!file.ok() && file.status().code() == Code::kNotFound) {
      // A collection has deleted it, and what was found in it concerns nobody.
      problems_.clear();
      pack.gone = true;
      return pack;
    }
    if (size.ok()) pack.bytes = *size;
    pack.is_sound = std::none_of(problems_.begin(), problems_.end(),
                                 [](const Problem& problem) { return problem.pack.has_value(); });
    // A pack that can't be opened gives no record.
    pack.whole = !size.ok();
    std::set<Id> damaged;
    for (const Problem& problem : problems_) {
      if (problem.pack && problem.id) damaged.insert(*problem.id);
    }
    if (damaged.size() > ScrubResult::kDamagedMax) {
      pack.whole = true;
    } else {
      pack.damaged.assign(damaged.begin(), damaged.end());
    }
    return pack;
  }

  ScrubJob* const job_;
  PackVerifierJob verifier_job_;
  std::unique_ptr<PackVerifier> verifier_;
  std::vector<Problem> problems_;
};

Status ScrubJob::OpenIndex() {
  RepositoryListing readable = options_.repository.listing;
  readable.index_runs.clear();
  for (const std::string& name : options_.repository.listing.index_runs) {
    const std::string path = JoinPath(JoinPath(readable.root, "index"), name);
    Result<std::unique_ptr<IndexRun>> run = IndexRun::Open(fs_, path, readable.index_key);
    // One that is gone has been replaced by another, and one that is damaged is verify's to report.
    if (run.ok() && (*run)->Verify().ok()) readable.index_runs.push_back(name);
  }
  FIRN_ASSIGN_OR_RETURN(index_, ChunkIndex::Open(fs_, readable));
  index_check_ = std::make_unique<IndexCheck>(*index_, options_.packs);
  return Status::Ok();
}

bool ScrubJob::IsTimeUp() const {
  if (options_.stop_after_ms == 0) return false;
  return NowNs() - begun_ns_ >= options_.stop_after_ms * 1'000'000;
}

void ScrubJob::Finish(ScrubbedPack pack, std::vector<Problem> problems) {
  std::lock_guard lock(mutex_);
  result_.problem_count += problems.size();
  for (Problem& problem : problems) {
    if (result_.problems.size() == ScrubResult::kProblemsMax) break;
    result_.problems.push_back(std::move(problem));
  }
  result_.packs.push_back(std::move(pack));
}

Status ScrubJob::DoRun() {
  begun_ns_ = NowNs();
  stats_.workers = tuning_.workers;
  FIRN_RETURN_IF_ERROR(OpenIndex());
  const std::set<PackName> chosen(options_.packs.begin(), options_.packs.end());
  for (const auto& run : index_->runs()) {
    for (const IndexPack& pack : run->packs()) {
      if (chosen.contains(pack.name)) stats_.total_bytes += pack.file_bytes;
    }
  }
  stats_.phase = Phase::kCopy;
  std::atomic<size_t> next = 0;
  Status status = RunWorkers(tuning_.workers, [&](uint32_t) { return Worker(this).Run(&next); });
  stats_.phase = Phase::kFinish;
  if (status.code() == Code::kAborted) return Status::Ok();
  return status;
}

}  // namespace firn
