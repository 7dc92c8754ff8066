// What a mark has found out stays native, behind an External that JavaScript hands from call to
// call.

#include "addon/collect.h"

#include "addon/convert.h"
#include "addon/session.h"
#include "pipeline/collect_mark.h"
#include "pipeline/collect_merge.h"
#include "pipeline/collect_rescue.h"

namespace firn::addon {

namespace {

using LiveHolder = std::shared_ptr<LiveIndex>;

std::vector<PackName> PacksOf(const Napi::Object& object, const char* name) {
  std::vector<PackName> packs;
  for (const std::string& text : GetStrings(object, name)) {
    Result<PackName> pack = PackName::Parse(text);
    if (!pack.ok()) throw Napi::TypeError::New(object.Env(), "expected a list of pack names");
    packs.push_back(*pack);
  }
  return packs;
}

std::vector<Id> IdsOf(const Napi::Object& object, const char* name) {
  std::vector<Id> ids;
  for (const std::string& text : GetStrings(object, name)) ids.push_back(ToId(object.Env(), text));
  return ids;
}

RunId RunOf(const Napi::Object& object) {
  RunId run;
  if (!FromHex(GetString(object, "run"), run)) {
    throw Napi::TypeError::New(object.Env(), "expected a run of 32 hexadecimal digits");
  }
  return run;
}

LiveHolder* HolderOf(const Napi::Value& value) {
  if (!value.IsExternal()) throw Napi::TypeError::New(value.Env(), "expected a mark");
  return value.As<Napi::External<LiveHolder>>().Data();
}

LiveHolder LiveOf(const Napi::Object& object) {
  LiveHolder live = *HolderOf(object.Get("mark"));
  if (!live) throw Napi::TypeError::New(object.Env(), "the mark has been released");
  return live;
}

Napi::Object FromPack(Napi::Env env, const CollectPack& pack) {
  Napi::Object row = Napi::Object::New(env);
  row.Set("name", pack.name.ToString());
  row.Set("named", pack.named);
  row.Set("known", pack.known);
  row.Set("map", pack.is_map);
  row.Set("needed", pack.needed);
  row.Set("damaged", pack.damaged);
  row.Set("unhealed", pack.unhealed);
  row.Set("fileBytes", Number(env, pack.file_bytes));
  row.Set("records", Number(env, pack.records));
  row.Set("recordBytes", Number(env, pack.record_bytes));
  row.Set("liveBytes", Number(env, pack.live_bytes));
  row.Set("ownedBytes", Number(env, pack.owned_bytes));
  return row;
}

Napi::Object FromIndexRun(Napi::Env env, const IndexRun& run) {
  Napi::Object row = Napi::Object::New(env);
  row.Set("name", FileNameOf(run.path()));
  row.Set("entries", Number(env, run.entries()));
  row.Set("packs", MakeArray(env, run.packs(), [&](const IndexPack& pack) {
            return Napi::String::New(env, pack.name.ToString());
          }));
  return row;
}

Napi::Object FromMark(Napi::Env env, const MarkJob& job) {
  Napi::Object object = Napi::Object::New(env);
  const LiveHolder live = job.live();
  object.Set("packs", MakeArray(env, live->packs(),
                                [&](const CollectPack& pack) { return FromPack(env, pack); }));
  object.Set("indexRuns",
             MakeArray(env, live->index().runs(), [&](const std::unique_ptr<IndexRun>& run) {
               return FromIndexRun(env, *run);
             }));
  object.Set("missing", Number(env, job.missing()));
  object.Set("missingChunks", Number(env, job.missing_chunks()));
  object.Set("mark",
             Napi::External<LiveHolder>::New(env, new LiveHolder(live),
                                             [](Napi::Env, LiveHolder* holder) { delete holder; }));
  return object;
}

Napi::Object FromRescue(Napi::Env env, const RescueResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("packs", MakeArray(env, result.packs, [&](const PackName& pack) {
               return Napi::String::New(env, pack.ToString());
             }));
  object.Set("indexRuns", MakeArray(env, result.index_runs, [&](const std::string& name) {
               return Napi::String::New(env, name);
             }));
  object.Set("records", Number(env, result.records));
  object.Set("bytes", Number(env, result.bytes));
  object.Set("damaged", MakeArray(env, result.damaged, [&](const RescueResult::Damaged& damaged) {
               Napi::Object row = Napi::Object::New(env);
               row.Set("pack", damaged.pack.ToString());
               row.Set("code", CodeName(damaged.status.code()));
               row.Set("message", damaged.status.message());
               return row;
             }));
  return object;
}

}  // namespace

Napi::Value StartMark(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  MarkOptions options;
  options.repository = ToRepositoryView(GetObject(object, "repository"));
  options.roots = IdsOf(object, "roots");
  options.pending_roots = IdsOf(object, "pendingRoots");
  options.victims = PacksOf(object, "victims");
  options.only_victims = GetBool(object, "onlyVictims");
  auto job = std::make_shared<MarkJob>(FileSystem::Default(), ToTuning(GetObject(object, "tuning")),
                                       std::move(options));
  return StartSession(info.Env(), job, [job](Napi::Env env) { return FromMark(env, *job); });
}

Napi::Value StartRescue(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  const RepositoryView view = ToRepositoryView(GetObject(object, "repository"));
  RescueOptions options;
  options.root = view.listing.root;
  options.chunking = view.chunking;
  options.index_key = view.listing.index_key;
  options.seal = view.seal;
  options.live = LiveOf(object);
  options.victims = PacksOf(object, "victims");
  options.run = RunOf(object);
  options.attempt = static_cast<uint32_t>(GetUint(object, "attempt"));
  auto job = std::make_shared<RescueJob>(FileSystem::Default(),
                                         ToTuning(GetObject(object, "tuning")), std::move(options));
  return StartSession(info.Env(), job,
                      [job](Napi::Env env) { return FromRescue(env, job->result()); });
}

Napi::Value StartMergeIndex(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  MergeOptions options;
  options.root = GetString(GetObject(object, "repository"), "root");
  options.live = LiveOf(object);
  options.index_runs = GetStrings(object, "indexRuns");
  options.dropped = PacksOf(object, "dropped");
  options.run = RunOf(object);
  options.attempt = static_cast<uint32_t>(GetUint(object, "attempt"));
  auto job = std::make_shared<MergeJob>(FileSystem::Default(),
                                        ToTuning(GetObject(object, "tuning")), std::move(options));
  return StartSession(info.Env(), job, [job](Napi::Env env) {
    Napi::Object result = Napi::Object::New(env);
    result.Set("indexRuns", MakeArray(env, job->index_runs(), [&](const std::string& name) {
                 return Napi::String::New(env, name);
               }));
    return result;
  });
}

// Unmaps the index runs and frees the bits; sessions under way keep theirs.
Napi::Value ReleaseMark(const Napi::CallbackInfo& info) {
  if (info.Length() == 0) throw Napi::TypeError::New(info.Env(), "expected a mark");
  HolderOf(info[0])->reset();
  return info.Env().Undefined();
}

}  // namespace firn::addon
