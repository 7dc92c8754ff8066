// What index runs say of packs, held against the packs' own tables.
//
// An index run may be whole, by its hash, and wrong all the same: its writer was. That is found
// here alone, as nobody else reads both. Each run that names a pack must have every record of it,
// at its place, and nothing else.
//
// Create reads every entry of every run that names one of the packs, once. After that it is safe
// from several threads.
#ifndef FIRN_PIPELINE_INDEX_CHECK_H_
#define FIRN_PIPELINE_INDEX_CHECK_H_

#include <functional>
#include <map>
#include <vector>

#include "index/chunk_index.h"
#include "pipeline/problem.h"

namespace firn {

class IndexCheck {
 public:
  using Report = std::function<void(Problem problem)>;

  // `index` must outlive this.
  IndexCheck(const ChunkIndex& index, const std::vector<PackName>& packs);

  // Reports what the runs have otherwise than the pack, at most kReportsMax times. Where the index
  // leads to no record, the problem names the pack: that copy is not to be believed.
  void Check(const PackName& name, const PackTable& table, const Report& report) const;

  // What the runs say is in a pack whose own table is lost; by offset, each record once.
  std::vector<IndexEntry> EntriesOf(const PackName& name) const;

 private:
  static constexpr size_t kReportsMax = 100;
  // A pack as one run names it.
  struct Row {
    const IndexRun* run = nullptr;
    uint32_t pack = 0;  // in the run's table
    uint64_t entries = 0;
  };
  void CheckRow(const Row& row, const PackName& name, const PackTable& table,
                const Report& report) const;

  std::map<PackName, std::vector<Row>> rows_;
};

}  // namespace firn

#endif  // FIRN_PIPELINE_INDEX_CHECK_H_
