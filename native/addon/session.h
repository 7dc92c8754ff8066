// A running job, as JavaScript holds it: { done, stats(), cancel() }.
//
// The job runs on a thread of its own, never on libuv's pool. The promise settles on the JavaScript
// thread. The session keeps its process alive while it runs, and itself alive until it has settled,
// whether JavaScript still holds it or not. When the environment is torn down (process.exit, a
// worker's end) the job is cancelled and its thread joined before the environment goes.
#ifndef FIRN_ADDON_SESSION_H_
#define FIRN_ADDON_SESSION_H_

#include <napi.h>

#include <functional>
#include <memory>

#include "pipeline/job.h"

namespace firn::addon {

// Makes the value that `done` resolves to, from the job that has succeeded.
using SessionResult = std::function<Napi::Object(Napi::Env env)>;

Napi::Object StartSession(Napi::Env env, std::shared_ptr<Job> job, SessionResult result);

// Runs `work` on libuv's pool and resolves with what `result` makes: for short things only.
Napi::Promise RunAsync(Napi::Env env, std::function<Status()> work,
                       std::function<Napi::Value(Napi::Env env)> result);

}  // namespace firn::addon

#endif  // FIRN_ADDON_SESSION_H_
