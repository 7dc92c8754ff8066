#include "addon/scrub.h"

#include "addon/convert.h"
#include "addon/session.h"
#include "pipeline/scrub_job.h"
#include "pipeline/trace_job.h"

namespace firn::addon {

namespace {

Napi::Array FromIds(Napi::Env env, const std::vector<Id>& ids) {
  return MakeArray(env, ids, [&](const Id& id) { return Napi::String::New(env, ToHex(id)); });
}

Napi::Object FromScrubbedPack(Napi::Env env, const ScrubbedPack& pack) {
  Napi::Object row = Napi::Object::New(env);
  row.Set("name", pack.name.ToString());
  row.Set("bytes", Number(env, pack.bytes));
  row.Set("gone", pack.gone);
  row.Set("sound", pack.is_sound);
  row.Set("whole", pack.whole);
  row.Set("damaged", FromIds(env, pack.damaged));
  return row;
}

Napi::Object FromScrub(Napi::Env env, const ScrubResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("packs", MakeArray(env, result.packs, [&](const ScrubbedPack& pack) {
               return FromScrubbedPack(env, pack);
             }));
  object.Set("problems", FromProblems(env, result.problems));
  object.Set("problemCount", Number(env, result.problem_count));
  return object;
}

Napi::Object FromLoss(Napi::Env env, const TracedLoss& loss) {
  Napi::Object row = Napi::Object::New(env);
  row.Set("root", ToHex(loss.root));
  row.Set("bytes", Number(env, loss.bytes));
  row.Set("rangeCount", Number(env, loss.range_count));
  row.Set("ranges", MakeArray(env, loss.ranges, [&](const TracedLoss::Range& range) {
            return FromRange(env, range.offset, range.length);
          }));
  return row;
}

Napi::Object FromTrace(Napi::Env env, const std::vector<TracedRecord>& records) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("records", MakeArray(env, records, [&](const TracedRecord& record) {
               Napi::Object row = Napi::Object::New(env);
               row.Set("id", ToHex(record.id));
               row.Set("readable", record.is_readable);
               row.Set("losses", MakeArray(env, record.losses, [&](const TracedLoss& loss) {
                         return FromLoss(env, loss);
                       }));
               return row;
             }));
  return object;
}

}  // namespace

Napi::Value StartScrub(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  ScrubOptions options;
  options.repository = ToRepositoryView(GetObject(object, "repository"));
  options.packs = GetPackNames(object, "chosen");
  options.stop_after_ms = GetUint(object, "stopAfterMs");
  auto job = std::make_shared<ScrubJob>(FileSystem::Default(),
                                        ToTuning(GetObject(object, "tuning")), std::move(options));
  return StartSession(info.Env(), job,
                      [job](Napi::Env env) { return FromScrub(env, job->result()); });
}

Napi::Value StartTrace(const Napi::CallbackInfo& info) {
  const Napi::Object object = ObjectArgument(info, 0);
  TraceOptions options;
  options.repository = ToRepositoryView(GetObject(object, "repository"));
  for (const std::string& id : GetStrings(object, "roots")) {
    options.roots.push_back(ToId(info.Env(), id));
  }
  for (const std::string& id : GetStrings(object, "ids")) {
    options.ids.push_back(ToId(info.Env(), id));
  }
  auto job = std::make_shared<TraceJob>(FileSystem::Default(),
                                        ToTuning(GetObject(object, "tuning")), std::move(options));
  return StartSession(info.Env(), job,
                      [job](Napi::Env env) { return FromTrace(env, job->records()); });
}

}  // namespace firn::addon
