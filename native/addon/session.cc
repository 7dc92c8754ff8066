#include "addon/session.h"

#include <thread>

#include "addon/convert.h"

namespace firn::addon {

namespace {

// What JavaScript's functions share with the session: the job until it has settled, then its last
// counters alone. They live until they are collected as garbage, which may be long after, and a job
// holds buffers, files and mapped index runs. For the JavaScript thread.
struct Handle {
  std::shared_ptr<Job> job;
  StatsSnapshot last;
};

class Session {
 public:
  Session(Napi::Env env, std::shared_ptr<Handle> handle, SessionResult result)
      : env_(env),
        handle_(std::move(handle)),
        job_(handle_->job),
        result_(std::move(result)),
        deferred_(env) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  // Owns itself from here on, until Settle or TearDown.
  void Start() {
    settle_ = Napi::ThreadSafeFunction::New(
        env_, Napi::Function::New(env_, [](const Napi::CallbackInfo&) {}), "firn session", 0, 1);
    napi_add_env_cleanup_hook(env_, TearDown, this);
    thread_ = std::thread([this] {
      status_ = job_->Run();
      // Fails only when the environment is going, and then TearDown is waiting for this thread.
      settle_.NonBlockingCall(
          this, [](Napi::Env env, Napi::Function, Session* session) { session->Settle(env); });
    });
  }

 private:
  void Settle(Napi::Env env) {
    thread_.join();
    napi_remove_env_cleanup_hook(env, TearDown, this);
    Napi::HandleScope scope(env);
    handle_->last = job_->stats();
    handle_->job.reset();
    if (status_.ok()) {
      Napi::Object value = result_(env);
      value.Set("stats", FromStats(env, handle_->last));
      deferred_.Resolve(value);
    } else {
      deferred_.Reject(FromStatus(env, status_));
    }
    settle_.Release();
    delete this;
  }

  static void TearDown(void* data) {
    auto* session = static_cast<Session*>(data);
    session->job_->Cancel();
    session->thread_.join();
    delete session;
  }

  const Napi::Env env_;
  const std::shared_ptr<Handle> handle_;
  const std::shared_ptr<Job> job_;
  const SessionResult result_;
  const Napi::Promise::Deferred deferred_;
  Napi::ThreadSafeFunction settle_;
  std::thread thread_;
  Status status_;
};

class AsyncWork final : public Napi::AsyncWorker {
 public:
  AsyncWork(Napi::Env env, std::function<Status()> work,
            std::function<Napi::Value(Napi::Env env)> result)
      : Napi::AsyncWorker(env),
        deferred_(env),
        work_(std::move(work)),
        result_(std::move(result)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 private:
  void Execute() override { status_ = work_(); }
  void OnOK() override {
    Napi::HandleScope scope(Env());
    if (status_.ok()) {
      deferred_.Resolve(result_(Env()));
    } else {
      deferred_.Reject(FromStatus(Env(), status_));
    }
  }

  const Napi::Promise::Deferred deferred_;
  const std::function<Status()> work_;
  const std::function<Napi::Value(Napi::Env env)> result_;
  Status status_;
};

}  // namespace

Napi::Object StartSession(Napi::Env env, std::shared_ptr<Job> job, SessionResult result) {
  auto handle = std::make_shared<Handle>(Handle{.job = std::move(job), .last = {}});
  auto* session = new Session(env, handle, std::move(result));
  Napi::Object object = Napi::Object::New(env);
  object.Set("done", session->promise());
  object.Set("stats", Napi::Function::New(env, [handle](const Napi::CallbackInfo& info) {
               const Handle& held = *handle;
               return FromStats(info.Env(), held.job ? held.job->stats() : held.last);
             }));
  object.Set("cancel", Napi::Function::New(env, [handle](const Napi::CallbackInfo&) {
               if (handle->job) handle->job->Cancel();
             }));
  session->Start();
  return object;
}

Napi::Promise RunAsync(Napi::Env env, std::function<Status()> work,
                       std::function<Napi::Value(Napi::Env env)> result) {
  auto* worker = new AsyncWork(env, std::move(work), std::move(result));
  Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

}  // namespace firn::addon
