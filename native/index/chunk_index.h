// Where is this chunk? All index runs of a repository together.
//
// Only packs that were listed count: what an index run says of a pack that is gone is forgotten.
// Condemned packs (about to be collected) can be read from but are never relied on. Lookups are
// safe from several threads, also while AddRun takes in another run.
#ifndef FIRN_INDEX_CHUNK_INDEX_H_
#define FIRN_INDEX_CHUNK_INDEX_H_

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "index/index_run.h"

namespace firn {

struct ChunkPlace {
  uint32_t pack = 0;  // position in ChunkIndex::packs()
  uint32_t offset = 0;
  uint32_t stored_length = 0;
  uint32_t raw_length = 0;
  RecordClass record_class = RecordClass::kChunk;
};

struct RepositoryListing {
  std::string root;                     // the folder
  std::vector<std::string> index_runs;  // file names in index/
  std::vector<PackName> packs;          // that exist
  std::vector<PackName> condemned;
};

class ChunkIndex {
 public:
  static Result<std::unique_ptr<ChunkIndex>> Open(FileSystem& fs, const RepositoryListing& listing);

  // A place of the record; one in a pack that is not condemned, if there is one.
  std::optional<ChunkPlace> Find(const Id& id) const;

  // Whether a pack that is not condemned holds it. That pack is remembered as relied on.
  bool Rely(const Id& id);
  // The same for a chunk of known length, which something other than its content names: a record of
  // another kind or length does not count.
  bool RelyOnChunk(const Id& id, uint32_t raw_length);
  // The packs that Rely and RelyOnChunk have answered with, of those that were listed.
  std::vector<PackName> ReliedPacks() const;

  // Takes in an index run that was just written, with the packs it names.
  Status AddRun(const std::string& file_name);

  const std::string& root() const { return root_; }
  FileSystem& file_system() const { return fs_; }
  // Every pack that some run names and the listing has. Grows with AddRun only.
  PackName pack_name(uint32_t pack) const;
  uint64_t entries() const;
  const std::vector<std::unique_ptr<IndexRun>>& runs() const { return runs_; }

 private:
  struct Pack {
    PackName name;
    bool condemned = false;
  };
  // Positions of a run's packs in packs_; kAbsent for those not listed.
  static constexpr uint32_t kAbsent = ~uint32_t{0};

  ChunkIndex(FileSystem& fs, std::string root) : fs_(fs), root_(std::move(root)) {}
  void Insert(std::unique_ptr<IndexRun> run);
  void RelyOn(uint32_t pack);
  template <typename Accept>
  std::optional<ChunkPlace> FindAccepted(const Id& id, Accept accept) const;

  FileSystem& fs_;
  const std::string root_;
  mutable std::shared_mutex mutex_;
  std::vector<std::unique_ptr<IndexRun>> runs_;
  std::vector<std::vector<uint32_t>> run_packs_;  // beside runs_
  std::vector<Pack> packs_;
  std::map<PackName, uint32_t> pack_positions_;
  std::unique_ptr<std::atomic<bool>[]> relied_;  // for the packs that were listed
  size_t listed_packs_ = 0;
};

}  // namespace firn

#endif  // FIRN_INDEX_CHUNK_INDEX_H_
